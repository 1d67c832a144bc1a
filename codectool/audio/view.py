"""Parts of a file as one file for libsndfile, with other bytes inserted."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, TypeAlias

Span: TypeAlias = "bytes | tuple[int, int]"  # inserted bytes, or first and last + 1 byte of a file

BLOCK_BYTES = 1 << 13  # for small reads


class View:
    """A read-only file of spans of another file.

    libsndfile calls it from C, where exceptions would be printed and then ignored. The first error
    is kept for `raise_error`; a seek to an impossible position is answered as `lseek` does.

    Args:
        file: seekable file object.
        spans: what the view consists of; None is the whole file.
    """

    def __init__(self, file: BinaryIO, spans: Sequence[Span] | None = None) -> None:
        self._file = file
        self._spans = [(0, file.seek(0, io.SEEK_END))] if spans is None else merged(spans)
        self._ends: list[int] = []
        end = 0
        for span in self._spans:
            end += len(span) if isinstance(span, bytes) else span[1] - span[0]
            self._ends.append(end)
        self.size = end
        self._position = 0
        self._block, self._block_start = b"", 0
        self._error: Exception | None = None

    def readinto(self, buffer: bytearray) -> int:
        """Fill a buffer; return the number of bytes, which is smaller at the end only."""
        target = memoryview(buffer).cast("B")
        at = self._position - self._block_start
        if not 0 <= at <= len(self._block) - len(target):
            if len(target) >= BLOCK_BYTES:
                count = self._read_at(self._position, target)
                self._position += count
                return count
            block = bytearray(BLOCK_BYTES)  # libmpg123 reads a few bytes at a time
            count = self._read_at(self._position, memoryview(block))
            self._block, self._block_start, at = bytes(block[:count]), self._position, 0
        data = self._block[at : at + len(target)]
        target[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end only."""
        data = bytearray(max(0, min(size, self.size - self._position)))
        return bytes(data[: self.readinto(data)])

    def part(self, start: int, stop: int) -> Iterator[Span]:
        """Yield the spans between two positions of the view."""
        for span, end in zip(self._spans, self._ends, strict=True):
            size = len(span) if isinstance(span, bytes) else span[1] - span[0]
            first, last = max(0, start - (end - size)), min(size, stop - (end - size))
            if first < last and isinstance(span, bytes):
                yield span[first:last]
            elif first < last:
                yield (int(span[0]) + first, int(span[0]) + last)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; `tell` returns -1 after an impossible one."""
        base = (0, max(0, self._position), self.size)[whence]
        self._position = base + offset if base + offset >= 0 else -1
        return self._position

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def raise_error(self) -> None:
        """Raise the first error of reading the file."""
        if self._error is not None:
            raise self._error

    def _read_at(self, position: int, target: memoryview) -> int:
        """Fill a buffer with the bytes from a position on; return their number."""
        done = 0
        try:
            while done < len(target) and 0 <= position < self.size:
                count = self._read_span(position, target[done:])
                if not count:
                    break
                done += count
                position += count
        except (OSError, ValueError) as error:  # a closed file raises a ValueError
            self._error = self._error or error
        return done

    def _read_span(self, position: int, target: memoryview) -> int:
        index = bisect_right(self._ends, position)
        span = self._spans[index]
        size = len(span) if isinstance(span, bytes) else span[1] - span[0]
        offset = position - (self._ends[index] - size)
        count = min(len(target), size - offset)
        if isinstance(span, bytes):
            target[:count] = span[offset : offset + count]
            return count
        self._file.seek(span[0] + offset)
        if hasattr(self._file, "readinto"):
            return self._file.readinto(target[:count]) or 0
        data = self._file.read(count)  # spooled files of Python 3.10
        target[: len(data)] = data
        return len(data)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Join spans that follow each other in the file, and drop empty ones.

    Examples:
        >>> merged([b"ab", (5, 7), (7, 9), (9, 9), (20, 30)])
        [b'ab', (5, 9), (20, 30)]
    """
    result: list[Span] = []
    for span in spans:
        last = result[-1] if result else None
        if isinstance(span, bytes):
            if span:
                result.append(span)
        elif isinstance(last, tuple) and last[1] == span[0]:
            result[-1] = (last[0], span[1])
        elif span[0] < span[1]:
            result.append(span)
    return result


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Read ``size`` bytes at ``offset``; fewer at the end of the file, none for a negative size."""
    file.seek(offset)
    return file.read(max(0, size))
