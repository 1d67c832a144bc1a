"""The journal of an output folder, also after crashes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from codectool.errors import UsageError
from codectool.files import atomic_output
from codectool.pipeline.journal import JOURNAL_NAME, Entry, Journal, checksum, matches_checksum

ENTRY = Entry("a/x.hcd", "a/x.wav", 44, 1234567890123456789, "0123456789abcdef", 3, "352441c2")


def test_journal_returns_recorded_entries(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.begin([ENTRY, replace(ENTRY, target="b.hcd")])
        journal.finish(ENTRY)
    with Journal(tmp_path) as journal:
        assert journal.find("a/x.hcd") == ENTRY
        assert journal.find("b.hcd") == replace(ENTRY, target="b.hcd", bytes=None, crc32=None)
        assert journal.find("c.hcd") is None
        assert set(journal.targets) == {"a/x.hcd", "b.hcd"}


@pytest.mark.parametrize("keep", range(1, 40, 3))
def test_journal_ignores_a_torn_line(tmp_path: Path, keep: int) -> None:
    with Journal(tmp_path) as journal:
        journal.finish(ENTRY)
        journal.finish(replace(ENTRY, target="torn.hcd"))
    path = tmp_path / JOURNAL_NAME
    path.write_bytes(path.read_bytes()[:-keep])
    with Journal(tmp_path) as journal:
        assert (journal.find("torn.hcd") is None) == (keep > 1)
        journal.finish(replace(ENTRY, target="next.hcd"))
    with Journal(tmp_path) as journal:
        assert journal.find("a/x.hcd") == ENTRY
        assert journal.find("next.hcd") is not None


@pytest.mark.parametrize(
    "line",
    [
        b"\0" * 100,
        b"[1]",
        b"{}",
        b'"x"',
        b"\xff",
        json.dumps({**vars(ENTRY), "bytes": "3"}).encode(),
    ],
)
def test_journal_ignores_lines_that_are_not_entries(tmp_path: Path, line: bytes) -> None:
    (tmp_path / JOURNAL_NAME).write_bytes(line + b"\n" + json.dumps(vars(ENTRY)).encode() + b"\n")
    with Journal(tmp_path) as journal:
        assert list(journal.targets) == ["a/x.hcd"]


def test_compact_keeps_existing_outputs_sorted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/x.hcd", "0.hcd"):
        (tmp_path / name).write_bytes(b"abc")
    with Journal(tmp_path) as journal:
        for target in ("gone.hcd", "a/x.hcd", "0.hcd", "a/x.hcd"):
            journal.finish(replace(ENTRY, target=target))
        journal.compact()
    lines = (tmp_path / JOURNAL_NAME).read_text().splitlines()
    assert [json.loads(line)["target"] for line in lines] == ["0.hcd", "a/x.hcd"]
    with Journal(tmp_path) as journal:
        assert journal.find("a/x.hcd") == ENTRY


def test_journal_is_locked_against_other_runs(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        with pytest.raises(UsageError, match="another run is writing there"):
            Journal(tmp_path)
        journal.compact()  # replaces the file; the new one is locked too
        with pytest.raises(UsageError, match="another run is writing there"):
            Journal(tmp_path)
    Journal(tmp_path).__exit__()


def test_journal_names_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_NAME).mkdir()
    with pytest.raises(UsageError, match=r"\.codectool\.jsonl: cannot be written"):
        Journal(tmp_path)


def test_matches_checksum_detects_any_change(tmp_path: Path) -> None:
    path = tmp_path / "x.hcd"
    assert not matches_checksum(path, ENTRY)
    path.write_bytes(b"abc")
    assert checksum(path) == "352441c2"  # the standard CRC-32
    assert matches_checksum(path, ENTRY)
    assert not matches_checksum(path, ENTRY.begun())
    for damaged in (b"abd", b"ab", b"abcc", b""):
        path.write_bytes(damaged)
        assert not matches_checksum(path, ENTRY)


def test_remove_stale_files_removes_temporary_files_of_its_targets_only(tmp_path: Path) -> None:
    long = "n" * 120 + ".hcd"
    stale = [
        ".x.hcd.a1b2c3_z.part",
        f".{long[:100]}.abcdefgh.part",
        "..codectool.jsonl.abcdefgh.part",
    ]
    others = [".y.hcd.abcdefgh.part", ".x.hcd.abc.part", "x.hcd.abcdefgh.part", ".x.hcd"]
    for name in (*stale, *others):
        (tmp_path / name).touch()
    targets = [tmp_path / "x.hcd", tmp_path / long, tmp_path / "none/x.hcd"]
    with atomic_output(tmp_path / "x.hcd") as file, Journal(tmp_path) as journal:
        file.write(b"the names that are used now")
        assert journal.remove_stale_files(targets) == 4
        (tmp_path / Path(file.name).name).touch()  # so that it can be renamed
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*others, "x.hcd", JOURNAL_NAME}
