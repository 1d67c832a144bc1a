"""PyTorch and ONNX Runtime: whole commands with their start-up, and real-time factors.

    python -m benchmarks runtimes [--model NAME CHECKPOINT EXPORT ...] [--threads 1 2] [--turns 5]

CHECKPOINT runs in PyTorch, EXPORT, a folder that `codectool export` wrote, in ONNX Runtime. Without
`--model`, the bundled HAC weights run in both. Every measurement is a process of its own, and the
runtimes take turns. Values are medians, for the machine may be shared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile

from benchmarks.systems import BUNDLED_SPEECH, speech
from benchmarks.tables import table
from benchmarks.timing import machine

RUNTIMES = ("torch", "onnx")
RATE = 24_000
# Runs a command and prints the peak memory in kB, which `wait4` confuses with that of the parent.
COMMAND = """
import sys
from pathlib import Path
from codectool.cli import main
try:
    main(sys.argv[1:])
finally:
    print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""
# Prints seconds of computation per second of audio of encode and decode.
CHILD = """
import json, sys, time
import codectool, soundfile
checkpoint, runtime, path, rounds = sys.argv[1:]
wave, rate = soundfile.read(path, dtype="float32")
codec = codectool.load(checkpoint=checkpoint, runtime=runtime, device="cpu")
codec.runner.limit_threads()
times = {"encode": [], "decode": []}
for _ in range(int(rounds) + 1):
    start = time.perf_counter()
    tokens = codec.encode(wave, rate)
    middle = time.perf_counter()
    codec.decode(tokens)
    times["encode"].append(middle - start)
    times["decode"].append(time.perf_counter() - middle)
print(json.dumps({name: min(all_[1:]) * rate / len(wave) for name, all_ in times.items()}))
"""


def run(arguments: Sequence[object], count: int, output: Path) -> dict[str, float]:
    """Run Python with ``count`` threads; return wall time and processor time in seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}
    command = [sys.executable, *map(str, arguments)]
    start = time.perf_counter()
    with output.open("wb") as file:
        process = os.posix_spawn(
            sys.executable,
            command,
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), 1)],
        )
        _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command[1:])}")
    seconds = time.perf_counter() - start
    return {"wall": seconds, "cpu": usage.ru_utime + usage.ru_stime}


def measure(
    name: str, checkpoint: str, export: str, count: int, turns: int, long: float, folder: Path
) -> dict[str, Any]:
    """Measure one model with ``count`` threads."""
    short_clip, long_clip = folder / "short.wav", folder / "long.wav"
    for path, seconds in ((short_clip, 3.0), (long_clip, long)):
        soundfile.write(path, speech(BUNDLED_SPEECH, RATE, seconds), RATE)
    paths = dict(zip(RUNTIMES, (checkpoint, export), strict=True))
    found: dict[str, list[dict[str, float]]] = {runtime: [] for runtime in RUNTIMES}
    packed, printed = folder / "short.hcd", folder / "printed"
    for turn in range(turns):
        for runtime in RUNTIMES if turn % 2 else RUNTIMES[::-1]:
            options = ["--checkpoint", paths[runtime], "--runtime", runtime, "--overwrite"]
            command = ["-c", COMMAND, "encode", short_clip, packed, *options]
            values = run(command, count, printed)
            values["memory"] = int(printed.read_text()) / 1000
            run(["-c", CHILD, paths[runtime], runtime, long_clip, 2], count, printed)
            found[runtime].append({**values, **json.loads(printed.read_text())})
    medians = {
        runtime: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for runtime, rows in found.items()
    }
    return {"model": name, "threads": count, **medians}


def render(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table; a ratio above 1 means that ONNX Runtime is faster."""
    head = ["model", "threads", "runtime", "`encode` of 3 s", "processor time", "memory"]
    head += ["encode", "decode"]
    lines = []
    for row in rows:
        torch, onnx = (row[runtime] for runtime in RUNTIMES)
        first = [row["model"], str(row["threads"])]
        for runtime in RUNTIMES:
            values = row[runtime]
            cells = [f"{values['wall']:.2f} s", f"{values['cpu']:.2f} s"]
            cells += [f"{values['memory']:.0f} MB"]
            cells += [f"{values[way]:.4f}" for way in ("encode", "decode")]
            lines.append([*first, runtime, *cells])
        keys = ("wall", "cpu", "memory", "encode", "decode")
        lines.append([*first, "ratio", *(f"{torch[key] / onnx[key]:.2f}" for key in keys)])
    return table(head, lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", nargs=3, action="append", metavar=("NAME", "CHECKPOINT", "EXPORT"))
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--turns", type=int, default=5)
    add("--seconds", type=float, default=10.0, help="audio of the real-time factors")
    add("--json", type=Path, help="also write the values to this file")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, checkpoint, export in options.model or [("HAC", "hac", "hac")]:
            for count in options.threads:
                rows.append(
                    measure(
                        *(name, checkpoint, export, count, options.turns, options.seconds),
                        Path(folder),
                    )
                )
    print(render(rows))
    if options.json:
        results = {"machine": machine(), "runtimes": rows}
        options.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
