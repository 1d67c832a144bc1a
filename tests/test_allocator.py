"""Memory that tensors free is used again without page faults, or returned to the kernel."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc has these settings"
)

PROGRAM = """
import resource, threading
import numpy as np
from codectool.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    for _ in range(3):
        [np.ones(1 << 20, np.float32) for _ in range(4)]
    before = faults()
    for _ in range(5):
        [np.ones(1 << 20, np.float32) for _ in range(4)]
    print(faults() - before)

keep_freed_memory()
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""

GAPS = """
import ctypes, mmap
from codectool.allocator import keep_freed_memory, release_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * mmap.PAGESIZE

keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [libc.malloc(1 << 20) for _ in range(64)]
for block in blocks:
    ctypes.memset(ctypes.c_void_p(block), 1, 1 << 20)
for block in blocks[::2]:
    libc.free(block)
before = resident()
release_freed_memory()
print(before - resident())
"""


def test_memory_between_blocks_in_use_can_be_released() -> None:
    done = subprocess.run([sys.executable, "-c", GAPS], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 24 << 20  # of 32 MB


def test_freed_memory_is_used_again_without_page_faults() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 1000  # 80 MB are 20,000 pages
