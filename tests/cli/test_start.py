"""Start-up: heavy libraries are imported only when they are needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import codectool
from codectool.cli import COMMANDS
from tests.cli.conftest import Run


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running ``code``."""
    program = f"import sys\n{code}\nprint(' '.join({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split("\n")[-2].split())


def called(*arguments: str) -> str:
    return (
        "from codectool.cli import main\n"
        f"try:\n    main({list(arguments)!r})\n"
        "except SystemExit as e:\n    assert not e.code, e.code"
    )


@pytest.fixture
def packed(tmp_path: Path, codecs: dict[str, codectool.Codec]) -> Path:
    path = tmp_path / "x.hcd"
    codectool.write(path, codecs["hac"].encode(np.zeros(9000, np.float32), 24000))
    return path


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_loads_neither_torch_nor_numpy(command: tuple[str, ...]) -> None:
    loaded = modules_after(called(*command, "--help"))
    assert not loaded & {"torch", "torchaudio", "numpy", "soundfile", "msgspec", "rich", "tqdm"}


@pytest.mark.parametrize("command", ["info", "verify"])
def test_info_and_verify_load_no_torch(packed: Path, command: str) -> None:
    loaded = modules_after(called(command, str(packed)))
    assert "numpy" in loaded
    assert not loaded & {"torch", "torchaudio", "soundfile", "soxr"}


def test_reading_tokens_loads_no_torch(packed: Path) -> None:
    loaded = modules_after(f"import codectool; codectool.read({str(packed)!r})")
    assert not loaded & {"torch", "torchaudio", "soundfile", "soxr"}


def test_every_help_shows_an_example(run: Run) -> None:
    for command in COMMANDS:
        text = run(command, "--help").text
        assert "Examples:" in text
        assert f"codectool {command} " in text
    assert "codectool encode in.wav" in run("--help").text


def test_version_option(run: Run) -> None:
    assert run("--version").text == f"codectool, version {codectool.__version__}\n"


def test_python_dash_m_codectool_works() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "codectool", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "Commands:" in done.stdout


def test_training_does_not_import_torchaudio() -> None:
    """It does not load with every version of torch; only the Whisper loss uses it."""
    loaded = modules_after("import codectool.training.run, codectool.training.losses.whisper")
    assert "torch" in loaded
    assert "torchaudio" not in loaded


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_info_exits_1_if_the_reader_of_stdout_leaves(packed: Path, unbuffered: str) -> None:
    """A broken pipe is not an error message, but not success either."""
    command = f"{sys.executable} -m codectool info --json {f'{packed} ' * 300} | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == b"{"
    assert done.stderr == b""
