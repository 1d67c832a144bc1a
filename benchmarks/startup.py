"""Start-up: what short commands spend their time on, with warm and cold file caches.

    python -m benchmarks startup [--commands NAME ...] [--runtimes torch onnx] [--turns 7] [--cold]

Every measurement is a process of its own, and the commands take turns. Values are medians. Bytecode
is compiled before, as in an installed package. ``--cold`` evicts the files of Python and of its
packages from the file cache before each run, so that they are read from the disk.

The parts are, in seconds:

- interpreter: until the first line of Python runs, and what no other part contains;
- package: importing PyTorch or ONNX Runtime;
- imports: all other modules;
- weights: `codectool.loading.load` without imports;
- work: the rest of the command; ``again`` is its time when it is repeated in the same process, so
  the difference is what PyTorch does at the first calls;
- exit: from the end of the command to the end of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import codectool
from benchmarks.tables import table

SPEECH = Path(__file__).parents[1] / "assets" / "speech_flite.flac"
RUNTIMES = {"torch": "torch", "onnx": "onnxruntime"}  # packages
PARTS = ("interpreter", "package", "imports", "weights", "work", "exit")
BARE = ("python", "import torch")
WITH_MODEL = ("encode", "decode", "folder")
COMMANDS = (*BARE, "--help", "info", *WITH_MODEL)
CUT = """
import sys, soundfile
source, seconds, *targets = sys.argv[1:]
wave, rate = soundfile.read(source)
for target in targets:
    soundfile.write(target, wave[: round(float(seconds) * rate)], rate)
"""
# Runs a command and writes seconds of its parts. Imports inside others are counted with these, but
# the package of the runtime apart. Only built-in modules are imported here, to add nothing.
CHILD = """
import time
began = time.perf_counter()
import builtins, importlib, sys
report, package, repeat, *arguments = sys.argv[1:]
seconds = {"imports": 0.0, "package": 0.0, "weights": 0.0}
active = []

def timed(function):
    def call(name, *rest, **options):
        inside = package and name == package and package not in sys.modules
        if active and not inside:
            return function(name, *rest, **options)
        active.append(name)
        start = time.perf_counter()
        try:
            return function(name, *rest, **options)
        finally:
            active.pop()
            elapsed = time.perf_counter() - start
            seconds["package" if inside else "imports"] += elapsed
            if inside and active:
                seconds["imports"] -= elapsed
    return call

builtins.__import__ = timed(builtins.__import__)
importlib.import_module = timed(importlib.import_module)

def imported():
    return seconds["imports"] + seconds["package"]

def run():
    start, before = time.perf_counter(), imported() + seconds["weights"]
    try:
        main(arguments)
    except SystemExit as ended:
        code = ended.code
    seconds["work"] = time.perf_counter() - start - (imported() + seconds["weights"] - before)
    return code

from codectool.cli import main
if package:
    from codectool import loading
    load = loading.load

    def timed_load(*given, **options):
        start, before = time.perf_counter(), imported()
        try:
            return load(*given, **options)
        finally:
            seconds["weights"] += time.perf_counter() - start - (imported() - before)

    loading.load = timed_load

def entry():
    code = run()
    if repeat == "again":
        first = dict(seconds)
        run()
        first["again"] = seconds["work"]
        seconds.update(first)
    seconds.update(began=began, ended=time.perf_counter())
    with open(report, "w") as file:
        file.write(repr(seconds))
    raise SystemExit(code)

import codectool.cli
codectool.cli.main = entry
getattr(codectool.cli, "run", entry)()
"""


def evict() -> None:
    """Drop the files of Python and its packages from the file cache; Linux only.

    Files that a running program has mapped stay, so no other one should use them, nor this one.
    """
    for file in _files_of_python():
        with open(file, "rb", buffering=0) as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _files_of_python() -> Iterator[str]:
    folders = {sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")}
    folders |= {str(Path(codectool.__file__).parent), str(Path(sys.base_prefix) / "lib")}
    yield os.path.realpath(sys.executable)
    for folder in folders:
        for parent, _, names in os.walk(folder):
            yield from (path for name in names if os.path.isfile(path := f"{parent}/{name}"))


class Commands:
    """The commands that are measured, on files in a folder.

    Args:
        folder: for the files.
        seconds: of audio.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        (folder / "one").mkdir()
        self.environment = {**os.environ, "CODECTOOL_HOME": str(folder / "home")}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        clips = [str(folder / "clip.wav"), str(folder / "one" / "clip.wav")]
        self._call([sys.executable, "-c", CUT, str(SPEECH), str(seconds), *clips])
        self._call([sys.executable, "-m", "codectool", *self.arguments("encode", "torch")])

    def arguments(self, command: str, runtime: str) -> list[str]:
        """Return the arguments of ``codectool``."""
        clip, tokens = str(self.folder / "clip.wav"), str(self.folder / "clip.hcd")
        model = ["--overwrite", "--runtime", runtime]
        return {
            "--help": ["--help"],
            "info": ["info", tokens],
            "encode": ["encode", clip, tokens, *model],
            "decode": ["decode", tokens, str(self.folder / "back.wav"), *model],
            "folder": ["encode", str(self.folder / "one"), str(self.folder / "out"), *model],
        }[command]

    def measure(self, command: str, runtime: str, again: bool = False) -> dict[str, float]:
        """Return the seconds of the parts of one run, and of all."""
        if command in BARE:
            line = "pass" if command == "python" else command
            return {"total": self._call([sys.executable, "-c", line])[1]}
        report = self.folder / "report"
        package = RUNTIMES[runtime] if command in WITH_MODEL else ""
        child = [str(report), package, "again" if again else "", *self.arguments(command, runtime)]
        start, total = self._call([sys.executable, "-c", CHILD, *child])
        values: dict[str, float] = json.loads(report.read_text().replace("'", '"'))
        values["exit"] = start + total - values.pop("ended")
        del values["began"]
        known = sum(values[part] for part in PARTS[1:])
        return {**values, "total": total, "interpreter": total - known}

    def _call(self, command: Sequence[str]) -> tuple[float, float]:
        """Return when a process was started, and its seconds."""
        start = time.perf_counter()
        subprocess.run(command, env=self.environment, check=True, stdout=subprocess.DEVNULL)
        return start, time.perf_counter() - start


def measure(
    commands: Commands, chosen: Sequence[tuple[str, str]], turns: int, cold: bool
) -> list[dict[str, Any]]:
    """Measure commands in turns; return medians."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {case: [] for case in chosen}
    again: dict[tuple[str, str], list[float]] = {case: [] for case in chosen}
    for turn in range(turns + 1):  # the first one compiles bytecode, and fills the file cache
        for case in chosen if turn % 2 else chosen[::-1]:
            if cold:
                evict()
            values = commands.measure(*case)
            if turn:
                found[case].append(values)
            if turn and case[0] in WITH_MODEL and not cold:
                again[case].append(commands.measure(*case, again=True)["again"])
    rows = []
    for (command, runtime), values in found.items():
        row = {key: statistics.median(value[key] for value in values) for key in values[0]}
        if times := again[command, runtime]:
            row["again"] = statistics.median(times)
        rows.append({"command": command, "runtime": runtime, "cold": cold, **row})
    return rows


def render(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table."""
    columns = ("total", *PARTS, "again")
    lines = [
        [
            row["command"],
            row["runtime"],
            "cold" if row["cold"] else "warm",
            *(f"{row[name]:.3f}" if name in row else "" for name in columns),
        ]
        for row in rows
    ]
    return table(["command", "runtime", "files", *columns], lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    add("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    add("--turns", type=int, default=7)
    add("--seconds", type=float, default=3.0, help="audio of the clip")
    add("--cold", action="store_true", help="read all files from the disk")
    add("--json", type=Path, help="also write the values to this file")
    options = parser.parse_args()
    chosen = [
        (command, runtime if command in WITH_MODEL else "")
        for command in options.commands
        for runtime in (options.runtimes if command in WITH_MODEL else options.runtimes[:1])
    ]
    with tempfile.TemporaryDirectory() as folder:
        commands = Commands(Path(folder), options.seconds)
        rows = measure(commands, chosen, options.turns, options.cold)
    print(render(rows))
    if options.json:
        from benchmarks.timing import machine  # imports PyTorch, whose files could not be evicted

        results = {"machine": machine(), "startup": rows}
        options.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
