"""Which file becomes which."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from codectool.errors import UsageError
from codectool.pipeline.jobs import Naming, find_names, make_jobs, search
from codectool.pipeline.leftovers import remove_leftovers

NAMING = Naming(frozenset({".wav", ".flac"}), ".hcd")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_folders_are_searched_in_full(tmp_path: Path) -> None:
    touch(tmp_path, "b.wav", "a/x.FLAC", "a/b/c/y.wav", "z.txt", ".hidden.wav", ".git/x.wav")
    touch(tmp_path, ".x.wav.abcdefgh.part", "nosuffix")
    assert sorted(search(tmp_path, NAMING, tmp_path)) == ["a/b/c/y.wav", "a/x.FLAC", "b.wav"]


def test_links_lead_on_but_not_round_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "in/a/x.wav", "far/y.wav")
    (tmp_path / "in/a/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/far").symlink_to(tmp_path / "far")
    (tmp_path / "in/again").symlink_to(tmp_path / "far")
    (tmp_path / "in/gone.wav").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "in/pipe.wav")
    found = sorted(search(tmp_path / "in", NAMING, tmp_path / "out"))
    assert found == ["a/x.wav", "again/y.wav", "far/y.wav", "gone.wav"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such file"):
        list(search(tmp_path / "nowhere", NAMING, tmp_path))


def test_outputs_inside_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav", "out/x.wav", "out/deep/y.wav")
    assert list(search(tmp_path, NAMING, tmp_path / "out")) == ["x.wav"]


def test_inputs_inside_the_outputs(tmp_path: Path) -> None:
    """An output of an earlier run that came to lie among the inputs."""
    touch(tmp_path, "in/x.wav", "in/y.wav")
    names, _ = find_names(tmp_path / "in", tmp_path, NAMING, None)
    jobs, rejected = make_jobs(names, tmp_path / "in", tmp_path, NAMING, {"in/y.wav"})
    assert [job.target for job in jobs] == [tmp_path / "x.hcd"]
    assert rejected == []


def test_suffixes_are_replaced_and_dots_kept() -> None:
    names = ["a.wav", "b.tar.FLAC", "v1.2", "c.d/e"]
    assert [NAMING.target(name) for name in names] == [
        "a.hcd",
        "b.tar.hcd",
        "v1.2.hcd",
        "c.d/e.hcd",
    ]


def test_of_two_inputs_with_one_output_the_later_is_rejected() -> None:
    jobs, rejected = make_jobs(["x.flac", "x.wav"], Path("in"), Path("out"), NAMING, set())
    assert [job.source_name for job in jobs] == ["x.flac"]
    (double,) = rejected
    assert double.source == Path("in/x.wav")
    assert double.reason == "would become out/x.hcd as in/x.flac does; rename one of them"


def test_no_output_replaces_an_input() -> None:
    """Of `out/in/in/x.wav` it would be `out/in/x.wav`, which is there already."""
    names = ["in/x.wav", "x.wav", "y.flac"]
    naming = Naming(frozenset({".wav", ".flac"}), ".wav")
    jobs, rejected = make_jobs(names, Path("out/in"), Path("out"), naming, set())
    assert [job.source_name for job in jobs] == ["x.wav", "y.flac"]
    assert [file.reason for file in rejected] == [
        "would replace out/in/x.wav, which is an input; name another folder"
    ]


def test_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "in/a/x.wav", "in/y.wav", "z.wav")
    monkeypatch.chdir(tmp_path)
    files = ["in/y.wav", "a/x.wav", str(tmp_path / "in/a/x.wav"), "in/a/../none.wav", "z.wav"]
    names, rejected = find_names(Path("in"), Path("out"), NAMING, [*files, "../z.wav"])
    assert names == ["a/x.wav", "none.wav", "y.wav"]
    assert [(file.source, file.reason) for file in rejected] == [
        (Path("z.wav"), "does not lie in in"),
        (Path("../z.wav"), "does not lie in in"),
    ]


def test_only_temporary_files_of_ours_are_leftovers(tmp_path: Path) -> None:
    long = "n" * 120 + ".hcd"
    ours = [
        ".x.hcd.a1b2c3_z.part",
        f".{long[:100]}.abcdefgh.part",
        "..codectool.jsonl.abcdefgh.part",
    ]
    others = [".y.hcd.abcdefgh.part", ".x.hcd.abc.part", "x.hcd.abcdefgh.part", ".x.hcd"]
    touch(tmp_path, *ours, *others)
    targets = [tmp_path / "x.hcd", tmp_path / long, tmp_path / "none/x.hcd"]
    assert remove_leftovers(tmp_path, targets) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
