"""STOI and ESTOI against a published value and the equations of the papers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from metric_clips import speech

from codectool.evaluation.metrics.base import MetricUndefinedError
from codectool.evaluation.metrics.stoi import Stoi

pytest.importorskip("pystoi", reason="package pystoi is not installed")


def test_stoi_matches_torchmetrics_example() -> None:
    """Example of torchmetrics.audio.ShortTimeObjectiveIntelligibility (v0.7 to v1.1)."""
    random = torch.Generator().manual_seed(1)
    degraded, reference = (torch.randn(8000, generator=random).numpy() for _ in range(2))
    found = Stoi().intelligibility(reference, degraded, 8000, extended=False)
    assert found == pytest.approx(-0.0100, abs=5e-5)


def bands(wave: np.ndarray) -> np.ndarray:
    """Return norms in third-octave bands, frames of 256 samples at 10 kHz: eq. (1)."""
    window = np.hanning(258)[1:-1]
    frames = np.lib.stride_tricks.sliding_window_view(wave, 256)[::128] * window
    power = np.abs(np.fft.rfft(frames, 512)) ** 2
    edges = 150 * 2 ** ((2 * np.arange(16) - 1) / 6)
    bins = np.round(edges * 512 / 10000).astype(int)
    pairs = pairwise(bins)
    return np.sqrt(np.stack([power[:, low:high].sum(1) for low, high in pairs], 1))


def unit(segments: np.ndarray, axis: int) -> np.ndarray:
    centred = segments - segments.mean(axis, keepdims=True)
    return centred / np.linalg.norm(centred, axis=axis, keepdims=True)


def test_stoi_matches_equations_of_the_papers() -> None:
    """Taal et al. 2011, eq. (3) to (6); Jensen and Taal 2016, eq. (5) to (8)."""
    random = np.random.default_rng(3)
    swell = 1 + 0.8 * np.sin(
        2 * np.pi * 4 * np.arange(30000) / 10000
    )  # no frame is 40 dB below the loudest
    reference = random.normal(0, 0.1, 30000) * swell
    degraded = reference + random.normal(0, 0.1, 30000)
    x, y = (
        np.lib.stride_tricks.sliding_window_view(bands(wave), 30, axis=0)
        for wave in (reference, degraded)
    )  # (segments, bands, frames)
    norms = np.linalg.norm(x, axis=2, keepdims=True) / np.linalg.norm(y, axis=2, keepdims=True)
    clipped = np.minimum(y * norms, x * (1 + 10 ** (15 / 20)))
    stoi = (unit(x, 2) * unit(clipped, 2)).sum(2).mean()
    estoi = (unit(unit(x, 2), 1) * unit(unit(y, 2), 1)).sum(1).mean()
    metric = Stoi()
    found = [metric.intelligibility(reference, degraded, 10000, extended=e) for e in (False, True)]
    assert found == pytest.approx([stoi, estoi], abs=5e-3)
    assert 0.3 < estoi < stoi - 0.05 < 0.95


def test_stoi_is_deterministic_and_keeps_the_random_state() -> None:
    wave = speech(16000)
    quiet = np.where(np.arange(len(wave)) < 1000, wave, 0).astype(np.float32)
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    found = [Stoi().compute(wave, quiet) for _ in range(2)]
    assert found[0] == found[1]
    assert np.random.random() == expected


def test_stoi_undefined_for_short_speech() -> None:
    wave = speech(16000)
    metric = Stoi()
    with pytest.raises(MetricUndefinedError, match=r"shorter than 0\.4 s"):
        metric.compute(wave[:6000], wave[:6000])
    gap = np.where(np.arange(len(wave)) // 4000 == 8, wave, 0).astype(np.float32)
    with pytest.raises(MetricUndefinedError, match=r"less than 0\.4 s of speech"):
        metric.compute(gap, wave)
