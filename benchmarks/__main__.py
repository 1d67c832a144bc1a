"""Run a benchmark: ``python -m benchmarks NAME [OPTIONS]``."""

from __future__ import annotations

import sys
from importlib import import_module

from benchmarks import NAMES

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        sys.exit(f"usage: python -m benchmarks {'|'.join(NAMES)} [OPTIONS]")
    name = sys.argv.pop(1)
    import_module(f"benchmarks.{name}").main()
