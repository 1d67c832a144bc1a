"""`codectool evaluate` from the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import Run
from tests.cli.test_bad_input import assert_refused
from tests.cli.test_start import called, modules_after
from tests.evaluation import fake_whisper


def write(path: Path, seed: int, level: float = 0.1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).normal(0, level, 12000), 16000)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for number, name in enumerate(["a.wav", "b/c.flac"]):
        write(tmp_path / "clips" / name, number)
    return tmp_path / "clips"


MEL = ("--metric", "mel_db", "--jobs", "1")


def test_evaluate_shows_systems_and_folders_in_one_table(
    run: Run, clips: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    named = f"tiny={checkpoints['hac']}"
    result = run("evaluate", clips, f"same={clips}", "--checkpoint", named, *MEL, "--keep", kept)
    assert (result.code, result.err) == (0, "")
    head, _, names, *rows = result.text.splitlines()
    assert head == "2 clips, 0.0 minutes; mean ± 95 % (worst clip)"
    assert names.split() == ["tiny", "same"]
    assert any("mel distance, dB ↓" in row and "*0.00 ±0.00 (0.00)" in row for row in rows)
    assert (kept / "tiny/b/c.wav").is_file()
    again = run("evaluate", clips, kept / "tiny", *MEL, "--json")
    values = json.loads(again.text)
    assert [system["name"] for system in values["systems"]] == ["tiny"]
    assert values["systems"][0]["kbps"] is None


def test_evaluate_model_uses_its_checkpoint_or_bundled_weights(
    run: Run, clips: Path, checkpoints: dict[str, Path]
) -> None:
    options = ("--model", "hac", "--model", "supercodec", "--device", "cpu", *MEL, "--json")
    result = run("evaluate", clips, *options, "--checkpoint", checkpoints["supercodec"])
    names = [system["name"] for system in json.loads(result.text)["systems"]]
    assert names == ["hac", "supercodec_micro"]
    assert_refused(
        run("evaluate", clips, "--model", "bigcodec"), "no weights for bigcodec", "--checkpoint"
    )


def test_evaluate_prints_csv_and_markdown(run: Run, clips: Path) -> None:
    result = run("evaluate", clips, clips, *MEL, "--csv")
    lines = list(csv.DictReader(io.StringIO(result.text)))
    assert [(line["system"], line["clip"], line["mel_db"]) for line in lines] == [
        ("clips", "a.wav", "0.0"),
        ("clips", "b/c.flac", "0.0"),
    ]
    result = run("evaluate", clips, clips, *MEL, "--markdown")
    assert "| --- | ---: |" in result.text
    assert_refused(run("evaluate", clips, clips, "--csv", "--json"), "`--json` and `--csv`")


def test_evaluate_by_folder_prints_a_table_for_each(run: Run, clips: Path) -> None:
    result = run("evaluate", clips, clips, *MEL, "--by-folder")
    heads = [line for line in result.text.splitlines() if "minutes" in line]
    assert [head.partition(" minutes")[0] for head in heads] == [
        *("2 clips, 0.0", ".: 1 clip, 0.0", "b: 1 clip, 0.0")
    ]
    assert result.text.count("mel distance, dB") == 3
    result = run("evaluate", clips, clips, *MEL, "--by-folder", "--json")
    assert list(json.loads(result.text)["folders"]) == [".", "b"]
    assert_refused(run("evaluate", clips, clips, "--csv", "--by-folder"), "a line per clip")


def test_evaluate_word_error_rates(
    run: Run, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fake_whisper.install(tmp_path, monkeypatch)
    for name in ("a.wav", "b/c.wav"):
        write(tmp_path / "soft" / name, 1, 0.01)
    options = ("--metric", "wer", "--asr-model", model, "--align", "off", "--jobs", "1", "--json")
    result = run("evaluate", clips, tmp_path / "soft", *options)
    values = json.loads(result.text)
    assert values["originals"] is None
    assert values["systems"][0]["means"]["wer"]["mean"] == pytest.approx(2 / 9)
    texts = tmp_path / "texts"
    texts.write_text(f"a\t{fake_whisper.TEXT}\n")
    result = run("evaluate", clips, tmp_path / "soft", *options, "--text", texts)
    values = json.loads(result.text)
    assert values["originals"]["means"]["wer"]["mean"] == 0
    assert values["systems"][0]["means"]["wer"]["clips"] == 1
    assert (
        "soft: 1 of 2 clips has no word error rate: b/c.flac (no words in the text)" in result.err
    )
    texts.write_text("other\tx\n")
    refused = run("evaluate", clips, tmp_path / "soft", *options, "--text", texts)
    assert_refused(refused, "none of its 2 clips has a text", "other")
    assert_refused(run("evaluate", clips, clips, "--text", texts), "--text", "add `--asr-model`")
    assert_refused(run("evaluate", clips, clips, "--metric", "wer"), "wer", "`--asr-model`")
    result = run("compare", clips / "a.wav", tmp_path / "soft/a.wav", *options[:4], "--no-align")
    assert "word error rate" in result.text
    assert "0.222" in result.text


def test_evaluate_lists_bad_clips_and_exits_with_one(run: Run, clips: Path) -> None:
    coded = clips.parent / "coded"
    write(coded / "a.wav", 5)
    (clips / "bad.wav").write_text("no audio")
    result = run("evaluate", clips, coded, *MEL)
    assert result.code == 1
    errors = result.err.splitlines()
    assert errors[0].startswith("error: bad.wav: not audio")
    assert errors[1] == "error: coded: b/c.flac: is missing"
    assert "mel distance" in result.text


def test_evaluate_reads_a_list_from_stdin(run: Run, clips: Path) -> None:
    result = run("evaluate", clips, clips, *MEL, "--json", "--files-from", "-", stdin=b"a.wav\n")
    values = json.loads(result.text)
    assert [clip["name"] for clip in values["clips"]] == ["a.wav"]
    assert {problem["reason"] for problem in values["problems"]} == {"has no reference"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["nothing to compare", "--model"]),
        (("no-such",), ["no-such: there is no such folder"]),
        (("--codec", "mp3@64"), ["there is no codec `mp3@64`"]),
        (("--checkpoint", "no.pt"), ["no.pt: no such file"]),
        (("--metric", "loudness", "--model", "hac"), ["loudness", "stoi"]),
        (("--model", "hac", "--plot", "x.png"), ["--tokens"]),
        (("--device", "tpu", "--model", "hac"), ["no device is called `tpu`"]),
    ],
)
def test_evaluate_refuses_invalid_arguments(
    run: Run, clips: Path, arguments: tuple[str, ...], words: list[str]
) -> None:
    assert_refused(run("evaluate", clips, *arguments), *words)


def test_evaluate_report_is_not_replaced_without_overwrite(
    run: Run, clips: Path, tmp_path: Path
) -> None:
    page = tmp_path / "out.html"
    page.write_text("mine")
    assert_refused(run("evaluate", clips, clips, *MEL, "--report", page), "exists", "--overwrite")
    assert page.read_text() == "mine"


def test_evaluate_writes_a_report(run: Run, clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    page = tmp_path / "out.html"
    assert run("evaluate", clips, f"x={clips}", *MEL, "--report", page).code == 0
    text = page.read_text(encoding="utf-8")
    assert text.lower().startswith("<!doctype html>")
    assert "codectool evaluate" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "out.html"]


def test_evaluate_tokens_of_files_equal_those_of_recordings(
    run: Run, clips: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    hac = ("--checkpoint", checkpoints["hac"], "--device", "cpu")
    assert run("encode", clips, tmp_path / "coded", *hac).code == 0
    of_files = json.loads(run("evaluate", tmp_path / "coded", "--tokens", "--json").text)
    of_audio = json.loads(run("evaluate", clips, "--tokens", "--json", *hac).text)
    assert of_files == of_audio
    assert of_files[0]["clips"] == 2
    (tmp_path / "coded/bad.hcd").write_bytes(b"no tokens")
    result = run("evaluate", tmp_path / "coded", "--tokens", "--markdown")
    assert result.code == 1
    assert "bad.hcd" in result.err
    assert result.text.startswith("| model | clips |")
    assert_refused(run("evaluate", clips, "--tokens"), "contains no .hcd files")


def test_evaluate_report_needs_a_file_name(run: Run, clips: Path) -> None:
    assert_refused(run("evaluate", clips, clips, *MEL, "--report", "-"), "give a file name")


def test_evaluate_list_metrics_imports_no_optional_package(run: Run) -> None:
    text = run("evaluate", "--list-metrics").text
    assert "mel_db: mel distance, dB, 0.., lower is better, at 24000 Hz" in text
    names = [line.partition(":")[0] for line in text.splitlines() if line[0] != " "]
    assert len(names) == len(set(names)) == 24
    loaded = modules_after(called("evaluate", "--list-metrics"))
    assert not loaded & {"torch", "pesq", "pystoi", "visqol", "warpq", "scipy", "librosa"}


def test_evaluate_of_folders_imports_no_torch(clips: Path) -> None:
    loaded = modules_after(called("evaluate", str(clips), str(clips), *MEL))
    assert not loaded & {"torch", "torchaudio"}
