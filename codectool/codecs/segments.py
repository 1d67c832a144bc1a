"""Segments: frame ranges that a model without memory encodes independently."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from codectool.codecs.base import CodecModel, Step, Stream


def split_segments(
    frames: int, segment_frames: int | None, min_frames: int = 1
) -> list[tuple[int, int]]:
    """Return the first frame of each segment and one past its last.

    >>> split_segments(25, 10)
    [(0, 10), (10, 20), (20, 25)]
    >>> split_segments(21, 10, min_frames=7)
    [(0, 10), (10, 20), (20, 27)]
    >>> split_segments(21, None)
    [(0, 21)]

    ``segment_frames`` None stands for a single segment; the last one has at least ``min_frames``.
    """
    step = segment_frames or max(1, frames)
    return [
        (first, max(min(first + step, frames), first + min_frames))
        for first in range(0, frames, step)
    ]


def encode_segments(
    model: CodecModel,
    waves: Sequence[Tensor],
    segment_frames: int | None,
    *,
    latents: bool = False,
) -> list[Tensor]:
    """Encode signals segment by segment, all segments in one batch.

    Args:
        model: the codec.
        waves: ``(1, N)`` each. An incomplete hop at the end is dropped; a segment shorter than
            ``model.min_frames`` is padded with zeros.
        segment_frames: frames per segment; None for one segment per signal.
        latents: return latents instead of codes.

    Returns:
        int64 ``(K, F)`` for each signal, F being ``N // hop_length``; latents are float32 ``(D, F)``.
    """
    hop = model.hop_length
    lengths = [wave.shape[-1] // hop for wave in waves]
    segments = [split_segments(length, segment_frames, model.min_frames) for length in lengths]
    batch = [
        F.pad(wave[:, first * hop : last * hop], (0, max(0, last * hop - wave.shape[-1])))
        for wave, ranges in zip(waves, segments, strict=True)
        for first, last in ranges
    ]
    encode, empty = (model.latents, model.no_latents) if latents else (model.encode, model.no_codes)
    encoded = iter(encode(batch) if batch else [])
    return [
        torch.cat([empty[0], *(next(encoded) for _ in ranges)], dim=-1)[:, :length]
        for ranges, length in zip(segments, lengths, strict=True)
    ]


def decode_segments(
    model: CodecModel, codes: Sequence[Tensor], segment_frames: Sequence[int | None]
) -> list[Tensor]:
    """Decode signals segment by segment, all segments in one batch.

    Args:
        model: the codec.
        codes: int64 ``(K', F)`` each. The last frame of a segment shorter than
            ``model.min_frames`` is repeated.
        segment_frames: frames per segment of each signal; None for one segment.

    Returns:
        float32 ``(1, F * hop_length)`` for each signal.
    """
    lengths = [item.shape[-1] for item in codes]
    segments = [
        split_segments(length, frames, model.min_frames)
        for length, frames in zip(lengths, segment_frames, strict=True)
    ]
    batch = [
        item[:, torch.arange(first, last, device=item.device).clamp(max=length - 1)]
        for item, ranges, length in zip(codes, segments, lengths, strict=True)
        for first, last in ranges
    ]
    decoded = iter(model.decode(batch) if batch else [])
    signals = [
        torch.cat([model.no_samples[0], *(next(decoded) for _ in ranges)], dim=-1)
        for ranges in segments
    ]
    return [
        wave[:, : length * model.hop_length] for wave, length in zip(signals, lengths, strict=True)
    ]


def segment_encoder(model: CodecModel, frames: int, latents: bool = False) -> Stream[None]:
    """Return a stream that encodes segments of ``frames`` frames independently."""
    empty = model.no_latents if latents else model.no_codes
    make_step = partial(_segment_encoder_step, model, latents)
    return Stream(make_step, None, frames * model.hop_length, empty)


def _segment_encoder_step(model: CodecModel, latents: bool) -> Step[None]:
    def step(wave: Tensor, state: None, last: bool) -> tuple[Tensor, None]:
        return encode_segments(model, [wave[0]], None, latents=latents)[0][None], None

    return step


def segment_decoder(model: CodecModel, frames: int) -> Stream[None]:
    """Return a stream that decodes segments of ``frames`` frames independently."""
    return Stream(partial(_segment_decoder_step, model), None, frames, model.no_samples)


def _segment_decoder_step(model: CodecModel) -> Step[None]:
    def step(codes: Tensor, state: None, last: bool) -> tuple[Tensor, None]:
        return decode_segments(model, [codes[0]], [None])[0][None], None

    return step
