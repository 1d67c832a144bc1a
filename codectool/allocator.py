"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # numbers of glibc's malloc.h
LARGEST_ON_HEAP = 8 << 20  # bytes; larger tensors are few, and would leave large gaps
KEPT = 1 << 30  # bytes


def keep_freed_memory(largest: int = LARGEST_ON_HEAP) -> None:
    """Let the process keep the memory that tensors free for the next ones.

    glibc returns memory of several MB to the kernel at once. The next tensor gets it back page by
    page, filled with zeros, and threads wait for each other. Other C libraries are left as they
    are.

    Args:
        largest: bytes of the largest tensors whose memory is kept; at most 32 MB.
    """
    with suppress(AttributeError, OSError, TypeError):  # no `mallopt`, or not in the process
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, largest)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def release_freed_memory() -> None:
    """Return freed memory to the kernel, also that between blocks in use; takes about 20 ms."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
