"""Matching of references and coded files."""

from __future__ import annotations

from pathlib import Path

import pytest

from codectool.errors import UsageError
from codectool.evaluation.pairs import find_partners, find_references


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_find_partners_matches_paths_with_any_suffix(tmp_path: Path) -> None:
    references = touch(tmp_path / "r", "a/x.wav", "a/y.flac", "z.ogg", "notes.txt")
    names, problems = find_references(references, None, [])
    assert (names, problems) == (["a/x.wav", "a/y.flac", "z.ogg"], [])
    degraded = touch(tmp_path / "d", "a/x.wav", "a/y.wav", "a/extra.wav")
    pairs, problems = find_partners("sys", degraded, names)
    assert pairs == {"a/x.wav": degraded / "a/x.wav", "a/y.flac": degraded / "a/y.wav"}
    assert problems == [
        ("sys", "z.ogg", "is missing"),
        ("sys", "a/extra.wav", "has no reference"),
    ]


def test_find_references_rejects_names_that_differ_only_in_suffix(tmp_path: Path) -> None:
    references = touch(tmp_path / "r", "x.wav", "x.flac")
    names, problems = find_references(references, None, [])
    assert names == ["x.flac"]
    assert problems == [("", "x.wav", "is left out: x.flac differs only in its suffix")]


def test_find_references_skips_folders_of_coded_audio(tmp_path: Path) -> None:
    references = touch(tmp_path / "r", "x.wav", "coded/x.wav")
    assert find_references(references, None, [references / "coded"])[0] == ["x.wav"]
    assert find_references(references, None, [references])[0] == ["coded/x.wav", "x.wav"]


def test_find_references_of_a_list(tmp_path: Path) -> None:
    references = touch(tmp_path / "r", "x.wav", "y.wav")
    names, problems = find_references(references, ["y.wav", "/elsewhere.wav"], [])
    assert names == ["y.wav"]
    assert problems[0][1] == "/elsewhere.wav"


def test_find_references_refuses_missing_or_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such folder"):
        find_references(tmp_path / "no", None, [])
    with pytest.raises(UsageError, match="contains no audio"):
        find_references(touch(tmp_path / "r", "text.txt"), None, [])
    with pytest.raises(UsageError, match="there is no such folder"):
        find_partners("sys", tmp_path / "no", [])
