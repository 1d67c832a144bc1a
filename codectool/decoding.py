"""An open `.hcd` file and a codec to audio: whole, or a stretch of it, or around damage.

Audio comes out piece by piece while blocks are read, so memory does not grow with the file. Letters
used in shapes: C channels, K codebooks, F frames, N samples.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from codectool.audio.samples import margin_samples
from codectool.audio.sink import open_sink
from codectool.codec import Codec
from codectool.container import Block, Reader
from codectool.errors import ContainerError, UsageError
from codectool.exact import decode_exact
from codectool.files import atomic_output
from codectool.streaming import ModelDecoder, OutputResampler, filling_samples

Samples = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]


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


def decode_reader(
    codec: Codec,
    reader: Reader,
    start_seconds: float = 0.0,
    seconds: float | None = None,
    *,
    native_rate: bool = False,
    force: bool = False,
) -> Decoded:
    """Decode what a reader reads to one array; takes and raises what `Decoding` does."""
    decoding = Decoding(codec, reader, start_seconds, seconds, native_rate=native_rate, force=force)
    empty = np.zeros((decoding.channels, 0), np.float32)
    samples = np.concatenate([empty, *decoding.pieces()], axis=1)
    return Decoded(samples, decoding.sample_rate, tuple(decoding.damage))


def decode_file(
    codec: Codec,
    source: Path,
    target: Path,
    *,
    container: str = "wav",
    subtype: str | None = None,
    native_rate: bool = False,
    force: bool = False,
    conceal: bool = False,
    overwrite: bool = False,
) -> Decoding:
    """Decode a `.hcd` file to an audio file, in memory that does not grow with it.

    Args:
        codec: holds the weights that the file names.
        source: the `.hcd` file.
        target: the audio file.
        container: ``"wav"`` or ``"flac"``.
        subtype: libsndfile's name of the sample format; None is 16 bit.
        native_rate: leave the audio at the model's own sampling rate.
        force: decode tokens of other weights, too.
        conceal: write silence for damaged blocks instead of refusing them.
        overwrite: replace a file that has the target's name.

    Returns:
        What was decoded, with its length and what was concealed.
    """
    try:
        file = source.open("rb")
    except OSError as error:
        raise ContainerError(f"{source}: {error.strerror or error}") from error
    with file:
        reader = Reader(cast(BinaryIO, file), str(source), damaged="keep" if conceal else "raise")
        decoding = Decoding(codec, reader, native_rate=native_rate, force=force)
        with atomic_output(target, overwrite) as output:
            write_audio(output, decoding, container, subtype)
    return decoding


def write_audio(
    file: BinaryIO, decoding: Decoding, container: str = "wav", subtype: str | None = None
) -> int:
    """Write all pieces as an audio file, each as soon as it is decoded.

    Args:
        file: where to write; FLAC goes to a pipe by way of a temporary file.
        decoding: freshly begun.
        container: ``"wav"`` or ``"flac"``.
        subtype: libsndfile's name of the sample format; None is 16 bit.

    Returns:
        Samples per channel that were written.

    Raises:
        AudioError: this container cannot hold so many channels or such a rate.
    """
    if container == "flac" and not file.seekable():
        with tempfile.TemporaryFile() as spool:
            written = write_audio(cast(BinaryIO, spool), decoding, container, subtype)
            spool.seek(0)
            shutil.copyfileobj(spool, file)
            return written
    rate, channels = decoding.sample_rate, decoding.channels
    sink = open_sink(file, rate, channels, decoding.num_samples, container, subtype)
    written = 0
    for piece in decoding.pieces():
        if piece.shape[1]:
            sink.write(piece)
            file.flush()
            written += piece.shape[1]
    sink.close()
    file.flush()
    return written


class Decoding:
    """A `.hcd` file that is being decoded.

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
        block_frames: frames decoded at once; see `Codec.stream_decoder`.

    Attributes:
        sample_rate: of the audio, in Hz.
        channels: number of channels C.
        num_samples: samples per channel of all pieces; None on a pipe that tells it at its end.
        damage: one sentence for each damaged block or missing end, complete after the last piece.

    Raises:
        FingerprintError: the file was made with other weights.
        ContainerError: the file is damaged, and the reader does not keep damaged blocks.
        UsageError: the stretch begins behind the end.
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
        block_frames: int | None = None,
    ) -> None:
        header = reader.header
        codec.check_made_by(header.layout, header.fingerprint, force)
        self.sample_rate = codec.sample_rate if native_rate else header.sample_rate
        self.channels = header.channels
        self.damage: list[str] = []
        self._codec = codec
        self._reader = reader
        self._block_frames = block_frames
        self._start_seconds, self._seconds = start_seconds, seconds
        self._whole = start_seconds == 0 and seconds is None
        if reader.file_size is not None:
            reader.scan()
        self._start, self._stop = self._stretch()
        self.num_samples = None if self._stop is None else self._stop - self._start
        self._first, self._last = (0, None) if self._whole else self._needed()
        self._silent: list[tuple[int, int]] = []

    def pieces(self) -> Iterator[Samples]:
        """Decode.

        Yields:
            Samples ``(C, N)`` in order.

        Raises:
            ContainerError: the file is damaged, and the reader does not keep damaged blocks.
            UsageError: a pipe ends before the stretch begins.
        """
        outlet = self._outlet()
        position = self._start  # in the whole file, at the rate of the audio
        for native in self._native():
            piece = outlet.push(native)
            yield self._silenced(piece, position)
            position += piece.shape[1]
        piece = outlet.flush(self._length_at_end())
        yield self._silenced(piece, position)
        self.damage += [str(problem) for problem in self._reader.problems]

    # Where things are

    def _stretch(self) -> tuple[int, int | None]:
        """First sample, and one past the last if that is known, at the rate of the audio."""
        header, length = self._reader.header, self._reader.num_samples
        start = round(self._start_seconds * header.sample_rate)
        if length is not None:
            self._check_start(start, length)
        stop = length
        if self._seconds is not None:
            stop = start + round(self._seconds * header.sample_rate)
            stop = stop if length is None else min(stop, length)
            if length is None and self._reader.file_size is None:
                stop = None  # it may end earlier, which nobody knows yet
        return self._at_rate(start, down=True), None if stop is None else self._at_rate(stop)

    def _check_start(self, start: int, length: int) -> None:
        if start > length or (start == length and length and start):
            raise UsageError(
                f"--start {self._start_seconds:g}: the audio ends at "
                f"{length / self._reader.header.sample_rate:g} s"
            )

    def _at_rate(self, sample: int, down: bool = False) -> int:
        """A sample number of the file's rate at the rate of the audio."""
        header = self._reader.header
        if self.sample_rate == header.sample_rate:
            return sample
        if down:
            return sample * self.sample_rate // header.sample_rate
        return header.layout.model_samples(sample, header.sample_rate)

    def _needed(self) -> tuple[int, int | None]:
        """First frame that the stretch depends on, and one past the last."""
        rate, hop = self._codec.sample_rate, self._codec.hop_length
        margin = margin_samples(rate, self.sample_rate)
        first = (self._start * rate // self.sample_rate - margin) // hop
        last = self._last_sample()
        if last is not None:
            last = -(-(-(-last * rate // self.sample_rate) + margin) // hop)
        context = self._codec.model.decode_context
        total = self._reader.num_frames
        if context.before is None or context.after is None:  # whole segments
            segment = self._reader.header.segment_frames
            if segment is None:
                return 0, None
            first = first // segment * segment
            last = None if last is None else -(-last // segment) * segment
        else:
            first, last = first - context.before, None if last is None else last + context.after
        if total is not None:
            last = total if last is None else min(last, total)
        return max(0, first), None if last is None else max(0, last)

    def _last_sample(self) -> int | None:
        """One past the last sample that is wanted, at the rate of the audio; None is the end."""
        if self._stop is not None or self._seconds is None:
            return self._stop
        rate = self._reader.header.sample_rate
        return self._at_rate(round(self._start_seconds * rate) + round(self._seconds * rate))

    def _outlet(self) -> OutputResampler:
        """Cuts the stretch out of what the frames from `_first` on decode to.

        Only every ``rate / gcd``-th sample of one grid falls on the other one. The wave is cut at
        such a sample, so that a stretch is resampled as it would be within the whole.
        """
        codec, rate = self._codec, self.sample_rate
        common = math.gcd(codec.sample_rate, rate)
        step, new_step = codec.sample_rate // common, rate // common
        offset = self._first * codec.hop_length
        aligned = -(-offset // step)
        return OutputResampler(
            codec.sample_rate,
            rate,
            self.channels,
            skip=aligned * step - offset,
            new_skip=max(0, self._start - aligned * new_step),
            length=self.num_samples,
            waiting=filling_samples(codec.model),
        )

    def _length_at_end(self) -> int | None:
        """Samples of the stretch, now that the file was read as far as it goes."""
        length = self._reader.num_samples
        if length is None:
            last = self._last_sample()
            return None if last is None else last - self._start
        self._check_start(round(self._start_seconds * self._reader.header.sample_rate), length)
        stop = self._at_rate(length)
        last = self._last_sample()
        return (stop if last is None else min(stop, last)) - self._start

    # Samples at the model's rate

    def _native(self) -> Iterator[Samples]:
        segment = self._reader.header.segment_frames
        model = self._codec.model
        codes = self._codes()
        if model.segment_frames is not None and segment is None:
            whole = np.concatenate([self._no_codes(), *codes], axis=2)
            if whole.shape[2] > model.segment_frames:
                yield from decode_exact(self._codec, whole)
                return
            codes = iter([whole])
        block = segment if model.segment_frames is not None else self._block_frames
        decoder = ModelDecoder(model, self._codec.running, self.channels, block)
        for part in codes:
            yield decoder.push(part)
        yield decoder.flush()

    def _codes(self) -> Iterator[Codes]:
        """Codes ``(C, K, F)`` of frames ``first..last``; a damaged block repeats the frame before.

        Its own audio will be silent. What it holds matters only to the neighbours, whose first and
        last samples depend on frames in it: a held frame disturbs them less than a random one.
        """
        held = np.zeros((*self._no_codes().shape[:2], 1), np.int32)
        for block in self._reader.blocks(self._first, self._last):
            codes = block.codes
            if codes is None:
                self._silent.append(self._span(block))
                self.damage.append(str(block.error))
                codes = np.repeat(held, block.num_frames, axis=2)
            elif codes.shape[2]:
                held = codes[:, :, -1:].copy()
            begin = max(0, self._first - block.first_frame)
            end = None if self._last is None else max(0, self._last - block.first_frame)
            yield codes[:, :, begin:end]

    def _no_codes(self) -> Codes:
        header = self._reader.header
        return np.zeros((header.channels, header.layout.num_codebooks, 0), np.int32)

    # Damage

    def _span(self, block: Block) -> tuple[int, int]:
        """First sample of a block, and one past its last, at the rate of the audio."""
        hop, rate = self._codec.hop_length, self._codec.sample_rate
        first, last = block.first_frame, block.first_frame + block.num_frames
        return first * hop * self.sample_rate // rate, -(-last * hop * self.sample_rate // rate)

    def _silenced(self, piece: Samples, position: int) -> Samples:
        """A piece that begins at ``position``, silent where blocks are damaged."""
        if self._silent:
            piece = piece.copy()
            for begin, end in self._silent:
                piece[:, max(0, begin - position) : max(0, end - position)] = 0.0
        return piece
