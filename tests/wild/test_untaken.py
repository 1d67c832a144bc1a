"""Files that look like audio but are not taken are named; with PyAV they are taken."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.audio import discovery
from codectool.audio.files import read_audio, read_crop
from codectool.codec import Codec
from codectool.errors import UsageError
from codectool.pipeline.run import encode_tree
from codectool.training.run import Callbacks, train
from tests.cli.conftest import Run
from tests.signals import speechlike
from tests.training import small

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


@pytest.fixture
def without_av(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a WAV and files of other kinds, empty but for their names."""
    path = tmp_path / "in"
    (path / "deep").mkdir(parents=True)
    soundfile.write(path / "a.wav", speechlike(1.0, 16000)[0], 16000)
    for name in ("b.m4a", "deep/c.M4A", "d.wma", "e.pcm", "notes.txt", ".hidden.m4a", "cover.jpg"):
        (path / name).touch()
    return path


def test_files_that_need_ffmpeg_are_counted_without_it(folder: Path, without_av: None) -> None:
    assert list(discovery.find_files(folder, discovery.AUDIO_SUFFIXES)) == ["a.wav"]
    counts = discovery.count_untaken(folder)
    assert counts == {".m4a": 2, ".wma": 1, ".pcm": 1}
    assert discovery.describe_untaken(folder, counts) == (
        f"{folder}: 4 files look like audio but were not taken: 2 .m4a, 1 .wma "
        "(`pip install 'codectool[formats]'`), 1 .pcm (convert them to wav)"
    )


def test_files_that_need_ffmpeg_are_taken_with_it(folder: Path) -> None:
    pytest.importorskip("av")
    assert list(discovery.find_files(folder, discovery.AUDIO_SUFFIXES)) == [
        "a.wav",
        "b.m4a",
        "d.wma",
        "deep/c.M4A",
    ]
    counts = discovery.count_untaken(folder)
    assert counts == {".pcm": 1}
    assert discovery.describe_untaken(folder, counts) == (
        f"{folder}: 1 file looks like audio but was not taken: 1 .pcm (convert them to wav)"
    )


def test_outputs_in_the_folder_are_not_counted(folder: Path, without_av: None) -> None:
    assert discovery.count_untaken(folder, exclude=folder / "deep") == {
        ".m4a": 1,
        ".wma": 1,
        ".pcm": 1,
    }


def test_suffixes_are_in_one_group_each() -> None:
    assert not discovery.AUDIO_SUFFIXES & discovery.UNREADABLE_SUFFIXES


def test_encode_tree_reports_files_that_are_not_taken(
    folder: Path, tmp_path: Path, codecs: dict[str, Codec], without_av: None
) -> None:
    report = encode_tree(codecs["hac"], folder, tmp_path / "out")
    assert (report.done, report.exit_code) == (1, 0)
    assert report.untaken == {".m4a": 2, ".wma": 1, ".pcm": 1}
    assert report.to_json(True)["not_taken"] == 4


def test_folder_of_nothing_else_is_refused_with_the_reason(
    folder: Path, tmp_path: Path, codecs: dict[str, Codec], without_av: None
) -> None:
    (folder / "a.wav").unlink()
    with pytest.raises(UsageError, match="4 files look like audio but were not taken: 2 .m4a"):
        encode_tree(codecs["hac"], folder, tmp_path / "out")


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_folder_commands_name_them(
    run: Run,
    folder: Path,
    tmp_path: Path,
    checkpoints: dict[str, Path],
    without_av: None,
    command: str,
) -> None:
    weights = ("--checkpoint", checkpoints["hac"])
    result = run(command, folder, tmp_path / "out", *weights, "--json")
    assert result.code == 0
    assert result.err.count("look like audio but were not taken: 2 .m4a, 1 .wma") == 1
    assert json.loads(result.text)["not_taken"] == 4


def test_listed_files_name_nothing(
    run: Run, folder: Path, tmp_path: Path, checkpoints: dict[str, Path], without_av: None
) -> None:
    (tmp_path / "list.txt").write_text("a.wav\n")
    weights = ("--checkpoint", checkpoints["hac"], "--files-from", tmp_path / "list.txt")
    result = run("encode", folder, tmp_path / "out", *weights)
    assert result.code == 0
    assert "look like audio" not in result.err


def test_filelist_names_them(run: Run, folder: Path, tmp_path: Path, without_av: None) -> None:
    result = run("filelist", folder, "-o", tmp_path / "list.txt")
    assert result.code == 0
    assert "4 files look like audio but were not taken: 2 .m4a, 1 .wma" in result.err


def test_evaluate_names_them(
    run: Run, folder: Path, checkpoints: dict[str, Path], without_av: None
) -> None:
    weights = ("--checkpoint", checkpoints["hac"])
    result = run("evaluate", folder, *weights, "--metric", "mel_db")
    assert result.code == 0
    assert "4 files look like audio but were not taken: 2 .m4a, 1 .wma" in result.err


def test_train_names_them(folder: Path, tmp_path: Path, without_av: None) -> None:
    config = small.with_data(small.config(), folder)
    warnings: list[str] = []

    class Stop(Exception):
        pass

    def stop(message: str) -> None:
        warnings.append(message)
        if "look like audio" in message:
            raise Stop

    with pytest.raises(Stop):
        train(config, tmp_path / "run", callbacks=Callbacks(on_warning=stop))
    assert "4 files look like audio but were not taken" in warnings[-1]


@needs_ffmpeg
def test_m4a_is_encoded_listed_and_read_in_crops(
    run: Run, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    pytest.importorskip("av")
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "a.wav", speechlike(1.5, 24000)[0], 24000)
    command = ["ffmpeg", "-v", "error", "-i", folder / "a.wav", folder / "b.m4a"]
    subprocess.run(command, check=True)
    weights = ("--checkpoint", checkpoints["hac"])
    result = run("encode", folder, tmp_path / "out", *weights, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.text)["done"] == 2
    assert run("encode", folder / "b.m4a", tmp_path / "b.hcd", *weights).code == 0
    assert (tmp_path / "b.hcd").read_bytes()[64:] == (tmp_path / "out/b.hcd").read_bytes()[64:]
    assert run("filelist", folder, "-o", tmp_path / "list.txt").code == 0
    lines = (tmp_path / "list.txt").read_text().splitlines()
    lengths = {Path(line.split("\t")[0]).name: int(line.split("\t")[1]) for line in lines}
    assert lengths["a.wav"] == 36000
    assert 36000 <= lengths["b.m4a"] <= 37888  # the last frame of AAC is padded
    crop = read_crop(folder / "b.m4a", 12000, 6000, 24000)
    np.testing.assert_array_equal(crop, read_audio(folder / "b.m4a", "b")[0][:, 12000:18000])


def test_documented_suffixes_are_those_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/audio-formats.md").read_text()
    found: dict[str, set[str]] = {"libsndfile": set(), "FFmpeg": set()}
    for suffixes, reader in re.findall(r"^\|[^|]*\|([^|]*)\| (libsndfile|FFmpeg) \|$", text, re.M):
        found[reader] |= set(re.findall(r"`(\.\w+)`", suffixes))
    assert found == {"libsndfile": discovery.SNDFILE_SUFFIXES, "FFmpeg": discovery.FFMPEG_SUFFIXES}
