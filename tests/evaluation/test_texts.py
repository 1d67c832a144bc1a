"""Texts of recordings: folders, lists, and their clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from codectool.errors import UsageError
from codectool.evaluation.texts import match_texts, read_texts


@pytest.mark.parametrize(
    "line",
    ["a/b.wav\tHello, you", "a/b|HELLO|Hello, you", "a/b Hello, you", "./a/b.flac\tHello, you"],
)
def test_lists_with_each_separator(tmp_path: Path, line: str) -> None:
    path = tmp_path / "list"
    path.write_text(f"\ufeff{line}\r\n\nc d e\n", encoding="utf-8")
    assert read_texts(path) == {"a/b": "Hello, you", "c": "d e"}


def test_folder_of_text_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.v2.txt").write_text(" Hello,\nyou \n", encoding="utf-8")
    (tmp_path / "c.TXT").write_text("", encoding="utf-8")
    (tmp_path / "c.wav").write_text("", encoding="utf-8")
    assert read_texts(tmp_path) == {"a/b.v2": "Hello, you", "c": ""}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "contains no texts"),
        (b"a\tx\nb\n", "line 2: has no text"),
        (b"a\tb\tc\n", "line 1: has 3 columns"),
        (b"a\tx\na.wav\ty\n", "line 2: a has a text already"),
        (b"\xff\xfe\x00", "is not a text in UTF-8"),
    ],
)
def test_bad_lists_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "list.tsv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"list.tsv.*{words}"):
        read_texts(path)


def test_missing_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read .No such file"):
        read_texts(tmp_path / "no.tsv")
    with pytest.raises(UsageError, match="contains no texts"):
        read_texts(tmp_path)


def test_clips_are_matched_by_path_then_by_unique_file_name() -> None:
    texts = {"a/x": "1", "y": "2", "p/z": "3", "q/z": "4", "w": "5"}
    clips = ["a/x.wav", "b/x.wav", "b/y.flac", "c/z.wav", "d/w.wav", "e/w.wav"]
    assert match_texts(texts, clips) == {"a/x.wav": "1", "b/y.flac": "2"}
