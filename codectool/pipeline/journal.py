"""The journal of an output folder, `.codectool.jsonl`: from which input each output was made.

Each output has two lines of JSON. The first, without `bytes` and `crc32`, is written before work
starts, so that the file is known to be ours even after a power failure; the second when the output
is complete. The last line of an output counts; torn lines are ignored. The end of a run sorts and
compacts the journal.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterable, KeysView
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from codectool.errors import UsageError
from codectool.files import atomic_output, temporary_stem

JOURNAL_NAME = ".codectool.jsonl"
READ_BYTES = 1 << 20
# See `codectool.files.temporary_path`; also matches the random part of earlier versions.
TEMPORARY_NAME = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.part", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """How an output was made.

    Attributes:
        target: output relative to its folder.
        source: input relative to its folder.
        source_bytes: size of the input.
        source_mtime_ns: modification time of the input.
        settings: short hash of everything the output depends on besides the input.
        bytes: size of the output; None until it is complete.
        crc32: checksum of the output, eight hexadecimal digits; None until it is complete.
        warnings: one sentence for each fault of the audio that was read anyway.
        source_ctime_ns: time of the last change of the input or its metadata, which programs
            cannot set; None in entries of earlier versions.
        source_crc32: checksum of the input, taken before it was read; None in entries of earlier
            versions.
    """

    target: str
    source: str
    source_bytes: int
    source_mtime_ns: int
    settings: str
    bytes: int | None = None
    crc32: str | None = None
    warnings: tuple[str, ...] = ()
    source_ctime_ns: int | None = None
    source_crc32: str | None = None

    def begun(self) -> Entry:
        """Return the entry as it was before the output was complete."""
        return dataclasses.replace(self, bytes=None, crc32=None, warnings=())

    def has_equal_properties(self, other: Entry) -> bool:
        """Return whether another entry has the same input and settings, according to its `stat`."""

        def properties(entry: Entry) -> tuple[object, ...]:
            return entry.source, entry.source_bytes, entry.source_mtime_ns, entry.settings

        return properties(self) == properties(other)


class Journal:
    """The open journal of a folder, locked against other runs; a thread-safe context manager.

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
        """Return the names of all outputs that were ever begun here."""
        return self._entries.keys()

    def find(self, target: str) -> Entry | None:
        """Return the entry of an output."""
        return self._entries.get(target)

    def begin(self, entries: Iterable[Entry]) -> None:
        """Record that work on outputs starts; survives a power failure."""
        begun = [entry.begun() for entry in entries]
        if begun:
            self._append(begun)
            os.fsync(self._file.fileno())

    def finish(self, entry: Entry) -> None:
        """Record that an output is complete."""
        self._append([entry])

    def compact(self) -> None:
        """Rewrite the journal with one line per existing output, sorted."""
        names = [name for name in sorted(self._entries) if (self.folder / name).is_file()]
        content = b"".join(_line(self._entries[name]) for name in names)
        if self.path.read_bytes() != content:
            with atomic_output(self.path, overwrite=True) as file:
                file.write(content)

    def remove_stale_files(self, targets: Iterable[Path]) -> int:
        """Remove the temporary files that killed runs left for these outputs and the journal.

        Returns:
            Number of files removed.
        """
        names: defaultdict[Path, set[str]] = defaultdict(set)
        for path in (self.path, *targets):
            names[path.parent].add(temporary_stem(path))
        removed = 0
        for folder, known in names.items():
            try:
                found = os.listdir(folder)
            except OSError:
                continue  # not created yet
            for name in found:
                match = TEMPORARY_NAME.fullmatch(name)
                if match and match[1] in known:
                    (folder / name).unlink(missing_ok=True)
                    removed += 1
        return removed

    def _append(self, entries: list[Entry]) -> None:
        with self._lock:
            for entry in entries:
                self._entries[entry.target] = entry
                self._file.write(_line(entry))
            self._file.flush()


def matches_checksum(path: Path, entry: Entry) -> bool:
    """Return whether a file has the size and checksum of its entry."""
    try:
        return path.stat().st_size == entry.bytes and checksum(path) == entry.crc32
    except OSError:
        return False


def checksum(path: Path) -> str:
    """Return the CRC-32 of a file as eight hexadecimal digits."""
    crc = 0
    with path.open("rb") as file:
        while data := file.read(READ_BYTES):
            crc = zlib.crc32(data, crc)
    return f"{crc:08x}"


def _line(entry: Entry) -> bytes:
    values = {name: value for name, value in vars(entry).items() if value not in (None, ())}
    return json.dumps(values).encode() + b"\n"


def _parse(line: bytes) -> Entry | None:
    """Return an entry, or None for any other line: a crash leaves half lines and zeros."""
    try:
        # not by msgspec, which refuses names that are not UTF-8
        return msgspec.convert(json.loads(line), Entry)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _open_locked(path: Path) -> BinaryIO:
    """Open a file for reading and appending; the lock lasts until it is closed.

    Raises:
        UsageError: another process holds the lock.
    """
    while True:
        file = path.open("a+b")
        try:
            _lock(file, path)
            # a run that just ended may have replaced the file
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise UsageError(
                f"{path.parent}: another run is writing there; wait for it, or name another folder"
            ) from error
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # network drives without locks
            raise
