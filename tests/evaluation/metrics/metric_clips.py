"""Test clips for metrics: synthetic speech from the assets, and ways to degrade it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codectool.audio.files import read_audio
from codectool.audio.samples import resample
from codectool.evaluation.metrics.base import Wave

ASSETS = Path(__file__).parents[3] / "assets"


def speech(rate: int, name: str = "espeak") -> Wave:
    """Return about 5 s of speech ``(N,)``."""
    path = ASSETS / f"speech_{name}.flac"
    samples, found = read_audio(path, str(path))
    return resample(samples, found, rate)[0]


def with_noise(wave: Wave, decibels: float, seed: int = 0) -> Wave:
    """Add white noise, ``decibels`` below the level of the signal."""
    noise = np.random.default_rng(seed).normal(size=len(wave))
    level = np.sqrt(np.mean(wave.astype(float) ** 2)) * 10 ** (-decibels / 20)
    return (wave + level * noise).astype(np.float32)


def sine(hertz: float, samples: int, rate: int, level: float = 1.0) -> Wave:
    return (level * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)).astype(np.float32)
