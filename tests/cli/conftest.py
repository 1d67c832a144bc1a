"""Run the command line inside the test process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.cli import main


@dataclass
class Result:
    """Exit code and output of a command."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


Run = Callable[..., Result]
Options = tuple[object, ...]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Return a function that runs `codectool ARGUMENTS`."""

    def call(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsysbinary.readouterr()
        return Result(int(caught.value.code or 0), out, err.decode())

    return call


@pytest.fixture
def hac(checkpoints: dict[str, Path]) -> Options:
    """Return the options that select a small HAC model."""
    return "--checkpoint", checkpoints["hac"], "--device", "cpu"


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Return half a second of stereo noise at 22.05 kHz."""
    path = tmp_path / "speech.wav"
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.normal(0, 0.1, (11025, 2)).astype(np.float32), 22050)
    return path
