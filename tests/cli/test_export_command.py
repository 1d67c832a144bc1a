"""`codectool export`: output, and what it refuses in one line without writing anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from codectool.export import run as export_run
from codectool.export.check import CheckResult
from tests.cli.conftest import Run
from tests.conftest import GOLDEN
from tests.export.conftest import require_onnx

MODEL = GOLDEN / "supercodec_micro"
CLIP = Path(__file__).parents[2] / "assets" / "speech_flite.flac"


def test_json_reports_tokens_and_errors(run: Run, tmp_path: Path) -> None:
    require_onnx()
    out = tmp_path / "out"
    result = run("export", MODEL, out, "--json", "--clip", CLIP, "--external-data")
    assert result.code == 0, result.err
    report = json.loads(result.text)
    encoder, decoder = report["files"]
    assert encoder["file"] == "encoder.onnx"
    assert encoder["tokens"] == encoder["tokens_equal"] > 100
    assert decoder["max_audio_error"] < 1e-5
    assert encoder["opset"] == 18
    assert "Conv" in encoder["operators"]
    names = {"encoder.onnx", "decoder.onnx", "encoder.onnx.data", "decoder.onnx.data"}
    assert {path.name for path in out.iterdir()} == names
    assert encoder["bytes"] == sum(path.stat().st_size for path in out.glob("encoder.onnx*"))
    again = run("export", MODEL, out)
    assert again.code == 2
    assert again.err.count("\n") == 1
    assert "encoder.onnx: exists; give `--overwrite`" in again.err


def test_a_part_that_differs_is_not_written(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_onnx()
    wrong = CheckResult((10,), tokens=20, equal=10, max_error=None)
    monkeypatch.setattr(export_run, "check_part", lambda *arguments: wrong)
    result = run("export", MODEL, tmp_path / "out")
    assert result.code == 2
    assert "encoder.onnx: only 10 of 20 tokens equal" in result.err
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_missing_package_is_named(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    result = run("export", MODEL, tmp_path / "out")
    assert result.code == 2
    assert "pip install 'codectool[export]'" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "out", "message"),
    [
        ("nothing.pt", "out", "nothing.pt: no such file or folder"),
        (MODEL, "missing/out", "there is no folder"),
        (MODEL, "file", "file: is a file; name a folder"),
    ],
)
def test_bad_arguments_are_refused(
    run: Run,
    tmp_path: Path,
    model: object,
    out: str,
    message: str,
) -> None:
    require_onnx()
    (tmp_path / "file").write_bytes(b"")
    result = run("export", model, tmp_path / out)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_damaged_clip_is_refused_before_the_export(run: Run, tmp_path: Path) -> None:
    require_onnx()
    (tmp_path / "clip.wav").write_bytes(b"no audio")
    result = run("export", MODEL, tmp_path / "out", "--clip", tmp_path / "clip.wav")
    assert result.code == 2
    assert str(tmp_path / "clip.wav") in result.err
    assert not (tmp_path / "out").exists()
