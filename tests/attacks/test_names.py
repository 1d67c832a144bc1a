"""Names and tags that reverse, hide or recolor text, or are not UTF-8, are shown escaped."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile

import codectool
from codectool.messages import printable, to_json
from tests.cli.conftest import Options, Result, Run, hac, run  # noqa: F401  (fixtures)

NAMES = {
    "right-to-left override": "a\u202egnp",
    "isolate": "a\u2066b",
    "zero width": "a\u200bb",
    "line separator": "a\u2028b",
    "line feed": "a\nerror: b",
    "carriage return": "a\rb",
    "escape sequence": "a\x1b[31mb",
    "C1 control": "a\x9b31mb",
    "delete": "a\x7fb",
    "bytes": os.fsdecode(b"a\xff\xe4b"),
}


@pytest.fixture(params=NAMES.values(), ids=NAMES.keys())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def assert_safe(result: Result, code: int, *, shown: str = "") -> None:
    """Check the exit code, and that stdout and stderr have printable characters only."""
    text = result.text + result.err
    assert result.code == code, text
    assert all(line.isprintable() for line in text.split("\n")), text
    assert printable(shown) in text


def write_silence(path: Path) -> None:
    with path.open("wb") as file:  # soundfile writes no names that are not UTF-8
        soundfile.write(file, np.zeros(1600), 16000, format="WAV")


def strict_json(data: bytes | str) -> Any:
    """Parse JSON with a reader that refuses what is not UTF-8."""
    return msgspec.json.decode(data)


def test_single_files(run: Run, tmp_path: Path, hac: Options, name: str) -> None:  # noqa: F811
    source, packed = tmp_path / f"{name}.wav", tmp_path / f"{name}.hcd"
    write_silence(source)
    if "\udcff" in name:
        assert_safe(run("encode", source, *hac, "--tag", f"a={name}"), 2, shown="UTF-8")
        assert_safe(run("encode", source, *hac), 0)
    else:
        assert_safe(run("encode", source, *hac, "--tag", f"{name}={name}"), 0)
    assert_safe(run("encode", source, *hac), 2, shown=f"{name}.hcd")
    assert_safe(run("info", packed), 0, shown=name)
    assert_safe(run("verify", packed), 0, shown=name)
    shown = json.loads(to_json(str(packed)))
    for command in ("info", "verify"):
        assert strict_json(run(command, packed, "--json").out)["file"] == shown
    compared = run("compare", source, source, "--metric", "si_sdr_db")
    assert_safe(compared, 0, shown=name)
    packed.write_bytes(b"damaged")
    for command in ("info", "verify", "decode"):
        assert_safe(run(command, packed), 2, shown=name)
    assert strict_json(run("verify", packed, "--json").out)["errors"]
    assert_safe(run("encode", tmp_path / f"{name}.none", *hac), 2, shown=name)
    assert_safe(run("encode", source, *hac, "--checkpoint", packed), 2, shown=name)
    assert_safe(run("encode", source, *hac, f"--{name}"), 2)


def test_folders(run: Run, tmp_path: Path, hac: Options, name: str) -> None:  # noqa: F811
    (tmp_path / name).mkdir()
    write_silence(tmp_path / name / f"{name}.wav")
    (tmp_path / name / f"{name} bad.wav").write_bytes(b"no audio")
    report = tmp_path / f"{name}.jsonl"
    command = ("encode", tmp_path / name, tmp_path / "out", *hac, "--report", report, "--json")
    for status in ("done", "skipped"):
        result = run(*command)
        assert_safe(result, 1, shown=f"{name} bad.wav")
        lines = {
            line["status"]: line for line in map(strict_json, report.read_bytes().splitlines())
        }
        assert lines.keys() == {"failed", status}
        source = str(tmp_path / name / f"{name}.wav")
        assert lines[status]["source"] == json.loads(to_json(source))
    result = run("filelist", tmp_path / name, "-o", tmp_path / "list", "--min-seconds", 0)
    tab_or_line = any(mark in name for mark in "\t\r\n")
    assert_safe(result, 2 if tab_or_line else 0, shown=name)


def test_progress_on_a_terminal(
    tmp_path: Path,
    hac: Options,  # noqa: F811
    name: str,
) -> None:
    (tmp_path / name).mkdir()
    write_silence(tmp_path / name / f"{name}.wav")
    bad = {character for character in name if not character.isprintable()} - set("\r\n\x1b")
    for source, target in (
        (tmp_path / name / f"{name}.wav", tmp_path / f"{name}.hcd"),
        (tmp_path / name, tmp_path / f"{name} out"),
    ):
        command = [sys.executable, "-m", "codectool", "encode", source, target, *hac]
        reading, writing = pty.openpty()
        with os.fdopen(writing, "wb") as terminal:
            process = subprocess.Popen(list(map(str, command)), stderr=terminal)
        shown = b""
        while True:
            try:
                data = os.read(reading, 1 << 16)
            except OSError:  # the other end is closed
                break
            shown += data
            if not data:
                break
        os.close(reading)
        assert process.wait(60) == 0
        text = os.fsdecode(shown)
        assert text
        assert not bad & set(text), text
        assert "\x1b[31m" not in text


def test_tags_of_a_file_cannot_forge_lines(
    run: Run,  # noqa: F811
    tmp_path: Path,
    codecs: dict[str, codectool.Codec],
) -> None:
    path = tmp_path / "a.hcd"
    tokens = codecs["hac"].encode(np.zeros(1600, np.float32), 16000)
    for text in NAMES.values():
        if text.isprintable() or "\udcff" in text:
            continue
        codectool.write(path, tokens, {text: text})
        assert_safe(run("info", path), 0, shown=f"tag {text}")
        assert strict_json(run("info", path, "--json").out)["tags"] == {text: text}
