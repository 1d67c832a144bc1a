"""`Reader`: tokens from a file or a pipe, block by block, nothing believed before it is checked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import BinaryIO, Literal, cast

import numpy as np
import numpy.typing as npt

from codectool.container.errors import Complaints
from codectool.container.header import parse_header
from codectool.container.records import Block, Records
from codectool.container.sections import parse_sections
from codectool.container.source import Source
from codectool.errors import ContainerError, DamagedError, TruncatedError
from codectool.tokens import Tokens


class Reader:
    """Read one `.hcd` file.

    Args:
        file: a file that can seek, or a pipe; it begins where the file object stands.
        name: what messages call it.
        damaged: ``"raise"`` stops at the first damage. ``"keep"`` hands a damaged block over
            without codes and goes on; what is wrong outside the blocks is noted in `problems`.

    Attributes:
        header: what the file says about its tokens.
        tags: the text that goes with it.
        num_frames: frames per channel that are there; None while a stream has not told.
        num_samples: samples per channel to be decoded from them; None likewise.
        truncated: why the end is missing, with ``damaged="keep"``; None if it is not.
        problems: all that is wrong outside the blocks, at most one of each kind.

    Raises:
        NotHcdError, UnsupportedError, DamagedError, TruncatedError: see `codectool.errors`. The
            header must be whole even with ``damaged="keep"``.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str = "<stream>",
        *,
        damaged: Literal["raise", "keep"] = "raise",
    ) -> None:
        self._source = Source(file)
        self._name = name
        self._keep = damaged == "keep"
        self.truncated: ContainerError | None = None
        self.problems: list[ContainerError] = []
        self.header, sections, fields, first_check = parse_header(self._source, name)
        self.tags: dict[str, str] = {}
        if sections:
            self.tags, damage = parse_sections(self._source, name, first_check, self._keep)
            if damage is not None:
                self.problems.append(damage)
        self._complaints = Complaints(name, self.header)
        self._records = Records(
            self._source,
            self.header,
            self._complaints,
            fields=fields,
            first_check=first_check,
            keep=self._keep,
        )
        self._fresh = True
        self.num_samples = self.header.num_samples
        self.num_frames = self.header.num_frames
        if self.num_frames is not None and self._source.size is not None:
            self._compare_sizes(self._records.end(self.num_frames), self._source.size)

    @property
    def file_size(self) -> int | None:
        """Bytes of the whole file; None on a pipe."""
        return self._source.size

    @property
    def bytes_read(self) -> int:
        """Offset of the next byte: on a pipe, after all blocks, the size of the file."""
        return self._source.position

    def blocks(self, start_frame: int = 0, stop_frame: int | None = None) -> Iterator[Block]:
        """Blocks in order, each as soon as its bytes are there.

        Args:
            start_frame: begin with the block that holds this frame. In a file that can seek the
                blocks before it are not read; a pipe has to be read up to it.
            stop_frame: end before the first block that begins here or later; None reads to the
                end, and makes sure that it is the end.

        Yields:
            Every block that has a frame in the range.

        Raises:
            DamagedError: a block is damaged, or something follows the end.
            TruncatedError: the data end first.
            ContainerError: a pipe is read a second time.
        """
        if start_frame < 0:
            raise ValueError(f"start_frame is negative: {start_frame}")
        size = self.header.block_frames
        first = start_frame // size
        if self._source.seekable:
            if first:
                first = min(first, -(-self.scan() // size))
            if not self._records.go_to(first):
                return
        elif self._fresh:
            first = 0
        else:
            raise ContainerError(f"{self._name}: a pipe can be read only once")
        self._fresh = False
        for index in itertools.count(first):
            if stop_frame is not None and index * size >= stop_frame:
                return
            try:
                block = self._records.next(index)
            except TruncatedError as error:
                self._cut_off(error, index)
                return
            if self._records.final is not None:
                self.num_samples = self._records.final.num_samples
                self.num_frames = self._records.final.num_frames
            if block is None:
                break
            # A block without frames is no news, unless it is damaged.
            if block.error or block.first_frame + block.num_frames > start_frame:
                yield block
        if self._source.read(1):
            self._note(self._complaints.trailing(self._source.position - 1))

    def read_frames(self, start: int, count: int) -> npt.NDArray[np.int32]:
        """Read some frames; in a file that can seek, only the blocks that hold them.

        Args:
            start: number of the first frame.
            count: how many frames.

        Returns:
            int32 ``(C, K, F)`` with F = ``count``, or fewer where the file ends first.

        Raises:
            DamagedError, TruncatedError: a block is damaged or missing, whatever ``damaged`` says.
        """
        codes = self._join(self.blocks(start, start + count))
        if self.truncated is not None and start + count > cast(int, self.num_frames):
            raise self.truncated
        first = start % self.header.block_frames
        return codes[:, :, first : first + count]

    def read_all(self) -> npt.NDArray[np.int32]:
        """Read all frames.

        Returns:
            int32 ``(C, K, F)``.

        Raises:
            DamagedError, TruncatedError: a block is damaged or missing, whatever ``damaged`` says.
        """
        codes = self._join(self.blocks())
        if self.truncated is not None:
            raise self.truncated
        return codes

    def scan(self) -> int:
        """Find the length of a file that can seek without reading its blocks.

        Returns:
            Frames per channel; `num_frames` and `num_samples` are set, too.

        Raises:
            DamagedError, TruncatedError: a stream has no whole end (unless ``"keep"``).
            ContainerError: a pipe cannot be scanned.
        """
        if self.num_frames is None:
            if not self._source.seekable:
                raise ContainerError(
                    f"{self._name}: the length of a stream on a pipe is known at its end"
                )
            if self._records.find_final() and self._records.final is not None:
                self.num_samples = self._records.final.num_samples
                self.num_frames = self._records.final.num_frames
            else:
                whole = self._records.whole_blocks()
                self._cut_off(self._records.cut_off(whole), whole)
        return cast(int, self.num_frames)

    def _join(self, blocks: Iterator[Block]) -> npt.NDArray[np.int32]:
        """Codes of all blocks; none make ``(C, K, 0)``."""
        parts = [np.empty((self.header.channels, self.header.layout.num_codebooks, 0), np.int32)]
        for block in blocks:
            if block.codes is None:
                raise DamagedError(block.error)
            parts.append(block.codes)
        return np.concatenate(parts, axis=2)

    def _compare_sizes(self, promised: int, size: int) -> None:
        """Hold the promised length against the size of the file, before a block is read."""
        if size > promised:
            self._note(self._complaints.trailing(promised))
        elif size < promised:
            whole = self._records.whole_blocks()
            reason = f"has {size} of {promised} bytes"
            self._cut_off(self._records.cut_off(whole, reason), whole)

    def _cut_off(self, error: TruncatedError, whole: int) -> None:
        """Note that the file ends after ``whole`` blocks, and how much audio they are."""
        if self.truncated is None:
            self._note(error)
            self.truncated = error
        self.num_frames = whole * self.header.block_frames
        self.num_samples = self.header.samples_in(self.num_frames)
        if self.header.num_samples is not None:
            self.num_samples = min(self.num_samples, self.header.num_samples)

    def _note(self, problem: ContainerError) -> None:
        """Raise a problem outside the blocks or, with ``"keep"``, write it down once."""
        if not self._keep:
            raise problem
        if str(problem) not in map(str, self.problems):
            self.problems.append(problem)


def read_tokens(file: BinaryIO, name: str = "<stream>") -> Tokens:
    """Read all tokens of a file or a pipe.

    Raises:
        NotHcdError, UnsupportedError, DamagedError, TruncatedError: see `codectool.errors`.
    """
    reader = Reader(file, name)
    codes = reader.read_all()
    return Tokens(
        codes=codes,
        layout=reader.header.layout,
        fingerprint=reader.header.fingerprint,
        sample_rate=reader.header.sample_rate,
        num_samples=cast(int, reader.num_samples),
        segment_frames=reader.header.segment_frames,
        tags=reader.tags,
    )
