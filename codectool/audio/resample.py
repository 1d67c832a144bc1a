"""Sampling-rate conversion, as BigCodec's script has it: soxr at its high quality."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

# Half length of the filter with some room, in samples of the lower rate.
FILTER_REACH = 512


def margin_samples(rate: int, new_rate: int) -> int:
    """Samples at ``rate`` around a stretch that are enough to resample it as within the whole.

    They cover the filter and the way to the next sample that both rates share.
    """
    if rate == new_rate:
        return 0
    return FILTER_REACH * max(1, -(-rate // new_rate)) + rate // math.gcd(rate, new_rate)


def resample(samples: npt.NDArray[np.float32], rate: int, new_rate: int) -> npt.NDArray[np.float32]:
    """Convert ``(C, N)`` at ``rate`` Hz to ``(C, ceil(N * new_rate / rate))`` at ``new_rate`` Hz.

    The length is that of librosa: rounded up; a sample that the filter does not yield is zero.
    """
    if rate == new_rate:
        return samples
    length = -(-samples.shape[1] * new_rate // rate)
    result = np.zeros((samples.shape[0], length), np.float32)
    if samples.shape[1] == 0:
        return result
    import soxr  # here: a tenth of a second that most runs do not need

    for channel, row in enumerate(samples):
        converted = soxr.resample(row, rate, new_rate, quality="HQ")[:length]
        result[channel, : len(converted)] = converted
    return result


class Resampler:
    """Converts a signal that comes in pieces: the very samples that `resample` gives for the whole.

    Args:
        rate: sampling rate in Hz of what comes.
        new_rate: sampling rate in Hz of what leaves.
        channels: number of channels C.
    """

    def __init__(self, rate: int, new_rate: int, channels: int) -> None:
        self._rate, self._new_rate = rate, new_rate
        self._channels = channels
        self._taken = self._given = 0
        self._stream: Any = None
        if rate != new_rate:
            import soxr

            self._stream = soxr.ResampleStream(rate, new_rate, channels, quality="HQ")

    def push(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Take the next samples ``(C, N)``; return those now known, ``(C, M)``."""
        self._taken += samples.shape[1]
        if self._stream is None:
            return samples
        return self._convert(samples, last=False)

    def flush(self) -> npt.NDArray[np.float32]:
        """End the signal; return the samples that are left."""
        empty = np.zeros((self._channels, 0), np.float32)
        if self._stream is None or self._taken == 0:
            return empty
        rest = self._convert(empty, last=True)
        length = -(-self._taken * self._new_rate // self._rate)
        return np.pad(rest, ((0, 0), (0, length - self._given)))

    def _convert(self, samples: npt.NDArray[np.float32], last: bool) -> npt.NDArray[np.float32]:
        converted = self._stream.resample_chunk(np.ascontiguousarray(samples.T), last=last)
        wave: npt.NDArray[np.float32] = converted.reshape(-1, self._channels).T
        # As many as `resample` keeps of what has come so far; the filter may yield one more.
        wave = wave[:, : -(-self._taken * self._new_rate // self._rate) - self._given]
        self._given += wave.shape[1]
        return np.ascontiguousarray(wave)
