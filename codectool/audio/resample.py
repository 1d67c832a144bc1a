"""Sampling-rate conversion, as BigCodec's script has it: soxr at its high quality."""

from __future__ import annotations

import math

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
