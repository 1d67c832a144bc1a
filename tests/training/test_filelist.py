"""Lengths of training clips, and the split into training and validation clips."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.audio.discovery import ListEntry, read_list
from codectool.errors import UsageError
from codectool.training.filelist import Clip, scan, split
from tests.conftest import shared


def write_wave(path: Path, num_samples: int = 800, rate: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(num_samples, np.float32), rate)
    return path


def write_list(folder: Path, text: str | bytes, name: str = "list.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def make_clips(*names: str, seconds: float = 1.0) -> list[Clip]:
    return [Clip(Path(name), int(16000 * seconds), 16000) for name in names]


def test_scan_accepts_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    write_wave(tmp_path / "x.wav").rename(tmp_path / name)
    listed = read_list(write_list(tmp_path, b"caf\xe9.wav\n"))
    assert listed == [ListEntry(tmp_path / name)]
    assert scan(listed) == ([Clip(tmp_path / name, 800, 8000)], [])


def test_scan_keeps_the_order_and_reports_problems(tmp_path: Path) -> None:
    good = [write_wave(tmp_path / f"{i}.wav", 100 + i, 8000 + i) for i in range(5)]
    empty = tmp_path / "empty.wav"
    empty.touch()
    text = write_list(tmp_path, "no audio at all", "text.wav")
    silent = write_wave(tmp_path / "nothing.wav", 0)
    missing = tmp_path / "missing.wav"
    listed = ListEntry(tmp_path / "not opened.wav", 7, 16000)
    before = [ListEntry(path) for path in (good[3], empty)]
    after = [good[0], text, silent, missing, *good[1:3], tmp_path, good[4]]
    done: list[int] = []
    clips, problems = scan([*before, listed, *map(ListEntry, after)], done.append)
    read = {i: Clip(good[i], 100 + i, 8000 + i) for i in range(5)}
    assert clips == [read[3], Clip(listed.path, 7, 16000), read[0], read[1], read[2], read[4]]
    assert [problem.split(": ")[0] for problem in problems] == [
        str(path) for path in (empty, text, silent, missing, tmp_path)
    ]
    assert [problem.split(": ", 1)[1].split(" (")[0] for problem in problems][:4] == [
        "is empty",
        "not audio that libsndfile can read",
        "holds no samples",
        "no such file",
    ]
    assert sum(done) == 11


def test_scan_rejects_an_impossible_sampling_rate(tmp_path: Path) -> None:
    clips, problems = scan([ListEntry(write_wave(tmp_path / "a.wav", 100, 50))])
    assert clips == []
    assert "50 Hz" in problems[0]


def test_scan_reads_the_shared_corpus() -> None:
    clips, problems = scan(read_list(shared("speech", "valid.txt")))
    assert problems == []
    assert len(clips) == 40
    assert sum(clip.seconds for clip in clips) == pytest.approx(5.4 * 60, abs=6)


def folders_of(clips: list[Clip]) -> set[Path]:
    return {clip.path.parent for clip in clips}


def test_split_keeps_speakers_together() -> None:
    clips = make_clips(*(f"/data/p{speaker}/{i}.wav" for speaker in range(100) for i in range(7)))
    train, valid = split(clips, 0.05, seed=1)
    assert not folders_of(train) & folders_of(valid)
    assert sorted(train + valid, key=clips.index) == clips
    assert len(valid) == 5 * 7
    assert valid == [clip for clip in clips if clip in valid]  # still in order


def test_split_matches_the_share_for_unequal_folders() -> None:
    rng = np.random.default_rng(0)
    clips = [
        Clip(Path(f"/data/p{speaker}/{i}.wav"), int(rng.integers(8000, 200_000)), 16000)
        for speaker in range(200)
        for i in range(int(rng.integers(1, 30)))
    ]
    for seed in range(5):
        _, valid = split(clips, 0.05, seed)
        share = sum(clip.seconds for clip in valid) / sum(clip.seconds for clip in clips)
        assert share == pytest.approx(0.05, abs=0.005)  # a speaker has 0.5 %


def test_split_depends_on_the_seed_only() -> None:
    clips = make_clips(*(f"/data/p{speaker}/{i}.wav" for speaker in range(50) for i in range(3)))
    _, valid = split(clips, 0.1, seed=3)
    _, again = split(clips[::-1], 0.1, seed=3)
    _, other = split(clips, 0.1, seed=4)
    assert set(valid) == set(again)
    assert set(valid) != set(other)


def test_split_finds_the_speaker_folder_by_level() -> None:
    """LibriSpeech has speaker/chapter/clip."""
    names = [f"/l/{s}/{s}{c}/{i}.flac" for s in range(20) for c in range(4) for i in range(5)]
    train, valid = split(make_clips(*names), 0.1, seed=0, levels=2)
    speakers = [{clip.path.parents[1] for clip in part} for part in (train, valid)]
    assert len(speakers[1]) == 2
    assert not speakers[0] & speakers[1]


@pytest.mark.parametrize("speakers", [1, 2])
def test_split_falls_back_to_single_clips(speakers: int) -> None:
    names = [f"/data/{speaker}/{i}.wav" for speaker in range(speakers) for i in range(100)]
    train, valid = split(make_clips(*names), 0.02, seed=0)
    assert len(valid) == 2 * speakers
    assert folders_of(train) == folders_of(valid) or len(folders_of(valid)) == 1


def test_split_returns_two_nonempty_parts() -> None:
    for share in (1e-6, 0.02, 0.5, 0.999999):
        train, valid = split(make_clips("/a.wav", "/b.wav"), share, seed=0)
        assert len(train) == len(valid) == 1


def test_split_rejects_bad_arguments() -> None:
    with pytest.raises(UsageError, match="two clips"):
        split(make_clips("/a.wav"), 0.1, seed=0)
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            split(make_clips("/a.wav", "/b.wav"), share, seed=0)
