"""What was made of what: `.codectool.jsonl` in the folder of the outputs.

One line of JSON per output, twice: without `bytes` and `crc32` before work on it begins, so that a
file is known to be ours whenever the power goes, and with them when it is there. The last line
counts, and lines that are torn do not. At the end of a run the journal is put in order.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import threading
import zlib
from collections.abc import Iterable, KeysView
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from codectool.errors import UsageError
from codectool.files import atomic_output

JOURNAL_NAME = ".codectool.jsonl"
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Entry:
    """How an output came to be.

    Attributes:
        target: its name as seen from the folder of the outputs.
        source: name of the input as seen from its folder.
        source_bytes: size of the input.
        source_mtime_ns: when it was last changed.
        settings: short hash of all that the output depends on beside the input.
        bytes: size of the output; None before it is there.
        crc32: checksum of the output, eight hexadecimal digits; None likewise.
    """

    target: str
    source: str
    source_bytes: int
    source_mtime_ns: int
    settings: str
    bytes: int | None = None
    crc32: str | None = None

    def begun(self) -> Entry:
        """The same before the output was there."""
        return dataclasses.replace(self, bytes=None, crc32=None)


class Journal:
    """The open journal of a folder, which no other run can open meanwhile.

    Safe to use from several threads. A context manager.

    Raises:
        UsageError: another run has it open, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / JOURNAL_NAME
        self._lock = threading.Lock()
        try:
            self._file = _open_locked(self.path)
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written ({error.strerror})") from error
        self._file.seek(0)
        raw = self._file.read()
        parsed = (_parse(line) for line in raw.split(b"\n"))
        self._entries = {entry.target: entry for entry in parsed if entry is not None}
        if raw and not raw.endswith(b"\n"):
            self._file.write(b"\n")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def targets(self) -> KeysView[str]:
        """Names of all outputs that were ever begun here."""
        return self._entries.keys()

    def find(self, target: str) -> Entry | None:
        """What is known of an output."""
        return self._entries.get(target)

    def begin(self, entries: Iterable[Entry]) -> None:
        """Write down that outputs are about to be made; survives a loss of power."""
        self._append([entry.begun() for entry in entries])
        os.fsync(self._file.fileno())

    def finish(self, entry: Entry) -> None:
        """Write down that an output is there."""
        self._append([entry])

    def put_in_order(self) -> None:
        """Write the journal anew: one line for each output that is there, sorted."""
        lines = [_line(self._entries[name]) for name in sorted(self._entries) if self._there(name)]
        content = b"".join(lines)
        if self.path.read_bytes() != content:
            with atomic_output(self.path, overwrite=True) as file:
                file.write(content)

    def _there(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def _append(self, entries: list[Entry]) -> None:
        with self._lock:
            for entry in entries:
                self._entries[entry.target] = entry
                self._file.write(_line(entry))
            self._file.flush()


def is_whole(path: Path, entry: Entry) -> bool:
    """Whether a file holds the very bytes that were written."""
    try:
        return path.stat().st_size == entry.bytes and checksum(path) == entry.crc32
    except OSError:
        return False


def checksum(path: Path) -> str:
    """CRC-32 of a file as eight hexadecimal digits."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            crc = zlib.crc32(piece, crc)
    return f"{crc:08x}"


def _line(entry: Entry) -> bytes:
    values = {name: value for name, value in vars(entry).items() if value is not None}
    return json.dumps(values).encode() + b"\n"


def _parse(line: bytes) -> Entry | None:
    """An entry, or None where the line is none: a crash leaves half a line, or zeros."""
    try:
        entry = Entry(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    numbers = (entry.source_bytes, entry.source_mtime_ns, entry.bytes or 0)
    texts = (entry.target, entry.source, entry.settings, entry.crc32 or "")
    right = all(type(number) is int for number in numbers)
    return entry if right and all(type(text) is str for text in texts) else None


def _open_locked(path: Path) -> BinaryIO:
    """Open for reading and appending; the lock goes when the file is closed, or the process dies.

    Raises:
        UsageError: someone else has the lock.
    """
    while True:
        file = path.open("a+b")
        try:
            _take_lock(file, path)
            # a run that has just ended may have put another file in its place
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _take_lock(file: BinaryIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # there are none on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise UsageError(
                f"{path.parent}: another run is writing there; wait for it, or name another folder"
            ) from error
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # some network drives know no locks
            raise
