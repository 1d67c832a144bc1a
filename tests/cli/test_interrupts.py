"""Ctrl-C in the middle of long work: bounded time, no incomplete output."""

from __future__ import annotations

import os
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


def start(*arguments: object, **variables: str) -> subprocess.Popen[str]:
    """Start a slow command and wait until the model works."""
    command = [sys.executable, "-c", SLOW_COMMAND, *map(str, arguments), "--device", "cpu"]
    process: subprocess.Popen[str] = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def assert_stops(process: subprocess.Popen[str], number: int, code: int) -> None:
    process.send_signal(number)
    started = time.monotonic()
    _, err = process.communicate()
    assert time.monotonic() - started < TIMEOUT_S
    assert (process.returncode, err.strip()) == (code, "")


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("operation", "number", "code"),
    [
        ("encode", signal.SIGINT, 130),
        ("decode", signal.SIGINT, 130),
        ("reconstruct", signal.SIGTERM, 143),
        ("encode", signal.SIGHUP, 129),
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
    assert_stops(process, number, code)
    assert files_in(out) == [".codectool.jsonl"]


@pytest.mark.parametrize(
    ("operation", "number", "code"),
    [
        ("encode", signal.SIGINT, 130),
        ("encode", signal.SIGTERM, 143),
        ("encode", signal.SIGHUP, 129),
        ("decode", signal.SIGTERM, 143),
        ("reconstruct", signal.SIGHUP, 129),
    ],
)
def test_single_file_stops_and_leaves_no_temporary_file(
    checkpoints: dict[str, Path],
    long_file: Path,
    tmp_path: Path,
    operation: str,
    number: int,
    code: int,
) -> None:
    source = long_file
    if operation == "decode":
        codec = codectool.load(None, checkpoints["hac"], device="cpu")
        source = long_file.with_suffix(".hcd")
        encode_file(codec, long_file, source, block_frames=100)
    names = files_in(tmp_path)
    temporary = tmp_path / "tmp"  # `reconstruct` keeps tokens in the folder of temporary files
    temporary.mkdir()
    target = tmp_path / ("out.hcd" if operation == "encode" else "out.wav")
    process = start(
        operation, source, target, "--checkpoint", checkpoints["hac"], TMPDIR=str(temporary)
    )
    assert_stops(process, number, code)
    assert files_in(tmp_path) == names
    assert list(temporary.iterdir()) == []


def test_signal_that_is_sent_twice_leaves_no_temporary_file(
    checkpoints: dict[str, Path], long_file: Path, tmp_path: Path
) -> None:
    """`timeout` sends SIGTERM to the process and to its group."""
    command = ("encode", long_file, tmp_path / "out.hcd", "--checkpoint", checkpoints["hac"])
    process = start(*command)
    for _ in range(5):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    _, err = process.communicate()
    assert (process.returncode, err.strip()) == (143, "")
    assert files_in(tmp_path) == ["long.wav"]


def test_ignored_hangup_does_not_stop(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """`nohup` ignores SIGHUP."""
    soundfile.write(tmp_path / "short.wav", np.zeros(1600), RATE)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start("encode", tmp_path / "short.wav", "--checkpoint", checkpoints["hac"])
    finally:
        signal.signal(signal.SIGHUP, before)
    process.send_signal(signal.SIGHUP)
    process.communicate()
    assert process.returncode == 0
    assert files_in(tmp_path) == ["short.hcd", "short.wav"]


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
