"""Read the bytes of an audio file in all ways that a program can: they must agree."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codectool.audio.files import read_header
from codectool.audio.source import open_audio
from codectool.errors import AudioError
from tests.signals import Pipe


@dataclass(frozen=True, eq=False)
class Reading:
    """Samples ``(C, N)`` of a file, its sampling rate in Hz, and the warnings."""

    samples: np.ndarray
    rate: int
    warnings: list[str]

    @property
    def length(self) -> int:
        return self.samples.shape[1]


def read(file: Path | io.BufferedIOBase, name: str = "in") -> Reading:
    with open_audio(file, name) as audio:  # type: ignore[arg-type]
        chunks = [np.zeros((audio.channels, 0), np.float32), *audio.chunks()]
        samples = np.concatenate(chunks, axis=1)
        assert audio.warnings or audio.num_samples in (None, samples.shape[1])
        return Reading(samples, audio.sample_rate, list(audio.warnings))


def read_all_ways(data: bytes, folder: Path) -> Reading:
    """Read a file by a path without suffix, as a file object and on a pipe; compare all."""
    path = folder / "audio"
    path.write_bytes(data)
    reading = read(path)
    others = [read(io.BytesIO(data)), read(io.BufferedReader(Pipe(data)))]
    for other in others:
        np.testing.assert_array_equal(other.samples, reading.samples)
        assert (other.rate, bool(other.warnings)) == (reading.rate, bool(reading.warnings))
    if reading.length:
        assert read_header(path) == (reading.length, reading.rate)
    return reading


def refusal(data: bytes) -> str:
    """Return why a file is refused, from a file object and on a pipe; empty if it is read."""
    reasons = []
    for file in (io.BytesIO(data), io.BufferedReader(Pipe(data))):
        try:
            read(file)
        except AudioError as error:
            reasons.append(str(error))
    assert len(reasons) in (0, 2)
    return reasons[0] if reasons else ""
