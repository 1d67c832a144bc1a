"""Signals to compare: read from files, resampled, shifted and cut."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from codectool.audio.files import check_rate, read_audio
from codectool.audio.samples import resample
from codectool.errors import AudioError
from codectool.evaluation.metrics.base import Wave
from codectool.evaluation.metrics.speech_level import SpeechLevel, speech_level


class Signal:
    """Mono audio that can be read at any sampling rate.

    Args:
        samples: float32 ``(N,)`` in [-1, 1].
        rate: sampling rate of the samples, in Hz.
    """

    def __init__(self, samples: Wave, rate: int) -> None:
        self.samples = samples
        self.rate = rate
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
    samples, rate = read_audio(file, name)
    check_rate(rate, name)
    if samples.shape[1] == 0:
        raise AudioError(f"{name}: holds no samples")
    mono = samples[0] if len(samples) == 1 else samples.mean(axis=0)
    return Signal(np.ascontiguousarray(mono), rate)


def advance(wave: Wave, samples: int, length: int) -> Wave:
    """Remove a delay of ``samples`` (negative: a lead), then cut or zero-pad to ``length``."""
    wave = wave[samples:] if samples >= 0 else np.pad(wave, (-samples, 0))
    return np.pad(wave[:length], (0, max(0, length - len(wave))))
