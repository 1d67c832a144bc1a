"""`codectool completion`, in real shells where they are installed."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.test_start import modules_after

CASES = {
    "codectool enc": {"encode"},
    "codectool encode --mod": {"--model"},
    "codectool encode --model ": {"hac", "bigcodec", "supercodec"},
    "codectool decode a.hcd b.wav --format ": {"wav", "flac"},
    "codectool evaluate wavs --metric pesq": {"pesq_wb", "pesq_nb"},
    "codectool evaluate wavs --codec op": {"opus@6"},
    "codectool encode --checkpoint hac-2": {"hac-2c307f6d"},
    "codectool models show bigc": {"bigcodec"},
    "codectool export hac-": {"hac-2c307f6d"},
    "codectool tokens export a b --layout f": {"frames", "flat"},
    "codectool train --device c": {"cpu", "cuda"},
    "codectool completion ": {"bash", "zsh", "fish"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an audio file, and a command `codectool` in bin/."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "codectool"
    command.write_text(
        f'#!/bin/sh\nPYTHONPATH={os.getcwd()} exec {sys.executable} -m codectool "$@"\n'
    )
    command.chmod(0o755)
    (tmp_path / "interview.flac").touch()
    return tmp_path


def environ(folder: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder)}


def complete(shell: str, script: str, folder: Path) -> str:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    return subprocess.run(
        [shell, "-c", script],
        cwd=folder,
        env=environ(folder),
        capture_output=True,
        text=True,
        check=False,
    ).stdout


@pytest.mark.parametrize("line", CASES)
def test_bash_completes(line: str, folder: Path) -> None:
    script = f"""
        source <(codectool completion bash)
        COMP_WORDS=({line}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        [[ "{line}" == *" " ]] && COMP_WORDS+=("") && COMP_CWORD=$((COMP_CWORD + 1))
        _codectool_completion codectool
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert CASES[line] <= set(complete("bash", script, folder).split())


@pytest.mark.parametrize("line", list(CASES)[:4])
def test_fish_completes(line: str, folder: Path) -> None:
    script = f"codectool completion fish | source; complete --do-complete '{line}'"
    found = {row.split("\t")[0] for row in complete("fish", script, folder).splitlines()}
    assert CASES[line] <= found


def press_tab(shell: list[str], setup: str, typed: str, folder: Path) -> str:
    """Type a line and a tab in an interactive shell; return what its terminal shows."""
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        shell,
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
        cwd=folder,
        env={**environ(folder), "TERM": "dumb", "PS1": "$ "},
        start_new_session=True,
    )
    os.close(other_end)
    shown = b""

    def read_until(text: bytes) -> None:
        nonlocal shown
        deadline = time.monotonic() + 60
        while text not in shown and time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 4096)

    try:
        os.write(terminal, f"{setup}; echo re''ady\n".encode())
        read_until(b"ready")
        shown = b""
        os.write(terminal, typed.encode() + b"\t")
        read_until(b"interview.flac")
        return shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def test_tab_key_in_bash_completes_commands_and_files(folder: Path) -> None:
    setup = 'eval "$(codectool completion bash)"'
    shell = ["bash", "--norc", "--noprofile", "-i"]
    assert "encode interview.flac" in press_tab(shell, setup, "codectool enc\tinter", folder)


def test_tab_key_in_zsh_completes_commands_and_files(folder: Path) -> None:
    setup = 'autoload -U compinit; compinit -u; eval "$(codectool completion zsh)"'
    shell = ["zsh", "-f", "-i"]
    assert "interview.flac" in press_tab(shell, setup, "codectool encode inter", folder)


def test_completion_loads_no_heavy_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_CODECTOOL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "codectool encode --checkpoint h")
    monkeypatch.setenv("COMP_CWORD", "3")
    loaded = modules_after(
        "from codectool.cli import main\ntry:\n    main([])\nexcept SystemExit:\n    print()"
    )
    assert not loaded & {"torch", "numpy", "soundfile", "rich", "tqdm"}


def test_unknown_shell_is_an_error(run: Run) -> None:
    result = run("completion", "powershell")
    assert (result.code, result.out) == (2, b"")
    assert "'powershell' is not one of 'bash', 'zsh', 'fish'" in result.err
