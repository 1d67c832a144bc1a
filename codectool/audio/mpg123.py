"""Keep messages of libmpg123 about damaged MP3 frames off stderr, and count them.

libsndfile uses libmpg123, which conceals damage and prints a line for each place. There is no
option against it. The stream `stderr` of the C library is therefore replaced while frames are
decoded; file descriptor 2 and Python's `sys.stderr` are not.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_PREFIX = b"[src/libmpg123/"
_lock = threading.Lock()  # the C library has one `stderr`
if hasattr(os, "register_at_fork"):
    # another thread may have held it when the process was forked
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]


class Messages:
    """The number of messages while frames were decoded."""

    count = 0


@contextmanager
def collected_messages() -> Iterator[Messages]:
    """Count the messages of libmpg123; print all other messages afterwards.

    Only the GNU C library allows this; elsewhere messages are printed and none are counted.
    """
    messages = Messages()
    if not _is_glibc():
        yield messages
        return
    with _lock:
        library, file, stream = _memory_stream(os.getpid())
        stderr = ctypes.c_void_p.in_dll(library, "stderr")
        original, stderr.value = stderr.value, stream
        try:
            yield messages
        finally:
            stderr.value = original
            library.fflush(stream)
            lines = os.pread(file, os.fstat(file).st_size, 0).splitlines(keepends=True)
            if lines:
                os.ftruncate(file, 0)
    others = [line for line in lines if not line.startswith(_PREFIX)]
    messages.count = len(lines) - len(others)
    if others and sys.stderr is not None:
        sys.stderr.write(b"".join(others).decode(errors="replace"))


@cache
def _memory_stream(_process: int) -> tuple[ctypes.CDLL, int, int]:
    """Return the C library, a file in memory and its stream; a forked process needs its own.

    The stream stays open: another thread may be writing to it when `stderr` is restored.
    """
    library = ctypes.CDLL(None)
    library.fflush.argtypes = [ctypes.c_void_p]
    library.fdopen.restype = ctypes.c_void_p
    file = os.memfd_create("messages")
    return library, file, library.fdopen(file, b"a")


def _is_glibc() -> bool:
    try:
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (AttributeError, OSError, ValueError):
        return False
