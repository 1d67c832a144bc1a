"""Mel distance and log-spectral distance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from metric_clips import sine, speech

from codectool.audio.mel import RATE, log_mel, mel_filterbank, stft_magnitudes
from codectool.evaluation.metrics.base import Metric, Wave
from codectool.evaluation.metrics.spectral import MEL_SCALES, LogSpectralDistance, MelDistance
from codectool.training.losses.mel import MelLossConfig
from tests.conftest import load_torchaudio


def noise(samples: int, seed: int = 0, level: float = 0.1) -> Wave:
    return np.random.default_rng(seed).normal(0, level, samples).astype(np.float32)


def distance(metric: Metric, reference: Wave, degraded: Wave) -> float:
    return metric.compute(reference, degraded)[metric.outputs[0].name]


@pytest.mark.parametrize(("window", "bands"), MEL_SCALES)
def test_mel_filterbank_matches_torchaudio_slaney(window: int, bands: int) -> None:
    theirs = (
        load_torchaudio()
        .melscale_fbanks(window // 2 + 1, 0.0, 12000.0, bands, RATE, norm=None, mel_scale="slaney")
        .numpy()
    )
    np.testing.assert_allclose(mel_filterbank(window, bands), (theirs / theirs.sum(0)).T, atol=1e-5)


def test_full_scale_sine_has_magnitude_one() -> None:
    # exactly at bin 43; a Hann window spreads it as 1/2, 1, 1/2
    wave = sine(43 * RATE / 1024, 5 * 1024, RATE)
    np.testing.assert_allclose(stft_magnitudes(wave, 1024, 256)[2, 42:45], [0.5, 1, 0.5], atol=1e-6)
    level = log_mel(wave, 1024, 80)
    seen = mel_filterbank(1024, 80)[:, 42:45] @ [0.5, 1, 0.5]
    np.testing.assert_allclose(level[2], 20 * np.log10(np.maximum(seen, 1e-4)), atol=1e-3)


def test_log_mel_hop_selects_frames() -> None:
    wave = noise(RATE)
    np.testing.assert_allclose(log_mel(wave, 1024, 80, 512), log_mel(wave, 1024, 80)[::2])


@pytest.mark.parametrize("metric", [MelDistance(), LogSpectralDistance()])
def test_distance_of_half_level_is_six_decibels_above_the_floor(metric: Metric) -> None:
    wave = noise(RATE, level=0.5)
    assert distance(metric, wave, wave / 2) == pytest.approx(20 * math.log10(2), abs=1e-3)
    assert distance(metric, wave * 1e-7, wave * 1e-8) == 0


def test_mel_distance_matches_training_loss() -> None:
    before, after = noise(RATE), noise(RATE, seed=1) * np.linspace(0, 2, RATE, dtype=np.float32)
    windows, bands = zip(*MEL_SCALES, strict=True)
    scaling = {"unit_sum": True, "full_scale": True, "floor": 1e-4, "mean": True}
    loss = MelLossConfig(weight=1, windows=windows, bands=bands, **scaling).build(RATE)
    pair = (torch.from_numpy(wave)[None, None] for wave in (after, before))
    expected = 20 * float(loss(*pair))
    assert distance(MelDistance(), before, after) == pytest.approx(expected, abs=2e-3)


def test_log_spectral_distance_matches_torch_stft() -> None:
    before = speech(RATE)
    after = (0.5 * before + noise(len(before), level=0.003)).astype(np.float32)
    window = torch.hann_window(2048, dtype=torch.float64)
    options = {"window": window, "center": False, "return_complex": True}
    spectra = [
        torch.stft(torch.from_numpy(wave).double(), 2048, 512, **options).abs()
        for wave in (before, after)
    ]
    levels = [20 * (2 / window.sum() * spectrum).clamp(min=1e-4).log10() for spectrum in spectra]
    expected = (levels[1] - levels[0]).square().mean(0).sqrt().mean()
    found = distance(LogSpectralDistance(), before, after)
    assert found == pytest.approx(float(expected), rel=1e-6)
    assert found > 3


def test_log_spectral_distance_is_rms_over_bins_and_mean_over_frames() -> None:
    wave = noise(2048 + 512)  # two frames
    level = 20 * np.log10(stft_magnitudes(wave, 2048, 512))
    silence = np.sqrt(np.mean((level + 80) ** 2, axis=1))
    found = distance(LogSpectralDistance(), wave, np.zeros_like(wave))
    assert found == pytest.approx(np.mean(silence), rel=1e-6)
