"""Start-up: heavy libraries are imported only when they are needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import codectool
from codectool.cli import COMMANDS, prepare_torch
from tests.cli.conftest import Run


def modules_after(code: str) -> set[str]:
    """Modules that a fresh interpreter has loaded after running ``code``."""
    return set(
        run_python(f"import sys\n{code}\nprint(*sys.modules)").stdout.split("\n")[-2].split()
    )


def run_python(code: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=check)


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


# What PyTorch imports when it is used for more than inference, and packages for other commands.
UNUSED = {
    *("torch._dynamo", "torch._inductor", "torch.onnx", "torch.utils.tensorboard", "sympy"),
    *("torchaudio", "matplotlib", "scipy", "pandas", "transformers", "rich"),
    *(f"codectool.{name}" for name in ("corpus", "evaluation", "export", "pipeline", "training")),
}


@pytest.fixture
def both_ways(tmp_path: Path) -> list[list[str]]:
    """Commands that encode a file with the bundled weights and decode it."""
    clip, tokens = str(tmp_path / "clip.wav"), str(tmp_path / "clip.hcd")
    soundfile.write(clip, np.zeros(9000, np.float32), 24000)
    return [["encode", clip, tokens], ["decode", tokens, str(tmp_path / "back.wav")]]


def test_encode_and_decode_load_no_more_than_they_need(both_ways: list[list[str]]) -> None:
    loaded = modules_after("\n".join(called(*line, "--device", "cpu") for line in both_ways))
    assert "torch" in loaded
    assert not loaded & {*UNUSED, "onnxruntime"}


def test_encode_and_decode_in_onnx_runtime_load_no_torch(both_ways: list[list[str]]) -> None:
    pytest.importorskip("onnxruntime")
    loaded = modules_after("\n".join(called(*line, "--runtime", "onnx") for line in both_ways))
    assert "onnxruntime" in loaded
    assert not loaded & {*UNUSED, "torch"}


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


PROCESS = """
import atexit, sys, threading, time
from codectool import cli

def main():
    atexit.register(lambda: print("handler"))
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
    print("unfinished line", end=" ")
    print("message", end="", file=sys.stderr)
    {end}

cli.main = main
class Torn:
    def __del__(self):
        print("torn down")
kept = Torn()
cli.run()
"""


def test_process_ends_without_tearing_down_modules_but_loses_nothing() -> None:
    done = run_python(PROCESS.format(end="sys.exit(3)"), check=False)
    assert done.returncode == 3
    assert done.stdout == "unfinished line thread\nhandler\n"
    assert done.stderr == "message"


def test_process_that_fails_outside_the_command_line_ends_as_usual() -> None:
    done = run_python(PROCESS.format(end="raise ValueError('bug')"), check=False)
    assert done.returncode == 1
    assert done.stdout == "unfinished line thread\nhandler\ntorn down\n"
    assert done.stderr.endswith("ValueError: bug\n")


def test_garbage_is_collected_again_after_loading() -> None:
    done = run_python(
        "import gc\n"
        "from codectool.cli.codec import collection_paused\n"
        "try:\n"
        "    with collection_paused():\n"
        "        assert not gc.isenabled()\n"
        "        1 / 0\n"
        "except ZeroDivisionError:\n"
        "    assert gc.isenabled() and gc.get_freeze_count()\n"
        "with collection_paused():\n"
        "    assert gc.isenabled(), 'paused once per process'\n"
    )
    assert done.stderr == ""


@pytest.mark.parametrize("value", [None, "1"])
def test_backends_of_other_devices_are_loaded_only_on_request(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)
    if value is not None:
        monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", value)
    prepare_torch()
    assert os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] == (value or "0")
