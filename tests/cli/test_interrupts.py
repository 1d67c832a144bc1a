"""Ctrl-C in the middle of long work: bounded time, no incomplete output."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import codectool
from codectool.encoding import encode_file

RATE, SECONDS = 16000, 600
TIMEOUT_S = 10.0  # much less than the work takes

# A command whose model takes long, and prints a line whenever it starts.
SLOW_COMMAND = """
import sys, time
from codectool.cli import main
from codectool.codec import Codec
from codectool.streaming import StreamDecoder, StreamEncoder

def slow(function, seconds):
    def run(*arguments, **options):
        print("started", flush=True)
        time.sleep(seconds)
        return function(*arguments, **options)
    return run

StreamEncoder.push = slow(StreamEncoder.push, 0.3)
StreamDecoder.push = slow(StreamDecoder.push, 0.3)
Codec.encode_clips = slow(Codec.encode_clips, 60)
main(sys.argv[1:])
"""


@pytest.fixture
def long_file(tmp_path: Path) -> Path:
    path = tmp_path / "in/long.wav"
    path.parent.mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, RATE)
    soundfile.write(path, np.tile(noise, SECONDS), RATE)
    return path


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start a slow command and wait until the model works."""
    command = [sys.executable, "-c", SLOW_COMMAND, *map(str, arguments), "--device", "cpu"]
    process: subprocess.Popen[str] = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("operation", "number", "code"),
    [
        ("encode", signal.SIGINT, 130),
        ("decode", signal.SIGINT, 130),
        ("reconstruct", signal.SIGTERM, 143),
    ],
)
def test_folder_run_stops_within_a_long_file(
    checkpoints: dict[str, Path],
    long_file: Path,
    tmp_path: Path,
    operation: str,
    number: int,
    code: int,
) -> None:
    in_dir = long_file.parent
    if operation == "decode":
        codec = codectool.load(None, checkpoints["hac"], device="cpu")
        encode_file(codec, long_file, tmp_path / "packed.hcd", block_frames=100)
        long_file.unlink()
        (tmp_path / "packed.hcd").rename(in_dir / "long.hcd")
    out = tmp_path / "out"
    process = start(operation, in_dir, out, "--checkpoint", checkpoints["hac"])
    process.send_signal(number)
    started = time.monotonic()
    _, err = process.communicate()
    assert time.monotonic() - started < TIMEOUT_S
    assert (process.returncode, err.strip()) == (code, "")
    assert files_in(out) == [".codectool.jsonl"]


def test_single_file_stops(checkpoints: dict[str, Path], long_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.hcd"
    process = start("encode", long_file, target, "--checkpoint", checkpoints["hac"])
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, err = process.communicate()
    assert time.monotonic() - started < TIMEOUT_S
    assert (process.returncode, err.strip()) == (130, "")
    assert files_in(tmp_path) == ["long.wav"]


def test_second_signal_quits_within_a_batch(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """The model cannot be interrupted within a batch, so the first signal waits for its end."""
    soundfile.write(tmp_path / "short.wav", np.zeros(1600), RATE)
    out = tmp_path / "out"
    process = start("encode", tmp_path, out, "--checkpoint", checkpoints["hac"])
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, err = process.communicate()
    assert time.monotonic() - started < TIMEOUT_S
    assert (process.returncode, err.strip()) == (130, "")
    assert files_in(out) == [".codectool.jsonl"]
