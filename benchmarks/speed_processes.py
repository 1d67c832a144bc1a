"""Whole processes of the command line: the memory they take, and how soon they answer."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile

from benchmarks.speed_models import Contender, Wave
from codectool.errors import CodectoolError


def memory(contender: Contender, speech: Wave, seconds: float, folder: Path) -> dict[str, Any]:
    """Memory in bytes and time of encoding and decoding one file of this length."""
    source, packed = folder / "long.wav", folder / "long.hcd"
    write_long(source, speech, contender.codec.sample_rate, seconds)
    row: dict[str, Any] = {"weights": contender.name, "seconds": seconds}
    steps = (("encode", source, packed), ("decode", packed, folder / "long-back.wav"))
    for name, before, after in steps:
        command = _command(contender, name, before, after)
        row[name] = json.loads(_output([sys.executable, "-m", "benchmarks.speed_child", *command]))
    return row


def write_long(path: Path, speech: Wave, rate: int, seconds: float) -> None:
    """Write speech over and over until the file is so long, 16 bits, piece by piece."""
    left = round(seconds * rate)
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        while left:
            piece = speech[:left]
            file.write(piece)
            left -= len(piece)


def answers(contender: Contender, speech: Wave, folder: Path, runs: int) -> dict[str, float]:
    """Median seconds of short commands, the disk cache warm."""
    source, packed, back = (folder / name for name in ("short.wav", "short.hcd", "short-back.wav"))
    write_long(source, speech, contender.codec.sample_rate, 2.0)
    commands = {
        "--help": ["--help"],
        "encode 2 s": _command(contender, "encode", source, packed),
        "info": ["info", str(packed)],
        "decode 2 s": _command(contender, "decode", packed, back),
    }
    return {name: _answer(command, runs) for name, command in commands.items()}


def _command(contender: Contender, name: str, source: Path, target: Path) -> list[str]:
    weights = ["--checkpoint", str(contender.checkpoint), "--device", "cpu"]
    return [name, str(source), str(target), "--overwrite", *weights]


def _answer(command: Sequence[str], runs: int) -> float:
    times = []
    for _ in range(runs + 1):  # the first one warms the disk cache
        began = time.perf_counter()
        _output([sys.executable, "-m", "codectool", *command])
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise CodectoolError(f"`{' '.join(command[1:])}` failed: {done.stderr.strip()}")
    return done.stdout
