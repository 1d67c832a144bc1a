"""Write files atomically: a reader sees the old file or the new one, never a part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from codectool.errors import UsageError


@contextmanager
def atomic_output(path: Path, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file that is renamed to ``path`` if the body raises no exception.

    A pipe or a device of this name is opened directly.

    Args:
        path: final name; of a link, the target is replaced.
        overwrite: replace an existing file.

    Raises:
        UsageError: the file exists or cannot be created.
    """
    check_writable(path, overwrite)
    if path.exists() and not path.is_file():
        with path.open("wb") as special:
            yield special
        return
    path = path.resolve()
    temporary = temporary_path(path)
    try:
        file = temporary.open("x+b")  # exclusive; the kernel applies the umask to mode 0o666
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from error
    try:
        with file:
            yield file
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # "no space left on device" names no file
        raise


def temporary_path(path: Path) -> Path:
    """Return a random name beside ``path`` for what will be renamed to it.

    `codectool.pipeline` recognizes these names to remove the files of a killed run.
    """
    return path.with_name(f".{path.name[:100]}.{os.urandom(4).hex()}.part")


def check_writable(path: Path, overwrite: bool) -> None:
    """Raise a `UsageError` if `atomic_output` could not write to ``path``."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    if path.is_file() and not overwrite:
        raise UsageError(f"{path}: exists; give `--overwrite` to replace it")


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write all of ``data``; an unbuffered pipe may accept only part of it per call."""
    left = memoryview(data)
    while left:
        written = file.write(left)
        left = left[len(left) if written is None else written :]
