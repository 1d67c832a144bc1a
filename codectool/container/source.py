"""Read bytes from a file or a pipe, never more than requested."""

from __future__ import annotations

import os
from typing import BinaryIO

# Bytes requested at once, so that memory grows with the data and not with a size in the file.
_CHUNK_BYTES = 1 << 16


class ByteSource:
    """Bytes of one `.hcd` file; positions count from its start.

    Attributes:
        position: offset of the next byte.
        size: size of the file in bytes; None on a pipe, which cannot seek.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._unread = b""
        self._base = 0
        self.position = 0
        self.size: int | None = None
        try:
            if file.seekable():
                self._base = file.tell()
                self.size = file.seek(0, os.SEEK_END) - self._base
                file.seek(self._base)
        except OSError:
            self.size = None  # some devices claim to be seekable

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes, or fewer at the end of the data."""
        data = bytearray(self._unread[:size])
        self._unread = self._unread[size:]
        while len(data) < size:
            more = self._file.read(min(_CHUNK_BYTES, size - len(data)))
            if not more:
                break
            data += more
        self.position += len(data)
        return bytes(data)

    def unread(self, data: bytes) -> None:
        """Put back bytes, which the next `read` returns first."""
        self._unread = data + self._unread
        self.position -= len(data)

    def seek(self, position: int) -> None:
        """Move to an offset; only where `size` is known."""
        self._unread = b""
        self._file.seek(self._base + position)
        self.position = position


class RecordingReader:
    """Keep the bytes that are read from a source, for checksums over them.

    Attributes:
        data: all bytes read so far.
    """

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.data = bytearray()

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes, or fewer at the end of the data."""
        data = self._source.read(size)
        self.data += data
        return data

    def tell(self) -> int:
        """Return the number of bytes read; called by construct."""
        return len(self.data)
