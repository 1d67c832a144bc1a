"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from codectool.errors import UsageError

_UMASK_LOCK = threading.Lock()  # the mask can be read only by setting it


@contextmanager
def atomic_output(path: Path, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that takes its name if nothing goes wrong.

    A pipe or a device that has this name is written to as it is.

    Args:
        path: the final name.
        overwrite: replace a file that has this name.

    Raises:
        UsageError: the file exists, or cannot be made.
    """
    check_writable(path, overwrite)
    if _is_special(path):
        with path.open("wb") as special:
            yield special
        return
    path = path.resolve()  # of a link, what it points to is replaced
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent
        )
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield cast(BinaryIO, file)
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; ours are ordinary ones
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk does not say whose
        raise


def check_writable(path: Path, overwrite: bool) -> None:
    """Refuse a name that `atomic_output` would refuse, before the work is done.

    Raises:
        UsageError: it is a folder, its folder is missing, or it exists.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    if path.exists() and not overwrite and not _is_special(path):
        raise UsageError(f"{path}: exists; give `--overwrite` to replace it")


def _is_special(path: Path) -> bool:
    """Whether this is a pipe or a device, which must not be replaced by a file."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _umask() -> int:
    with _UMASK_LOCK:
        mask = os.umask(0)
        os.umask(mask)
        return mask
