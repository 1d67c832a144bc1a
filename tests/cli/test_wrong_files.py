"""Every command with every kind of wrong file: exit code 2 and one line that names the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import Options, Run

# BAD is the wrong file, GOOD a recording in a folder DIR, NEW an output, HAC the codec
COMMANDS = (
    "encode BAD NEW.hcd HAC",
    "encode BAD NEW.hcd HAC --live",
    "encode DIR NEW HAC --files-from BAD",
    "encode GOOD --checkpoint BAD",
    "encode GOOD HAC --config BAD",
    "decode BAD NEW.wav HAC",
    "decode BAD NEW.wav HAC --conceal",
    "reconstruct BAD NEW.wav HAC",
    "info BAD",
    "verify BAD",
    "compare BAD GOOD --metric si_sdr_db",
    "compare GOOD BAD --metric si_sdr_db",
    "filelist BAD -o NEW",
    "train --config hac-tiny --train-files BAD --valid-files BAD --run-dir NEW --max-steps 1",
    "train --config BAD --print-config",
    "evaluate BAD BAD --metric si_sdr_db",
    "evaluate DIR DIR --metric si_sdr_db --files-from BAD",
    "evaluate BAD --tokens",
    "plot BAD",
    "tokens export BAD NEW.jsonl HAC",
    "tokens export DIR NEW.jsonl HAC --files-from BAD",
    "tokens export DIR NEW.jsonl HAC --manifest BAD",
)


def text(path: Path) -> None:
    path.write_text("hello\nworld\n")


def wave(path: Path) -> None:
    with path.open("wb") as file:
        soundfile.write(file, np.zeros((100, 1)), 16000, format="WAV")


KINDS: dict[str, Callable[[Path], object]] = {
    "missing": lambda _: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": text,
    "zeros": lambda path: path.write_bytes(bytes(5000)),
    "random": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "json": lambda path: path.write_text('{"a": NaN, "b": 1e999}'),
    "nested": lambda path: path.write_text("[" * 200_000),
    "link to itself": lambda path: path.symlink_to(path),
    "broken link": lambda path: path.symlink_to("nowhere"),
    "null device": lambda path: path.symlink_to("/dev/null"),
    "name too long": lambda _: None,
    "below a file": lambda _: None,
}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good/good.wav"
    path.parent.mkdir()
    wave(path)
    return path


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (command, kind)
        for command in COMMANDS
        for kind in KINDS
        # text is a list of missing files, which are named
        if "--files-from" not in command or kind not in ("text", "json")
    ],
)
def test_wrong_file_is_named(
    run: Run, tmp_path: Path, good: Path, hac: Options, command: str, kind: str
) -> None:
    bad, new = tmp_path / "bad", tmp_path / "x"
    if kind == "name too long":
        bad = tmp_path / ("b" * 256)
    elif kind == "below a file":
        bad = good / "bad"
    KINDS[kind](bad)
    places: dict[str, object] = {"BAD": bad, "GOOD": good, "DIR": good.parent, "NEW": new}
    places |= {f"NEW.{suffix}": new.with_suffix(f".{suffix}") for suffix in ("hcd", "wav", "jsonl")}
    arguments: list[object] = []
    for word in command.split():
        arguments += hac if word == "HAC" else [places.get(word, word)]
    result = run(*arguments)
    assert result.code == 2, result
    lines = result.err.splitlines()
    assert lines, result
    assert lines[-1].startswith("error: "), result.err
    assert len(lines) == 1 or all(line.startswith("warning: ") for line in lines[:-1]), result.err
    assert bad.name in result.err, result.err
    assert len(lines[-1]) < 600 + len(str(bad)), result.err
    assert {path.name for path in tmp_path.iterdir()} <= {"bad", "good", "x"}
