"""Signals that are compared: read from files, brought to one rate, moved and cut.

Letters used in shapes: C channels, N samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from codectool.audio.files import check_rate, read_audio
from codectool.audio.samples import resample
from codectool.errors import AudioError
from codectool.evaluation.metrics.base import Wave


class Signal:
    """Mono audio at its own rate, and at any other rate that is asked for.

    Args:
        samples: float32 ``(N,)`` in [-1, 1].
        rate: in Hz.
    """

    def __init__(self, samples: Wave, rate: int) -> None:
        self.samples = samples
        self.rate = rate
        self._known = {rate: samples}

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate

    def at(self, rate: int) -> Wave:
        """``(N,)`` at another rate; kept, so that several judges may ask."""
        if rate not in self._known:
            self._known[rate] = resample(self.samples[None], self.rate, rate)[0]
        return self._known[rate]


def read_signal(file: Path | BinaryIO, name: str = "") -> Signal:
    """Read a file and take the mean of its channels.

    Args:
        file: a path, or a seekable file object.
        name: what to call it in messages; by itself the path.

    Raises:
        AudioError: it is not audio, damaged, empty, holds NaN, or has a rate from which a judge's
            would not fit into memory.
    """
    name = name or str(file)
    samples, rate = read_audio(file, name)
    check_rate(rate, name)
    if samples.shape[1] == 0:
        raise AudioError(f"{name}: holds no samples")
    mono = samples[0] if len(samples) == 1 else samples.mean(axis=0)
    return Signal(np.ascontiguousarray(mono), rate)


def advance(wave: Wave, samples: int, length: int) -> Wave:
    """Take off a delay (or a lead, if negative), and cut or fill up with zeros to ``length``."""
    wave = wave[samples:] if samples >= 0 else np.pad(wave, (-samples, 0))
    return np.pad(wave[:length], (0, max(0, length - len(wave))))
