"""Test signals, and pipes that return them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np


def speechlike(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * 140 * time + 3 * np.sin(9 * time)) * np.sin(5 * time) ** 2
    hiss = np.random.default_rng(3).normal(0, 0.05, (channels, len(time)))
    return (0.3 * tone + hiss).astype(np.float32)


def split_randomly(wave: np.ndarray, largest: int = 900) -> Iterator[np.ndarray]:
    """Yield chunks of random length, some of them empty."""
    rng = np.random.default_rng(7)
    start = 0
    while start < wave.shape[1]:
        length = int(rng.integers(0, largest))
        yield wave[:, start : start + length]
        start += length


class Pipe(io.RawIOBase):
    """Bytes that can be read only once, in small chunks."""

    def __init__(self, data: bytes):
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self._data.read(min(len(buffer), 37))
        buffer[: len(data)] = data
        return len(data)
