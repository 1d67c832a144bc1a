"""Pitch and pulses of training crops."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from codectool.errors import UsageError
from codectool.training.pitch import require_praat, track_pitch

pytest.importorskip("parselmouth")

RATE, FRAME = 24000, 160


def pulses(hertz: float, seconds: float = 1.0) -> np.ndarray:
    """Pulses through a resonance at 600 Hz, the first at 0; silence from the middle on."""
    wave = np.zeros(int(seconds * RATE), np.float32)
    wave[np.rint(np.arange(0, len(wave) / 2, RATE / hertz)).astype(int)] = 0.3
    time = np.arange(400) / RATE
    response = np.exp(-300 * time) * np.cos(2 * np.pi * 600 * time)
    return np.convolve(wave, response)[: len(wave)].astype(np.float32)


@pytest.mark.parametrize("hertz", [80.0, 125.0, 240.0])
def test_pitch_and_phase_of_pulses(hertz: float) -> None:
    track = track_pitch(pulses(hertz), RATE, FRAME)
    assert track.shape == (150, 2)
    voiced = track[:, 0] > 0
    assert voiced[10:65].all()
    assert not voiced[85:].any()
    np.testing.assert_allclose(track[10:65, 0], hertz, rtol=0.01)
    expected = np.arange(150) * FRAME / RATE * hertz
    # pulses are found at extremes of the waveform, a constant time after the start of the pulse
    shift = np.exp(2j * np.pi * (track[10:65, 1] - expected[10:65]))
    assert np.abs(shift.mean()) > 0.98


def test_ends_are_unknown_and_unvoiced_frames_have_no_phase() -> None:
    track = track_pitch(pulses(125.0), RATE, FRAME)
    assert np.isnan(track[:2]).all()
    assert np.isnan(track[-2:]).all()
    assert (track[90:140, 0] == 0).all()
    assert np.isnan(track[90:140, 1]).all()


@pytest.mark.parametrize("length", [0, 100, 1200, 1201, 2000])
@pytest.mark.parametrize("level", [0.0, 1e-4])
def test_short_and_silent_signals_have_no_pitch(length: int, level: float) -> None:
    wave = level * np.random.default_rng(0).standard_normal(length)
    track = track_pitch(wave.astype(np.float32), RATE, FRAME)
    assert track.shape == (length // FRAME, 2)
    assert np.isnan(track[:, 1]).all() or level


def test_missing_praat_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "parselmouth", None)
    with pytest.raises(UsageError, match="pip install 'codectool\\[eval\\]'"):
        require_praat()
