"""Blocks, and the record that ends a stream: where they stand, and what makes them believable.

Where the bytes of block k stand (P bytes of tokens in a full block; block 0 has its check in the
header, every other one behind it)::

    known length    |P|  |P crc| |P crc| ... |rest crc|
    stream        |1 P| |1 P crc| |1 P crc| ... |2 samples extra rest crc|
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
from construct import StreamError

from codectool.container.bitpack import unpack_codes
from codectool.container.errors import Complaints, mismatch
from codectool.container.header import Header
from codectool.container.layout import (
    CHECK32,
    FINAL_FIELDS,
    FINAL_RECORD,
    FULL_BLOCK,
    MAX_VARINT_BYTES,
    block_check,
    first_block_check,
)
from codectool.container.source import Source, Tape
from codectool.errors import DamagedError, TruncatedError


@dataclass(frozen=True, eq=False)
class Block:
    """A run of frames as it came from a file.

    Attributes:
        index: block number, from 0.
        first_frame: number of its first frame.
        num_frames: its frames F.
        codes: int32 ``(C, K, F)``; None if the block is damaged.
        error: what is wrong with a damaged block; None if it is whole.
    """

    index: int
    first_frame: int
    num_frames: int
    codes: npt.NDArray[np.int32] | None
    error: str | None = None


class Final(NamedTuple):
    """The record that ends a stream, as it stands in the file."""

    num_samples: int
    num_frames: int
    payload: bytes
    computed: int
    stored: int


class Records:
    """Reads one block at a time from a source that stands behind header and sections.

    Args:
        source: where to read.
        header: what the file says about its tokens.
        complaints: makes the errors.
        fields: all header bytes before the first-block check.
        first_check: the first-block check.
        keep: hand out damaged blocks without codes instead of raising.

    Attributes:
        final: the final record, once it was read.
    """

    def __init__(
        self,
        source: Source,
        header: Header,
        complaints: Complaints,
        *,
        fields: bytes,
        first_check: int,
        keep: bool,
    ) -> None:
        self.final: Final | None = None
        self._source = source
        self._header = header
        self._complaints = complaints
        self._fields = fields
        self._first_check = first_check
        self._keep = keep
        self._start = source.position

    def position(self, index: int) -> int:
        """Offset of block ``index``, or of its marker in a stream."""
        return self._start + index * self._step - (4 if index else 0)

    def whole_blocks(self) -> int:
        """How many full blocks the source has room for."""
        return ((self._source.size or self._start) - self._start + 4) // self._step

    def end(self, num_frames: int) -> int:
        """Offset of the end of a file of known length."""
        last = max(0, -(-num_frames // self._header.block_frames) - 1)
        rest = num_frames - last * self._header.block_frames
        return self.position(last) + self._header.payload_bytes(rest) + (4 if last else 0)

    def go_to(self, index: int) -> bool:
        """Stand before block ``index``; False if the source ends before it."""
        self.final = None
        if self._source.size is None or self.position(index) > self._source.size:
            return False
        self._source.seek(self.position(index))
        return True

    def next(self, index: int) -> Block | None:
        """Block ``index``, before which the source stands; None behind the last one.

        Raises:
            DamagedError: it is not what was written (unless ``keep``).
            TruncatedError: the data end first.
        """
        if self._header.num_samples is None:
            return None if self.final else self._next_of_stream(index)
        if index >= cast(int, self._header.num_blocks):
            return None
        rest = cast(int, self._header.num_frames) - index * self._header.block_frames
        return self._read_block(index, min(self._header.block_frames, rest))

    def find_final(self) -> bool:
        """Read the final record of a stream that can seek into `final`; False if it is not there.

        Full blocks are all of one size and the record has a largest one, so the size of the file
        leaves a few places for it: two, unless blocks are very short.

        Raises:
            DamagedError: it is there, but damaged (unless ``keep``).
        """
        most = self.whole_blocks()
        damaged: tuple[int, Final] | None = None
        longest = 1 + 2 * MAX_VARINT_BYTES + self._header.block_payload_bytes + 4
        places = 1 + -(-longest // self._step)
        for index in range(most, max(0, most - places), -1):
            if not self.go_to(index) or self._source.read(1) != FINAL_RECORD:
                continue
            try:
                final = self._read_final(index, Tape(self._source))
            except (DamagedError, TruncatedError):
                continue
            if self._source.position != self._source.size:
                continue
            if final.computed == final.stored:
                self.final = final
                return True
            damaged = index, final
        if damaged is None:
            return False
        index, self.final = damaged
        if not self._keep:
            reason = mismatch(self.final.computed, self.final.stored)
            raise self._complaints.damaged(index, self.position(index), reason)
        return True

    def cut_off(self, index: int, reason: str | None = None) -> TruncatedError:
        """The error that says that the data end before block ``index`` does."""
        size = self._source.position if self._source.size is None else self._source.size
        return self._complaints.truncated(index, reason or f"ends after {size} bytes")

    @property
    def _step(self) -> int:
        """Bytes from one full block to the next: marker (in a stream), tokens, check."""
        framing = 5 if self._header.num_samples is None else 4
        return self._header.block_payload_bytes + framing

    def _next_of_stream(self, index: int) -> Block:
        """The next block of a stream, whose marker says what it is.

        A marker that makes no sense, or a final record that does not fit, may be a damaged full
        block: with ``keep``, if the data go on, so do we, behind the place where it would end.
        """
        position = self._source.position
        tape = Tape(self._source)
        marker = tape.read(1)
        if not marker:
            raise self.cut_off(index)
        if marker == FULL_BLOCK:
            return self._read_block(index, self._header.block_frames, position)
        try:
            if marker != FINAL_RECORD or index == 0:
                raise self._complaints.damaged(
                    index, position, f"marker {marker.hex()} cannot stand here"
                )
            final = self._read_final(index, tape)
            more = self._source.read(0 if final.computed == final.stored else 1)
            self._source.unread(more)
            if more:
                raise self._complaints.damaged(
                    index, position, mismatch(final.computed, final.stored)
                )
        except (DamagedError, TruncatedError) as error:
            if not self._keep:
                raise
            return self._step_over(index, tape, error)
        self.final = final
        frames = final.num_frames - index * self._header.block_frames
        return self._check(index, frames, position, final.payload, final.computed, final.stored)

    def _step_over(self, index: int, tape: Tape, error: Exception) -> Block:
        """Take what is on the tape for the beginning of a damaged full block, and pass its end."""
        whole = self._step - (0 if index else 4)
        self._source.unread(bytes(tape.data[whole:]))
        if len(tape.data) < whole:
            tape.read(whole - len(tape.data))
        if len(tape.data) < whole:
            raise self.cut_off(index, self._complaints.without_advice(error)) from error
        frames = self._header.block_frames
        return Block(index, index * frames, frames, None, str(error))

    def _read_final(self, index: int, tape: Tape) -> Final:
        """Read the record that ends a stream, after its marker."""
        position = self._source.position - 1
        begin = len(tape.data)
        try:
            # Not parse_stream: construct keeps what it parsed from, here a block, until the
            # garbage collector comes by.
            fields = FINAL_FIELDS.parse(_varint_bytes(tape) + _varint_bytes(tape))
        except StreamError as error:
            raise self.cut_off(index) from error
        except ValueError as error:
            raise self._complaints.damaged(index, position, str(error)) from error
        frames = self._header.frames_for(fields.num_samples, fields.extra_frames)
        rest = frames - index * self._header.block_frames
        if not 0 <= rest < self._header.block_frames:
            raise self._complaints.damaged(
                index, position, f"a stream of {frames} frames cannot end here"
            )
        payload = tape.read(self._header.payload_bytes(rest))
        record = FINAL_RECORD + bytes(tape.data[begin:])
        stored = tape.read(4)
        if len(stored) < 4:
            raise self.cut_off(index)
        computed = block_check(self._fields, self._first_check, index, record)
        return Final(fields.num_samples, frames, payload, computed, CHECK32.parse(stored))

    def _read_block(self, index: int, frames: int, position: int | None = None) -> Block:
        """Read tokens and, unless it is in the header, the check behind them."""
        position = self._source.position if position is None else position
        size = self._header.payload_bytes(frames)
        data = self._source.read(size + (4 if index else 0))
        if len(data) < size + (4 if index else 0):
            raise self.cut_off(index)
        payload = data[:size]
        if index:
            computed = block_check(self._fields, self._first_check, index, payload)
            stored = CHECK32.parse(data[size:])
        else:
            computed = first_block_check(self._fields, payload)
            stored = self._first_check
        return self._check(index, frames, position, payload, computed, stored)

    def _check(
        self, index: int, frames: int, position: int, payload: bytes, computed: int, stored: int
    ) -> Block:
        """A block of these bytes, if they are what was written."""
        first = index * self._header.block_frames
        try:
            if computed != stored:
                raise ValueError(mismatch(computed, stored))
            layout = self._header.layout
            codes = unpack_codes(payload, self._header.channels, layout.bits_per_codebook, frames)
        except ValueError as reason:
            error = self._complaints.damaged(index, position, str(reason), frames)
            if not self._keep:
                raise error from reason
            return Block(index, first, frames, None, str(error))
        return Block(index, first, frames, codes)


def _varint_bytes(tape: Tape) -> bytes:
    """Bytes of the next varint as they stand, cut off where it would be too long."""
    data = tape.read(1)
    while data and data[-1] & 0x80 and len(data) < MAX_VARINT_BYTES:
        more = tape.read(1)
        if not more:
            break
        data += more
    return data
