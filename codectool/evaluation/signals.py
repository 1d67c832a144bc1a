"""Signals to compare: read from files, resampled, shifted and cut."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from codectool.audio.files import check_rate, read_audio
from codectool.audio.samples import resample
from codectool.errors import AudioError
from codectool.evaluation.metrics.base import Wave
from codectool.evaluation.metrics.speech_level import SpeechLevel, speech_level

MIN_MONO_ENERGY = 0.01  # of the mean of the channels, relative to the energy of a channel


class Signal:
    """Mono audio that can be read at any sampling rate.

    Args:
        samples: float32 ``(N,)`` in [-1, 1].
        rate: sampling rate of the samples, in Hz.
        warnings: one sentence for each fault of the file that the samples are from.
    """

    def __init__(self, samples: Wave, rate: int, warnings: Sequence[str] = ()) -> None:
        self.samples = samples
        self.rate = rate
        self.warnings = tuple(warnings)
        self._resampled = {rate: samples}

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate

    @cached_property
    def speech(self) -> SpeechLevel:
        """Active speech level, from which follows whether there is speech."""
        return speech_level(self.samples, self.rate)

    def at(self, rate: int) -> Wave:
        """Return the samples ``(N,)`` at another rate; cached, since several metrics share it."""
        if rate not in self._resampled:
            self._resampled[rate] = resample(self.samples[None], self.rate, rate)[0]
        return self._resampled[rate]


def read_signal(file: Path | BinaryIO, name: str = "") -> Signal:
    """Read a file and average its channels.

    Args:
        file: a path, or a seekable file object.
        name: name of the file in messages; empty for the path.

    Raises:
        AudioError: the file is not audio, damaged, empty, contains NaN, or has a sampling rate so
            low that the resampled signal would not fit into memory.
    """
    name = name or str(file)
    warnings: list[str] = []
    samples, rate = read_audio(file, name, warnings)
    check_rate(rate, name)
    if samples.shape[1] == 0:
        raise AudioError(f"{name}: holds no samples")
    if len(samples) == 1:
        return Signal(np.ascontiguousarray(samples[0]), rate, warnings)
    mono = samples.mean(axis=0)
    energies = np.einsum("cn,cn->c", samples, samples, dtype=float)
    if float(mono @ mono) < MIN_MONO_ENERGY * energies.mean():
        warnings.append(
            f"{name}: its channels cancel each other in their mean, which is compared; use one "
            "channel"
        )
    return Signal(np.ascontiguousarray(mono), rate, warnings)


def advance(wave: Wave, samples: int, length: int) -> Wave:
    """Remove a delay of ``samples`` (negative: a lead), then cut or zero-pad to ``length``."""
    wave = wave[samples:] if samples >= 0 else np.pad(wave, (-samples, 0))
    return np.pad(wave[:length], (0, max(0, length - len(wave))))
