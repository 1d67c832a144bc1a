"""Run a benchmark: ``python -m benchmarks codecs|training|engines|runtimes|startup|trace [OPTIONS]``."""

from __future__ import annotations

import sys
from importlib import import_module

import benchmarks

NAMES = ("codecs", "training", "engines", "runtimes", "startup", "trace")

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        sys.exit(benchmarks.__doc__)
    name = sys.argv.pop(1)
    import_module(f"benchmarks.{name}").main()
