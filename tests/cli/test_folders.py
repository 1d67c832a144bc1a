"""Folder runs on the command line: messages, exit codes, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

import codectool
from codectool.pipeline.journal import JOURNAL_NAME, Journal
from tests.cli.conftest import Options, Run
from tests.pipeline.trees import FILES, contents, make_tree, outputs, write_audio


@pytest.fixture
def in_dir(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "in")


def test_reconstruct_equals_encode_and_decode_of_folders(
    run: Run, in_dir: Path, tmp_path: Path, hac: Options
) -> None:
    packed, back, both = tmp_path / "packed", tmp_path / "back", tmp_path / "both"
    for _ in range(2):
        result = run("encode", in_dir, packed, *hac, "--tag", "set=x", "--block-seconds", "0.1")
        assert (result.code, result.out, result.err) == (0, b"", "")
    assert len(outputs(packed)) == len(FILES)
    assert codectool.read(packed / "six.hcd").tags == {"set": "x"}
    # without --checkpoint, the files name their weights
    result = run("decode", packed, back, "--device", "cpu", "--subtype", "PCM_24")
    assert (result.code, result.out, result.err) == (0, b"", "")
    result = run("reconstruct", in_dir, both, *hac, "--subtype", "PCM_24")
    assert (result.code, result.out, result.err) == (0, b"", "")
    assert outputs(both) == outputs(back)
    assert soundfile.info(both / "a/two.wav").channels == 2


def test_single_file_gives_the_same_output_as_a_folder(
    run: Run, in_dir: Path, tmp_path: Path, hac: Options
) -> None:
    run("encode", in_dir, tmp_path / "packed", *hac)
    run("reconstruct", in_dir, tmp_path / "both", *hac, "--format", "flac")
    for name in ("a/two.flac", "eight.wav", "seven.wav"):
        packed = (tmp_path / "packed" / name).with_suffix(".hcd")
        assert run("encode", in_dir / name, tmp_path / "x.hcd", *hac, "--overwrite").code == 0
        assert (tmp_path / "x.hcd").read_bytes() == packed.read_bytes()
        both = tmp_path / "x.flac"
        assert run("reconstruct", in_dir / name, both, *hac, "--overwrite").code == 0
        assert both.read_bytes() == (tmp_path / "both" / name).with_suffix(".flac").read_bytes()


def test_encode_prints_report_totals_and_profile(
    run: Run, in_dir: Path, tmp_path: Path, hac: Options
) -> None:
    (in_dir / "bad.wav").write_text("no audio")
    write_audio(in_dir / "a/one.flac", 1, 16000, 500)
    lines = tmp_path / "report.jsonl"
    options = (*hac, "--report", lines, "--json", "--profile", "--workers", 2)
    for done, skipped in ((len(FILES), 0), (0, len(FILES))):
        result = run("encode", in_dir, tmp_path / "out", *options, "--batch-seconds", 1)
        assert result.code == 1
        errors = result.err.splitlines()
        assert errors[0].startswith(f"error: {in_dir / 'a/one.wav'}: would become")
        assert errors[1].startswith(f"error: {in_dir / 'bad.wav'}: not audio that libsndfile can")
        assert errors[2].startswith("model: ")
        assert len(errors) == 3
        totals = json.loads(result.text)
        assert (totals["done"], totals["skipped"], totals["failed"]) == (done, skipped, 2)
        assert (totals["idle_share"] is None) == (done == 0)
        reported = [json.loads(line) for line in lines.read_text().splitlines()]
        assert len(reported) == len(FILES) + 2
        by_name = {Path(line["source"]).name: line for line in reported}
        eight = by_name["eight.wav"]
        assert eight["status"] == ("done" if done else "skipped")
        assert eight["seconds"] == 1
        assert eight["bytes"] == Path(eight["target"]).stat().st_size
        assert eight["kbps"] == pytest.approx(eight["bytes"] * 8 / 1000)
        assert by_name["bad.wav"]["status"] == "failed"
        assert by_name["bad.wav"]["reason"].startswith("not audio")


def test_files_from_reads_the_lists_of_train(
    run: Run, in_dir: Path, tmp_path: Path, hac: Options
) -> None:
    """Comments, lengths, `id|path`, manifests; paths relative to the list."""
    (tmp_path / "lists").mkdir()
    listed = tmp_path / "lists/train.txt"
    listed.write_text("# comment\n../in/six.wav\t3000\t48000\nsome-id|../in/a/one.wav\n")
    assert run("encode", in_dir, tmp_path / "1", *hac, "--files-from", listed).code == 0
    assert sorted(outputs(tmp_path / "1")) == ["a/one.hcd", "six.hcd"]
    manifest = tmp_path / "in/valid.jsonl"
    manifest.write_text('{"path": "b/five.aiff", "num_samples": 801, "sample_rate": 16000}\n')
    assert run("encode", in_dir, tmp_path / "2", *hac, "--files-from", manifest).code == 0
    assert sorted(outputs(tmp_path / "2")) == ["b/five.hcd"]
    result = run("encode", in_dir, tmp_path / "3", *hac, "--files-from", in_dir / "six.wav")
    assert (result.code, "is not text" in result.err) == (2, True)


def test_files_from_reads_the_output_of_print0(
    run: Run, in_dir: Path, tmp_path: Path, hac: Options
) -> None:
    (in_dir / "six.wav").rename(in_dir / "# a\nb.wav")
    found = b"./# a\nb.wav\0./a/one.wav\0"
    target = tmp_path / "out"
    assert run("encode", in_dir, target, *hac, "--files-from", "-", stdin=found).code == 0
    assert sorted(outputs(target)) == ["# a\nb.hcd", "a/one.hcd"]
    listed = in_dir / "list.txt"
    listed.write_bytes(found[14:])
    assert run("filelist", listed, "-o", tmp_path / "train.txt", "--min-seconds", 0).code == 0
    assert (tmp_path / "train.txt").read_text().split("\t")[0].endswith("in/a/one.wav")


def test_files_from_refuses_utf_16(run: Run, in_dir: Path, tmp_path: Path, hac: Options) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("a/one.wav\n", encoding="utf-16")
    result = run("encode", in_dir, tmp_path / "out", *hac, "--files-from", listed)
    assert (result.code, result.err) == (
        2,
        f"error: {listed}: is UTF-16 text; save the list as UTF-8\n",
    )


def test_files_from_resolves_relative_paths(
    run: Run, in_dir: Path, tmp_path: Path, hac: Options
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("a/one.wav\n\nb/five.aiff\t801\t16000\r\n")
    assert run("encode", in_dir, tmp_path / "1", *hac, "--files-from", listed).code == 0
    assert sorted(outputs(tmp_path / "1")) == ["a/one.hcd", "b/five.hcd"]
    names = b"\n".join(os.fsencode(in_dir / name) for name, *_ in FILES[:3])
    result = run("encode", in_dir, tmp_path / "2", *hac, "--files-from", "-", stdin=names)
    assert (result.code, len(outputs(tmp_path / "2"))) == (0, 3)


def test_files_from_stdin_with_the_current_directory(
    run: Run,
    in_dir: Path,
    tmp_path: Path,
    hac: Options,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in `find . -name '*.wav' | codectool encode - OUT --files-from -`."""
    monkeypatch.chdir(in_dir)
    result = run("encode", "-", tmp_path / "out", *hac, "--files-from", "-", stdin=b"./six.wav\n")
    assert (result.code, sorted(outputs(tmp_path / "out"))) == (0, ["six.hcd"])


def test_folder_runs_refuse_unusable_arguments(
    run: Run, in_dir: Path, tmp_path: Path, hac: Options
) -> None:
    out = tmp_path / "out"
    six, file = in_dir / "six.wav", tmp_path / "file"
    file.touch()
    for arguments, message in (
        (("encode", in_dir, *hac), "is a folder; name a folder for the outputs too"),
        (("encode", in_dir, file, *hac), "is a file; name a folder for the outputs"),
        (("encode", six, out, *hac, "--json"), "is not a folder; `--json` needs a folder"),
        (("encode", six, out, *hac, "--workers", 2), "`--workers` needs a folder"),
        (("encode", six, out, *hac, "--files-from", file), "`--files-from` needs a folder"),
        (("encode", in_dir, out, *hac, "--files-from", file), "file: names no files"),
        (
            ("encode", in_dir, out, *hac, "--live"),
            "is a folder; `--live` and raw input need a single file",
        ),
        (("encode", in_dir, out, *hac, "--batch-seconds", "nan"), "is not a number of seconds"),
        (("encode", in_dir, out, *hac, "--report", file / "x"), "not a directory"),
        (("decode", in_dir, out, *hac), "contains no readable .hcd file"),
        (("decode", in_dir, out, "--start", "1"), "is a folder; `--start` and"),
        (("reconstruct", in_dir, in_dir, *hac), "outputs would replace inputs"),
        (("reconstruct", "-", out, *hac), "for pipes use `encode - - | decode - -`"),
        (("reconstruct", in_dir, out, *hac, "--subtype", "X"), "cannot hold subtype X"),
    ):
        result = run(*arguments)
        assert result.code == 2
        assert message in result.err
        assert len(result.err.splitlines()) == 1


def test_folder_in_use_is_refused(run: Run, in_dir: Path, tmp_path: Path, hac: Options) -> None:
    (tmp_path / "out").mkdir()
    with Journal(tmp_path / "out"):
        result = run("encode", in_dir, tmp_path / "out", *hac)
    assert result.code == 2
    assert "another run is writing there" in result.err


def test_concealed_damage_is_reported(run: Run, in_dir: Path, tmp_path: Path, hac: Options) -> None:
    packed = tmp_path / "packed"
    run("encode", in_dir, packed, *hac)
    (packed / "eight.hcd").write_bytes((packed / "eight.hcd").read_bytes()[:-1])
    result = run("decode", packed, tmp_path / "back", *hac)
    assert (result.code, len(result.err.splitlines())) == (1, 1)
    result = run("decode", packed, tmp_path / "back", *hac, "--conceal")
    assert result.code == 3
    assert result.err.startswith("warning: ")
    assert "eight.hcd" in result.err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_stopped_run_resumes(
    in_dir: Path, tmp_path: Path, hac: Options, number: int, code: int
) -> None:
    for index in range(60):
        write_audio(in_dir / f"more/{index}.wav", 1, 16000, 8000 + index)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "codectool", "encode", in_dir, out, *hac]
    command += ["--batch-seconds", "1"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE)
    while len(list(out.rglob("*.hcd"))) < 4:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate()
    assert (process.returncode, err.strip()) == (code, b"")
    left = outputs(out)
    assert 0 < len(left) < len(FILES) + 60
    if number != signal.SIGKILL:
        assert [path for path in out.rglob("*") if path.suffix == ".part"] == []
        assert all(codectool.read(out / name) for name in left)
    # resume in this process, which has imported torch
    codec = codectool.load(None, Path(str(hac[1])), device="cpu")
    from codectool.pipeline.run import encode_tree

    report = encode_tree(codec, in_dir, out)
    assert report.done + report.skipped == len(FILES) + 60
    assert report.skipped > 0
    encode_tree(codec, in_dir, tmp_path / "undisturbed")
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_journal_is_a_hidden_file(run: Run, in_dir: Path, tmp_path: Path, hac: Options) -> None:
    run("encode", in_dir, tmp_path / "out", *hac)
    assert JOURNAL_NAME.startswith(".")
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == [
        JOURNAL_NAME
    ]
