"""`codectool evaluate --stability` on real files, with small models of each family."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.evaluation.tokens.stability import CHANGES
from tests.cli.conftest import Run
from tests.cli.test_bad_input import assert_refused


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for number, name in enumerate(["a.wav", "b/c.flac"]):
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).normal(0, 0.1, (6400, number + 1))
        soundfile.write(path, noise, 16000)
    return tmp_path / "clips"


@pytest.mark.parametrize("family", ["hac", "bigcodec", "supercodec"])
def test_stability_of_each_family(
    run: Run, clips: Path, checkpoints: dict[str, Path], family: str
) -> None:
    options = ("--checkpoint", checkpoints[family], "--device", "cpu", "--stability")
    result = run("evaluate", clips, *options, "--json")
    assert (result.code, result.err) == (0, "")
    (model,) = json.loads(result.text)
    assert (model["codec"], model["clips"], model["seconds"]) == (family, 2, pytest.approx(1.2))
    assert [change["change"] for change in model["changes"]] == list(CHANGES)
    for change in model["changes"]:
        assert change["compared_frames"] > 0
        shares = [*change["codebooks"], *change["bits"], change["tokens"], change["frames"]]
        assert all(0 <= share <= 1 for share in shares)
        assert change["frames"] <= min(change["codebooks"])
    assert run("evaluate", clips, *options, "--json").text == result.text


def test_stability_formats_and_report(
    run: Run, clips: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    options = ("--checkpoint", checkpoints["supercodec"], "--device", "cpu", "--stability")
    page = tmp_path / "page.html"
    result = run("evaluate", clips, *options, "--report", page)
    assert (result.code, result.err) == (0, "")
    heading = result.text.splitlines()[0]
    assert heading.startswith("supercodec_micro (tokens ")
    assert heading.endswith(": 2 clips, 0.0 minutes")
    text = page.read_text(encoding="utf-8")
    assert f"<h2>{heading}</h2>" in text
    assert "shift of 1 hop with the next ones. dB: louder" in text
    assert "<script" not in text
    for column in CHANGES.values():
        assert column in result.text
        assert f"<th>{column}</th>" in text
    assert_refused(run("evaluate", clips, *options, "--report", page), "exists", "--overwrite")
    lines = list(csv.DictReader(io.StringIO(run("evaluate", clips, *options, "--csv").text)))
    assert {line["change"] for line in lines} == set(CHANGES)
    assert "| codebook 1 |" in run("evaluate", clips, *options, "--markdown").text


def test_stability_lists_bad_files_and_exits_with_one(
    run: Run, clips: Path, checkpoints: dict[str, Path]
) -> None:
    (clips / "bad.wav").write_text("no audio")
    soundfile.write(clips / "empty.wav", np.zeros(0), 16000)
    options = ("--checkpoint", checkpoints["hac"], "--device", "cpu", "--stability")
    result = run("evaluate", clips, *options)
    assert result.code == 1
    assert "error: bad.wav: not audio" in result.err
    assert "error: empty.wav: holds no samples" in result.err
    assert "coded twice" in result.text
    listed = run("evaluate", clips, *options, "--files-from", "-", stdin=b"bad.wav\n")
    assert (listed.code, listed.text) == (2, "")
    assert "none of its files can be used" in listed.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["--model", "--checkpoint"]),
        (("--tokens", "--model", "hac"), ["`--tokens`", "leave out `--stability`"]),
        (("--metric", "stoi", "--model", "hac"), ["leave out `--metric`"]),
        (("--by-folder", "--model", "hac"), ["leave out `--by-folder`"]),
        (("coded", "--model", "hac"), ["leave out `DEGRADED_DIR`"]),
        (("--plot", "x.png", "--model", "hac"), ["add `--tokens`"]),
    ],
)
def test_stability_refuses_invalid_arguments(
    run: Run, clips: Path, arguments: tuple[str, ...], words: list[str]
) -> None:
    assert_refused(run("evaluate", clips, "--stability", *arguments), *words)
