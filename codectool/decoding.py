"""An open `.hcd` file and a codec to audio: whole, or a stretch of it, or around damage.

Letters used in shapes: C channels, K streams, F frames, N samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from codectool.audio.resample import margin_samples, resample
from codectool.codec import Codec, fit
from codectool.container import Block, Header, Reader
from codectool.errors import UsageError

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Decoded:
    """Audio and what had to be concealed to get it.

    Attributes:
        samples: float32 ``(C, N)``.
        sample_rate: in Hz.
        damage: one sentence for each damaged block or missing end; empty if all is well.
    """

    samples: Samples
    sample_rate: int
    damage: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Frames:
    """Codes ``(C, K, F)`` of a run of frames; damaged ones hold what stood before them."""

    first: int
    codes: npt.NDArray[np.int32]
    damaged: tuple[tuple[int, int], ...]
    errors: tuple[str, ...]


def decode_reader(
    codec: Codec,
    reader: Reader,
    start_seconds: float = 0.0,
    seconds: float | None = None,
    *,
    native_rate: bool = False,
    force: bool = False,
) -> Decoded:
    """Decode what a reader reads.

    A stretch costs what it holds: only the blocks with its frames, and those around it that the
    model needs, are read. Where a block is damaged (``Reader(..., damaged="keep")``) the result is
    silent; where the file is cut off the result ends.

    Args:
        codec: holds the weights that the file names.
        reader: freshly opened.
        start_seconds: where the stretch begins.
        seconds: how long it is; None, or more than there is, means up to the end.
        native_rate: leave the audio at the model's own sampling rate.
        force: decode tokens of other weights, too.

    Raises:
        FingerprintError: the file was made with other weights.
        ContainerError: the file is damaged, and the reader does not keep damaged blocks.
        UsageError: the stretch begins behind the end.
    """
    header = reader.header
    codec.check_made_by(header.layout, header.fingerprint, force)
    whole = start_seconds == 0 and seconds is None
    if not whole and reader.file_size is not None:
        reader.scan()
        start, stop = _stretch(reader, start_seconds, seconds)
        total = cast(int, reader.num_frames)
        frames = _gather(reader, *_needed(codec, header, start, stop, total))
    else:  # all of it, or a pipe, which cannot be searched
        frames = _gather(reader, 0, None)
        start, stop = _stretch(reader, start_seconds, seconds)
    wave = codec.decode_frames(frames.codes, header.segment_frames)
    rate = codec.sample_rate if native_rate else header.sample_rate
    if native_rate:
        start = start * rate // header.sample_rate
        stop = header.layout.model_samples(stop, header.sample_rate)
    samples = _cut(wave, frames.first * codec.hop_length, codec.sample_rate, rate, start, stop)
    for first, last in frames.damaged:
        _silence(samples, start, first * codec.hop_length, last * codec.hop_length, codec, rate)
    problems = [str(problem) for problem in reader.problems]
    return Decoded(samples, rate, (*frames.errors, *problems))


def _stretch(reader: Reader, start_seconds: float, seconds: float | None) -> tuple[int, int]:
    """First sample, and one past the last, at the input's rate."""
    rate, length = reader.header.sample_rate, cast(int, reader.num_samples)
    start = round(start_seconds * rate)
    if start > length or (start == length and length and start_seconds):
        raise UsageError(f"--start {start_seconds:g}: the audio ends at {length / rate:g} s")
    stop = length if seconds is None else min(length, start + round(seconds * rate))
    return start, stop


def _needed(codec: Codec, header: Header, start: int, stop: int, total: int) -> tuple[int, int]:
    """First frame, and one past the last, that samples ``start..stop`` depend on."""
    rate, hop = codec.sample_rate, codec.hop_length
    margin = margin_samples(rate, header.sample_rate)
    first = (start * rate // header.sample_rate - margin) // hop
    last = -(-(header.layout.model_samples(stop, header.sample_rate) + margin) // hop)
    context = codec.model.decode_context
    if context.before is None or context.after is None:  # whole segments
        segment = header.segment_frames or max(total, 1)
        first, last = first // segment * segment, -(-last // segment) * segment
    else:
        first, last = first - context.before, last + context.after
    return max(0, first), max(0, min(last, total))


def _gather(reader: Reader, first: int, last: int | None) -> _Frames:
    """Read frames ``first..last``; None is the end."""
    size = reader.header.block_frames
    begin = first // size * size
    frames = _fill(reader.blocks(first, last), begin, reader.header)
    stop = None if last is None else last - begin
    return _Frames(
        first=first,
        codes=frames.codes[:, :, first - begin : stop],
        damaged=frames.damaged,
        errors=frames.errors,
    )


def _fill(blocks: Iterable[Block], begin: int, header: Header) -> _Frames:
    """Put blocks together; a damaged one repeats the frame before it.

    Its own audio will be silent. What it holds matters only to the neighbours, whose first and
    last samples depend on frames in it: a held frame disturbs them less than a random one.
    """
    parts = [np.zeros((header.channels, header.layout.num_streams, 0), np.int32)]
    damaged, errors = [], []
    for block in blocks:
        codes = block.codes
        if codes is None:
            damaged.append((block.first_frame, block.first_frame + block.num_frames))
            errors.append(str(block.error))
            held = parts[-1][:, :, -1:]
            if not held.shape[2]:
                held = np.zeros((*held.shape[:2], 1), np.int32)
            codes = np.repeat(held, block.num_frames, axis=2)
        parts.append(codes)
    return _Frames(begin, np.concatenate(parts, axis=2), tuple(damaged), tuple(errors))


def _cut(wave: Samples, offset: int, rate: int, new_rate: int, start: int, stop: int) -> Samples:
    """Samples ``start..stop`` at ``new_rate`` of a wave that begins at sample ``offset``.

    Only every ``rate / gcd``-th sample of one grid falls on the other one. The wave is cut at such
    a sample, so that a stretch is resampled as it would be within the whole.
    """
    common = math.gcd(rate, new_rate)
    step, new_step = rate // common, new_rate // common
    aligned = -(-offset // step)
    resampled = resample(wave[:, aligned * step - offset :], rate, new_rate)
    skip = max(0, start - aligned * new_step)
    return fit(resampled[:, skip:], stop - start)


def _silence(samples: Samples, start: int, first: int, last: int, codec: Codec, rate: int) -> None:
    """Silence the stretch that was samples ``first..last`` at the model's rate."""
    begin = first * rate // codec.sample_rate - start
    end = -(-last * rate // codec.sample_rate) - start
    samples[:, max(0, begin) : max(0, end)] = 0.0
