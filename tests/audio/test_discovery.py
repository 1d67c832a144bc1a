"""Searching folders and reading lists of audio files."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.audio.discovery import (
    ListEntry,
    find_files,
    find_names,
    names_in,
    parse_list,
    read_list,
    strip_suffix,
)
from codectool.errors import ConfigError, UsageError

SUFFIXES = {".wav", ".flac"}


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_wave(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(800, np.float32), 8000)
    return path


def write_list(folder: Path, text: str | bytes, name: str = "list.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def paths(source: Path) -> list[Path]:
    return [entry.path for entry in read_list(source)]


def test_find_files_searches_subfolders(tmp_path: Path) -> None:
    touch(tmp_path, "b.wav", "a/x.FLAC", "a/b/c/y.wav", "z.txt", ".hidden.wav", ".git/x.wav")
    touch(tmp_path, ".x.wav.abcdefgh.part", "nosuffix")
    assert list(find_files(tmp_path, SUFFIXES)) == ["b.wav", "a/x.FLAC", "a/b/c/y.wav"]


def test_find_files_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "in/a/x.wav", "far/y.wav")
    (tmp_path / "in/a/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/a/self").symlink_to(tmp_path / "in/a")
    (tmp_path / "in/far").symlink_to(tmp_path / "far")
    (tmp_path / "in/again").symlink_to(tmp_path / "far")
    (tmp_path / "in/gone.wav").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "in/pipe.wav")
    found = sorted(find_files(tmp_path / "in", SUFFIXES, exclude=tmp_path / "out"))
    assert found == ["a/x.wav", "again/y.wav", "far/y.wav", "gone.wav"]
    once = list(find_files(tmp_path / "in", SUFFIXES, once=True))
    assert once == ["gone.wav", "a/x.wav", "again/y.wav"]


def test_find_files_names_an_unreadable_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such file"):
        list(find_files(tmp_path / "nowhere", SUFFIXES))


def test_find_files_skips_the_excluded_folder(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav", "out/x.wav", "out/deep/y.wav")
    assert list(find_files(tmp_path, SUFFIXES, exclude=tmp_path / "out")) == ["x.wav"]
    assert len(list(find_files(tmp_path, SUFFIXES, exclude=tmp_path))) == 3


def test_strip_suffix_removes_known_suffixes_only() -> None:
    names = ["a.wav", "b.tar.FLAC", "v1.2", "c.d/e"]
    assert [strip_suffix(name, SUFFIXES) for name in names] == ["a", "b.tar", "v1.2", "c.d/e"]


def test_names_in_resolves_paths_from_the_folder_or_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "in/a/x.wav", "in/y.wav", "z.wav")
    monkeypatch.chdir(tmp_path)
    files = ["in/y.wav", "a/x.wav", str(tmp_path / "in/a/x.wav"), "in/a/../none.wav", "z.wav"]
    names, rejected = names_in(Path("in"), [*files, "../z.wav"])
    assert names == ["y.wav", "a/x.wav", "none.wav"]
    assert [(file.source, file.reason) for file in rejected] == [
        (Path("z.wav"), "is not inside in"),
        (Path("../z.wav"), "is not inside in"),
    ]
    assert find_names(Path("in"), SUFFIXES, files)[0] == ["a/x.wav", "none.wav", "y.wav"]
    assert find_names(Path("in"), SUFFIXES) == (["a/x.wav", "y.wav"], [])


def test_read_list_searches_a_folder(tmp_path: Path) -> None:
    found = [write_wave(tmp_path / name) for name in ("a.wav", "b/c/d.flac", "b/e.ogg", "f.WAV")]
    for name in ("notes.txt", "b/c/samples.raw", ".hidden.wav", ".cache/x.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert set(paths(tmp_path)) == set(found)
    assert paths(tmp_path) == paths(tmp_path)


def test_read_list_ends_on_circular_links(tmp_path: Path) -> None:
    write_wave(tmp_path / "real" / "a.wav")
    (tmp_path / "real" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "real" / "self").symlink_to(tmp_path / "real", target_is_directory=True)
    assert paths(tmp_path) == [tmp_path / "real" / "a.wav"]


def test_read_list_searches_linked_folders(tmp_path: Path) -> None:
    write_wave(tmp_path / "elsewhere" / "a.wav")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert paths(tmp_path / "data") == [tmp_path / "data" / "link" / "a.wav"]


def test_read_list_resolves_paths_from_the_folder_of_the_list(tmp_path: Path) -> None:
    text = "\ufeff# comment\r\n\r\n  # another\r\na/b c.wav \r\n/abs/d.flac\r\nlast.ogg"
    found = paths(write_list(tmp_path, text))
    assert found == [tmp_path / "a/b c.wav", Path("/abs/d.flac"), tmp_path / "last.ogg"]


def test_read_list_accepts_names_that_end_in_a_blank(tmp_path: Path) -> None:
    path = write_wave(tmp_path / "a.wav").rename(tmp_path / "a.wav ")
    assert paths(write_list(tmp_path, "a.wav \nb.wav \n")) == [path, tmp_path / "b.wav"]


def test_read_list_reads_lengths_from_columns(tmp_path: Path) -> None:
    found = read_list(write_list(tmp_path, "#odd|name .wav\nx|y .wav\t320\t16000\nz.wav\n"))
    assert found == [ListEntry(tmp_path / "x|y .wav", 320, 16000), ListEntry(tmp_path / "z.wav")]


def test_read_list_reads_jsonl_manifests(tmp_path: Path) -> None:
    lines = [
        {"path": "a.wav", "num_samples": 5, "sample_rate": 8000, "text": "hello"},
        {"path": "/b.wav", "speaker": 7},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    found = read_list(write_list(tmp_path, text, "list.jsonl"))
    assert found == [ListEntry(tmp_path / "a.wav", 5, 8000), ListEntry(Path("/b.wav"))]


def test_read_list_reads_bigcodec_lists(tmp_path: Path) -> None:
    """``id|path``; the id is not a file."""
    path = write_wave(tmp_path / "train-clean-100/19/198/19-198-0000.flac")
    line = f"19-198-0000|{path.relative_to(tmp_path)}\n"
    assert paths(write_list(tmp_path, line)) == [path]


def test_read_list_reads_supercodec_lists(tmp_path: Path) -> None:
    """``name|text``; the suffix is missing."""
    path = write_wave(tmp_path / "LJ001-0001.wav")
    other = write_wave(tmp_path / "b.flac")
    text = "LJ001-0001|Printing, in the only sense|Printing\nb.flac|as it is\n"
    assert paths(write_list(tmp_path, text)) == [path, other]


def test_read_list_reports_missing_files_under_the_likelier_name(tmp_path: Path) -> None:
    found = paths(write_list(tmp_path, "id|no/such.flac\nnone|text\n"))
    assert found == [tmp_path / "no/such.flac", tmp_path / "none.wav"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a.wav\t16000", "2 columns"),
        ("a.wav\t16000\t16000\tmore", "4 columns"),
        ("a.wav\tlong\t16000", "must be whole numbers"),
        ("a.wav\t1.5\t16000", "must be whole numbers"),
        ("a.wav\t-5\t16000", "must be whole numbers"),
        ("a.wav\t0\t16000", "not a length"),
        ("a.wav\t99999999999999999999\t16000", "not a length"),
        ("a.wav\t5\t0", "not a sampling rate"),
        ("a.wav\t5\t16", "not a sampling rate"),
        ("a.wav\0", "not text"),
    ],
)
def test_read_list_names_the_line_it_cannot_parse(tmp_path: Path, line: str, why: str) -> None:
    source = write_list(tmp_path, f"# head\n\nok.wav\n{line}\n")
    with pytest.raises(ConfigError, match=f"list.txt: line 4.*{why}"):
        read_list(source)


@pytest.mark.parametrize(
    "line",
    [
        "a.wav",
        "[]",
        "{}",
        '{"path": 5}',
        '{"path": "a", "num_samples": 5}',
        '{"path": "a", "num_samples": true, "sample_rate": 8000}',
        '{"path": "a", "num_samples": "5", "sample_rate": 8000}',
        '{"path": "a", "num_samples": 5, "sample_rate": 8000.5}',
        "[" * 100_000,
    ],
)
def test_read_list_names_the_manifest_line_it_cannot_parse(tmp_path: Path, line: str) -> None:
    source = write_list(tmp_path, f'{{"path": "x.wav"}}\n{line}\n', "m.jsonl")
    with pytest.raises(ConfigError, match="m.jsonl: line 2"):
        read_list(source)


def test_read_list_rejects_audio_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.wav: .*is not text"):
        read_list(write_wave(tmp_path / "a.wav"))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_read_list_takes_paths_that_end_with_nul(tmp_path: Path, mark: bytes) -> None:
    """As `find -print0` writes them: every character belongs to the path."""
    names = ["./a b.wav", "# c.wav", "d\n e|f.wav", "g\t1\t2.wav", os.fsdecode(b"\xff.wav")]
    source = tmp_path / "list.txt"
    source.write_bytes(mark + b"".join(os.fsencode(name) + b"\0" for name in names))
    assert [entry.path for entry in read_list(source)] == [tmp_path / name for name in names]


def test_read_list_takes_long_lists_that_end_with_nul(tmp_path: Path) -> None:
    names = [f"{number:08}/{'x' * 60}.wav" for number in range(30_000)]  # more than 2 MB
    source = tmp_path / "list.txt"
    source.write_text("".join(f"{name}\0" for name in names))
    assert [entry.path for entry in read_list(source)] == [tmp_path / name for name in names]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_read_list_rejects_utf_16(tmp_path: Path, encoding: str) -> None:
    source = tmp_path / "list.txt"
    for text in ("a.wav\n", "日本.wav\r\nb.wav\r\n", "a.wav"):
        source.write_bytes(text.encode(encoding))
        with pytest.raises(ConfigError, match=r"list\.txt: .*(is UTF-16 text|is not text)"):
            read_list(source)


@pytest.mark.parametrize("path", [r"\ud800.wav", r"a\u0000.wav"])
def test_read_list_rejects_paths_that_no_file_can_have(tmp_path: Path, path: str) -> None:
    source = write_list(tmp_path, f'{{"path": "{path}"}}\n', "m.jsonl")
    with pytest.raises(ConfigError, match=r"m\.jsonl: line 1: its path cannot be"):
        read_list(source)


def test_read_list_names_a_missing_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none.txt: no such file"):
        read_list(tmp_path / "none.txt")


def test_parse_list_prefers_earlier_folders(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.wav", "lists/a.wav", "lists/b.wav")
    folders = [tmp_path / "in", tmp_path / "lists", tmp_path]
    lines = io.BytesIO(b"a.wav\nb.wav\tany\tother\tcolumns\nin/missing.wav\nmissing.wav\n")
    found = [entry.path for entry in parse_list(lines, "list", folders, lengths=False)]
    assert found == [
        tmp_path / "in/a.wav",
        tmp_path / "lists/b.wav",
        tmp_path / "in/missing.wav",
        tmp_path / "in/missing.wav",
    ]
