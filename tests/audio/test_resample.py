"""Resampling: lengths, tones with known results, and the reference implementation of BigCodec."""

from __future__ import annotations

import numpy as np
import pytest

from codectool.audio.samples import Resampler, margin_samples, resample
from tests.conftest import shared


@pytest.mark.parametrize("rate", [24000, 22050, 44100, 48000, 8000])
def test_resample_matches_bigcodec_reference(rate: int) -> None:
    with np.load(shared("golden", "bigcodec_layers.npz")) as golden:
        wave = golden[f"librosa_load/{rate}/int16"].astype(np.float32) / 32768
        expected = golden[f"librosa_load/{rate}/out"]
    found = resample(wave[None], rate, 16000)[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 96000])
@pytest.mark.parametrize("new_rate", [16000, 24000, 8000])
@pytest.mark.parametrize("length", [0, 1, 2, 319, 4410])
def test_resample_rounds_the_length_up(rate: int, new_rate: int, length: int) -> None:
    wave = np.ones((2, length), np.float32)
    found = resample(wave, rate, new_rate)
    assert found.shape == (2, -(-length * new_rate // rate))
    assert found.dtype == np.float32


def test_resample_preserves_a_tone() -> None:
    for rate, new_rate in ((44100, 16000), (16000, 44100), (24000, 16000)):
        tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
        expected = np.sin(2 * np.pi * 440 * np.arange(new_rate) / new_rate)
        found = resample(tone[None], rate, new_rate)[0]
        middle = slice(new_rate // 4, 3 * new_rate // 4)
        np.testing.assert_allclose(found[middle], expected[middle], atol=1e-4)


@pytest.mark.parametrize(("rate", "new_rate"), [(16000, 44100), (16000, 8000), (24000, 22050)])
def test_margin_covers_the_filter(rate: int, new_rate: int) -> None:
    margin = margin_samples(rate, new_rate)
    wave = np.zeros((1, 4 * margin), np.float32)
    wave[0, 2 * margin] = 1.0
    response = np.flatnonzero(np.abs(resample(wave, rate, new_rate)[0]) > 1e-5)
    reach = np.abs(response * rate / new_rate - 2 * margin).max()
    assert reach < margin


def test_resample_returns_its_input_at_equal_rates() -> None:
    wave = np.random.default_rng(0).normal(0, 1, (1, 100)).astype(np.float32)
    assert resample(wave, 16000, 16000) is wave
    assert margin_samples(16000, 16000) == 0


@pytest.mark.parametrize(("rate", "new_rate"), [(44100, 16000), (16000, 24000), (8000, 8000)])
@pytest.mark.parametrize("length", [0, 1, 5, 4000, 20_011])
def test_resampler_matches_resample_for_any_chunking(rate: int, new_rate: int, length: int) -> None:
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.1, (2, length)).astype(np.float32)
    resampler = Resampler(rate, new_rate, 2)
    parts, at = [], 0
    while at < length:
        size = int(rng.integers(0, 3000))
        parts.append(resampler.push(wave[:, at : at + size]))
        at += size
    parts.append(resampler.push(wave[:, :0], last=True))
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), resample(wave, rate, new_rate))
