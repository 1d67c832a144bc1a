"""Arrays of samples: type, checks and sampling-rate conversion."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from codectool.errors import AudioError

CHUNK_SAMPLES, CHUNK_VALUES = 1 << 16, 1 << 20  # most per channel, and of all channels
MAX_CHANNELS = 1024  # the limit of libsndfile
MAX_SAMPLES = 1 << 40  # per channel; a header with more does not state the real length
MIN_RATE, MAX_RATE = 1000, 1_000_000  # in Hz
MANY_CHANNELS = 64  # more channels than samples like these: the array is probably transposed
# Highest peak without a warning, and highest peak that is accepted. Full scale is 1, but 16-bit
# samples divided by 32767 reach 1.00003.
PEAKS = 1.001, 4.0
LOSSY_PEAKS = 1.5, 32.0
FILTER_REACH = 512  # half of soxr's filter and a margin, in samples at the lower rate

RECENT_SAMPLES = 8192  # at the lower rate, on which soxr's state depends; 4096 sufficed
ZEROS_AT_ONCE = 1 << 16

Samples = npt.NDArray[np.float32]  # (C, N) in [-1, 1]


def as_channels(samples: npt.ArrayLike, channels: int | None = None) -> Samples:
    """Convert ``(N,)`` or ``(C, N)`` samples of any float type to contiguous float32 ``(C, N)``.

    Args:
        samples: an array, a tensor on any device, or nested lists.
        channels: the expected number of channels; None for any.

    Raises:
        AudioError: not a float type, or another shape.
    """
    wave = _as_array(samples)
    if not np.issubdtype(wave.dtype, np.floating):
        raise AudioError(f"samples must be float in [-1, 1], not {_conversion(wave.dtype)}")
    problem = f"samples must have the shape (n,) or (channels, n), not {wave.shape}"
    if wave.ndim == 1:
        wave = wave[None]
    if wave.ndim != 2:
        raise AudioError(problem)
    count, length = wave.shape
    fits = 1 <= count <= MAX_CHANNELS
    transposed = count > MANY_CHANNELS and 0 < length < MANY_CHANNELS
    if channels is not None:
        problem = f"{count} channels, but the stream has {channels}"
        fits = count == channels
        transposed = not fits and length == channels
    if transposed:
        raise AudioError(f"{problem}; is the array transposed? pass `samples.T`")
    if not fits:
        raise AudioError(problem)
    with np.errstate(over="ignore"):  # too large for float32: infinite, which is refused
        return np.ascontiguousarray(wave, dtype=np.float32)


def _as_array(samples: npt.ArrayLike) -> npt.NDArray[Any]:
    tensor: Any = samples
    try:
        if hasattr(tensor, "is_floating_point"):  # PyTorch, which this module does not import
            tensor = tensor.detach().cpu()
            if tensor.is_floating_point():
                tensor = tensor.float()  # NumPy has no bfloat16
            return np.asarray(tensor.numpy())
        if type(samples) is np.ndarray:  # before `np.ma`, which is imported when it is used
            return samples
        if isinstance(samples, np.ma.MaskedArray) and samples.dtype.kind == "f":
            return np.asarray(samples.filled(np.nan))  # refused as not finite
        return np.asarray(samples)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AudioError(f"samples cannot be converted to an array: {reason:.160}") from error


def _conversion(dtype: np.dtype[Any]) -> str:
    """Return the name of a type that is no float, and how to convert samples of it."""
    if dtype.kind not in "iu":
        return str(dtype)
    if dtype.itemsize == 8:  # Python's integers: of any full scale
        return f"{dtype.name}: divide by the full scale, which is 32768 for 16-bit samples"
    middle = 1 << (8 * dtype.itemsize - 1)
    return f"{dtype.name}: " + (
        f"divide by {middle}"
        if dtype.kind == "i"
        else f"subtract {middle}, then divide by {middle}"
    )


class LevelCheck:
    """Check the samples of one signal: finite numbers whose full scale is 1.

    A peak above 4 means another scale and is refused; above 1 there is one warning. Decoders of
    lossy formats exceed the peak of the original, so the limits of their output are higher.

    Args:
        name: name of the signal in messages.
        warn: called with a sentence, at most once.
        lossy: whether the samples are decoded from a lossy format.
    """

    def __init__(self, name: str, warn: Callable[[str], object], *, lossy: bool = False) -> None:
        self._name = name
        self._warn = warn
        self._lossy = lossy
        self._loud, self._highest = LOSSY_PEAKS if lossy else PEAKS

    def __call__(self, samples: Samples, first: int = 0) -> None:
        """Check samples ``(C, N)`` that start at sample ``first`` of the signal.

        Raises:
            AudioError: a sample is not finite, or the peak is too high.
        """
        # NaN and infinity propagate to the extremes.
        peak = float(max(samples.max(initial=0.0), -samples.min(initial=0.0)))
        if peak <= self._loud:
            return
        if not math.isfinite(peak):
            finite = np.isfinite(samples)
            channel, sample = np.argwhere(~finite)[0]
            raise AudioError(
                f"{self._name}: sample {first + sample} of channel {channel} is "
                f"{samples[channel, sample]}; {int((~finite).sum())} samples are not finite numbers"
            )
        if peak > self._highest:
            cause = "the file is probably damaged" if self._lossy else _cause(peak)
            raise AudioError(f"{self._name}: peak {peak:.6g}; full scale is 1; {cause}")
        self._loud = self._highest
        self._warn(
            f"{self._name}: peak {peak:.4g}; full scale is 1, and louder samples are clipped where "
            "decoded audio is written as integers"
        )


def _cause(peak: float) -> str:
    """Return the likely reason for a peak, and what to do."""
    for bits in (16, 24, 32):
        scale = 1 << (bits - 1)
        if peak <= 1.01 * scale:
            return f"these look like {bits}-bit samples: divide by {scale}"
    return "these are not audio samples, or the data is damaged"


def chunk_samples(channels: int) -> int:
    """Return the number of samples per channel that are read at once."""
    return min(CHUNK_SAMPLES, CHUNK_VALUES // channels)


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

    It can be copied and pickled at any point. As the state of soxr cannot be, the copy resamples as
    many zeros as samples were received, which puts soxr's blocks into the same places, and then
    the recent samples.

    Args:
        rate: sampling rate of the input, in Hz.
        new_rate: sampling rate of the output, in Hz.
    """

    def __init__(self, rate: int, new_rate: int, channels: int) -> None:
        self._rate, self._new_rate = rate, new_rate
        self._channels = channels
        self._received = self._returned = 0
        self._recent: deque[Samples] = deque()
        self._num_recent = 0
        self._stream = self._new_stream()

    def _new_stream(self) -> Any:
        if self._rate == self._new_rate:
            return None
        import soxr

        return soxr.ResampleStream(self._rate, self._new_rate, self._channels, quality="HQ")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stream": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._stream = self._new_stream()
        before = self._received - self._num_recent
        for start in range(0, before, ZEROS_AT_ONCE):
            count = min(ZEROS_AT_ONCE, before - start)
            self._stream.resample_chunk(np.zeros((count, self._channels), np.float32))
        for samples in self._recent:
            self._stream.resample_chunk(np.ascontiguousarray(samples.T))

    def push(self, samples: Samples, last: bool = False) -> Samples:
        """Take the next samples ``(C, N)``; return the output that is ready, ``(C, M)``.

        Args:
            samples: the next samples; none are necessary at the end.
            last: whether the signal ends here.
        """
        if self._stream is None:
            return samples
        self._received += samples.shape[1]
        self._remember(samples)
        # `resample` returns this many more samples; the filter may produce one more or fewer.
        length = -(-self._received * self._new_rate // self._rate) - self._returned
        converted = self._stream.resample_chunk(np.ascontiguousarray(samples.T), last=last)
        wave: Samples = converted.reshape(-1, self._channels).T[:, :length]
        if last:
            wave = np.pad(wave, ((0, 0), (0, length - wave.shape[1])))
        self._returned += wave.shape[1]
        return np.ascontiguousarray(wave)

    def _remember(self, samples: Samples) -> None:
        count = RECENT_SAMPLES * max(1, -(-self._rate // self._new_rate))
        self._recent.append(samples[:, -count:].copy())
        self._num_recent += self._recent[-1].shape[1]
        while self._num_recent - self._recent[0].shape[1] >= count:
            self._num_recent -= self._recent.popleft().shape[1]
