"""What is remembered of outputs, through crashes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from codectool.errors import UsageError
from codectool.pipeline.journal import JOURNAL_NAME, Entry, Journal, checksum, is_whole

ENTRY = Entry("a/x.hcd", "a/x.wav", 44, 1234567890123456789, "0123456789abcdef", 3, "352441c2")


def test_entries_come_back(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.begin([ENTRY, replace(ENTRY, target="b.hcd")])
        journal.finish(ENTRY)
    with Journal(tmp_path) as journal:
        assert journal.find("a/x.hcd") == ENTRY
        assert journal.find("b.hcd") == replace(ENTRY, target="b.hcd", bytes=None, crc32=None)
        assert journal.find("c.hcd") is None
        assert set(journal.targets) == {"a/x.hcd", "b.hcd"}


@pytest.mark.parametrize("keep", range(1, 40, 3))
def test_a_torn_line_is_ignored_and_does_not_spoil_the_next(tmp_path: Path, keep: int) -> None:
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
def test_lines_that_are_no_entries(tmp_path: Path, line: bytes) -> None:
    (tmp_path / JOURNAL_NAME).write_bytes(line + b"\n" + json.dumps(vars(ENTRY)).encode() + b"\n")
    with Journal(tmp_path) as journal:
        assert list(journal.targets) == ["a/x.hcd"]


def test_order_is_made_of_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/x.hcd", "0.hcd"):
        (tmp_path / name).write_bytes(b"abc")
    with Journal(tmp_path) as journal:
        for target in ("gone.hcd", "a/x.hcd", "0.hcd", "a/x.hcd"):
            journal.finish(replace(ENTRY, target=target))
        journal.put_in_order()
    lines = (tmp_path / JOURNAL_NAME).read_text().splitlines()
    assert [json.loads(line)["target"] for line in lines] == ["0.hcd", "a/x.hcd"]
    with Journal(tmp_path) as journal:
        assert journal.find("a/x.hcd") == ENTRY


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        with pytest.raises(UsageError, match="another run is writing there"):
            Journal(tmp_path)
        journal.put_in_order()  # puts another file in its place, which is locked as well
        with pytest.raises(UsageError, match="another run is writing there"):
            Journal(tmp_path)
    Journal(tmp_path).__exit__()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_NAME).mkdir()
    with pytest.raises(UsageError, match=r"\.codectool\.jsonl: cannot be written"):
        Journal(tmp_path)


def test_outputs_are_checked_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "x.hcd"
    assert not is_whole(path, ENTRY)
    path.write_bytes(b"abc")
    assert checksum(path) == "352441c2"  # as every CRC-32 has it
    assert is_whole(path, ENTRY)
    assert not is_whole(path, ENTRY.begun())
    for damaged in (b"abd", b"ab", b"abcc", b""):
        path.write_bytes(damaged)
        assert not is_whole(path, ENTRY)
