"""How long the shell waits: median seconds of whole processes, warm.

python -m benchmarks.start [--json] [--runs 9]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import codectool


def example(folder: Path) -> Path:
    """A three-second file of the BigCodec profile."""
    layout = codectool.TokenLayout("bigcodec", 16000, 200, (13,))
    codes = np.random.default_rng(0).integers(0, 8192, (1, 1, 240), dtype=np.int32)
    path = folder / "example.hcd"
    codectool.write(path, codectool.Tokens(codes, layout, "00000000", 16000, 48000))
    return path


def seconds(command: list[str], runs: int) -> float:
    times = []
    for _ in range(runs + 1):  # the first one warms the disk cache
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    tool = [sys.executable, "-m", "codectool"]
    with tempfile.TemporaryDirectory() as folder:
        path = example(Path(folder))
        rows = {
            "--help": seconds([*tool, "--help"], options.runs),
            "info FILE": seconds([*tool, "info", str(path)], options.runs),
            "verify FILE": seconds([*tool, "verify", str(path)], options.runs),
            "import torch": seconds([sys.executable, "-c", "import torch"], options.runs),
        }
    if options.json:
        print(json.dumps({"cores": os.cpu_count(), "seconds": rows}))
        return
    print(f"median seconds of {options.runs} runs, {os.cpu_count()} cores")
    for name, value in rows.items():
        print(f"  {name:14} {value:.3f}")


if __name__ == "__main__":
    main()
