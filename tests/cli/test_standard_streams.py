"""Standard streams that are closed, full or not UTF-8: the exit code of the operation remains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import codectool
from tests.cli.conftest import Options

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture
def packed(tmp_path: Path, codecs: dict[str, codectool.Codec]) -> Path:
    path = tmp_path / "small.hcd"
    wave = np.random.default_rng(1).normal(0, 0.1, 4000).astype(np.float32)
    codectool.write(path, codecs["bigcodec"].encode(wave, 16000))
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.hcd"
    path.write_text("not a container")
    return path


def shell(*arguments: object, redirect: str, **variables: str) -> tuple[int, str, str]:
    """Run `codectool ARGUMENTS REDIRECT` in a shell; return exit code, stdout and stderr."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-m", "codectool"]
        + [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **variables},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "redirect", ["2>&-", pytest.param("2>/dev/full", marks=needs_full), "2>&- >&-", "<&- 2>&- >&-"]
)
def test_closed_or_full_stderr_does_not_change_the_exit_code(
    packed: Path, text: Path, redirect: str
) -> None:
    assert shell("verify", packed, redirect=redirect)[0] == 0
    assert shell("verify", packed, text, redirect=redirect) == (
        2,
        f"{packed}: ok, 1 block, 0.250 s\n" if ">&-" not in redirect.removeprefix("2>&-") else "",
        "",
    )
    assert shell("info", text, redirect=redirect) == (2, "", "")
    assert shell("info", "--debug", text, redirect=redirect) == (2, "", "")
    assert shell("verify", "--unknown", redirect=redirect)[0] == 2


@pytest.mark.parametrize("redirect", ["2>&-", pytest.param("2>/dev/full", marks=needs_full)])
def test_encode_without_stderr(speech: Path, hac: Options, redirect: str) -> None:
    assert shell("encode", speech, *hac, redirect=redirect) == (0, "", "")
    assert codectool.read(speech.with_suffix(".hcd")).num_channels == 2
    assert shell("encode", speech, *hac, redirect=redirect) == (2, "", "")
    bad = speech.with_name("bad.wav")
    bad.write_bytes(b"nothing")
    assert shell("encode", bad, *hac, redirect=redirect) == (2, "", "")
    folder = speech.with_name("out")
    assert shell("encode", speech.parent, folder, *hac, redirect=redirect) == (1, "", "")


def test_output_never_becomes_stderr(tmp_path: Path, packed: Path) -> None:
    """A file that gets number 2 would contain what C libraries write to stderr."""
    code = "import os, sys; from codectool.cli.console import repair_standard_streams as repair\n"
    code += "repair(); file = open(sys.argv[1], 'wb'); os.write(2, b'noise')"
    target = tmp_path / "out"
    command = ["sh", "-c", 'exec "$@" 2>&- >&- <&-', "sh", sys.executable, "-c", code, str(target)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
    assert target.read_bytes() == b""


def test_closed_stdout_is_refused_as_output_only(packed: Path, speech: Path, hac: Options) -> None:
    assert shell("verify", packed, redirect=">&-") == (0, "", "")
    assert shell("info", packed, "--json", redirect=">&-") == (0, "", "")
    refused = (2, "", "error: stdout is closed; give an OUTPUT\n")
    assert shell("encode", speech, "-", *hac, redirect=">&-") == refused
    command = ("filelist", speech.parent, "-o", "-", "--min-seconds", 0)
    assert shell(*command, redirect=">&-") == refused
    command = ("compare", "-", speech)
    assert shell(*command, redirect="<&-") == (
        2,
        "",
        "error: stdin is closed; give a file name\n",
    )


@needs_full
def test_full_stdout_is_one_error(packed: Path, speech: Path, hac: Options) -> None:
    full = (2, "", "error: <stdout>: no space left on device\n")
    for command in (
        ("verify", packed),
        ("info", packed, "--json"),
        ("encode", speech, "-", *hac),
        ("encode", speech.parent, speech.with_name("out"), *hac, "--json"),
        ("filelist", speech.parent, "-o", "-", "--min-seconds", 0),
        ("train", "--config", "hac", "--print-config"),
    ):
        code, out, err = shell(*command, redirect=">/dev/full")
        err = "".join(line for line in err.splitlines(True) if line.startswith("error"))
        assert (code, out, err) == full, command
    for option in ("--help", "--version"):
        assert shell(option, redirect=">/dev/full") == (2, "", "error: no space left on device\n")


@needs_full
def test_full_device_as_output_is_named(speech: Path, hac: Options) -> None:
    code, _, err = shell("encode", speech, "/dev/full", *hac, redirect="")
    assert (code, err) == (2, "error: /dev/full: no space left on device\n")
    report = ("--report", "/dev/full")
    code, _, err = shell("encode", speech.parent, speech.with_name("o"), *report, *hac, redirect="")
    assert (code, err) == (2, "error: /dev/full: no space left on device\n")


def test_closed_pipe_is_exit_code_1_without_a_message(packed: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        command = [sys.executable, "-m", "codectool", "info", str(packed)]
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, b"")


def test_characters_that_stdout_cannot_encode_are_escaped(packed: Path) -> None:
    renamed = packed.with_name("日本.hcd")
    packed.rename(renamed)
    code, out, err = shell("verify", renamed, redirect="", PYTHONIOENCODING="latin-1")
    assert (code, err) == (0, "")
    assert out.endswith("\\u65e5\\u672c.hcd: ok, 1 block, 0.250 s\n")


def test_short_writes_to_an_unbuffered_stdout_are_no_success(
    tmp_path: Path, packed: Path, speech: Path, hac: Options
) -> None:
    """A disk that becomes full takes the first bytes of a write without an error."""
    limited = "import resource, runpy, sys; sys.argv = sys.argv[1:]\n"
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    limited += "runpy.run_module('codectool', run_name='__main__')"
    assert shell("encode", speech, tmp_path / "s.hcd", *hac, redirect="")[0] == 0
    for command in (
        ("info", packed),
        ("info", "--json", packed),
        ("decode", tmp_path / "s.hcd", "-", "--format", "flac", *hac),
        ("decode", tmp_path / "s.hcd", "-", *hac),
    ):
        with (tmp_path / "out").open("wb") as file:
            done = subprocess.run(
                [sys.executable, "-u", "-c", limited, "codectool", *map(str, command)],
                stdout=file,
                stderr=subprocess.PIPE,
                check=False,
                timeout=60,
            )
        assert (done.returncode, done.stderr) == (2, b"error: <stdout>: file too large\n"), command
