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
    library = _c_library()
    stderr = ctypes.c_void_p.in_dll(library, "stderr")
    with _lock:
        file = os.memfd_create("messages")
        stream = library.fdopen(os.dup(file), b"w")
        original, stderr.value = stderr.value, stream
        try:
            yield messages
        finally:
            stderr.value = original
            library.fclose(stream)
            lines = os.pread(file, os.fstat(file).st_size, 0).splitlines(keepends=True)
            os.close(file)
    others = [line for line in lines if not line.startswith(_PREFIX)]
    messages.count = len(lines) - len(others)
    if others and sys.stderr is not None:
        sys.stderr.write(b"".join(others).decode(errors="replace"))


@cache
def _c_library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.fclose.argtypes = [ctypes.c_void_p]
    library.fdopen.restype = ctypes.c_void_p
    return library


@cache
def _is_glibc() -> bool:
    try:
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (AttributeError, OSError, ValueError):
        return False
