"""Arrays of samples: type, checks and sampling-rate conversion."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from codectool.errors import AudioError

MAX_CHANNELS = 1024  # the limit of libsndfile
MAX_SAMPLES = 1 << 40  # per channel; a header with more does not state the real length
MIN_RATE, MAX_RATE = 1000, 1_000_000  # in Hz
FILTER_REACH = 512  # half of soxr's filter and a margin, in samples at the lower rate

Samples = npt.NDArray[np.float32]  # (C, N) in [-1, 1]


def as_channels(samples: npt.ArrayLike) -> Samples:
    """Convert ``(N,)`` or ``(C, N)`` samples of any float type to contiguous float32 ``(C, N)``.

    Raises:
        AudioError: not a float type, or another shape.
    """
    tensor: Any = samples
    if hasattr(tensor, "is_floating_point"):  # PyTorch, which this module does not import
        tensor = tensor.detach().cpu()
        samples = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    wave = np.asarray(samples)
    if not np.issubdtype(wave.dtype, np.floating):
        raise AudioError(f"samples must be float in [-1, 1], not {wave.dtype}")
    if wave.ndim == 1:
        wave = wave[None]
    if wave.ndim != 2 or not 1 <= wave.shape[0] <= MAX_CHANNELS:
        raise AudioError(f"samples must have the shape (n,) or (channels, n), not {wave.shape}")
    return np.ascontiguousarray(wave, dtype=np.float32)


def check_finite(samples: Samples, name: str, first: int = 0) -> None:
    """Raise an `AudioError` that names the first of the samples ``(C, N)`` that is not finite.

    ``first`` is the position of ``samples[:, 0]`` in the input ``name``.
    """
    finite = np.isfinite(samples)
    if not finite.all():
        channel, sample = np.argwhere(~finite)[0]
        raise AudioError(
            f"{name}: sample {first + sample} of channel {channel} is {samples[channel, sample]}; "
            f"{int((~finite).sum())} samples are not finite numbers"
        )


def margin_samples(rate: int, new_rate: int) -> int:
    """Return how many samples at ``rate`` on each side of a range its resampling depends on.

    The margin covers the filter and the distance to the next sample that both rates share.
    """
    if rate == new_rate:
        return 0
    return FILTER_REACH * max(1, -(-rate // new_rate)) + rate // math.gcd(rate, new_rate)


def resample(samples: Samples, rate: int, new_rate: int) -> Samples:
    """Resample with soxr at high quality, as the reference implementation of BigCodec does.

    Args:
        samples: ``(C, N)``.
        rate: sampling rate of ``samples``, in Hz.
        new_rate: sampling rate of the result, in Hz.

    Returns:
        ``(C, ceil(N * new_rate / rate))``, the length that librosa gives; samples that the filter
        does not produce are zero.
    """
    if rate == new_rate:
        return samples
    length = -(-samples.shape[1] * new_rate // rate)
    result = np.zeros((samples.shape[0], length), np.float32)
    if samples.shape[1] == 0:
        return result
    import soxr  # takes 0.1 s to import, and most runs do not need it

    for channel, row in enumerate(samples):
        converted = soxr.resample(row, rate, new_rate, quality="HQ")[:length]
        result[channel, : len(converted)] = converted
    return result


class Resampler:
    """Resample a signal that arrives in chunks; the result equals `resample` of the whole signal.

    Args:
        rate: sampling rate of the input, in Hz.
        new_rate: sampling rate of the output, in Hz.
    """

    def __init__(self, rate: int, new_rate: int, channels: int) -> None:
        self._rate, self._new_rate = rate, new_rate
        self._channels = channels
        self._received = self._returned = 0
        self._stream: Any = None
        if rate != new_rate:
            import soxr

            self._stream = soxr.ResampleStream(rate, new_rate, channels, quality="HQ")

    def push(self, samples: Samples, last: bool = False) -> Samples:
        """Take the next samples ``(C, N)``; return the output that is ready, ``(C, M)``.

        Args:
            samples: the next samples; none are necessary at the end.
            last: whether the signal ends here.
        """
        if self._stream is None:
            return samples
        self._received += samples.shape[1]
        # `resample` returns this many more samples; the filter may produce one more or fewer.
        length = -(-self._received * self._new_rate // self._rate) - self._returned
        converted = self._stream.resample_chunk(np.ascontiguousarray(samples.T), last=last)
        wave: Samples = converted.reshape(-1, self._channels).T[:, :length]
        if last:
            wave = np.pad(wave, ((0, 0), (0, length - wave.shape[1])))
        self._returned += wave.shape[1]
        return np.ascontiguousarray(wave)
