"""`codectool filelist`: paths, lengths, the split by speakers, messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.audio.discovery import ListEntry, read_list
from tests.cli.conftest import Run


def write(path: Path, seconds: float = 1.0, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(seconds * rate), np.float32), rate)
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return a folder of 20 speakers with 5 clips each, and a long, a short and a broken file."""
    folder = tmp_path / "corpus"
    for speaker in range(20):
        for clip in range(5):
            write(folder / f"p{speaker:02d}" / f"{clip}.flac")
    write(folder / "p00" / "long.wav", 30.0, 24000)
    write(folder / "p01" / "short.wav", 0.4)
    (folder / "p02" / "broken.wav").write_text("no audio")
    return folder


def paths(source: Path) -> list[Path]:
    return [entry.path for entry in read_list(source)]


def test_filelist_writes_lengths_and_skips_unusable_files(corpus: Path, run: Run) -> None:
    result = run("filelist", corpus, "-o", corpus / "train.txt")
    assert result.code == 0
    assert result.out == b""
    entries = read_list(corpus / "train.txt")
    assert len(entries) == 101
    assert ListEntry(corpus / "p00" / "long.wav", 720_000, 24000) in entries
    assert "101 clips, 2.2 min (100 at 16000 Hz, 1 at 24000 Hz)" in result.err
    assert "skipped: 1 cannot be used, 1 too short" in result.err
    assert "p02/broken.wav: not audio" in result.err


def test_filelist_writes_paths_relative_to_the_list(corpus: Path, run: Run) -> None:
    run("filelist", corpus, "-o", corpus / "train.txt")
    first = (corpus / "train.txt").read_text().splitlines()[0]
    assert first == "p00/0.flac\t16000\t16000"
    moved = corpus.rename(corpus.parent / "moved")
    assert all(path.is_file() for path in paths(moved / "train.txt"))


def test_filelist_writes_absolute_paths_of_other_files(
    corpus: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    run("filelist", "corpus", "-o", "lists/train.txt")
    run("filelist", "corpus", "-o", "train.txt", "--absolute")
    text = (tmp_path / "lists" / "train.txt").read_text()
    assert text.startswith(f"{corpus}/p00/0.flac\t")
    assert (tmp_path / "train.txt").read_text() == text


def test_split_writes_lists_without_a_common_speaker(corpus: Path, run: Run) -> None:
    result = run("filelist", corpus, "-o", corpus / "t.txt", "--split", "0.1", "--json")
    train, valid = paths(corpus / "t.txt"), paths(corpus / "valid.txt")
    assert len(set(train) | set(valid)) == len(train) + len(valid) == 101
    assert not {path.parent for path in train} & {path.parent for path in valid}
    totals = json.loads(result.out)
    assert totals["train"]["clips"] == len(train)
    assert totals["valid"]["hours"] == pytest.approx(13 / 3600, abs=3 / 3600)
    assert totals["train"]["rates"] == {"16000": len(train) - 1, "24000": 1}
    assert totals["unreadable"] == totals["too_short"] == 1


def test_split_of_the_command_depends_on_the_seed_only(
    corpus: Path, tmp_path: Path, run: Run
) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out, valid = tmp_path / f"{name}.txt", tmp_path / f"{name}-valid.txt"
        run("filelist", corpus, "-o", out, "--split", 0.1, "--valid-output", valid, "--seed", seed)
    texts = [(tmp_path / f"{name}-valid.txt").read_bytes() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]


def test_speaker_level_finds_the_speaker_folder(tmp_path: Path, run: Run) -> None:
    for speaker in range(8):
        for chapter in range(4):
            write(tmp_path / f"{speaker}/{chapter}/a.flac", 0.6)
    run("filelist", tmp_path, "-o", tmp_path / "t.txt", "--split", 0.13, "--speaker-level", 2)
    assert len(paths(tmp_path / "valid.txt")) == 4
    assert len({path.parents[1] for path in paths(tmp_path / "valid.txt")}) == 1


def test_filelist_joins_sources_without_duplicates(corpus: Path, run: Run) -> None:
    (corpus / "some.txt").write_text("p05/1.flac\np06/2.flac\n")
    run("filelist", corpus / "p05", corpus / "some.txt", corpus / "p05", "-o", corpus / "t.txt")
    found = [path.relative_to(corpus).as_posix() for path in paths(corpus / "t.txt")]
    assert found == [*(f"p05/{clip}.flac" for clip in range(5)), "p06/2.flac"]


def test_filelist_keeps_lengths_of_a_source_list(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a.txt").write_text("not/there.wav\t99000\t16000\n")
    assert run("filelist", tmp_path / "a.txt", "-o", tmp_path / "b.txt").code == 0
    assert (tmp_path / "b.txt").read_text() == "not/there.wav\t99000\t16000\n"


def test_filelist_writes_to_stdout(corpus: Path, run: Run) -> None:
    result = run("filelist", corpus / "p05", "-o", "-")
    assert result.text.splitlines() == [
        f"{corpus}/p05/{clip}.flac\t16000\t16000" for clip in range(5)
    ]
    assert "<stdout>: 5 clips" in result.err


def test_filelist_names_survive_reading(tmp_path: Path, run: Run) -> None:
    odd = ["#a.wav", " #b.wav", "c|d.wav", "e f .wav", "ü.wav"]
    for name in odd:
        write(tmp_path / "x" / name)
    run("filelist", tmp_path / "x", "-o", tmp_path / "x" / "t.txt")
    assert {path.name for path in paths(tmp_path / "x" / "t.txt")} == set(odd)


def test_filelist_rejects_names_with_a_line_break(tmp_path: Path, run: Run) -> None:
    write(tmp_path / "a\nb.wav")
    result = run("filelist", tmp_path, "-o", tmp_path / "t.txt")
    assert result.code == 2
    assert "rename or exclude it" in result.err
    assert not (tmp_path / "t.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["{corpus}", "-o", "{corpus}/old.txt"], "--overwrite"),
        (["{corpus}", "-o", "{corpus}/t.txt", "--split", "0.1"], "valid.txt: exists"),
        (["{corpus}", "-o", "{corpus}/t.txt", "--valid-output", "v.txt"], "--split"),
        (["{corpus}", "-o", "{corpus}/valid.txt", "--split", "0.1", "--overwrite"], "name two"),
        (["{corpus}", "-o", "-", "--split", "0.1"], "--valid-output"),
        (["{corpus}", "-o", "-", "--json"], "name a LIST"),
        (["{corpus}", "-o", "{corpus}/t.txt", "--split", "1.0"], "--split"),
        (["{corpus}", "-o", "{corpus}/none/t.txt"], "there is no folder"),
        (["{corpus}", "-o", "{corpus}/p01"], "is a folder"),
        (["{corpus}", "-o", "{corpus}/t.txt", "--min-seconds", "99"], "no audio of 99 s or more"),
        (["{corpus}/empty", "-o", "{corpus}/t.txt"], "no audio of 0.5 s"),
        (["{corpus}/none", "-o", "{corpus}/t.txt"], "no such file"),
        (["{corpus}/p00/long.wav", "-o", "{corpus}/t.txt"], "is not text"),
        (["{corpus}/old.txt", "-o", "{corpus}/t.txt"], "line 2: has 2 columns"),
        (["{corpus}"], "-o"),
        (["-o", "{corpus}/t.txt"], "DIR"),
    ],
)
def test_filelist_rejects_unusable_arguments(
    corpus: Path, run: Run, arguments: list[str], why: str
) -> None:
    (corpus / "empty").mkdir()
    (corpus / "old.txt").write_text("# old\na\tb\n")
    (corpus / "valid.txt").write_text("# old\n")
    result = run("filelist", *(argument.format(corpus=corpus) for argument in arguments))
    assert result.code == 2
    assert why in result.err
    assert "error: " in result.err
    assert not (corpus / "t.txt").exists()
    assert (corpus / "valid.txt").read_text() == "# old\n"
    assert not list(corpus.rglob("*.part"))


def test_filelist_counts_many_broken_files(tmp_path: Path, run: Run) -> None:
    write(tmp_path / "good.wav")
    for number in range(30):
        (tmp_path / f"bad{number}.wav").touch()
    result = run("filelist", tmp_path, "-o", tmp_path / "t.txt")
    assert result.code == 0
    assert result.err.count("is empty") == 5
    assert "and 25 more, see `--json`" in result.err


def test_filelist_does_not_import_torch(corpus: Path) -> None:
    program = (
        "import sys\nfrom codectool.cli import main\n"
        f"try: main(['filelist', {str(corpus)!r}, '-o', {str(corpus / 't.txt')!r}])\n"
        "except SystemExit as e: assert not e.code\n"
        "assert 'soundfile' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_command_in_the_documentation_works(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = (Path(__file__).parents[2] / "docs" / "guides" / "data.md").read_text(
        encoding="utf-8"
    )
    (line,) = [line for line in document.splitlines() if line.startswith("    codectool filelist")]
    for speaker in range(50):
        write(tmp_path / f"LibriTTS/{speaker}/chapter/a.wav")
    monkeypatch.chdir(tmp_path)
    assert run(*line.split()[1:]).code == 0
    assert len(paths(Path("LibriTTS/valid.txt"))) == 1
