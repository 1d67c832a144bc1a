"""Where bytes come from: a file that can seek or a pipe that cannot, read just as far as asked."""

from __future__ import annotations

import os
from typing import BinaryIO

# Bytes asked for at once. Memory grows with the data that are there, never with a promise.
_PIECE = 1 << 16


class Source:
    """Bytes of one `.hcd` file, counted from its beginning.

    Attributes:
        position: offset of the next byte.
        size: bytes in all; None on a pipe.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ahead = b""
        self._base = 0
        self.position = 0
        self.size: int | None = None
        try:
            if file.seekable():
                self._base = file.tell()
                self.size = file.seek(0, os.SEEK_END) - self._base
                file.seek(self._base)
        except OSError:
            self.size = None  # says it can seek, and cannot

    @property
    def seekable(self) -> bool:
        """Whether `seek` works."""
        return self.size is not None

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes, or all that are left if those are fewer."""
        data = bytearray(self._ahead[:size])
        self._ahead = self._ahead[size:]
        while len(data) < size:
            piece = self._file.read(min(_PIECE, size - len(data)))
            if not piece:
                break
            data += piece
        self.position += len(data)
        return bytes(data)

    def unread(self, data: bytes) -> None:
        """Give back bytes that were read too early."""
        self._ahead = data + self._ahead
        self.position -= len(data)

    def seek(self, position: int) -> None:
        """Go to an offset within the file."""
        self._ahead = b""
        self._file.seek(self._base + position)
        self.position = position


class Tape:
    """A file that remembers what was read: checks are over the bytes as they stand there."""

    def __init__(self, file: Source) -> None:
        self._file = file
        self.data = bytearray()

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes and remember them."""
        data = self._file.read(size)
        self.data += data
        return data

    def tell(self) -> int:
        """Bytes read so far; construct asks."""
        return len(self.data)
