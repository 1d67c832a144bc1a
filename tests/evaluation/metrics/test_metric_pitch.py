"""Errors of pitch and voicing, of pulse trains whose pitch is known."""

from __future__ import annotations

import numpy as np
import pytest
from metric_clips import speech

from codectool.evaluation.metrics.base import MetricUndefinedError, Wave
from codectool.evaluation.metrics.pitch import PitchError, VoicingError

pytest.importorskip("parselmouth", reason="the package praat-parselmouth is not here")
RATE = 16000


def voice(hertz: float, seconds: float = 1.0) -> Wave:
    """A vowel: harmonics that fall off by 6 dB an octave."""
    times = np.arange(round(seconds * RATE)) / RATE
    orders = np.arange(1, int(4000 // hertz))[:, None]
    return (0.1 * (np.sin(2 * np.pi * hertz * orders * times) / orders).sum(0)).astype(np.float32)


def breath(seconds: float = 1.0) -> Wave:
    noise = np.random.default_rng(0).normal(0, 0.02, round(seconds * RATE))
    return noise.astype(np.float32)


@pytest.mark.parametrize("cents", [-200, 0, 25, 100])
@pytest.mark.parametrize("hertz", [90, 140, 250])
def test_cents(hertz: float, cents: float) -> None:
    found = PitchError().compute(voice(hertz), voice(hertz * 2 ** (cents / 1200)))
    assert found["f0_cents"] == pytest.approx(abs(cents), abs=1)
    assert found["gpe"] < 0.02  # where the voice sets in


def test_an_octave_is_a_gross_error() -> None:
    octave = PitchError().compute(voice(120), voice(240))
    assert octave["f0_cents"] == pytest.approx(1200, abs=2)
    assert octave["gpe"] > 0.98
    # 19 % and 21 % of the pitch, on either side of where errors become gross
    assert PitchError().compute(voice(150), voice(150 * 1.19))["gpe"] < 0.02
    assert PitchError().compute(voice(150), voice(150 * 1.21))["gpe"] > 0.98


def test_a_few_gross_errors_do_not_move_the_median() -> None:
    before = np.concatenate([voice(120)] * 4)
    after = np.concatenate([voice(240), *[voice(120 * 2 ** (50 / 1200))] * 3])
    found = PitchError().compute(before, after)
    assert found["f0_cents"] == pytest.approx(50, abs=2)
    assert found["gpe"] == pytest.approx(0.25, abs=0.03)


def test_a_pitch_without_its_fundamental_is_heard() -> None:
    """Telephones leave it like this."""
    full = voice(110)
    spectrum = np.fft.rfft(full)
    spectrum[: round(200 * len(full) / RATE)] = 0
    found = PitchError().compute(full, np.fft.irfft(spectrum).astype(np.float32))
    assert found["f0_cents"] < 2
    assert found["gpe"] < 0.02


def test_voicing() -> None:
    whole = np.concatenate([voice(120), breath(), voice(120), breath()])
    half = np.concatenate([voice(120), breath(), breath(), breath()])
    judge = VoicingError()
    assert judge.compute(whole, whole)["vde"] == 0
    assert judge.compute(whole, half)["vde"] == pytest.approx(0.25, abs=0.05)
    assert judge.compute(half, whole)["vde"] == pytest.approx(0.25, abs=0.05)


def test_clips_without_a_voice() -> None:
    with pytest.raises(MetricUndefinedError, match="no voiced speech found in the reference"):
        VoicingError().compute(np.zeros(RATE, np.float32), voice(120))
    with pytest.raises(MetricUndefinedError, match="shorter than 50 ms"):
        PitchError().compute(voice(120, 0.04), voice(120, 0.04))
    with pytest.raises(MetricUndefinedError, match="no frame is voiced in both"):
        PitchError().compute(voice(120), np.zeros(RATE, np.float32))
    # to whisper is a mistake, and is counted
    assert VoicingError().compute(voice(120), np.zeros(RATE, np.float32))["vde"] > 0.9


def test_another_level_and_speech_from_a_synthesizer() -> None:
    wave = speech(RATE)
    found = PitchError().compute(wave, wave * np.float32(0.3))
    assert found["f0_cents"] < 0.5
    assert found["gpe"] == 0
