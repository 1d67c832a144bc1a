"""Truncated audio gives a warning everywhere, and `--strict` makes it an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import codectool
from codectool.encoding import encode_file
from codectool.errors import AudioError
from codectool.pipeline.run import RunOptions, encode_tree
from tests.cli.conftest import Options, Run

RATE = 16000
PROMISE = "the header promises 2.00 s (32000 samples), but only 1.25 s (20000) came"


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """Return a WAV file of 2 s that ends after 1.25 s."""
    path = tmp_path / "in" / "cut.wav"
    path.parent.mkdir()
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 2 * RATE), RATE)
    path.write_bytes(path.read_bytes()[: 44 + 2 * 20_000])
    soundfile.write(path.with_name("whole.wav"), np.zeros(8000), RATE)
    return path


def test_encode_warns_about_a_truncated_file(run: Run, hac: Options, cut: Path) -> None:
    out = cut.with_suffix(".hcd")
    for source, stdin in ((cut, b""), ("-", cut.read_bytes())):
        result = run("encode", source, out, *hac, "--overwrite", stdin=stdin)
        name = "<stdin>" if source == "-" else str(cut)
        assert (result.code, result.err.count("\n")) == (0, 1)
        assert result.err.startswith(f"warning: {name}: {PROMISE}")
        assert codectool.read(out).num_samples == 20_000


def test_encode_warns_about_audio_without_samples(run: Run, hac: Options, cut: Path) -> None:
    out = cut.with_name("out.hcd")
    empty = cut.with_name("empty.wav")
    soundfile.write(empty, np.zeros(0), RATE)
    for source, stdin in ((empty, b""), ("-", empty.read_bytes())):
        result = run("encode", source, out, *hac, "--overwrite", stdin=stdin)
        name = "<stdin>" if source == "-" else str(empty)
        assert (result.code, result.err) == (0, f"warning: {name}: holds no samples\n")
        assert codectool.read(out).num_samples == 0


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_strict_refuses_a_truncated_file(run: Run, hac: Options, cut: Path, command: str) -> None:
    out = cut.with_name("out.wav" if command == "reconstruct" else "out.hcd")
    result = run(command, cut, out, *hac, "--strict")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.startswith(f"error: {cut}: {PROMISE}")
    assert not out.exists()
    assert run(command, cut.with_name("whole.wav"), out, *hac, "--strict").code == 0


def test_strict_refuses_a_truncated_pipe(run: Run, hac: Options, cut: Path) -> None:
    result = run("encode", "-", cut.with_name("out.hcd"), *hac, "--strict", stdin=cut.read_bytes())
    assert result.code == 2
    assert f"error: <stdin>: {PROMISE}" in result.err
    assert not cut.with_name("out.hcd").exists()


def test_reconstruct_warns_about_a_truncated_file(run: Run, hac: Options, cut: Path) -> None:
    result = run("reconstruct", cut, cut.with_name("out.wav"), *hac)
    assert result.code == 0
    assert result.err.startswith(f"warning: {cut}: {PROMISE}")


def read_report(path: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of a report by the names of the inputs."""
    lines = map(json.loads, path.read_text().splitlines())
    return {Path(line["source"]).name: line for line in lines}


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
@pytest.mark.parametrize("batch_seconds", ["40", "0.1"])  # in a batch, and streamed
def test_folder_runs_report_warnings(
    run: Run, hac: Options, cut: Path, tmp_path: Path, command: str, batch_seconds: str
) -> None:
    out, report = tmp_path / "out", tmp_path / "report.jsonl"
    options = (*hac, "--report", report, "--batch-seconds", batch_seconds)
    for status in ("done", "skipped"):  # the journal keeps warnings
        result = run(command, cut.parent, out, *options)
        assert result.code == 0
        assert f"warning: {cut}: {PROMISE}" in result.err
        lines = read_report(report)
        assert lines["cut.wav"]["status"] == status
        assert lines["cut.wav"]["warnings"][0].startswith(f"{cut}: {PROMISE}")
        assert "warnings" not in lines["whole.wav"]
    result = run(command, cut.parent, out, *options, "--strict")
    assert result.code == 1
    assert f"error: {cut}: {PROMISE}" in result.err
    lines = read_report(report)
    assert lines["cut.wav"]["status"] == "failed"
    assert lines["whole.wav"]["status"] == "skipped"


@pytest.mark.parametrize("batch_seconds", ["40", "0.1"])
def test_strict_folder_runs_write_no_output_for_truncated_files(
    run: Run, hac: Options, cut: Path, tmp_path: Path, batch_seconds: str
) -> None:
    out = tmp_path / "out"
    result = run("encode", cut.parent, out, *hac, "--strict", "--batch-seconds", batch_seconds)
    assert result.code == 1
    assert sorted(path.name for path in out.glob("*.hcd")) == ["whole.hcd"]


def test_filelist_gives_the_true_length_and_warns(run: Run, cut: Path, tmp_path: Path) -> None:
    result = run("filelist", cut.parent, "-o", tmp_path / "list.txt")
    assert result.code == 0
    assert f"warning: {cut}: {PROMISE}" in result.err
    assert "cut.wav\t20000\t16000\n" in (tmp_path / "list.txt").read_text()


def test_python_api_returns_warnings(
    checkpoints: dict[str, Path], cut: Path, tmp_path: Path
) -> None:
    codec = codectool.load("hac", checkpoints["hac"], device="cpu")
    out = tmp_path / "out.hcd"
    with pytest.raises(AudioError, match="promises"):
        encode_file(codec, cut, out, strict=True)
    assert not out.exists()
    encoded = encode_file(codec, cut, out)
    assert [PROMISE in warning for warning in encoded.warnings] == [True]
    report = encode_tree(codec, cut.parent, tmp_path / "tree")
    assert [(result.source, result.status) for result in report.warned] == [(cut, "done")]
    strict = RunOptions(strict=True)
    report = encode_tree(codec, cut.parent, tmp_path / "tree", run_options=strict)
    assert [failed.source for failed in report.failures] == [cut]
