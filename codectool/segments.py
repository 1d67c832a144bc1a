"""Segments: frame ranges that a model without memory encodes independently."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codectool.runner import Codes, Runner, Wave


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
    runner: Runner, waves: Sequence[Wave], segment_frames: int | None
) -> list[Codes]:
    """Encode signals segment by segment, all segments in one batch.

    Args:
        runner: runs the model.
        waves: ``(1, N)`` each. An incomplete hop at the end is dropped; a segment shorter than
            ``model.min_frames`` is padded with zeros.
        segment_frames: frames per segment; None for one segment per signal.

    Returns:
        ``(K, N // hop_length)`` for each signal.
    """
    model = runner.model
    hop = model.hop_length
    lengths = [wave.shape[1] // hop for wave in waves]
    segments = [split_segments(length, segment_frames, model.min_frames) for length in lengths]
    batch = [
        pad_or_trim(wave[:, first * hop :], (last - first) * hop)
        for wave, ranges in zip(waves, segments, strict=True)
        for first, last in ranges
    ]
    encoded = iter(runner.encode(batch) if batch else [])
    none = np.zeros((len(model.codebook_sizes), 0), np.int32)
    return [
        np.concatenate([none, *(next(encoded) for _ in ranges)], axis=1)[:, :length]
        for ranges, length in zip(segments, lengths, strict=True)
    ]


def decode_segments(
    runner: Runner, codes: Sequence[Codes], segment_frames: Sequence[int | None]
) -> list[Wave]:
    """Decode signals segment by segment, all segments in one batch.

    Args:
        runner: runs the model.
        codes: ``(K', F)`` each. The last frame of a segment shorter than ``model.min_frames`` is
            repeated.
        segment_frames: frames per segment of each signal; None for one segment.

    Returns:
        ``(1, F * hop_length)`` for each signal.
    """
    model = runner.model
    lengths = [item.shape[1] for item in codes]
    segments = [
        split_segments(length, frames, model.min_frames)
        for length, frames in zip(lengths, segment_frames, strict=True)
    ]
    batch = [
        item[:, np.arange(first, last).clip(max=length - 1)]
        for item, ranges, length in zip(codes, segments, lengths, strict=True)
        for first, last in ranges
    ]
    decoded = iter(runner.decode(batch) if batch else [])
    none = np.zeros((1, 0), np.float32)
    return [
        np.concatenate([none, *(next(decoded) for _ in ranges)], axis=1)[
            :, : length * model.hop_length
        ]
        for ranges, length in zip(segments, lengths, strict=True)
    ]


def pad_or_trim(wave: Wave, length: int) -> Wave:
    """Return ``(C, N)`` zero-padded or cut to ``(C, length)``."""
    missing = max(0, length - wave.shape[1])
    return np.ascontiguousarray(np.pad(wave[:, :length], ((0, 0), (0, missing))))
