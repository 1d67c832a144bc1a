"""The waist of codectool: samples of any rate and channel count to `Tokens`, and back.

    tokens = codec.encode(samples, sample_rate)
    audio = codec.decode(tokens)

Letters used in shapes: C channels, K codebooks, F frames, N samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from codectool.audio.samples import as_channels, check_finite, resample
from codectool.checkpoints.load import LoadedModel
from codectool.codecs.base import CodecModel
from codectool.errors import (
    AudioError,
    FingerprintError,
    UsageError,
)
from codectool.streaming import StreamDecoder, StreamEncoder, check_range, frames_for
from codectool.tokens import TokenLayout, Tokens, check_sample_rate

Samples = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]
Padding = Literal["lossless", "reference"]

MIN_INPUT_RATE = 1000  # in Hz; below it a small file would grow large by resampling

PRECISIONS: dict[str, torch.dtype | None] = {
    "fp32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True, eq=False)
class Clip:
    """Audio that is ready to be encoded.

    Attributes:
        native: float32 ``(C, N)`` at the model's rate.
        frames: frames that it makes.
        sample_rate: rate in Hz that it came with.
        num_samples: its samples per channel at that rate.
        tags: text to go with the tokens.
    """

    native: Samples
    frames: int
    sample_rate: int
    num_samples: int
    tags: Mapping[str, str]

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate


class Codec:
    """A model with its weights, on a device: what encodes and decodes audio.

    Attributes:
        model: the network.
        layout: what its tokens look like.
        fingerprint: eight hexadecimal digits naming the weights.
        checkpoint: where they came from.
        device: where the network runs.
        padding: what happens at the ends of a file; see `load`.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        device: torch.device,
        precision: str = "fp32",
        padding: Padding = "lossless",
        quantizers: int | None = None,
    ):
        if precision not in PRECISIONS:
            raise UsageError(f"no precision is called `{precision}`; use {', '.join(PRECISIONS)}")
        if padding not in ("lossless", "reference"):
            raise UsageError(f"no padding is called `{padding}`; use lossless or reference")
        self.model: CodecModel = loaded.model.to(device).eval()
        self.fingerprint = loaded.fingerprint
        self.checkpoint = loaded.path
        self.device = device
        self.padding = padding
        self.precision = precision
        self.layout = _layout(self.model, quantizers)

    @property
    def sample_rate(self) -> int:
        """Sampling rate of the model in Hz."""
        return self.layout.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples per frame at the model's rate."""
        return self.layout.hop_length

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.layout.frame_rate

    @property
    def bits_per_frame(self) -> int:
        """Bits of one frame of one channel."""
        return self.layout.bits_per_frame

    def encode(
        self, samples: npt.ArrayLike, sample_rate: int, tags: Mapping[str, str] | None = None
    ) -> Tokens:
        """Encode audio of any rate and channel count; each channel is encoded alone.

        Args:
            samples: float ``(N,)`` or ``(C, N)`` in [-1, 1]; an array, or a tensor on any device.
            sample_rate: its sampling rate in Hz.
            tags: text to go with the tokens.

        Returns:
            Tokens with codes ``(C, K, F)``.

        Raises:
            AudioError: wrong type or shape, or samples that are not finite.
            TokensError: the sampling rate is no integer in 1..10,000,000, or a tag is no text.
        """
        return self.encode_clips([self.prepare(samples, sample_rate, tags)])[0]

    def prepare(
        self, samples: npt.ArrayLike, sample_rate: int, tags: Mapping[str, str] | None = None
    ) -> Clip:
        """Check audio and bring it to the model's rate: what can be done beside the model.

        Takes what `encode` takes and raises what it raises; touches no weights.
        """
        wave = _as_channels(samples)
        self.check_rate(sample_rate)
        native = resample(wave, sample_rate, self.sample_rate)
        frames = self._num_frames(native.shape[1])
        return Clip(native, frames, sample_rate, wave.shape[1], dict(tags or {}))

    def encode_clips(self, clips: Sequence[Clip]) -> list[Tokens]:
        """Encode several clips at once; each gets the tokens that it gets alone.

        Memory grows with the sum of their lengths.
        """
        limits = [self._segment_frames(clip.frames) for clip in clips]
        pieces = [
            [self._piece(row, first, last) for first, last in _segments(clip.frames, limit)]
            for clip, limit in zip(clips, limits, strict=True)
            for row in clip.native
        ]
        rows = iter(self._encode_pieces(pieces))
        return [
            self._tokens(clip, limit, np.stack([next(rows) for _ in clip.native]))
            for clip, limit in zip(clips, limits, strict=True)
        ]

    def decode(self, tokens: Tokens, *, native_rate: bool = False, force: bool = False) -> Samples:
        """Decode tokens to audio of the length and rate that was encoded.

        Args:
            tokens: made with these weights.
            native_rate: leave the audio at the model's own sampling rate.
            force: decode tokens of other weights, too; what comes out is anyone's guess.

        Returns:
            float32 ``(C, N)``.

        Raises:
            FingerprintError: the tokens were made with other weights.
            DamagedError: a code is larger than its codebook.
        """
        self.check_made_by(tokens.layout, tokens.fingerprint, force)
        return self.finish(tokens, self.decode_clips([tokens])[0], native_rate=native_rate)

    def decode_clips(self, clips: Sequence[Tokens]) -> list[Samples]:
        """Decode several clips at once, at the model's rate; each gets the audio it gets alone.

        Memory grows with the sum of their lengths.

        Returns:
            float32 ``(C, F * hop_length)`` for each.

        Raises:
            DamagedError: a code is larger than its codebook.
        """
        pieces = []
        for clip in clips:
            check_range(self.model, clip.codes)
            spans = _segments(clip.num_frames, clip.segment_frames)
            pieces += [[row[:, first:last] for first, last in spans] for row in clip.codes]
        rows = iter(self._decode_pieces(pieces))
        return [np.stack([next(rows) for _ in clip.codes]) for clip in clips]

    def finish(self, tokens: Tokens, wave: Samples, *, native_rate: bool = False) -> Samples:
        """Bring decoded audio to the rate and length of its tokens, beside the model.

        Args:
            tokens: what was decoded.
            wave: ``(C, F * hop_length)``, as `decode_clips` gives it.
            native_rate: leave it at the model's own sampling rate.
        """
        rate, length = tokens.sample_rate, tokens.num_samples
        if native_rate:
            rate, length = self.sample_rate, self.layout.model_samples(length, rate)
        return fit(resample(wave, self.sample_rate, rate), length)

    def label(
        self,
        codes: Codes,
        sample_rate: int,
        num_samples: int,
        segment_frames: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Tokens:
        """Put codes ``(C, K, F)`` that these weights have made together with what decoding needs.

        Args:
            codes: of a whole signal.
            sample_rate: of the audio, in Hz.
            num_samples: its samples per channel.
            segment_frames: length of the segments that were encoded alone; None for one whole.
            tags: text to go with the tokens.
        """
        return Tokens(
            codes=codes,
            layout=self.layout,
            fingerprint=self.fingerprint,
            sample_rate=sample_rate,
            num_samples=num_samples,
            segment_frames=segment_frames,
            tags=dict(tags or {}),
        )

    def check_rate(self, sample_rate: int) -> None:
        """Refuse a sampling rate in Hz that audio to be encoded cannot have.

        Raises:
            AudioError: it cannot carry speech.
            TokensError: it is no integer in 1..10,000,000.
        """
        check_sample_rate(sample_rate)
        if sample_rate < MIN_INPUT_RATE:
            raise AudioError(f"a sampling rate of {sample_rate} Hz cannot carry speech")

    def check_made_by(self, layout: TokenLayout, fingerprint: str, force: bool = False) -> None:
        """Refuse tokens of another model, and of other weights unless forced.

        Raises:
            FingerprintError: they are.
        """
        mine = self.layout
        same_kind = (layout.family, layout.sample_rate, layout.hop_length) == (
            mine.family,
            mine.sample_rate,
            mine.hop_length,
        )
        all_bits = bits_per_codebook(self.model)
        if not same_kind or layout.bits_per_codebook != all_bits[: layout.num_codebooks]:
            raise FingerprintError(
                f"the tokens are {describe(layout)}; this checkpoint decodes "
                f"{describe(dataclasses.replace(mine, bits_per_codebook=all_bits))}"
            )
        if fingerprint != self.fingerprint and not force:
            raise FingerprintError(
                f"the tokens were made with weights {fingerprint}, but {self.checkpoint} holds "
                f"{self.fingerprint}; give the right one with `--checkpoint`, "
                "or decode all the same with `--force`"
            )

    def stream_encoder(
        self, sample_rate: int | None = None, channels: int = 1, *, block_frames: int | None = None
    ) -> StreamEncoder:
        """Begin to encode audio that comes in pieces, with ``push(samples)`` and ``flush()``.

        Args:
            sample_rate: of the audio, in Hz; None is the model's own.
            channels: number of channels; each is encoded alone.
            block_frames: frames worked on at once; None takes as many as `encode` does, and the
                codes are bit for bit the same. Fewer come out sooner (1: as soon as the model
                allows), and where two codewords are equally near within rounding the other one may
                be chosen. SuperCodec encodes segments of this length, a minute by default; their
                length is part of what the codes mean.

        Raises:
            AudioError: the rate cannot carry speech.
            UsageError: padding `reference`, which wants the whole signal.
        """
        rate = self.sample_rate if sample_rate is None else sample_rate
        self.check_rate(rate)
        if self.padding == "reference":
            raise UsageError(
                "padding `reference` takes whole files; a stream has padding `lossless`"
            )
        return StreamEncoder(
            self.model, self.running, rate, channels, self.layout.num_codebooks, block_frames
        )

    def stream_decoder(
        self,
        sample_rate: int | None = None,
        channels: int = 1,
        *,
        num_samples: int | None = None,
        block_frames: int | None = None,
    ) -> StreamDecoder:
        """Begin to decode codes that come in pieces, with ``push(codes)`` and ``flush()``.

        Args:
            sample_rate: of the audio that is wanted, in Hz; None is the model's own.
            channels: number of channels.
            num_samples: samples per channel that there are in all; None if that is told to
                `flush`, or nobody knows.
            block_frames: as for the encoder; where codes have segments this is their length.
        """
        rate = self.sample_rate if sample_rate is None else sample_rate
        check_sample_rate(rate)
        return StreamDecoder(self.model, self.running, rate, channels, num_samples, block_frames)

    # How many frames

    def _num_frames(self, num_samples: int) -> int:
        if self.padding == "lossless":
            return frames_for(self.model, num_samples, self.model.segment_frames)
        frames = self.model.reference_frames(num_samples)
        if frames < self.model.min_frames:
            raise AudioError(
                f"{num_samples} samples at {self.sample_rate} Hz are too few for the published "
                f"script of {self.layout.family}, which needs "
                f"{self.model.min_frames * self.hop_length}; padding `lossless` takes any length"
            )
        return frames

    def _segment_frames(self, frames: int) -> int | None:
        limit = self.model.segment_frames
        if self.padding == "reference" or limit is None or frames <= limit:
            return None
        return limit

    def _tokens(self, clip: Clip, segment_frames: int | None, codes: Codes) -> Tokens:
        num_samples = clip.num_samples
        if self.padding == "reference":
            num_samples = clip.frames * self.hop_length * clip.sample_rate // self.sample_rate
        return self.label(codes, clip.sample_rate, num_samples, segment_frames, clip.tags)

    # Rows (channels of clips), each of which is a list of segments

    def _piece(self, wave: Samples, first: int, last: int) -> torch.Tensor:
        """Samples of frames ``first..last``, filled up with zeros, ``(1, N)``."""
        hop = self.hop_length
        padded = torch.zeros(1, (last - first) * hop)
        piece = torch.from_numpy(wave[first * hop : last * hop])
        padded[0, : len(piece)] = piece
        return padded

    def _encode_pieces(self, rows: Sequence[Sequence[torch.Tensor]]) -> list[Codes]:
        with self.running():
            waves = [piece.to(self.device) for row in rows for piece in row]
            codes = iter(self.model.encode(waves) if waves else [])
        streams = self.layout.num_codebooks
        empty = np.zeros((streams, 0), np.int32)
        return [
            np.concatenate(
                [empty, *(next(codes)[:streams].to("cpu", torch.int32).numpy() for _ in row)], 1
            )
            for row in rows
        ]

    def _decode_pieces(self, rows: Sequence[Sequence[Codes]]) -> list[Samples]:
        with self.running():
            codes = [self._filled(piece) for row in rows for piece in row]
            waves = iter(self.model.decode(codes) if codes else [])
        empty = np.zeros(0, np.float32)
        return [
            np.concatenate(
                [
                    empty,
                    *(
                        next(waves)[0, : piece.shape[1] * self.hop_length].float().cpu().numpy()
                        for piece in row
                    ),
                ]
            )
            for row in rows
        ]

    def _filled(self, codes: Codes) -> torch.Tensor:
        """Codes of one segment as the model wants them.

        Fewer frames than it can decode are not ours, but a published script makes them.
        """
        missing = max(0, self.model.min_frames - codes.shape[1])
        padded = np.pad(codes.astype(np.int64), ((0, 0), (0, missing)), mode="edge")
        return torch.from_numpy(padded).to(self.device)

    @contextmanager
    def running(self) -> Iterator[None]:
        """What holds while the model runs: no gradients, and the precision that was asked for."""
        dtype = PRECISIONS[self.precision]
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if dtype is not None:
                stack.enter_context(torch.autocast(self.device.type, dtype))
            elif self.device.type == "cuda":
                # Convolutions there round to TF32 unless told otherwise, which changes tokens.
                stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
            yield


def bits_per_codebook(model: CodecModel) -> tuple[int, ...]:
    """Bits that a token of each stream takes."""
    return tuple(max(1, (size - 1).bit_length()) for size in model.codebook_sizes)


def describe(layout: TokenLayout) -> str:
    """One phrase: ``bigcodec at 16000 Hz, hop 200, 13 bits per frame``."""
    return (
        f"{layout.family} at {layout.sample_rate} Hz, hop {layout.hop_length}, "
        f"{'+'.join(map(str, layout.bits_per_codebook))} bits per frame"
    )


def _layout(model: CodecModel, quantizers: int | None) -> TokenLayout:
    bits = bits_per_codebook(model)
    if quantizers is not None and quantizers not in range(1, len(bits) + 1):
        raise UsageError(f"{quantizers} quantizers: this {model.family} model has 1 to {len(bits)}")
    return TokenLayout(model.family, model.sample_rate, model.hop_length, bits[:quantizers])


def _as_channels(samples: npt.ArrayLike) -> Samples:
    if isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu().float().numpy()
    wave = as_channels(samples)
    check_finite(wave, "samples")
    return wave


def _segments(frames: int, limit: int | None) -> list[tuple[int, int]]:
    """First frame of each segment, and one past its last."""
    step = limit or max(frames, 1)
    return [(first, min(first + step, frames)) for first in range(0, frames, step)]


def fit(wave: Samples, length: int) -> Samples:
    """Cut ``(C, N)`` to ``(C, length)``, or fill it up with zeros."""
    missing = max(0, length - wave.shape[1])
    return np.ascontiguousarray(np.pad(wave[:, :length], ((0, 0), (0, missing))))
