"""Known delays are found: to the sample where waveforms match, else to milliseconds."""

from __future__ import annotations

import numpy as np
import pytest

from codectool.evaluation.alignment import MAX_LAG, RATE, best_delay, correlate, find_delay
from codectool.evaluation.signals import advance


def speech_like(seconds: float, seed: int = 0) -> np.ndarray:
    """Return noise in syllables of random length and colour."""
    rng = np.random.default_rng(seed)
    parts = []
    while sum(map(len, parts)) < seconds * RATE:
        length = int(rng.uniform(0.05, 0.25) * RATE)
        smooth = np.convolve(rng.normal(size=length), np.ones(rng.integers(1, 20)), "same")
        parts += [smooth * np.hanning(length), np.zeros(int(rng.uniform(0.01, 0.1) * RATE))]
    wave = np.concatenate(parts)[: int(seconds * RATE)]
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


@pytest.mark.parametrize("delay", [0, 1, -37, 240, 5003, -11999])
def test_find_delay_of_shifted_wave_is_exact(delay: int) -> None:
    wave = speech_like(3.0)
    late = advance(wave, -delay, len(wave) + 700)
    noise = np.random.default_rng(1).normal(0, 0.01, len(late)).astype(np.float32)
    assert find_delay(wave, late + noise) == delay


def test_find_delay_of_long_signals_uses_the_loudest_minute() -> None:
    """Quiet noise everywhere; the same speech in the second minute only."""
    rng = np.random.default_rng(0)
    wave, late = (rng.normal(0, 1e-3, 150 * RATE).astype(np.float32) for _ in range(2))
    speech = speech_like(3.0)
    wave[100 * RATE : 103 * RATE] += speech
    late[100 * RATE + 77 : 103 * RATE + 77] += speech
    assert find_delay(wave, late) == 77
    assert find_delay(wave, late[: 101 * RATE]) == 77


@pytest.mark.parametrize("milliseconds", [0, 20, -45, 400])
def test_find_delay_with_random_phase_is_accurate_to_two_milliseconds(milliseconds: int) -> None:
    """A random sign for every 100 Hz: only the envelope is kept."""
    wave = speech_like(4.0)
    spectrum = np.fft.rfft(wave)
    signs = np.repeat(np.random.default_rng(0).choice([1, -1], len(spectrum) // 400 + 1), 400)
    other = np.fft.irfft(spectrum * signs[: len(spectrum)], len(wave)).astype(np.float32)
    late = advance(other, -milliseconds * RATE // 1000, len(wave) + RATE // 2)
    assert abs(find_delay(wave, late) - milliseconds * RATE // 1000) <= 2 * RATE // 1000


def test_best_delay_of_several_clips() -> None:
    total = None
    for seed in range(4):
        wave = speech_like(0.6, seed)
        found = correlate(wave, advance(wave, -333, len(wave)))
        total = found if total is None else total + found
    assert best_delay(total, 4) == 333


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros(RATE, np.float32), speech_like(1.0)),
        (speech_like(1.0), np.zeros(RATE, np.float32)),
        (np.zeros(1, np.float32), np.zeros(1, np.float32)),
        (np.ones(1, np.float32), np.ones(1, np.float32)),
        (np.full(RATE, 0.5, np.float32), np.full(RATE, 0.5, np.float32)),
    ],
)
def test_best_delay_is_zero_if_nothing_matches(one: np.ndarray, other: np.ndarray) -> None:
    found = correlate(one, other)
    assert len(found.envelopes) == 2 * MAX_LAG + 1
    assert best_delay(found) == 0


def test_advance_shifts_cuts_and_pads() -> None:
    wave = np.arange(1, 5, dtype=np.float32)
    assert advance(wave, 1, 4).tolist() == [2, 3, 4, 0]
    assert advance(wave, -2, 4).tolist() == [0, 0, 1, 2]
    assert advance(wave, 0, 2).tolist() == [1, 2]
    assert advance(wave, 9, 2).tolist() == [0, 0]
