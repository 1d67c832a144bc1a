"""Lists of audio files: what lines may look like, what is skipped, what is set apart."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.errors import ConfigError, UsageError
from codectool.training.filelist import Clip, read_list, scan, split
from tests.conftest import shared


def write_wave(path: Path, num_samples: int = 800, rate: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(num_samples, np.float32), rate)
    return path


def write_list(folder: Path, text: str | bytes, name: str = "list.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def made_up(*names: str, seconds: float = 1.0) -> list[Clip]:
    return [Clip(Path(name), int(16000 * seconds), 16000) for name in names]


def test_a_folder_is_searched_to_its_bottom(tmp_path: Path) -> None:
    found = [write_wave(tmp_path / name) for name in ("a.wav", "b/c/d.flac", "b/e.ogg", "f.WAV")]
    for name in ("notes.txt", "b/c/samples.raw", ".hidden.wav", ".cache/x.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert set(read_list(tmp_path)) == set(found)
    assert read_list(tmp_path) == read_list(tmp_path)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    write_wave(tmp_path / "real" / "a.wav")
    (tmp_path / "real" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "real" / "self").symlink_to(tmp_path / "real", target_is_directory=True)
    assert read_list(tmp_path) == [tmp_path / "real" / "a.wav"]


def test_linked_folders_are_searched(tmp_path: Path) -> None:
    write_wave(tmp_path / "elsewhere" / "a.wav")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert read_list(tmp_path / "data") == [tmp_path / "data" / "link" / "a.wav"]


def test_a_plain_list_is_relative_to_its_own_folder(tmp_path: Path) -> None:
    text = "\ufeff# comment\r\n\r\n  # another\r\na/b c.wav \r\n/abs/d.flac\r\nlast.ogg"
    found = read_list(write_list(tmp_path, text))
    assert found == [tmp_path / "a/b c.wav", Path("/abs/d.flac"), tmp_path / "last.ogg"]


def test_a_line_with_tabs_says_the_length(tmp_path: Path) -> None:
    found = read_list(write_list(tmp_path, "#odd|name .wav\nx|y .wav\t320\t16000\nz.wav\n"))
    assert found == [Clip(tmp_path / "x|y .wav", 320, 16000), tmp_path / "z.wav"]
    assert isinstance(found[0], Clip)
    assert found[0].seconds == 0.02


def test_a_jsonl_manifest(tmp_path: Path) -> None:
    lines = [
        {"path": "a.wav", "num_samples": 5, "sample_rate": 8000, "text": "hello"},
        {"path": "/b.wav", "speaker": 7},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    found = read_list(write_list(tmp_path, text, "list.jsonl"))
    assert found == [Clip(tmp_path / "a.wav", 5, 8000), Path("/b.wav")]


def test_lists_of_bigcodec(tmp_path: Path) -> None:
    """``id|path``; the id is no file."""
    path = write_wave(tmp_path / "train-clean-100/19/198/19-198-0000.flac")
    line = f"19-198-0000|{path.relative_to(tmp_path)}\n"
    assert read_list(write_list(tmp_path, line)) == [path]


def test_lists_of_supercodec(tmp_path: Path) -> None:
    """``name|text``; the suffix is missing."""
    path = write_wave(tmp_path / "LJ001-0001.wav")
    other = write_wave(tmp_path / "b.flac")
    text = "LJ001-0001|Printing, in the only sense|Printing\nb.flac|as it is\n"
    assert read_list(write_list(tmp_path, text)) == [path, other]


def test_missing_files_of_either_kind_are_called_by_the_likelier_name(tmp_path: Path) -> None:
    found = read_list(write_list(tmp_path, "id|no/such.flac\nnone|text\n"))
    assert found == [tmp_path / "no/such.flac", tmp_path / "none.wav"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a.wav\t16000", "2 columns"),
        ("a.wav\t16000\t16000\tmore", "4 columns"),
        ("a.wav\tlong\t16000", "must be numbers"),
        ("a.wav\t1.5\t16000", "must be numbers"),
        ("a.wav\t-5\t16000", "must be numbers"),
        ("a.wav\t0\t16000", "no length"),
        ("a.wav\t99999999999999999999\t16000", "no length"),
        ("a.wav\t5\t0", "no sampling rate"),
        ("a.wav\t5\t16", "no sampling rate"),
        ("a.wav\0", "no text"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, why: str) -> None:
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
        '{"path": "a", "num_samples": 5, "sample_rate": 8000.5}',
        "[" * 100_000,
    ],
)
def test_bad_lines_of_manifests_are_named(tmp_path: Path, line: str) -> None:
    source = write_list(tmp_path, f'{{"path": "x.wav"}}\n{line}\n', "m.jsonl")
    with pytest.raises(ConfigError, match="m.jsonl: line 2"):
        read_list(source)


def test_an_audio_file_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a.wav: line 1 is no text"):
        read_list(write_wave(tmp_path / "a.wav"))


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none.txt: no such file"):
        read_list(tmp_path / "none.txt")


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    write_wave(tmp_path / "x.wav").rename(tmp_path / name)
    listed = read_list(write_list(tmp_path, b"caf\xe9.wav\n"))
    assert listed == [tmp_path / name]
    assert scan(listed) == ([Clip(tmp_path / name, 800, 8000)], [])


def test_scan_keeps_the_order_and_says_what_is_wrong(tmp_path: Path) -> None:
    good = [write_wave(tmp_path / f"{i}.wav", 100 + i, 8000 + i) for i in range(5)]
    empty = tmp_path / "empty.wav"
    empty.touch()
    text = write_list(tmp_path, "no audio at all", "text.wav")
    silent = write_wave(tmp_path / "nothing.wav", 0)
    missing = tmp_path / "missing.wav"
    listed = Clip(tmp_path / "never looked at.wav", 7, 16000)
    done: list[int] = []
    clips, problems = scan(
        [good[3], empty, listed, good[0], text, silent, missing, *good[1:3], tmp_path, good[4]],
        done.append,
    )
    read = {i: Clip(good[i], 100 + i, 8000 + i) for i in range(5)}
    assert clips == [read[3], listed, read[0], read[1], read[2], read[4]]
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


def test_a_header_that_knows_no_rate_is_refused(tmp_path: Path) -> None:
    clips, problems = scan([write_wave(tmp_path / "a.wav", 100, 50)])
    assert clips == []
    assert "50 Hz" in problems[0]


def test_the_shared_corpus_is_whole() -> None:
    clips, problems = scan(read_list(shared("speech", "valid.txt")))
    assert problems == []
    assert len(clips) == 40
    assert sum(clip.seconds for clip in clips) == pytest.approx(5.4 * 60, abs=6)


def folders_of(clips: list[Clip]) -> set[Path]:
    return {clip.path.parent for clip in clips}


def test_split_sets_whole_speakers_apart() -> None:
    clips = made_up(*(f"/data/p{speaker}/{i}.wav" for speaker in range(100) for i in range(7)))
    train, valid = split(clips, 0.05, seed=1)
    assert not folders_of(train) & folders_of(valid)
    assert sorted(train + valid, key=clips.index) == clips
    assert len(valid) == 5 * 7
    assert valid == [clip for clip in clips if clip in valid]  # still in order


def test_split_hits_the_share_of_the_length_where_folders_differ() -> None:
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


def test_split_is_a_matter_of_the_seed_alone() -> None:
    clips = made_up(*(f"/data/p{speaker}/{i}.wav" for speaker in range(50) for i in range(3)))
    _, valid = split(clips, 0.1, seed=3)
    _, again = split(clips[::-1], 0.1, seed=3)
    _, other = split(clips, 0.1, seed=4)
    assert set(valid) == set(again)
    assert set(valid) != set(other)


def test_levels_go_up_to_the_speaker() -> None:
    """LibriSpeech has speaker/chapter/clip."""
    names = [f"/l/{s}/{s}{c}/{i}.flac" for s in range(20) for c in range(4) for i in range(5)]
    train, valid = split(made_up(*names), 0.1, seed=0, levels=2)
    speakers = [{clip.path.parents[1] for clip in part} for part in (train, valid)]
    assert len(speakers[1]) == 2
    assert not speakers[0] & speakers[1]


@pytest.mark.parametrize("speakers", [1, 2])
def test_few_large_folders_are_split_by_clips(speakers: int) -> None:
    names = [f"/data/{speaker}/{i}.wav" for speaker in range(speakers) for i in range(100)]
    train, valid = split(made_up(*names), 0.02, seed=0)
    assert len(valid) == 2 * speakers
    assert folders_of(train) == folders_of(valid) or len(folders_of(valid)) == 1


def test_neither_part_is_empty() -> None:
    for share in (1e-6, 0.02, 0.5, 0.999999):
        train, valid = split(made_up("/a.wav", "/b.wav"), share, seed=0)
        assert len(train) == len(valid) == 1


def test_what_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="two clips"):
        split(made_up("/a.wav"), 0.1, seed=0)
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            split(made_up("/a.wav", "/b.wav"), share, seed=0)
