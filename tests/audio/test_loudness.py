"""Loudness by ITU-R BS.1770-4, and gains."""

from __future__ import annotations

import numpy as np
import pytest

from codectool.audio.loudness import LoudnessMeter, amplify, find_gain
from tests.signals import speechlike, split_randomly


def loudness(wave: np.ndarray, rate: int) -> float | None:
    meter = LoudnessMeter(rate, len(wave))
    meter.push(wave)
    return meter.loudness()


def sine(seconds: float, rate: int, level_db: float, channels: int = 1) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    wave = 10 ** (level_db / 20) * np.sin(2 * np.pi * 997 * time)
    return np.repeat(wave[None], channels, 0).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 192000])
@pytest.mark.parametrize("level", [-23.0, -33.0, -50.0])
def test_sine_has_the_loudness_of_the_recommendation(rate: int, level: float) -> None:
    """EBU Tech 3341, cases 1 and 2: 1 kHz in two channels at -23 dBFS has -23 LUFS."""
    assert loudness(sine(5, rate, level, channels=2), rate) == pytest.approx(level, abs=0.05)
    assert loudness(sine(5, rate, level), rate) == pytest.approx(level - 3.01, abs=0.05)


def test_gates_leave_out_quiet_parts() -> None:
    """EBU Tech 3341, cases 3 and 4."""
    loud, soft, silent = (sine(20, 48000, level, 2) for level in (-23.0, -36.0, -72.0))
    parts = [soft, np.tile(loud, 3), soft]
    assert loudness(np.concatenate(parts, 1), 48000) == pytest.approx(-23.0, abs=0.1)
    parts = [silent, *parts, silent]
    assert loudness(np.concatenate(parts, 1), 48000) == pytest.approx(-23.0, abs=0.1)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_loudness_agrees_with_pyloudnorm(rate: int, channels: int) -> None:
    pyloudnorm = pytest.importorskip("pyloudnorm")
    for wave in (
        speechlike(7.3, rate, channels),
        np.random.default_rng(0).normal(0, 0.02, (channels, 3 * rate)).astype(np.float32),
    ):
        expected = pyloudnorm.Meter(rate, filter_class="DeMan").integrated_loudness(
            wave.T.astype(np.float64)
        )
        assert loudness(wave, rate) == pytest.approx(expected, abs=0.12)  # it warps the filter


def test_loudness_does_not_depend_on_the_chunks() -> None:
    wave = speechlike(3.21, 22050, 2)
    meter = LoudnessMeter(22050, 2)
    for chunk in split_randomly(wave, 5000):
        meter.push(chunk)
    assert meter.loudness() == loudness(wave, 22050)


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.25, 0.399])
def test_short_signals_are_measured_as_one_block(seconds: float) -> None:
    assert loudness(sine(seconds, 48000, -20), 48000) == pytest.approx(-23.0, abs=0.5)


@pytest.mark.parametrize("wave", [np.zeros((1, 48000)), np.zeros((2, 0)), np.zeros((1, 1))])
def test_silence_has_no_loudness(wave: np.ndarray) -> None:
    assert loudness(wave.astype(np.float32), 48000) is None
    assert find_gain(wave.astype(np.float32), 48000, -23.0) == 0.0


def test_gain_brings_the_signal_to_the_target() -> None:
    wave = amplify(speechlike(3, 16000), -30.0)
    gain = find_gain(wave, 16000, -30.0)
    assert gain == round(gain, 2) > 0
    assert loudness(amplify(wave, gain), 16000) == pytest.approx(-30.0, abs=0.01)


def test_gain_does_not_clip() -> None:
    wave = sine(3, 16000, -50)
    wave[0, 100] = 0.5
    gain = find_gain(wave, 16000, -10.0)
    assert gain == pytest.approx(6.02, abs=0.01)
    assert 0.99 < np.abs(amplify(wave, gain)).max() <= 1.0
