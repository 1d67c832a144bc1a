"""`.hcd` files to audio: whole files, time ranges, and files with damaged blocks.

Audio is returned in chunks while blocks are read, so memory does not grow with the file.
"""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from codectool.audio.loudness import amplify
from codectool.audio.samples import Samples, margin_samples
from codectool.audio.sink import open_sink
from codectool.codec import Codec
from codectool.codecs.properties import Context
from codectool.container import Header, Reader
from codectool.errors import ContainerError, UsageError, naming
from codectool.files import atomic_output, write_all
from codectool.runner import Codes
from codectool.streaming import (
    OutputResampler,
    StreamDecoder,
    channel_groups,
    check_codebooks,
    max_padding,
)

CHUNK_VALUES = 1 << 21  # samples of all channels that are decoded at a time

SPOOL_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class DecodeRange:
    """The frames to decode for a time range, and the samples to return of their audio.

    Attributes:
        start: first sample of the range, at the output rate.
        stop: one past its last sample; None for the end of a file of unknown length.
        first_frame: first frame to decode.
        stop_frame: one past the last frame to decode; None to read to the end.
        skip: decoded samples to drop before resampling.
        skip_resampled: samples to drop after resampling.
    """

    start: int
    stop: int | None
    first_frame: int
    stop_frame: int | None
    skip: int
    skip_resampled: int

    @property
    def num_samples(self) -> int | None:
        """Samples per channel at the output rate; None if the end is unknown."""
        return None if self.stop is None else self.stop - self.start


def plan_range(
    header: Header,
    context: Context,
    output_rate: int,
    start_seconds: float = 0.0,
    seconds: float | None = None,
    *,
    num_samples: int | None = None,
    num_frames: int | None = None,
) -> DecodeRange:
    """Return what to read and what to return for a time range of a file.

    Args:
        header: header of the file.
        context: frames around a frame that its samples depend on.
        output_rate: sampling rate of the output in Hz.
        start_seconds: start of the range.
        seconds: length of the range; None for the rest of the file.
        num_samples: samples per channel in the file, at its rate; None if unknown.
        num_frames: frames per channel in the file; None if unknown.

    Raises:
        UsageError: the range starts after the end.
    """
    rate, model_rate = header.sample_rate, header.layout.sample_rate
    hop, segment = header.layout.hop_length, header.segment_frames
    start = round(start_seconds * rate)
    stop = None if seconds is None else start + round(seconds * rate)
    if num_samples is not None:
        if start and start >= num_samples:
            raise UsageError(
                f"--start {start_seconds:g}: the audio ends at {num_samples / rate:g} s"
            )
        stop = num_samples if stop is None else min(stop, num_samples)
    start = start * output_rate // rate
    stop = None if stop is None else _ceil_div(stop * output_rate, rate)

    margin = margin_samples(model_rate, output_rate)
    first = max(0, (start * model_rate // output_rate - margin) // hop)
    last = None
    if stop is not None and (start_seconds or seconds is not None):
        last = _ceil_div(_ceil_div(stop * model_rate, output_rate) + margin, hop)
    if context.before is not None and context.after is not None:
        first = max(0, first - context.before)
        first -= first % context.start_step
        last = None if last is None else last + context.after
        last = None if last is None else last + -last % context.stop_step
    elif segment is not None:
        first -= first % segment
        last = None if last is None else last + -last % segment
    else:
        first, last = 0, None
    if last is not None and num_frames is not None:
        last = min(last, num_frames)

    # The two sampling grids coincide at every `step`-th decoded sample. Resampling starts at such
    # a sample, so that the range is resampled exactly as it is within the whole file.
    common = math.gcd(model_rate, output_rate)
    step, new_step = model_rate // common, output_rate // common
    steps = _ceil_div(first * hop, step)
    return DecodeRange(
        start=start,
        stop=stop,
        first_frame=first,
        stop_frame=last,
        skip=steps * step - first * hop,
        skip_resampled=max(0, start - steps * new_step),
    )


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


class Decoding:
    """Decode a `.hcd` file, or a time range of it, chunk by chunk.

    A range reads only the blocks that cover it and the frames around them that the model needs.
    Damaged blocks (``Reader(..., damaged="keep")``) become silence; truncated files end early.

    Args:
        reader: has read no blocks yet.
        start_seconds: start of the range.
        seconds: length of the range; None, or more than there is, for the rest of the file.
        native_rate: return audio at the model's sampling rate.
        force: decode tokens of different weights.
        chunk_frames: frames computed at once; see `Codec.stream_decoder`.
        keep_loudness: do not undo the gain that was applied before encoding.

    Attributes:
        sample_rate: sampling rate of the audio in Hz.
        num_samples: samples per channel of the range; None on a pipe until its end is read.
        damage: one sentence per damaged block or missing end; complete after the last chunk.

    Raises:
        FingerprintError: the file was made with another codec or different weights.
        ContainerError: the file is damaged, and the reader does not keep damaged blocks.
        UsageError: the range starts after the end.
    """

    def __init__(
        self,
        codec: Codec,
        reader: Reader,
        start_seconds: float = 0.0,
        seconds: float | None = None,
        *,
        native_rate: bool = False,
        force: bool = False,
        chunk_frames: int | None = None,
        keep_loudness: bool = False,
    ) -> None:
        header = reader.header
        with naming(reader.name):
            codec.check_compatible(header.layout, header.fingerprint, force)
        self.sample_rate = codec.sample_rate if native_rate else header.sample_rate
        self.channels = header.channels
        self.damage: list[str] = []
        self._codec = codec
        self._reader = reader
        self._chunk_frames = chunk_frames
        self._gain_db = 0.0 if keep_loudness else -reader.gain_db
        self._start_seconds, self._seconds = start_seconds, seconds
        if reader.file_size is not None:
            reader.scan()
        self._range = self._plan_range()
        self.num_samples = None if reader.num_samples is None else self._range.num_samples
        self._silent: list[tuple[int, int]] = []  # samples of damaged blocks: first, one past last

    def chunks(self) -> Iterator[Samples]:
        """Decode the range.

        Yields:
            Samples ``(C, N)`` in order.

        Raises:
            ContainerError: the file is damaged, and the reader does not keep damaged blocks.
            UsageError: a pipe ends before the range starts.
        """
        groups = channel_groups(self._codec.model, self.channels)
        position = self._range.start
        if len(groups) == 1 or self._chunk_frames is not None:
            chunks = self._decode(self._codes(), self.channels)
        else:
            chunks = self._decode_in_groups(groups)
        with naming(self._reader.name):
            for chunk in chunks:
                yield self._conceal(amplify(chunk, self._gain_db), position)
                position += chunk.shape[1]
        self.damage += [str(problem) for problem in self._reader.problems]

    def _plan_range(self) -> DecodeRange:
        return plan_range(
            self._reader.header,
            self._codec.model.decode_context,
            self.sample_rate,
            self._start_seconds,
            self._seconds,
            num_samples=self._reader.num_samples,
            num_frames=self._reader.num_frames,
        )

    def _decode_in_groups(self, groups: Sequence[slice]) -> Iterator[Samples]:
        """Yield samples of the range; decode one group of channels at a time to temporary files.

        While they are decoded, chunks without samples are yielded, so that the caller can stop.
        """
        none = np.zeros((self.channels, 0), np.float32)
        with ExitStack() as stack:
            packed = stack.enter_context(tempfile.TemporaryFile())
            for codes in self._codes():
                np.save(packed, codes)
                yield none
            self._range = self._plan_range()  # a pipe's length is known at its end
            self.num_samples = self._range.num_samples
            files = []
            for group in groups:
                files.append(stack.enter_context(tempfile.TemporaryFile()))
                for chunk in self._decode(_saved_arrays(packed, group), group.stop - group.start):
                    files[-1].write(chunk.T.tobytes())
                    yield none
                files[-1].seek(0)
            rows = max(1, CHUNK_VALUES // self.channels)
            while True:
                parts = [
                    np.frombuffer(file.read(4 * rows * size), np.float32).reshape(-1, size).T
                    for file, size in zip(files, (g.stop - g.start for g in groups), strict=True)
                ]
                if not parts[0].size:
                    return
                yield np.concatenate(parts)

    def _decode(self, codes: Iterator[Codes], channels: int) -> Iterator[Samples]:
        """Yield samples ``(C, N)`` of the range for the codes of some channels."""
        plan = self._range
        runner, model = self._codec.runner, self._codec.model
        output = OutputResampler(
            self._codec.sample_rate,
            self.sample_rate,
            channels,
            skip=plan.skip,
            new_skip=plan.skip_resampled,
            length=plan.num_samples,
            hold=max_padding(model) if self.num_samples is None else 0,
        )
        header = self._reader.header
        segmented = model.segment_frames is not None
        chunk_frames = header.segment_frames if segmented else self._chunk_frames
        decoder = StreamDecoder(runner, channels, chunk_frames, output)
        if segmented and header.segment_frames is None:  # one segment of any length
            none = np.zeros((channels, header.layout.num_codebooks, 0), np.int32)
            whole = np.concatenate([none, *codes], axis=2)
            if whole.shape[2] > cast(int, model.segment_frames):
                check_codebooks(model, whole)
                yield from map(output.push, runner.decode_whole(whole))
            else:
                yield decoder.push(whole)
        else:
            frames = max(1, CHUNK_VALUES // (channels * model.hop_length))
            for block in codes:
                for first in range(0, block.shape[2], frames):
                    yield decoder.push(block[:, :, first : first + frames])
        self.num_samples = self._plan_range().num_samples  # a pipe's length is known at its end
        yield decoder.flush(self.num_samples)

    def _codes(self) -> Iterator[Codes]:
        """Yield the codes ``(C, K, F)`` of the range.

        A damaged block repeats the frame before it. Its own audio is replaced by silence, but its
        frames also affect the neighbouring samples, which a repeated frame disturbs least.
        """
        first, stop = self._range.first_frame, self._range.stop_frame
        held = np.zeros((self.channels, self._reader.header.layout.num_codebooks, 1), np.int32)
        for block in self._reader.blocks(first, stop):
            codes = block.codes
            if codes is None:
                self._silent.append(self._samples_of(block.first_frame, block.num_frames))
                self.damage.append(str(block.error))
                codes = np.repeat(held, block.num_frames, axis=2)
            elif codes.shape[2]:
                held = codes[:, :, -1:].copy()
            begin = max(0, first - block.first_frame)
            end = None if stop is None else max(0, stop - block.first_frame)
            yield codes[:, :, begin:end]

    def _samples_of(self, first_frame: int, num_frames: int) -> tuple[int, int]:
        """Return the first output sample of some frames and one past the last."""
        scale = self._codec.hop_length * self.sample_rate
        stop = (first_frame + num_frames) * scale
        model_rate = self._codec.sample_rate
        return first_frame * scale // model_rate, _ceil_div(stop, model_rate)

    def _conceal(self, chunk: Samples, position: int) -> Samples:
        """Return a chunk that starts at output sample ``position``, silent in damaged blocks."""
        if self._silent:
            chunk = chunk.copy()
            for first, stop in self._silent:
                chunk[:, max(0, first - position) : max(0, stop - position)] = 0.0
        return chunk


def _saved_arrays(file: BinaryIO, channels: slice) -> Iterator[Codes]:
    """Yield the given channels of all arrays in a file."""
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    while file.tell() < end:
        yield np.load(file)[channels]


def decode_file(
    codec: Codec,
    source: str | Path,
    target: str | Path,
    *,
    container: str = "wav",
    subtype: str | None = None,
    native_rate: bool = False,
    force: bool = False,
    conceal: bool = False,
    keep_loudness: bool = False,
    overwrite: bool = False,
    check: Callable[[], None] | None = None,
) -> Decoding:
    """Decode a `.hcd` file to an audio file, in memory that does not grow with it.

    Args:
        codec: holds the weights that the file names.
        source: the `.hcd` file.
        target: the audio file.
        container: ``"wav"`` or ``"flac"``.
        subtype: libsndfile's name of the sample format; None is 16 bit.
        native_rate: write audio at the model's sampling rate.
        force: decode tokens of different weights.
        conceal: write silence for damaged blocks instead of refusing the file.
        keep_loudness: do not undo the gain that was applied before encoding.
        overwrite: replace an existing target.
        check: called after each chunk; may raise to stop.

    Returns:
        The finished `Decoding`, with its length and its damage.
    """
    source, target = Path(source), Path(target)
    try:
        file = source.open("rb")
    except OSError as error:
        raise ContainerError(f"{source}: {error.strerror or error}") from error
    with file:
        reader = Reader(cast(BinaryIO, file), str(source), damaged="keep" if conceal else "raise")
        decoding = Decoding(
            codec, reader, native_rate=native_rate, force=force, keep_loudness=keep_loudness
        )
        with atomic_output(target, overwrite) as output:
            write_audio(output, decoding, container, subtype, check)
    return decoding


def write_audio(
    file: BinaryIO,
    decoding: Decoding,
    container: str = "wav",
    subtype: str | None = None,
    check: Callable[[], None] | None = None,
) -> int:
    """Write audio to a file, each chunk as soon as it is decoded.

    Args:
        file: where to write; FLAC for a pipe is first written to a temporary file.
        decoding: a `Decoding` that has returned no chunks yet.
        container: ``"wav"`` or ``"flac"``.
        subtype: libsndfile's name of the sample format; None is 16 bit.
        check: called after each chunk; may raise to stop.

    Returns:
        Samples per channel that were written.

    Raises:
        AudioError: the container cannot hold this number of channels or this rate.
    """
    if container == "flac" and not file.seekable():
        with tempfile.TemporaryFile() as spool:
            written = write_audio(cast(BinaryIO, spool), decoding, container, subtype, check)
            spool.seek(0)
            while data := spool.read(SPOOL_READ_BYTES):
                write_all(file, data)
            return written
    rate, channels = decoding.sample_rate, decoding.channels
    sink = open_sink(file, rate, channels, decoding.num_samples, container, subtype)
    written = 0
    for chunk in decoding.chunks():
        if check is not None:
            check()
        if chunk.shape[1]:
            sink.write(chunk)
            file.flush()
            written += chunk.shape[1]
    sink.close()
    file.flush()
    return written
