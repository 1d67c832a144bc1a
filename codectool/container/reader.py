"""Read `.hcd` files and pipes: all tokens with `read`, or block by block with `Reader`.

Positions of blocks (P bytes of tokens in a full block; the check of block 0 is in the header)::

    known length    |P|  |P crc| |P crc| ... |rest crc|
    stream        |1 P| |1 P crc| |1 P crc| ... |2 samples extra rest crc|
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from construct import StreamError

from codectool.container.bitpack import unpack_codes
from codectool.container.header import block_check, parse_header
from codectool.container.layout import (
    CHECK32,
    FINAL_FIELDS,
    FINAL_RECORD,
    FULL_BLOCK,
    MAX_VARINT_BYTES,
    checksum_error,
)
from codectool.container.sections import Sections, parse_sections
from codectool.container.source import ByteSource, RecordingReader
from codectool.errors import ContainerError, DamagedError, TruncatedError
from codectool.tokens import Tokens


@dataclass(frozen=True, eq=False)
class Block:
    """Frames with a common check.

    Attributes:
        index: block number, from 0.
        first_frame: number of the first frame.
        num_frames: number of frames F.
        codes: int32 ``(C, K, F)``; None if the block is damaged.
        error: description of the damage; None if there is none.
    """

    index: int
    first_frame: int
    num_frames: int
    codes: npt.NDArray[np.int32] | None
    error: str | None = None


class _FinalRecord(NamedTuple):
    """The record that ends a stream, and the reason if its check is wrong."""

    num_samples: int
    num_frames: int
    payload: bytes
    wrong_check: str | None


class Reader:
    """Read one `.hcd` file.

    Args:
        file: a seekable file or a pipe positioned at the start of the `.hcd` data.
        name: see the attribute.
        damaged: ``"raise"`` stops at the first damage. ``"keep"`` returns a damaged block without
            codes and continues; errors outside the blocks are collected in `problems`.

    Attributes:
        name: name in error messages.
        header: description of the tokens.
        tags: text tags.
        gain_db: gain in dB that was applied before encoding.
        unknown_sections: number of sections of unknown types, which were skipped.
        num_frames: frames per channel in the file; None while a stream has not reached its end.
        num_samples: samples per channel that they decode to; None as for `num_frames`.
        truncated: why the end is missing, with ``damaged="keep"``; None if it is not.
        problems: errors outside the blocks, at most one of each kind.

    Raises:
        NotHcdError, UnsupportedError, DamagedError, TruncatedError: see `codectool.errors`. The
            header must be intact even with ``damaged="keep"``.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str = "<stream>",
        *,
        damaged: Literal["raise", "keep"] = "raise",
    ) -> None:
        self.truncated: ContainerError | None = None
        self.problems: list[ContainerError] = []
        self.name = name
        self._keep = damaged == "keep"
        self._source = source = ByteSource(file)
        self.header, has_sections, self._fields, self._first_check = parse_header(source, name)
        sections, damage = Sections(), None
        if has_sections:
            sections, damage = parse_sections(source, name, self._first_check, self._keep)
        if damage is not None:
            self.problems.append(damage)
        self.tags, self.gain_db = dict(sections.tags), sections.gain_db
        self.unknown_sections = sections.unknown
        self.num_samples = self.header.num_samples
        self.num_frames = self.header.num_frames
        self._start = source.position
        framing = 5 if self.num_samples is None else 4  # marker, check
        self._step = self.header.payload_bytes(self.header.block_frames) + framing
        self._pipe_was_read = False
        self._ended = False
        if self.num_frames is not None and source.size is not None:
            self._check_size(self.num_frames, source.size)

    @property
    def file_size(self) -> int | None:
        """Size of the file in bytes; None on a pipe."""
        return self._source.size

    @property
    def bytes_read(self) -> int:
        """Offset of the next byte; the size of the file after all blocks were read."""
        return self._source.position

    def blocks(self, start_frame: int = 0, stop_frame: int | None = None) -> Iterator[Block]:
        """Yield blocks in order, each as soon as its bytes have arrived.

        Args:
            start_frame: first frame of the range. Blocks before it are skipped, without reading
                them if the file is seekable.
            stop_frame: end of the range; None reads to the end and checks that no data follow.

        Yields:
            Every block with a frame in the range.

        Raises:
            DamagedError: a block is damaged, or data follow the end.
            TruncatedError: the data end early.
            ContainerError: a pipe is read a second time.
        """
        if start_frame < 0:
            raise ValueError(f"start_frame is negative: {start_frame}")
        size = self.header.block_frames
        first = 0
        if self._source.size is not None:
            if start_frame >= size:
                # Frames after the end are looked for in the last block: what ends a stream may be
                # longer than a full block, so that the next one would begin within it.
                first = min(start_frame, self.scan()) // size
            if self._position(first) > self._source.size:
                return
            self._source.seek(self._position(first))
        elif self._pipe_was_read:
            raise ContainerError(f"{self.name}: a pipe can be read only once")
        self._pipe_was_read = True
        self._ended = False
        for index in itertools.count(first):
            if stop_frame is not None and index * size >= stop_frame:
                return
            try:
                block = self._read_next(index)
            except TruncatedError as error:
                self._set_truncated(error, index)
                return
            if block is None:
                break
            # A block without frames is yielded only if it is damaged.
            if block.error or block.first_frame + block.num_frames > start_frame:
                yield block
        if self._source.read(1):
            self._note(self._trailing_data_error(self._source.position - 1))

    def read_frames(self, start: int = 0, count: int | None = None) -> npt.NDArray[np.int32]:
        """Read a range of frames; in a seekable file, only the blocks that contain it.

        Args:
            start: number of the first frame.
            count: number of frames; None reads to the end.

        Returns:
            int32 ``(C, K, F)`` with F = ``count``, or fewer if the file ends first.

        Raises:
            DamagedError, TruncatedError: a block is damaged or missing, whatever ``damaged`` is.
        """
        stop = None if count is None else start + count
        parts = [np.empty((self.header.channels, self.header.layout.num_codebooks, 0), np.int32)]
        for block in self.blocks(start, stop):
            if block.codes is None:
                raise DamagedError(block.error)
            parts.append(block.codes)
        if self.truncated and (stop is None or stop > cast(int, self.num_frames)):
            raise self.truncated
        first = start % self.header.block_frames
        return np.concatenate(parts, axis=2)[:, :, first : None if count is None else first + count]

    def read_all(self) -> npt.NDArray[np.int32]:
        """Read all frames; see `read_frames`."""
        return self.read_frames()

    def scan(self) -> int:
        """Find the length of a seekable file without reading its blocks.

        Returns:
            Frames per channel; also sets `num_frames` and `num_samples`.

        Raises:
            DamagedError, TruncatedError: the end of a stream is damaged or missing, unless
                ``damaged="keep"``.
            ContainerError: the file is a pipe.
        """
        if self.num_frames is None:
            if self._source.size is None:
                raise ContainerError(
                    f"{self.name}: the length of a stream on a pipe is known at its end"
                )
            final = self._find_final()
            if final is not None:
                self.num_samples, self.num_frames = final.num_samples, final.num_frames
            else:
                blocks = self._num_full_blocks(self._source.size)
                self._set_truncated(self._truncated_error(blocks), blocks)
        return cast(int, self.num_frames)

    # Positions

    def _position(self, index: int) -> int:
        """Return the offset of a block, or of its marker in a stream."""
        return self._start + index * self._step - (4 if index else 0)

    def _num_full_blocks(self, size: int) -> int:
        """Return the number of full blocks that fit in a file of this size."""
        return (size - self._start + 4) // self._step

    def _check_size(self, num_frames: int, size: int) -> None:
        """Compare the size of a file with the length in its header, before a block is read."""
        last = max(0, -(-num_frames // self.header.block_frames) - 1)
        rest = num_frames - last * self.header.block_frames
        promised = self._position(last) + self.header.payload_bytes(rest) + (4 if last else 0)
        if size > promised:
            self._note(self._trailing_data_error(promised))
        elif size < promised:
            blocks = self._num_full_blocks(size)
            reason = f"has {size} of {promised} bytes"
            self._set_truncated(self._truncated_error(blocks, reason), blocks)

    # Blocks

    def _read_next(self, index: int) -> Block | None:
        """Read block ``index`` at the current position; return None after the last one."""
        if self.header.num_frames is None:
            return None if self._ended else self._read_next_of_stream(index)
        left = self.header.num_frames - index * self.header.block_frames
        if left <= 0 and index:
            return None
        return self._read_block(index, min(left, self.header.block_frames))

    def _read_next_of_stream(self, index: int) -> Block:
        """Read the next block of a stream, whose marker states its kind.

        An invalid marker, or a final record that does not fit, may be a damaged full block. With
        ``damaged="keep"`` it is skipped if more data follow.
        """
        position = self._source.position
        recorder = RecordingReader(self._source)
        marker = recorder.read(1)
        if not marker:
            raise self._truncated_error(index)
        if marker == FULL_BLOCK:
            return self._read_block(index, self.header.block_frames)
        try:
            if marker != FINAL_RECORD or index == 0:
                reason = f"marker {marker.hex()} is invalid here"
                raise self._damaged_error(index, position, reason)
            final = self._read_final(index, recorder)
            if final.wrong_check:
                more = self._source.read(1)
                self._source.unread(more)
                if more:
                    raise self._damaged_error(index, position, final.wrong_check)
        except (DamagedError, TruncatedError) as error:
            if not self._keep:
                raise
            return self._skip_block(index, recorder, error)
        frames = final.num_frames - index * self.header.block_frames
        block = self._unpack(index, frames, position, final.payload, final.wrong_check)
        self._ended = True
        self.num_samples, self.num_frames = final.num_samples, final.num_frames
        return block

    def _skip_block(self, index: int, recorder: RecordingReader, error: Exception) -> Block:
        """Move to the end of a damaged full block, of which the recorder has read a part."""
        size = self._step - (0 if index else 4)
        self._source.unread(bytes(recorder.data[size:]))
        if len(recorder.data) < size:
            recorder.read(size - len(recorder.data))
        if len(recorder.data) < size:
            reason = str(error).removeprefix(f"{self.name}: ").partition(";")[0]
            raise self._truncated_error(index, reason) from error
        frames = self.header.block_frames
        return Block(index, index * frames, frames, None, str(error))

    def _find_final(self) -> _FinalRecord | None:
        """Find the final record of a stream from the size of the file; None if it is missing.

        Full blocks have one size and the record has a maximum size, which leaves a few possible
        positions: two, unless blocks are very short.

        Raises:
            DamagedError: the record is damaged, unless ``damaged="keep"``.
        """
        size = cast(int, self._source.size)
        most = self._num_full_blocks(size)
        longest = self.header.payload_bytes(self.header.block_frames) + 5 + 2 * MAX_VARINT_BYTES
        positions = 1 + -(-longest // self._step)
        damaged: _FinalRecord | None = None
        error: DamagedError | None = None
        for index in range(most, max(0, most - positions), -1):
            self._source.seek(self._position(index))
            recorder = RecordingReader(self._source)
            if recorder.read(1) != FINAL_RECORD:
                continue
            with suppress(DamagedError, TruncatedError):
                final = self._read_final(index, recorder)
                if self._source.position == size:
                    if final.wrong_check is None:
                        return final
                    damaged = final
                    error = self._damaged_error(index, self._position(index), final.wrong_check)
        if error and not self._keep:
            raise error
        return damaged

    def _read_final(self, index: int, recorder: RecordingReader) -> _FinalRecord:
        """Read the final record, of which the recorder has read the marker."""
        position = self._source.position - 1
        try:
            # Not `parse_stream`: construct would keep the recorder, and with it a whole block,
            # alive until the next garbage collection.
            fields = FINAL_FIELDS.parse(_read_varint(recorder) + _read_varint(recorder))
        except StreamError as error:
            raise self._truncated_error(index) from error
        except ValueError as error:
            raise self._damaged_error(index, position, str(error)) from error
        frames = self.header.frames_for(fields.num_samples, fields.extra_frames)
        rest = frames - index * self.header.block_frames
        if not 0 <= rest < self.header.block_frames:
            reason = f"a stream of {frames} frames cannot end here"
            raise self._damaged_error(index, position, reason)
        payload = recorder.read(self.header.payload_bytes(rest))
        record = bytes(recorder.data)
        stored = recorder.read(4)
        if len(stored) < 4:
            raise self._truncated_error(index)
        computed = block_check(self._fields, self._first_check, index, record)
        wrong_check = checksum_error(computed, CHECK32.parse(stored))
        return _FinalRecord(fields.num_samples, frames, payload, wrong_check)

    def _read_block(self, index: int, frames: int) -> Block:
        """Read tokens and, except for block 0, their check."""
        position = self._source.position - (self.header.num_samples is None)
        size = self.header.payload_bytes(frames)
        check_size = 4 if index else 0
        data = self._source.read(size + check_size)
        if len(data) < size + check_size:
            raise self._truncated_error(index)
        payload = data[:size]
        computed = block_check(self._fields, self._first_check, index, payload)
        stored = CHECK32.parse(data[size:]) if index else self._first_check
        return self._unpack(index, frames, position, payload, checksum_error(computed, stored))

    def _unpack(
        self, index: int, frames: int, position: int, payload: bytes, wrong_check: str | None
    ) -> Block:
        """Return a block if its check and padding are right."""
        first = index * self.header.block_frames
        try:
            if wrong_check:
                raise ValueError(wrong_check)
            bits = self.header.layout.bits_per_codebook
            codes = unpack_codes(payload, self.header.channels, bits, frames)
        except ValueError as reason:
            error = self._damaged_error(index, position, str(reason), frames)
            if not self._keep:
                raise error from reason
            return Block(index, first, frames, None, str(error))
        return Block(index, first, frames, codes)

    # Errors

    def _note(self, problem: ContainerError) -> None:
        """Raise an error outside the blocks or, with ``damaged="keep"``, collect it once."""
        if not self._keep:
            raise problem
        if str(problem) not in map(str, self.problems):
            self.problems.append(problem)

    def _set_truncated(self, error: TruncatedError, blocks: int) -> None:
        """Note that the file ends after this number of blocks, and set the length accordingly."""
        if self.truncated is None:
            self._note(error)
            self.truncated = error
        layout, header = self.header.layout, self.header
        self.num_frames = frames = blocks * header.block_frames
        samples = frames * layout.hop_length * header.sample_rate // layout.sample_rate
        if header.num_samples is not None:
            samples = min(samples, header.num_samples)
        self.num_samples = samples

    def _damaged_error(
        self, index: int, position: int, reason: str, frames: int | None = None
    ) -> DamagedError:
        return DamagedError(
            f"{self.name}: {self._describe(index, frames)} at byte {position}: {reason}; "
            "`codectool verify` lists all damage, `codectool decode --conceal` writes silence there"
        )

    def _truncated_error(self, index: int, reason: str | None = None) -> TruncatedError:
        size = self._source.position if self._source.size is None else self._source.size
        return TruncatedError(
            f"{self.name}: {reason or f'ends after {size} bytes'}: cut off before the end of "
            f"{self._describe(index)}; `codectool decode --conceal` decodes what is there"
        )

    def _trailing_data_error(self, position: int) -> DamagedError:
        return DamagedError(
            f"{self.name}: trailing data after the end of the file at byte {position}; "
            "`codectool decode --conceal` ignores them"
        )

    def _describe(self, index: int, frames: int | None = None) -> str:
        """Return number and time range of a block: ``block 2 (0:24.0 to 0:48.0)``."""
        first = index * self.header.block_frames
        last = first + (self.header.block_frames if frames is None else frames)
        if self.header.num_frames is not None:
            last = max(first, min(last, self.header.num_frames))
        return f"block {index} ({self._clock(first)} to {self._clock(last)})"

    def _clock(self, frame: int) -> str:
        """Return the time at which a frame begins: ``4:36.0`` for 276 s."""
        tenths = 10 * frame * self.header.layout.hop_length // self.header.layout.sample_rate
        minutes, tenths = divmod(tenths, 600)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02}" if hours else f"{minutes}"
        return f"{clock}:{tenths // 10:02}.{tenths % 10}"


def read(source: str | os.PathLike[str] | BinaryIO) -> Tokens:
    """Read all tokens of a `.hcd` file.

    Args:
        source: a path, or a binary file object or pipe positioned at the start of the file.

    Raises:
        ContainerError: the file cannot be read, or is damaged anywhere.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            with path.open("rb") as file:
                return read(file)
        except OSError as error:
            raise ContainerError(f"{path}: {error.strerror or error}") from error
    reader = Reader(source, str(getattr(source, "name", "<stream>")))
    codes = reader.read_all()
    return Tokens(
        codes=codes,
        layout=reader.header.layout,
        fingerprint=reader.header.fingerprint,
        sample_rate=reader.header.sample_rate,
        num_samples=cast(int, reader.num_samples),
        segment_frames=reader.header.segment_frames,
        tags=reader.tags,
        gain_db=reader.gain_db,
    )


def _read_varint(recorder: RecordingReader) -> bytes:
    """Read the bytes of a varint, at most as many as one may have."""
    data = recorder.read(1)
    while data and data[-1] & 0x80 and len(data) < MAX_VARINT_BYTES:
        more = recorder.read(1)
        if not more:
            break
        data += more
    return data
