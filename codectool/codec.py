"""`Codec`: audio of any sampling rate and channel count to `Tokens`, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from codectool.audio.loudness import amplify, find_gain
from codectool.audio.samples import LevelCheck, Samples, as_channels, resample
from codectool.codecs.properties import ModelProperties
from codectool.deprecation import renamed_keywords, warn_renamed
from codectool.errors import AudioError, FingerprintError, UsageError
from codectool.runner import Codes, Features, Runner
from codectool.segments import decode_segments, encode_segments, pad_or_trim
from codectool.streaming import (
    OutputResampler,
    Padding,
    StreamDecoder,
    StreamEncoder,
    check_codebooks,
    max_padding,
    padded_frames,
    warn_caller,
)
from codectool.tokens import MAX_SAMPLE_RATE, TokenLayout, Tokens, check_integer

MIN_INPUT_RATE = 1000  # in Hz; from a lower rate a small file would become large by resampling


@dataclass(frozen=True, eq=False)
class PreparedClip:
    """Audio that is ready for the model.

    Attributes:
        samples: float32 ``(C, F * hop_length)`` at the model's rate.
        sample_rate: sampling rate of the input in Hz.
        num_samples: samples per channel at that rate that decoding returns.
        tags: text metadata.
        gain_db: gain that was applied to the samples.
    """

    samples: Samples
    sample_rate: int
    num_samples: int
    tags: Mapping[str, str]
    gain_db: float = 0.0

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate


class Codec:
    """A codec model with its weights on a device.

    Args:
        runner: runs the model; see `codectool.loading.load`.
        fingerprint: of the weights.
        checkpoint: path of the weights.
        padding: how signals are extended to whole frames; see `codectool.loading.load`.
        codebooks: encode with only the first N codebooks; None for all.
        converted_from: fingerprints of weights from which these were converted.
        token_fingerprint: of the parts that make tokens; None for ``fingerprint``.
        same_tokens_as: other fingerprints whose tokens mean the same.

    Attributes:
        runner: runs the model on NumPy arrays, in PyTorch or in ONNX Runtime.
        model: properties of the model; with PyTorch the network itself.
        layout: shape of its tokens.
        fingerprint: eight hexadecimal digits that name all weights.
        token_fingerprint: eight hexadecimal digits that name the parts that make tokens. It is the
            fingerprint of the tokens.
        same_tokens_as: all fingerprints of tokens that this codec decodes.
        checkpoint: path of the weights.
        converted_from: fingerprints of tokens of weights from which these were converted with less
            precision.
        padding: how signals are extended to whole frames; see `codectool.loading.load`.
    """

    def __init__(
        self,
        runner: Runner,
        fingerprint: str,
        checkpoint: Path,
        padding: Padding = "lossless",
        codebooks: int | None = None,
        converted_from: Iterable[str] = (),
        token_fingerprint: str | None = None,
        same_tokens_as: Iterable[str] = (),
    ):
        if padding not in ("lossless", "reference"):
            raise UsageError(f"no padding is called `{padding}`; use lossless or reference")
        self.runner = runner
        self.model: Any = runner.model
        layout = model_layout(self.model)
        if codebooks is not None and codebooks not in range(1, layout.num_codebooks + 1):
            raise UsageError(
                f"{codebooks} codebooks requested, but this {layout.family} model has "
                f"{layout.num_codebooks}"
            )
        self.layout = dataclasses.replace(
            layout, bits_per_codebook=layout.bits_per_codebook[:codebooks]
        )
        self.fingerprint = fingerprint
        self.token_fingerprint = token_fingerprint or fingerprint
        self.same_tokens_as = {fingerprint, self.token_fingerprint, *same_tokens_as}
        self.checkpoint = checkpoint
        self.converted_from = set(converted_from) - self.same_tokens_as
        self.padding = padding

    @property
    def device(self) -> Any:
        """Where the model runs; with PyTorch a `torch.device`."""
        return self.runner.device

    @property
    def precision(self) -> str:
        """Precision of the matrix products, as requested; ``"auto"`` is possible."""
        return self.runner.precision

    @property
    def encode_precision(self) -> str:
        """Precision with which audio is encoded."""
        return self.runner.encode_precision

    @property
    def decode_precision(self) -> str:
        """Precision with which tokens are decoded."""
        return self.runner.decode_precision

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
        """Bits per frame of one channel."""
        return self.layout.bits_per_frame

    @property
    def framing(self) -> str:
        """Old name of `padding`, with its old values."""
        warn_renamed("framing", "padding")
        return "whole" if self.padding == "lossless" else "upstream"

    # Encoding

    def encode(
        self,
        samples: npt.ArrayLike,
        sample_rate: int,
        tags: Mapping[str, str] | None = None,
        *,
        normalize: float | None = None,
    ) -> Tokens:
        """Encode audio of any sampling rate and channel count; channels are independent.

        Args:
            samples: float ``(N,)`` or ``(C, N)`` in [-1, 1]; an array, or a tensor on any device.
                A peak above 1 gives a `CodectoolWarning`, a peak above 4 an error.
            sample_rate: sampling rate of the audio in Hz.
            tags: text metadata to store with the tokens.
            normalize: bring the loudness to this value in LUFS (ITU-R BS.1770-4) with one gain for
                all channels, which `decode` undoes. No sample is made to exceed full scale; what
                is below -70 LUFS keeps its level.

        Returns:
            Tokens with codes ``(C, K, F)``.

        Raises:
            AudioError: wrong type or shape, samples that are not finite or of another scale, or
                too low a rate.
            TokensError: the rate is not an integer in 1..10,000,000, or a tag is not text.
        """
        wave = as_channels(samples)
        if normalize is None:
            return self.encode_chunks([wave], sample_rate, len(wave), tags)
        self.check_rate(sample_rate)
        LevelCheck("samples", warn_caller)(wave)
        gain_db = find_gain(wave, sample_rate, normalize)
        chunks = [amplify(wave, gain_db)]
        return self.encode_chunks(
            chunks, sample_rate, len(wave), tags, checked=True, gain_db=gain_db
        )

    def encode_chunks(
        self,
        chunks: Iterable[npt.ArrayLike],
        sample_rate: int,
        channels: int,
        tags: Mapping[str, str] | None = None,
        *,
        checked: bool = False,
        gain_db: float = 0.0,
    ) -> Tokens:
        """Encode audio given in chunks ``(C, N)``; see `encode`. Only the codes are kept.

        ``checked`` chunks come from an `AudioSource`, which has checked their samples. ``gain_db``
        has been applied to them, and is undone by `decode`.
        """
        encoder = self._encoder(sample_rate, channels, checked=checked)
        codes = [*map(encoder.push, chunks), encoder.flush()]
        return self.make_tokens(
            np.concatenate(codes, axis=2),
            sample_rate,
            encoder.num_samples,
            encoder.segment_frames,
            tags,
            gain_db,
        )

    def prepare(
        self,
        samples: npt.ArrayLike,
        sample_rate: int,
        tags: Mapping[str, str] | None = None,
        *,
        checked: bool = False,
        normalize: float | None = None,
    ) -> PreparedClip:
        """Check audio as `encode` does, convert it to the model's rate and pad it.

        This does not run the model. ``checked`` samples come from an `AudioSource`.
        """
        self.check_rate(sample_rate)
        wave = cast(Samples, samples) if checked else as_channels(samples)
        if not checked:
            LevelCheck("samples", warn_caller)(wave)
        num_samples = wave.shape[1]
        gain_db = 0.0 if normalize is None else find_gain(wave, sample_rate, normalize)
        wave = resample(amplify(wave, gain_db), sample_rate, self.sample_rate)
        frames = padded_frames(self.model, wave.shape[1], self.padding, self._segment_frames)
        if self.padding == "reference":
            num_samples = frames * self.hop_length * sample_rate // self.sample_rate
        wave = pad_or_trim(wave, frames * self.hop_length)
        return PreparedClip(wave, sample_rate, num_samples, dict(tags or {}), gain_db)

    def encode_clips(self, clips: Sequence[PreparedClip]) -> list[Tokens]:
        """Encode several clips as one batch; each gets the tokens that it gets alone.

        Memory grows with the sum of their lengths.
        """
        segment = self._segment_frames
        waves = [row[None] for clip in clips for row in clip.samples]
        rows = iter(encode_segments(self.runner, waves, segment))
        codes = [
            np.stack([next(rows) for _ in clip.samples])[:, : self.layout.num_codebooks]
            for clip in clips
        ]
        return [
            self.make_tokens(
                item,
                clip.sample_rate,
                clip.num_samples,
                None if segment is None or item.shape[-1] <= segment else segment,
                clip.tags,
                clip.gain_db,
            )
            for clip, item in zip(clips, codes, strict=True)
        ]

    def make_tokens(
        self,
        codes: Codes,
        sample_rate: int,
        num_samples: int,
        segment_frames: int | None = None,
        tags: Mapping[str, str] | None = None,
        gain_db: float = 0.0,
    ) -> Tokens:
        """Return codes ``(C, K, F)`` of this codec as `Tokens`."""
        return Tokens(
            codes=codes,
            layout=self.layout,
            fingerprint=self.token_fingerprint,
            sample_rate=sample_rate,
            num_samples=num_samples,
            segment_frames=segment_frames,
            tags=dict(tags or {}),
            gain_db=gain_db,
        )

    # Decoding

    def decode(
        self,
        tokens: Tokens,
        *,
        native_rate: bool = False,
        force: bool = False,
        keep_loudness: bool = False,
    ) -> Samples:
        """Decode tokens to audio of the rate and length that was encoded.

        Args:
            tokens: made with these weights.
            native_rate: return audio at the model's sampling rate instead.
            force: decode even if the tokens were made with different weights (the output is
                meaningless unless the codecs match).
            keep_loudness: do not undo the gain that was applied before encoding.

        Returns:
            float32 ``(C, N)``.

        Raises:
            FingerprintError: the tokens were made with another codec or different weights.
            DamagedError: a code exceeds its codebook.
        """
        self.check_compatible(tokens.layout, tokens.fingerprint, force)
        wave = self.decode_clips([tokens])[0]
        return self.resample_output(
            tokens, wave, native_rate=native_rate, keep_loudness=keep_loudness
        )

    def decode_clips(self, clips: Sequence[Tokens]) -> list[Samples]:
        """Decode several clips as one batch; each gets the audio that it gets alone, to rounding.

        Memory grows with the sum of their lengths.

        Returns:
            float32 ``(C, F * hop_length)`` at the model's rate for each.

        Raises:
            DamagedError: a code exceeds its codebook.
        """
        for clip in clips:
            check_codebooks(self.model, clip.codes)
        segments = [clip.segment_frames for clip in clips for _ in clip.codes]
        codes = [row for clip in clips for row in clip.codes]
        rows = iter(decode_segments(self.runner, codes, segments))
        return [np.concatenate([next(rows) for _ in clip.codes]) for clip in clips]

    def resample_output(
        self,
        tokens: Tokens,
        wave: Samples,
        *,
        native_rate: bool = False,
        keep_loudness: bool = False,
    ) -> Samples:
        """Convert audio from `decode_clips` to the rate and length of its tokens; see `decode`."""
        rate, length = tokens.sample_rate, tokens.num_samples
        if native_rate:
            rate, length = self.sample_rate, self.layout.model_samples(length, rate)
        wave = pad_or_trim(resample(wave, self.sample_rate, rate), length)
        return wave if keep_loudness else amplify(wave, -tokens.gain_db)

    # Streams

    @renamed_keywords(block_frames="chunk_frames")
    def stream_encoder(
        self,
        sample_rate: int | None = None,
        channels: int = 1,
        *,
        chunk_frames: int | None = None,
        checked: bool = False,
    ) -> StreamEncoder:
        """Start to encode audio that arrives in chunks, with ``push(samples)`` and ``flush()``.

        Args:
            sample_rate: sampling rate of the audio in Hz; None for the model's.
            channels: number of channels; each is encoded independently.
            chunk_frames: frames computed at once. None uses the number that `encode` uses, and the
                codes are identical. Smaller chunks reduce the latency (1: as low as the model
                allows); codes may then differ where two codewords are equally near within
                rounding. For SuperCodec this is the length of the segments (default: one minute),
                which changes the codes.
            checked: whether the samples come from an `AudioSource`, which has checked them.

        Raises:
            AudioError: the sampling rate is too low for speech.
            UsageError: the codec has padding `reference`, which needs the whole signal.
        """
        if self.padding == "reference":
            raise UsageError(
                "padding `reference` takes whole files; a stream has padding `lossless`"
            )
        rate = self.sample_rate if sample_rate is None else sample_rate
        return self._encoder(rate, channels, chunk_frames, checked)

    @renamed_keywords(block_frames="chunk_frames")
    def stream_decoder(
        self,
        sample_rate: int | None = None,
        channels: int = 1,
        *,
        num_samples: int | None = None,
        chunk_frames: int | None = None,
    ) -> StreamDecoder:
        """Start to decode codes that arrive in chunks, with ``push(codes)`` and ``flush()``.

        Args:
            sample_rate: output sampling rate in Hz; None for the model's.
            channels: number of channels.
            num_samples: samples per channel in total; None if it is passed to `flush` or unknown.
                The last samples of a stream may be padding and are then returned with a delay.
            chunk_frames: as for `stream_encoder`; for codes with segments, their length.
        """
        rate = self.sample_rate if sample_rate is None else sample_rate
        check_integer("sampling rate in Hz", rate, 1, MAX_SAMPLE_RATE)
        hold = max_padding(self.model) if num_samples is None else 0
        output = OutputResampler(self.sample_rate, rate, channels, length=num_samples, hold=hold)
        return StreamDecoder(self.runner, channels, chunk_frames, output)

    # Features

    def latents(self, samples: npt.ArrayLike, sample_rate: int) -> Features:
        """Return the continuous features of audio, from which `encode` makes its codes.

        They are the input of the quantizer: the last layer of the encoder, for HAC after the
        whitening, so that the sign of each value is a bit.

        Args:
            samples: see `encode`.
            sample_rate: sampling rate of the audio in Hz.

        Returns:
            float32 ``(C, D, F)``, with as many frames as `encode` returns for the same audio.

        Raises:
            AudioError: see `encode`.
        """
        wave = as_channels(samples)
        return self.latents_chunks([wave], sample_rate, len(wave))

    def latents_chunks(
        self, chunks: Iterable[npt.ArrayLike], sample_rate: int, channels: int
    ) -> Features:
        """Return `latents` of audio given in chunks ``(C, N)``; they do not depend on the cuts."""
        encoder = self._encoder(sample_rate, channels, latents=True)
        parts = [*map(encoder.push, chunks), encoder.flush()]
        return cast(Features, np.concatenate(parts, axis=2))

    def embed(self, tokens: Tokens, *, force: bool = False) -> Features:
        """Return the quantized features of tokens, which are the input of the decoder.

        For residual codecs they are the sum over the codebooks that the tokens have, for HAC the
        bits as -1 and +1.

        Args:
            tokens: made with these weights.
            force: as for `decode`.

        Returns:
            float32 ``(C, D, F)``.

        Raises:
            FingerprintError: the tokens were made with another codec or different weights.
            DamagedError: a code exceeds its codebook.
        """
        self.check_compatible(tokens.layout, tokens.fingerprint, force)
        check_codebooks(self.model, tokens.codes)
        return self.runner.embed(tokens.codes)

    def _encoder(
        self,
        sample_rate: int,
        channels: int,
        chunk_frames: int | None = None,
        checked: bool = False,
        latents: bool = False,
    ) -> StreamEncoder:
        self.check_rate(sample_rate)
        return StreamEncoder(
            self.runner,
            sample_rate,
            channels,
            self.layout.num_codebooks,
            chunk_frames,
            self.padding,
            checked,
            latents,
        )

    @property
    def _segment_frames(self) -> int | None:
        return None if self.padding == "reference" else self.model.segment_frames

    # Checks

    def check_rate(self, sample_rate: int) -> None:
        """Raise an `AudioError` or a `TokensError` if this rate in Hz cannot be encoded."""
        check_integer("sampling rate in Hz", sample_rate, 1, MAX_SAMPLE_RATE)
        if sample_rate < MIN_INPUT_RATE:
            raise AudioError(f"a sampling rate of {sample_rate} Hz cannot carry speech")

    def check_compatible(self, layout: TokenLayout, fingerprint: str, force: bool = False) -> None:
        """Raise a `FingerprintError` if this codec cannot decode tokens with this fingerprint.

        ``force`` accepts tokens of different weights of the same model.
        """
        mine = model_layout(self.model)
        first = mine.bits_per_codebook[: layout.num_codebooks]
        if layout != dataclasses.replace(mine, bits_per_codebook=first):
            raise FingerprintError(f"the tokens are {layout}; this checkpoint decodes {mine}")
        if force or fingerprint in self.same_tokens_as:
            return
        if fingerprint in self.converted_from:
            raise FingerprintError(
                f"the tokens were made with weights {fingerprint}, from which {self.checkpoint} "
                "was converted with less precision; decode with nearly the same result with "
                "`--force`, or pass the original weights with `--checkpoint`"
            )
        raise FingerprintError(
            f"the tokens have the fingerprint {fingerprint}, but {self.checkpoint} decodes "
            f"{self.token_fingerprint} (weights {self.fingerprint}); leave out `--checkpoint` and "
            "`--decoder` to search for the right weights, or decode anyway with `--force`"
        )


def model_layout(model: ModelProperties) -> TokenLayout:
    """Return the layout of a model's tokens with all its codebooks."""
    sizes = model.codebook_sizes
    return TokenLayout.of_sizes(model.family, model.sample_rate, model.hop_length, sizes)
