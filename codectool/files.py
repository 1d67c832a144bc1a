"""Write files atomically: a reader sees the old file or the new one, never a part."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from codectool.errors import UsageError

MAX_STEM_BYTES = 100  # of a temporary name, which must not exceed 255 bytes
ACCESS_LIST = "system.posix_acl_access"  # extended attribute of Linux


@contextmanager
def atomic_output(path: Path, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file that is renamed to ``path`` if the body raises no exception.

    A file that replaces another one gets its access rights. A pipe or a device of this name is
    opened directly.

    Args:
        path: final name; of a link, the target is replaced.
        overwrite: replace an existing file.

    Raises:
        UsageError: the file exists or cannot be created.
    """
    check_writable(path, overwrite)
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as special:
                yield special
            return
        final = path.resolve()
        temporary = temporary_path(final)
        try:
            with _create(temporary, final) as file:
                yield file
            temporary.replace(final)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)  # "no space left on device" names no file
        raise


@contextmanager
def _create(temporary: Path, final: Path) -> Iterator[BinaryIO]:
    """Create a file for writing and reading, with the access rights of the file at ``final``."""
    old = os.stat(final) if final.is_file() else None
    mode = 0o666 if old is None else 0o600  # the kernel applies the umask
    try:
        opened = open(  # noqa: SIM115
            temporary, "x+b", opener=lambda name, flags: os.open(name, flags, mode)
        )
    except OSError as error:
        raise UsageError(f"{final}: cannot be written ({error.strerror or error})") from error
    with opened as file:
        if old is not None and hasattr(os, "fchown"):  # not on Windows
            _copy_access(final, old, file.fileno())
        yield cast(BinaryIO, file)


def _copy_access(path: Path, old: os.stat_result, descriptor: int) -> None:
    """Give an open file the owner, group and mode of another one, or less access if not allowed."""
    for owner, group in ((old.st_uid, -1), (-1, old.st_gid)):
        with suppress(OSError):
            os.fchown(descriptor, owner, group)
    mode = stat.S_IMODE(old.st_mode) & 0o777
    if os.fstat(descriptor).st_gid != old.st_gid:
        mode &= 0o707 | (mode & 0o007) << 3  # another group gets no more than all others
    try:
        access_list = os.getxattr(path, ACCESS_LIST)
    except (AttributeError, OSError):  # another system, or none
        access_list = b""
        with suppress(AttributeError, OSError):
            os.removexattr(descriptor, ACCESS_LIST)  # inherited from the folder
    with suppress(OSError):
        os.fchmod(descriptor, mode & 0o700 if access_list else mode)
        if access_list:
            os.setxattr(descriptor, ACCESS_LIST, access_list)  # sets the other bits of the mode


def temporary_path(path: Path) -> Path:
    """Return a random name beside ``path`` for what will be renamed to it.

    `codectool.pipeline` recognizes these names to remove the files of a killed run.
    """
    return path.with_name(f".{temporary_stem(path)}.{os.urandom(4).hex()}.part")


def temporary_stem(path: Path) -> str:
    """Return the part of the temporary names of ``path`` that is the same in all of them."""
    stem = path.name[:MAX_STEM_BYTES]
    while len(os.fsencode(stem)) > MAX_STEM_BYTES:
        stem = stem[:-1]
    return stem


def check_writable(path: Path, overwrite: bool) -> None:
    """Raise a `UsageError` if `atomic_output` could not write to ``path``."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = 0
    except OSError as error:  # such as a name that is too long
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    if stat.S_ISREG(mode) and not overwrite:
        raise UsageError(f"{path}: exists; give `--overwrite` to replace it")
    is_special = mode and not stat.S_ISREG(mode)  # opened directly, not replaced
    if not is_special and not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path}: the folder {path.parent} cannot be written; name another one")


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write all of ``data``; an unbuffered file may accept only part of it per call.

    Raises:
        BlockingIOError: an unbuffered pipe does not block, and is full.
    """
    write: Callable[[memoryview], int | None] = file.write
    left = memoryview(data)
    while left:
        written = write(left)
        if written is None and isinstance(file, io.RawIOBase):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        left = left[len(left) if written is None else written :]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits and constant memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
