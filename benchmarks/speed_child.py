"""Run one command of codectool and tell the most memory that its process ever held.

    python -m benchmarks.speed_child encode in.wav out.hcd ...

Imports next to nothing, for what it imports would count.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from pathlib import Path

from codectool.cli import main as codectool


def high_water() -> int:
    """Bytes that this process held at most; what its parent held does not count on Linux."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def main() -> None:
    began = time.perf_counter()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            codectool(sys.argv[1:])
    except SystemExit as done:
        if done.code:
            raise
    print(json.dumps({"bytes": high_water(), "took": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
