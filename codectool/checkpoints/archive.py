"""Read the zip archives that `torch.save` writes: stored records, zip64 or not.

`zipfile` builds an object for every record that the directory names, reads overlapping records as
often as they are named, and differs from PyTorch in what it takes for an archive. Here the size of
the directory is limited, and all reads together return at most as many bytes as the file has.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from codectool.errors import CheckpointError
from codectool.messages import shorten

END = struct.Struct("<4s4H2IH")  # signature, disks and records, directory size and start, comment
END_64 = struct.Struct("<4sQ2H2I4Q")
END_64_LOCATOR = struct.Struct("<4sIQI")
ENTRY = struct.Struct("<4s6H3I5H2I")
LOCAL_ENTRY = struct.Struct("<4s5H3I2H")
MAX_COMMENT_BYTES = 65_535
MAX_DIRECTORY_BYTES = 1 << 23
MAX_RECORDS = 1 << 16
UNKNOWN_32 = 0xFFFFFFFF  # the value is in a zip64 field
ZIP64_FIELD = 1
STORED = 0
ENCRYPTED = 1  # flag bit


class _Record(NamedTuple):
    position: int
    size: int
    crc: int
    stored: bool


class Archive:
    """A zip archive; ``names`` are the records in the order of its directory.

    Raises:
        CheckpointError: It is damaged, or its directory is larger than any checkpoint needs.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._unread = size
        self._records = self._read_directory(size)

    @property
    def names(self) -> list[str]:
        """Names of the records."""
        return list(self._records)

    def read(self, name: str) -> npt.NDArray[np.uint8]:
        """Return the bytes of a record.

        Raises:
            CheckpointError: It is missing, damaged or compressed, or overlaps other records.
        """
        if (record := self._records.get(name)) is None:
            raise CheckpointError(f"record {shorten(name)} is missing")
        if not record.stored:
            raise CheckpointError(
                "its records are compressed or encrypted, which PyTorch never does; unpack it and "
                "pack it again without compression"
            )
        self._unread -= record.size
        if self._unread < 0:
            raise CheckpointError("its records overlap")
        local = LOCAL_ENTRY.unpack(self._read_exactly(record.position, LOCAL_ENTRY.size))
        if local[0] != b"PK\x03\x04":
            raise CheckpointError(f"record {shorten(name)} is damaged")
        self._file.seek(local[-2] + local[-1], 1)  # name and extra fields
        data = np.empty(record.size, np.uint8)
        if self._file.readinto(data.data) < record.size:  # type: ignore[attr-defined]
            raise CheckpointError("it is cut off")
        if zlib.crc32(data.data) != record.crc:
            raise CheckpointError(f"record {shorten(name)} is damaged (its checksum is wrong)")
        return data

    def _read_exactly(self, position: int, size: int) -> bytes:
        """Read the small structures of the format; ``size`` is limited by the caller."""
        self._file.seek(position)
        data = self._file.read(size)
        if len(data) < size:
            raise CheckpointError("it is cut off")
        return data

    def _read_directory(self, file_size: int) -> dict[str, _Record]:
        tail_start = max(0, file_size - MAX_COMMENT_BYTES - END.size)
        tail = self._read_exactly(tail_start, file_size - tail_start)
        position = tail.rfind(b"PK\x05\x06", 0, max(0, len(tail) - END.size + 4))
        if position < 0:
            raise CheckpointError("it is cut off, or not a zip archive")
        _, _, _, _, count, size, start, _ = END.unpack_from(tail, position)
        locator_start = tail_start + position - END_64_LOCATOR.size
        if locator_start >= 0:
            raw = self._read_exactly(locator_start, END_64_LOCATOR.size)
            signature, _, end_64, _ = END_64_LOCATOR.unpack(raw)
            if signature == b"PK\x06\x07":
                if end_64 > file_size:
                    raise CheckpointError("its directory is damaged")
                fields = END_64.unpack(self._read_exactly(end_64, END_64.size))
                if fields[0] != b"PK\x06\x06":
                    raise CheckpointError("its directory is damaged")
                count, size, start = fields[-3:]
        if count > MAX_RECORDS or size > MAX_DIRECTORY_BYTES:
            raise CheckpointError(f"it has more records than any checkpoint ({MAX_RECORDS})")
        if start + size > file_size:
            raise CheckpointError("its directory is damaged")
        return _parse_directory(self._read_exactly(start, size), count, file_size)


def _parse_directory(data: bytes, count: int, file_size: int) -> dict[str, _Record]:
    records: dict[str, _Record] = {}
    position = 0
    for _ in range(count):
        if position + ENTRY.size > len(data):
            raise CheckpointError("its directory is damaged")
        fields = ENTRY.unpack_from(data, position)
        signature, flags, method, crc = fields[0], fields[3], fields[4], fields[7]
        packed_size, size, name_size, extra_size, comment_size = fields[8:13]
        record_start = fields[-1]
        name_start = position + ENTRY.size
        extra_start = name_start + name_size
        position = extra_start + extra_size + comment_size
        if signature != b"PK\x01\x02" or position > len(data):
            raise CheckpointError("its directory is damaged")
        wide = _zip64_values(data[extra_start : extra_start + extra_size])
        if size == UNKNOWN_32:
            size = next(wide, size)
        if packed_size == UNKNOWN_32:
            packed_size = next(wide, packed_size)
        if record_start == UNKNOWN_32:
            record_start = next(wide, record_start)
        name = data[name_start:extra_start].decode("utf-8", "replace")
        if name in records:
            raise CheckpointError("two records have the same name")
        if record_start + packed_size > file_size:
            raise CheckpointError("it is cut off, or its directory is damaged")
        stored = method == STORED and not flags & ENCRYPTED
        if stored and packed_size != size:
            raise CheckpointError("its directory is damaged")
        records[name] = _Record(record_start, size, crc, stored)
    return records


def _zip64_values(extra: bytes) -> Iterator[int]:
    """Yield the 64-bit values in the extra fields of a directory entry."""
    position = 0
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == ZIP64_FIELD:
            values = extra[position : position + size]
            yield from (value for (value,) in struct.iter_unpack("<Q", values[: size // 8 * 8]))
        position += size
