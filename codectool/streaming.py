"""Encoding and decoding of signals that arrive in chunks of any length.

The codes and samples do not depend on how the signal was cut into chunks.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from codectool.audio.samples import LevelCheck, Resampler, Samples, as_channels
from codectool.codecs.properties import ModelProperties
from codectool.errors import AudioError, CodectoolWarning, DamagedError, TokensError
from codectool.runner import Codes, Runner
from codectool.segments import pad_or_trim, split_segments
from codectool.tokens import MAX_CODEBOOK_BITS, check_codes

Padding = Literal["lossless", "reference"]

MAX_GROUP = 64  # channels whose streams are in memory at a time; BigCodec needs 1.7 MB for each
MAX_GROUP_SAMPLES = 1 << 23  # of all segments in memory at a time
WHOLE_SIGNAL = 1 << 40  # as a segment length: more frames than any signal has


class StreamEncoder:
    """Encode audio of any sampling rate that arrives in chunks.

    Args:
        runner: runs the model.
        sample_rate: sampling rate of the audio in Hz.
        channels: number of channels C; each is encoded independently.
        num_codebooks: codebooks to use.
        chunk_frames: frames computed at once; see `Codec.stream_encoder`.
        padding: how the signal is extended to whole frames; see `codectool.loading.load`.
        checked: whether the samples come from an `AudioSource`, which has checked them.
        latents: return what would be quantized, float32 ``(C, D, F)``, instead of codes.

    Attributes:
        num_samples: samples per channel received so far; after `flush`, samples to decode.
        num_frames: frames returned so far.
        segment_frames: frames per independently encoded segment; None if there is only one
            segment. Final as soon as the first codes are returned.
        ended: whether `flush` was called.
    """

    def __init__(
        self,
        runner: Runner,
        sample_rate: int,
        channels: int,
        num_codebooks: int,
        chunk_frames: int | None = None,
        padding: Padding = "lossless",
        checked: bool = False,
        latents: bool = False,
    ) -> None:
        self.num_samples = 0
        self.num_frames = 0
        self.segment_frames: int | None = None
        self.ended = False
        self._model = model = runner.model
        self._channels = channels
        self._sample_rate = sample_rate
        self._padding = padding
        self._segment: int | None = None
        if model.segment_frames is not None:
            if padding == "reference":
                chunk_frames = WHOLE_SIGNAL
            self._segment = chunk_frames or model.segment_frames
        self._check = None if checked else LevelCheck("samples", warn_caller)
        self._resampler = Resampler(sample_rate, model.sample_rate, channels)
        self._stream = runner.stream_encoder(channels, chunk_frames, latents=latents)
        self._rows = slice(None if latents else num_codebooks)
        self._pushed = 0  # samples at the model's rate that the model has received
        self._rest = np.zeros((channels, 0), np.float32)

    def push(self, samples: npt.ArrayLike) -> Codes:
        """Take the next samples and return the codes that are complete.

        Args:
            samples: float ``(N,)`` or ``(C, N)`` in [-1, 1], N >= 0; an array, or a tensor on any
                device.

        Returns:
            int32 ``(C, K, F)``.

        Raises:
            AudioError: wrong type or shape, samples that are not finite or of another scale, or
                the stream has ended.
        """
        if self.ended:
            raise AudioError("the stream has ended; start a new one")
        wave = as_channels(samples, self._channels)
        if self._check is not None:
            self._check(wave, self.num_samples)
        self.num_samples += wave.shape[1]
        wave = np.concatenate([self._rest, self._resampler.push(wave)], axis=1)
        # The model receives whole frames. With segments at least one sample is kept, so that a
        # segment is encoded only when it is known whether another one follows.
        available = wave.shape[1] - (self._segment is not None)
        ready = max(0, available) // self._model.hop_length * self._model.hop_length
        self._rest = wave[:, ready:]
        return self._encode(wave[:, :ready], last=False)

    def flush(self) -> Codes:
        """End the signal, pad it to whole frames and return the remaining codes.

        Raises:
            AudioError: the signal is too short for padding `reference`, or the stream has ended.
        """
        if self.ended:
            raise AudioError("the stream has ended; start a new one")
        self.ended = True
        model = self._model
        end = self._resampler.push(self._rest[:, :0], last=True)
        wave = np.concatenate([self._rest, end], axis=1)
        self._rest = wave[:, :0]
        frames = padded_frames(model, self._pushed + wave.shape[1], self._padding, self._segment)
        length = frames * model.hop_length
        if self._padding == "reference":
            self.num_samples = length * self._sample_rate // model.sample_rate
        return self._encode(pad_or_trim(wave, length - self._pushed), last=True)

    def _encode(self, wave: Samples, last: bool) -> Codes:
        self._pushed += wave.shape[1]
        codes = self._stream.push(wave[:, None])
        if last:
            codes = np.concatenate([codes, self._stream.flush()], axis=2)
        codes = codes[:, self._rows]
        self.num_frames += codes.shape[2]
        more = self._rest.shape[1] > 0
        if self._segment is not None and self.num_frames + more > self._segment:
            self.segment_frames = self._segment
        return codes


class OutputResampler:
    """Convert decoded samples to the output rate and cut out the requested samples.

    Args:
        rate: sampling rate of the decoded samples in Hz.
        new_rate: output rate in Hz.
        skip: samples to drop before resampling.
        new_skip: samples to drop after resampling.
        length: most samples per channel to return; None for all.
        hold: samples that are kept back until more arrive, because they may be padding.
    """

    def __init__(
        self,
        rate: int,
        new_rate: int,
        channels: int,
        *,
        skip: int = 0,
        new_skip: int = 0,
        length: int | None = None,
        hold: int = 0,
    ) -> None:
        self._resampler = Resampler(rate, new_rate, channels)
        self._skip, self._new_skip = skip, new_skip
        self._length = length
        self._hold = hold
        self._held = np.zeros((channels, 0), np.float32)
        self._returned = 0

    def push(self, wave: Samples) -> Samples:
        """Take samples ``(C, N)`` and return those that are complete."""
        dropped = min(self._skip, wave.shape[1])
        self._skip -= dropped
        wave = np.concatenate([self._held, wave[:, dropped:]], axis=1)
        ready = max(0, wave.shape[1] - self._hold)
        self._held = wave[:, ready:]
        return self._limit(self._resampler.push(wave[:, :ready]))

    def flush(self, length: int | None = None) -> Samples:
        """End the signal and return the remaining samples, zero-padded to the known length.

        Args:
            length: samples per channel in total; with the constructor's, the smaller one counts.
        """
        if length is not None:
            self._length = length if self._length is None else min(length, self._length)
        before = self._returned
        wave = self._limit(self._resampler.push(self._held, last=True))
        return wave if self._length is None else pad_or_trim(wave, max(0, self._length - before))

    def _limit(self, wave: Samples) -> Samples:
        dropped = min(self._new_skip, wave.shape[1])
        self._new_skip -= dropped
        wave = wave[:, dropped:]
        if self._length is not None:
            wave = wave[:, : max(0, self._length - self._returned)]
        self._returned += wave.shape[1]
        return wave


class StreamDecoder:
    """Decode codes that arrive in chunks to audio of any sampling rate.

    Args:
        runner: runs the model.
        channels: number of channels C.
        chunk_frames: frames computed at once; see `Codec.stream_decoder`.
        output: receives the audio at the model's rate.
    """

    def __init__(
        self,
        runner: Runner,
        channels: int,
        chunk_frames: int | None,
        output: OutputResampler,
    ) -> None:
        self._model = runner.model
        self._channels = channels
        self._stream = runner.stream_decoder(channels, chunk_frames)
        self._output = output
        self._num_codebooks: int | None = None  # of the codes received so far
        self._ended = False

    def push(self, codes: npt.ArrayLike) -> Samples:
        """Take the next codes and return the samples ``(C, N)`` that are complete.

        Args:
            codes: integers ``(C, K', F)``, K' <= K, F >= 0; an array, or a tensor on any device.
                K' is the same for all codes of a stream.

        Raises:
            TokensError: wrong type or shape, a negative code, or the stream has ended.
            DamagedError: a code exceeds its codebook.
        """
        if self._ended:
            raise TokensError("the stream has ended; start a new one")
        return self._output.push(self._stream.push(self._checked(codes))[:, 0])

    def flush(self, num_samples: int | None = None) -> Samples:
        """End the signal and return the remaining samples.

        Args:
            num_samples: samples per channel in total, if they were unknown before; None returns
                all samples of the frames.

        Raises:
            TokensError: the stream has ended.
        """
        if self._ended:
            raise TokensError("the stream has ended; start a new one")
        self._ended = True
        rest = self._output.push(self._stream.flush()[:, 0])
        return np.concatenate([rest, self._output.flush(num_samples)], axis=1)

    def _checked(self, codes: npt.ArrayLike) -> Codes:
        """Return codes as int32 ``(C, K', F)``; raise an error if they do not fit the stream."""
        given: Any = codes
        try:
            if hasattr(given, "is_floating_point"):  # PyTorch, which this module does not import
                given = given.detach().cpu().numpy()
            array = np.asarray(given)
        except (ValueError, TypeError, RuntimeError) as error:
            raise TokensError(f"codes must be an array of integers: {error}") from error
        sizes = self._model.codebook_sizes
        rows = array.shape[1] if array.ndim == 3 else len(sizes)
        count = self._num_codebooks or min(max(1, rows), len(sizes))
        check_codes(array, [MAX_CODEBOOK_BITS] * count)
        if len(array) != self._channels:
            raise TokensError(
                f"codes of {len(array)} channels, but the stream has {self._channels}"
            )
        check_codebooks(self._model, array)
        self._num_codebooks = count
        return array.astype(np.int32)


def encode_whole_signal(
    runner: Runner, read: Callable[[], Iterable[Samples]], sample_rate: int, channels: int
) -> tuple[Codes, int]:
    """Encode a signal of any length as one segment, in several passes and bounded memory.

    Each call of ``read`` returns the signal from its start, in chunks ``(C, N)``.

    Returns:
        int32 ``(C, K, F)``, and the samples per channel that were read.
    """
    model = runner.model
    num_samples = 0

    def read_channel(channel: int) -> Iterator[Samples]:
        """Yield ``(1, N)`` at the model's rate, padded to whole frames."""
        nonlocal num_samples
        num_samples = pushed = 0
        resampler = Resampler(sample_rate, model.sample_rate, 1)
        for chunk in read():
            num_samples += chunk.shape[1]
            wave = resampler.push(chunk[channel, None])
            pushed += wave.shape[1]
            yield wave
        wave = resampler.push(np.zeros((1, 0), np.float32), last=True)
        length = model.num_frames(pushed + wave.shape[1]) * model.hop_length
        yield pad_or_trim(wave, length - pushed)

    rows = [runner.encode_whole(partial(read_channel, channel)) for channel in range(channels)]
    return np.stack(rows), num_samples


def channel_groups(model: ModelProperties, channels: int) -> list[slice]:
    """Divide the channels of a file into groups, which are processed one after another.

    Streams need memory per channel, for a model with segments a segment of samples.
    """
    size = MAX_GROUP
    if model.segment_frames is not None:
        segment = model.segment_frames * model.hop_length
        size = max(1, min(size, MAX_GROUP_SAMPLES // segment))
    return [slice(first, min(first + size, channels)) for first in range(0, channels, size)]


def padded_frames(
    model: ModelProperties, num_samples: int, padding: Padding, segment_frames: int | None
) -> int:
    """Return the number of frames to which ``num_samples`` at the model's rate are padded.

    The last segment is padded to ``model.min_frames``. Padding `reference` may also drop samples.

    Raises:
        AudioError: the signal is too short for padding `reference`.
    """
    if padding == "lossless":
        frames = model.num_frames(num_samples)
        if segment_frames is None or frames == 0:
            return frames
        return split_segments(frames, segment_frames, model.min_frames)[-1][1]
    frames = model.reference_frames(num_samples)
    if frames < model.min_frames:
        raise AudioError(
            f"{num_samples} samples at {model.sample_rate} Hz are too few for the published script "
            f"of {model.family}, which needs {model.min_frames * model.hop_length}; "
            "padding `lossless` takes any length"
        )
    return frames


def max_padding(model: ModelProperties) -> int:
    """Return the most samples at the end of a stream that may be padding."""
    return model.num_frames(1) * model.hop_length if model.segment_frames is None else 0


def check_codebooks(model: ModelProperties, codes: npt.NDArray[np.integer]) -> None:
    """Raise a `DamagedError` if one of the codes ``(C, K', F)`` exceeds its codebook."""
    for codebook, size in enumerate(model.codebook_sizes[: codes.shape[1]]):
        largest = int(codes[:, codebook].max(initial=0))
        if largest >= size:
            raise DamagedError(
                f"codebook {codebook} holds code {largest}, but it has only {size} entries"
            )


def warn_caller(message: str) -> None:
    """Issue a warning at the line that called codectool."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals["__name__"].startswith("codectool."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, CodectoolWarning, stacklevel=level)
