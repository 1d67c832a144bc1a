"""Samples and codes that come in pieces: `Codec.encode` and `Codec.decode` for live audio.

The pieces may be cut anywhere; the codes and samples are those of the whole. Letters used in
shapes: C channels, K codebooks, F frames, N samples.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt
import torch

from codectool.audio.samples import Resampler, Samples, as_channels, check_finite
from codectool.codecs.base import CodecModel
from codectool.errors import AudioError, DamagedError

Codes = npt.NDArray[np.int32]
Running = Callable[[], AbstractContextManager[None]]


def frames_for(model: CodecModel, num_samples: int, segment_frames: int | None) -> int:
    """Frames of ``num_samples`` at the model's rate, with nothing lost.

    The last segment, too, is at least as long as the model needs.
    """
    frames = model.num_frames(num_samples)
    if segment_frames is None or frames <= segment_frames:
        return frames
    rest = frames % segment_frames
    return frames + (max(0, model.min_frames - rest) if rest else 0)


class StreamEncoder:
    """Audio of any rate in, codes out.

    Args:
        model: what encodes.
        running: a context in which it may run.
        sample_rate: of the audio, in Hz.
        channels: number of channels C; each is encoded alone.
        num_codebooks: codebooks to use.
        block_frames: frames worked on at once; see `Codec.stream_encoder`.

    Attributes:
        sample_rate: of the audio, in Hz.
        channels: number of channels.
        num_samples: samples per channel taken so far.
        num_frames: frames given out so far.
        ended: whether the signal has ended.
    """

    def __init__(
        self,
        model: CodecModel,
        running: Running,
        sample_rate: int,
        channels: int,
        num_codebooks: int,
        block_frames: int | None,
    ) -> None:
        self.sample_rate = sample_rate
        self.channels = channels
        self.num_samples = 0
        self.num_frames = 0
        self._model = model
        self._running = running
        self._num_streams = num_codebooks
        self._resampler = Resampler(sample_rate, model.sample_rate, channels)
        self._streams = [model.stream_encoder(block_frames) for _ in range(channels)]
        self._segment = (block_frames or model.segment_frames) if model.segment_frames else None
        self._native_samples = 0
        self._held = np.zeros((channels, 0), np.float32)
        self.ended = False

    @property
    def segment_frames(self) -> int | None:
        """Length of the segments that were encoded alone; None if there is one whole.

        Known as soon as codes come out.
        """
        more = self._held.shape[1] > 0
        if self._segment is None or self.num_frames + more <= self._segment:
            return None
        return self._segment

    def push(self, samples: npt.ArrayLike) -> Codes:
        """Take the next samples.

        Args:
            samples: float ``(N,)`` or ``(C, N)`` in [-1, 1], any number of them.

        Returns:
            int32 ``(C, K, F)``, the codes now known.

        Raises:
            AudioError: wrong type or shape, samples that are not finite, or the stream has ended.
        """
        if self.ended:
            raise AudioError("the stream has ended; begin another one")
        wave = as_channels(samples)
        if wave.shape[0] != self.channels:
            raise AudioError(f"{wave.shape[0]} channels, but the stream has {self.channels}")
        check_finite(wave, "samples", self.num_samples)
        self.num_samples += wave.shape[1]
        return self._encode(self._resampler.push(wave))

    def flush(self) -> Codes:
        """End the signal, filled up to whole frames with zeros; return the codes that are left."""
        self.ended = True
        rest = self._resampler.flush()
        known = self._native_samples + self._held.shape[1] + rest.shape[1]
        frames = frames_for(self._model, known, self._segment)
        filled = np.pad(rest, ((0, 0), (0, frames * self._model.hop_length - known)))
        wave = np.concatenate([self._held, filled], axis=1)
        self._held = self._held[:, :0]
        return self._run(wave, last=True)

    def _encode(self, wave: Samples) -> Codes:
        if self._segment is not None:
            # One sample stays behind, so that a segment is coded only when it is not the last one
            # or known to be: whether there are segments at all stands before the first code.
            wave = np.concatenate([self._held, wave], axis=1)
            self._held = wave[:, max(0, wave.shape[1] - 1) :]
            wave = wave[:, : wave.shape[1] - self._held.shape[1]]
        return self._run(wave, last=False)

    def _run(self, wave: Samples, last: bool) -> Codes:
        self._native_samples += wave.shape[1]
        rows = []
        with self._running():
            for stream, row in zip(self._streams, wave, strict=True):
                samples = torch.from_numpy(np.ascontiguousarray(row)).to(self._model.device)
                codes = stream.push(samples.view(1, 1, -1))
                if last:
                    codes = torch.cat([codes, stream.flush()], dim=-1)
                rows.append(codes[0, : self._num_streams].to("cpu", torch.int32).numpy())
        self.num_frames += rows[0].shape[1]
        return np.stack(rows)


class OutputResampler:
    """Brings decoded samples to the rate and length that are wanted, piece by piece.

    Args:
        rate: of the samples that come, in Hz.
        new_rate: of those that leave.
        channels: number of channels C.
        skip: samples to drop before the first one that is resampled.
        new_skip: samples to drop after that.
        length: samples per channel to give out in all; None if that is told at the end.
        waiting: samples that are held back until more come or the length is known.
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
        waiting: int = 0,
    ) -> None:
        self.given = 0
        self._resampler = Resampler(rate, new_rate, channels)
        self._skip, self._new_skip = skip, new_skip
        self._length = length
        self._waiting = 0 if length is not None else waiting
        self._held = np.zeros((channels, 0), np.float32)

    def push(self, wave: Samples) -> Samples:
        """Take samples ``(C, N)``; return those that are ready."""
        wave = self._after_skip(wave)
        if self._waiting:
            wave = np.concatenate([self._held, wave], axis=1)
            known = max(0, wave.shape[1] - self._waiting)
            self._held, wave = wave[:, known:], wave[:, :known]
        return self._give(self._resampler.push(wave))

    def flush(self, length: int | None = None) -> Samples:
        """End the signal; return what is left of it, filled up with zeros if it is too short.

        Args:
            length: as for the constructor; where both know it, the shorter one holds.
        """
        if length is not None:
            self._length = length if self._length is None else min(length, self._length)
        wave = np.concatenate([self._resampler.push(self._held), self._resampler.flush()], axis=1)
        wave = self._give(wave)
        if self._length is not None and self.given < self._length:
            missing = self._length - self.given
            self.given += missing
            wave = np.pad(wave, ((0, 0), (0, missing)))
        return wave

    def _after_skip(self, wave: Samples) -> Samples:
        dropped = min(self._skip, wave.shape[1])
        self._skip -= dropped
        return wave[:, dropped:]

    def _give(self, wave: Samples) -> Samples:
        dropped = min(self._new_skip, wave.shape[1])
        self._new_skip -= dropped
        wave = wave[:, dropped:]
        if self._length is not None:
            wave = wave[:, : max(0, self._length - self.given)]
        self.given += wave.shape[1]
        return wave


class ModelDecoder:
    """Codes in, audio at the model's rate out.

    Args:
        model: what decodes.
        running: a context in which it may run.
        channels: number of channels C.
        block_frames: see `Codec.stream_decoder`.
    """

    def __init__(
        self, model: CodecModel, running: Running, channels: int, block_frames: int | None
    ) -> None:
        self._model = model
        self._running = running
        self._streams = [model.stream_decoder(block_frames) for _ in range(channels)]

    def push(self, codes: npt.NDArray[np.integer]) -> Samples:
        """Take codes ``(C, K', F)``; return the samples ``(C, N)`` now known.

        Raises:
            DamagedError: a code is larger than its codebook.
        """
        check_range(self._model, codes)
        with self._running():
            rows = torch.from_numpy(codes.astype(np.int64)).to(self._model.device)
            pairs = zip(self._streams, rows, strict=True)
            return np.stack([_samples(stream.push(row[None])) for stream, row in pairs])

    def flush(self) -> Samples:
        """End the signal; return the samples that are left."""
        with self._running():
            return np.stack([_samples(stream.flush()) for stream in self._streams])


class StreamDecoder:
    """Codes in, audio of any rate out.

    Args:
        model: what decodes.
        running: a context in which it may run.
        sample_rate: of the audio, in Hz.
        channels: number of channels C.
        num_samples: samples per channel in all; None if that is told at the end. Then the samples
            of the last frames, which may be filling, wait until more codes come.
        block_frames: frames worked on at once, for models with segments their length; see
            `Codec.stream_decoder`.
    """

    def __init__(
        self,
        model: CodecModel,
        running: Running,
        sample_rate: int,
        channels: int,
        num_samples: int | None,
        block_frames: int | None,
    ) -> None:
        self.sample_rate = sample_rate
        self.channels = channels
        self._native = ModelDecoder(model, running, channels, block_frames)
        self._outlet = OutputResampler(
            model.sample_rate,
            sample_rate,
            channels,
            length=num_samples,
            waiting=filling_samples(model),
        )

    def push(self, codes: npt.NDArray[np.integer]) -> Samples:
        """Take the next codes, ``(C, K', F)`` with K' <= K; return samples ``(C, N)`` now known.

        Raises:
            DamagedError: a code is larger than its codebook.
        """
        return self._outlet.push(self._native.push(codes))

    def flush(self, num_samples: int | None = None) -> Samples:
        """End the signal; return the samples that are left.

        Args:
            num_samples: samples per channel in all, where the stream was not begun with it; None
                takes what the frames hold.
        """
        rest = self._outlet.push(self._native.flush())
        return np.concatenate([rest, self._outlet.flush(num_samples)], axis=1)


def filling_samples(model: CodecModel) -> int:
    """Most samples at the end of a signal that are there only to fill its last frames."""
    return model.num_frames(1) * model.hop_length if model.segment_frames is None else 0


def check_range(model: CodecModel, codes: npt.NDArray[np.integer]) -> None:
    """Refuse ``(C, K', F)`` codes that the codebooks do not have.

    Raises:
        DamagedError: a code is larger than its codebook.
    """
    for stream, size in enumerate(model.codebook_sizes[: codes.shape[1]]):
        largest = int(codes[:, stream].max(initial=0))
        if largest >= size:
            raise DamagedError(
                f"stream {stream} holds code {largest}, but the codebook has {size} entries"
            )


def _samples(wave: torch.Tensor) -> npt.NDArray[np.float32]:
    samples: npt.NDArray[np.float32] = wave[0, 0].float().cpu().numpy()
    return samples
