"""How fast the codecs are, beside the upstream way of running the same weights.

    python -m benchmarks.speed [--model NAME ...] [--only PART ...] [--quick] [--json FILE]
    python -m benchmarks.speed --model bigcodec --parity 200 --files LIST
    python -m benchmarks.speed --markdown bench.json

Prints tables and writes the same figures as JSON. The upstream way is `benchmarks.upstream_way`:
both run in one process, in turns, and their tokens are compared. Without ``--checkpoint`` weights
of the published size are made from the names of the tensors; speed does not depend on values.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import bitpack
from benchmarks.speed_models import (
    SHIPPED_SPEECH,
    Contender,
    Wave,
    clip_lengths,
    open_contender,
    speech,
)
from benchmarks.speed_pairs import one_file, short_files
from benchmarks.speed_parity import parity
from benchmarks.speed_processes import answers, memory
from benchmarks.speed_profile import profiled
from benchmarks.speed_streaming import BLOCKS, stream
from benchmarks.speed_table import render
from benchmarks.speed_timing import machine, peaks, threads
from codectool.codecs.registry import FAMILIES

PARTS = ("one_file", "short_files", "profile", "streams", "packing", "memory", "start")
HOUR = 3600.0


@dataclass(frozen=True)
class Effort:
    """How much is measured; seconds are of audio unless said otherwise."""

    file_seconds: float = 10.0
    turns: int = 3
    clips: int = 64
    clip_seconds: tuple[float, float] = (2.0, 6.0)
    stream_seconds: float = 4.0
    stream_limit: float = 20.0  # of the clock
    memory_seconds: tuple[float, ...] = (10.0, 60.0)
    packing_seconds: float = 0.5  # of the clock
    runs: int = 5
    matrix: int = 2048
    shrink: int = 1


QUICK = Effort(0.5, 1, 4, (0.2, 0.6), 0.3, 2.0, (1.0,), 0.01, 1, 128, 100)


class Benchmark:
    """What is measured, and on what.

    Args:
        effort: how much.
        files: speech.
        folder: for files that come and go.
    """

    def __init__(self, effort: Effort, files: Sequence[Path], folder: Path) -> None:
        self.effort, self.files, self.folder = effort, files, folder
        self.rates: dict[str, dict[str, float]] = {}

    def measure(self, contender: Contender, parts: Sequence[str]) -> dict[str, Any]:
        """All figures of one codec, by part."""
        most = thread_counts(contender)[-1]
        found: dict[str, Any] = {"name": contender.name, "threads": str(most)}
        for part in parts:
            print(f"{contender.name}: {part}", file=sys.stderr)
            with threads(most):
                found[part] = getattr(self, part)(contender)
        return found

    def one_file(self, contender: Contender) -> dict[str, Any]:
        rows = {}
        wave = self._speech(contender, self.effort.file_seconds)
        for count in thread_counts(contender):
            with threads(count):
                self._take_rates(count)
                one_file(contender, wave[: 2 * contender.codec.sample_rate], turns=1)  # sets up
                rows[str(count)] = one_file(contender, wave, self.effort.turns)
                self._take_rates(count)
        return rows

    def short_files(self, contender: Contender) -> dict[str, Any]:
        lengths = clip_lengths(self.effort.clips, *self.effort.clip_seconds)
        wave = self._speech(contender, sum(lengths) + 1)
        return short_files(contender, wave, lengths)

    def profile(self, contender: Contender) -> dict[str, Any]:
        with threads(1):
            return profiled(contender, self._speech(contender, self.effort.stream_seconds))

    def streams(self, contender: Contender) -> list[dict[str, Any]]:
        wave = self._speech(contender, self.effort.stream_seconds)
        blocks = BLOCKS[contender.codec.layout.family]
        return [stream(contender, wave, block, self.effort.stream_limit) for block in blocks]

    def packing(self, contender: Contender) -> dict[str, Any]:
        frames = round(24 * contender.codec.frame_rate)
        bits = contender.codec.layout.bits_per_codebook
        return bitpack.measure(contender.name, frames, bits, self.effort.packing_seconds)

    def memory(self, contender: Contender) -> list[dict[str, Any]]:
        lengths = self.effort.memory_seconds
        wave = self._speech(contender, min(60.0, max(lengths)))
        return [memory(contender, wave, seconds, self.folder) for seconds in lengths]

    def start(self, contender: Contender) -> dict[str, float]:
        return answers(contender, self._speech(contender, 2.0), self.folder, self.effort.runs)

    def _speech(self, contender: Contender, seconds: float) -> Wave:
        return speech(self.files, contender.codec.sample_rate, seconds)

    def _take_rates(self, count: int) -> None:
        """The best of all times that this is called: neighbours can only make it worse."""
        found = peaks(self.effort.matrix, 5, self.effort.shrink)
        before = self.rates.setdefault(str(count), found)
        self.rates[str(count)] = {name: max(found[name], before[name]) for name in found}

    def add_floors(self, found: dict[str, Any], operations: dict[str, float]) -> None:
        """Say what the arithmetic of one file alone would take, and that as a share."""
        for count, row in found.get("one_file", {}).items():
            for direction, work in operations.items():
                floor = work / max(self.rates[count].values())
                row[direction] |= {"floor": floor, "share": floor / row[direction]["ours"]}


def thread_counts(contender: Contender) -> list[int]:
    """One, and as many as there are cores or as the model gains from, whatever is less."""
    cores = os.cpu_count() or 1
    return sorted({1, min(cores, contender.codec.model.cpu_threads or cores)})


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All that the command line asks for, as it goes to JSON."""
    effort = QUICK if options.quick else replace(Effort(), turns=options.turns, clips=options.clips)
    benchmark = Benchmark(effort, options.files or SHIPPED_SPEECH, folder)
    parts = () if options.parity else options.only
    models, operations = {}, {}
    for family in options.model:
        contender = open_contender(family, options.checkpoint, folder, options.quick)
        models[family] = benchmark.measure(contender, parts)
        operations[family] = contender.operations()
        if options.parity:
            with threads(thread_counts(contender)[-1]):
                found = parity(contender, benchmark.files, options.parity)
            models[family]["parity"] = found
        if options.hour:
            models[family].setdefault("memory", []).append(_hour(contender, benchmark))
    for family, found in models.items():
        benchmark.add_floors(found, operations[family])
    return {"machine": machine(), "peaks": benchmark.rates, "models": models}


def _hour(contender: Contender, benchmark: Benchmark) -> dict[str, Any]:
    """An hour; BigCodec at the published size would take one, so a small one stands in for it."""
    if contender.codec.layout.family == "bigcodec":
        contender = open_contender("bigcodec", None, benchmark.folder, tiny=True)
    minute = speech(benchmark.files, contender.codec.sample_rate, 60.0)
    return memory(contender, minute, HOUR, benchmark.folder)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    add("--checkpoint", type=Path, help="weights of the one model that is named")
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to be measured")
    add(
        "--files",
        type=Path,
        help="speech: a folder, or a list relative to its own; default: assets/",
    )
    add("--turns", type=int, default=3, help="of either side on one file")
    add("--clips", type=int, default=64, help="short files")
    add("--hour", action="store_true", help="measure the memory that an hour takes, too")
    add("--parity", type=int, metavar="CLIPS", help="only compare tokens of so many clips")
    add("--quick", action="store_true", help="small weights, little audio: does it run?")
    add("--json", type=Path, default=Path("bench.json"), help="where the figures go")
    add("--markdown", type=Path, metavar="JSON", help="only print the tables of these figures")
    options = parser.parse_args(arguments)
    if options.checkpoint and len(options.model) != 1:
        parser.error("--checkpoint is of one --model")
    if options.files:
        options.files = find_speech(options.files)
    return options


def find_speech(path: Path) -> list[Path]:
    """The audio of a folder, or the paths of a list, one per line, relative to its folder."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix in (".flac", ".ogg", ".wav"))
    return [path.parent / line for line in path.read_text("utf-8").splitlines() if line]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.markdown:
        print(render(json.loads(options.markdown.read_text("utf-8"))), end="")
        return
    with tempfile.TemporaryDirectory() as folder:
        results = run(options, Path(folder))
    print(render(results), end="")
    options.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
