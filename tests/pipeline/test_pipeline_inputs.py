"""Which changes of the inputs a repeated run notices."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codectool.codec import Codec
from codectool.pipeline import steps
from codectool.pipeline.journal import JOURNAL_NAME, checksum
from codectool.pipeline.report import Report
from codectool.pipeline.run import RunOptions, encode_tree
from tests.pipeline.trees import contents, outputs, write_audio

NAMES = ("a.wav", "b.wav")


@pytest.fixture
def in_dir(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        write_audio(tmp_path / "in" / name, 1, 16000, 1600, number)
    return tmp_path / "in"


@pytest.fixture
def out_dir(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def encode(codecs: dict[str, Codec], in_dir: Path, out_dir: Path) -> Callable[..., Report]:
    def call(**options: Any) -> Report:
        return encode_tree(codecs["hac"], in_dir, out_dir, run_options=RunOptions(**options))

    return call


def edit_in_place(path: Path) -> None:
    """Change samples, but neither size nor modification time."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(bytes(1000))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def rewrite_journal(out_dir: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = out_dir / JOURNAL_NAME
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    for entry in entries:
        change(entry)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


@pytest.mark.parametrize("batch_seconds", [40.0, 0.01])
def test_input_that_changed_in_place_is_encoded_again(
    encode: Callable[..., Report],
    in_dir: Path,
    out_dir: Path,
    codecs: dict[str, Codec],
    tmp_path: Path,
    batch_seconds: float,
) -> None:
    assert encode(batch_seconds=batch_seconds).done == 2
    edit_in_place(in_dir / "a.wav")
    report = encode(batch_seconds=batch_seconds)
    assert (report.done, report.skipped) == (1, 1)
    encode_tree(codecs["hac"], in_dir, tmp_path / "fresh")
    assert outputs(out_dir) == outputs(tmp_path / "fresh")
    assert encode(batch_seconds=batch_seconds).skipped == 2


def test_checksum_of_the_input_is_in_the_journal(
    encode: Callable[..., Report], in_dir: Path, out_dir: Path
) -> None:
    encode()
    lines = map(json.loads, (out_dir / JOURNAL_NAME).read_text().splitlines())
    for name, entry in zip(NAMES, lines, strict=True):
        assert entry["source_crc32"] == checksum(in_dir / name)
        assert entry["source_ctime_ns"] == (in_dir / name).stat().st_ctime_ns


@pytest.mark.parametrize("touch", ["chmod", "copy"])
def test_input_with_other_metadata_is_read_once_and_not_encoded_again(
    encode: Callable[..., Report],
    in_dir: Path,
    out_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    touch: str,
) -> None:
    encode()
    before = outputs(out_dir)
    if touch == "chmod":
        (in_dir / "a.wav").chmod(0o600)
    else:
        shutil.copytree(in_dir, tmp_path / "copy")  # keeps modification times
        shutil.rmtree(in_dir)
        (tmp_path / "copy").rename(in_dir)
    read: list[str] = []
    monkeypatch.setattr(steps, "checksum", lambda path: read.append(path.name) or checksum(path))
    assert encode().skipped == 2
    assert sorted(read) == (["a.wav"] if touch == "chmod" else ["a.wav", "b.wav"])
    read.clear()
    assert encode().skipped == 2
    assert read == []
    assert outputs(out_dir) == before


def test_verify_inputs_finds_changes_that_leave_no_trace(
    encode: Callable[..., Report], in_dir: Path, out_dir: Path
) -> None:
    """Such as changes by the disk, or in file systems that keep no time of the last change."""
    encode()
    edit_in_place(in_dir / "a.wav")

    def forget(entry: dict[str, Any]) -> None:
        entry["source_ctime_ns"] = (in_dir / entry["source"]).stat().st_ctime_ns

    rewrite_journal(out_dir, forget)
    assert encode().skipped == 2
    report = encode(verify_inputs=True)
    assert (report.done, report.skipped) == (1, 1)
    before = contents(out_dir)
    assert encode(verify_inputs=True).skipped == 2
    assert contents(out_dir) == before


def test_journals_of_earlier_versions_work(
    encode: Callable[..., Report], in_dir: Path, out_dir: Path
) -> None:
    encode()

    def as_before(entry: dict[str, Any]) -> None:
        for name in ("source_crc32", "source_ctime_ns", "warnings"):
            entry.pop(name, None)

    rewrite_journal(out_dir, as_before)
    before = contents(out_dir)
    (in_dir / "a.wav").chmod(0o600)
    assert encode().skipped == 2  # by size and modification time, as before
    assert contents(out_dir) == before
    assert encode(verify_inputs=True).done == 2  # there is nothing to compare with
    assert encode(verify_inputs=True).skipped == 2


def test_names_that_are_not_utf_8_are_resumed(
    encode: Callable[..., Report], in_dir: Path, out_dir: Path
) -> None:
    (in_dir / "a.wav").rename(in_dir / os.fsdecode(b"\xff\xe4.wav"))
    assert encode().done == 2
    assert encode().skipped == 2
    assert sorted(map(os.fsencode, os.listdir(out_dir))) == [
        b".codectool.jsonl",
        b"b.hcd",
        b"\xff\xe4.hcd",
    ]
