"""Pitch and voicing errors of pulse trains with known pitch."""

from __future__ import annotations

import numpy as np
import pytest
from metric_clips import speech

from codectool.evaluation.metrics.base import MetricUndefinedError, Wave
from codectool.evaluation.metrics.pitch import PitchError, VoicingError

pytest.importorskip("parselmouth", reason="package praat-parselmouth is not installed")
RATE = 16000


def voice(hertz: float, seconds: float = 1.0) -> Wave:
    """Return a vowel: harmonics that fall by 6 dB per octave."""
    times = np.arange(round(seconds * RATE)) / RATE
    orders = np.arange(1, int(4000 // hertz))[:, None]
    return (0.1 * (np.sin(2 * np.pi * hertz * orders * times) / orders).sum(0)).astype(np.float32)


def breath(seconds: float = 1.0) -> Wave:
    noise = np.random.default_rng(0).normal(0, 0.02, round(seconds * RATE))
    return noise.astype(np.float32)


@pytest.mark.parametrize("cents", [-200, 0, 25, 100])
@pytest.mark.parametrize("hertz", [90, 140, 250])
def test_pitch_error_measures_cents(hertz: float, cents: float) -> None:
    found = PitchError().compute(voice(hertz), voice(hertz * 2 ** (cents / 1200)))
    assert found["f0_cents"] == pytest.approx(abs(cents), abs=1)
    assert found["gpe"] < 0.02  # at the onset


def test_pitch_error_counts_errors_above_20_percent_as_gross() -> None:
    octave = PitchError().compute(voice(120), voice(240))
    assert octave["f0_cents"] == pytest.approx(1200, abs=2)
    assert octave["gpe"] > 0.98
    # 19 % and 21 %, below and above the limit
    assert PitchError().compute(voice(150), voice(150 * 1.19))["gpe"] < 0.02
    assert PitchError().compute(voice(150), voice(150 * 1.21))["gpe"] > 0.98


def test_pitch_error_median_ignores_few_gross_errors() -> None:
    before = np.concatenate([voice(120)] * 4)
    after = np.concatenate([voice(240), *[voice(120 * 2 ** (50 / 1200))] * 3])
    found = PitchError().compute(before, after)
    assert found["f0_cents"] == pytest.approx(50, abs=2)
    assert found["gpe"] == pytest.approx(0.25, abs=0.03)


def test_pitch_without_fundamental_is_found() -> None:
    """As in telephone speech."""
    full = voice(110)
    spectrum = np.fft.rfft(full)
    spectrum[: round(200 * len(full) / RATE)] = 0
    found = PitchError().compute(full, np.fft.irfft(spectrum).astype(np.float32))
    assert found["f0_cents"] < 2
    assert found["gpe"] < 0.02


def test_voicing_error_is_share_of_frames() -> None:
    whole = np.concatenate([voice(120), breath(), voice(120), breath()])
    half = np.concatenate([voice(120), breath(), breath(), breath()])
    metric = VoicingError()
    assert metric.compute(whole, whole)["vde"] == 0
    assert metric.compute(whole, half)["vde"] == pytest.approx(0.25, abs=0.05)
    assert metric.compute(half, whole)["vde"] == pytest.approx(0.25, abs=0.05)


def test_pitch_metrics_undefined_without_voiced_speech() -> None:
    with pytest.raises(MetricUndefinedError, match="no voiced speech found in the reference"):
        VoicingError().compute(np.zeros(RATE, np.float32), voice(120))
    with pytest.raises(MetricUndefinedError, match="shorter than 50 ms"):
        PitchError().compute(voice(120, 0.04), voice(120, 0.04))
    with pytest.raises(MetricUndefinedError, match="no frame is voiced in both"):
        PitchError().compute(voice(120), np.zeros(RATE, np.float32))
    # a whispered copy counts as an error
    assert VoicingError().compute(voice(120), np.zeros(RATE, np.float32))["vde"] > 0.9


def test_pitch_error_ignores_level_of_synthetic_speech() -> None:
    wave = speech(RATE)
    found = PitchError().compute(wave, wave * np.float32(0.3))
    assert found["f0_cents"] < 0.5
    assert found["gpe"] == 0
