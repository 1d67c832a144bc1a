"""`codectool convert` on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from codectool.checkpoints.load import read_weights
from codectool.training.config import parse
from codectool.training.run import train
from tests.cli.conftest import Run
from tests.conftest import GOLDEN
from tests.training import small

BIGCODEC = GOLDEN / "bigcodec_micro.pt"
SUPERCODEC = GOLDEN / "supercodec_micro"


def test_old_files_decode_with_the_converted_weights(
    run: Run, speech: Path, tmp_path: Path
) -> None:
    shutil.copy(BIGCODEC, tmp_path / "bigcodec.pt")
    old, native = tmp_path / "old.hcd", tmp_path / "x.safetensors"
    assert run("encode", speech, old, "--checkpoint", tmp_path / "bigcodec.pt").code == 0
    assert run("decode", old, tmp_path / "before.wav").code == 0
    converted = run("convert", tmp_path / "bigcodec.pt", native)
    assert (converted.code, converted.out, converted.err) == (0, b"", "")
    (tmp_path / "bigcodec.pt").unlink()
    assert run("decode", old, tmp_path / "after.wav", "--checkpoint", native).code == 0
    assert (tmp_path / "after.wav").read_bytes() == (tmp_path / "before.wav").read_bytes()
    assert run("encode", speech, tmp_path / "new.hcd", "--checkpoint", native).code == 0
    assert (tmp_path / "new.hcd").read_bytes() == old.read_bytes()


def test_less_precision_is_reported_and_needs_force(run: Run, speech: Path, tmp_path: Path) -> None:
    old, native = tmp_path / "old.hcd", tmp_path / "x.safetensors"
    assert run("encode", speech, old, "--checkpoint", BIGCODEC).code == 0
    converted = run("convert", BIGCODEC, native, "--dtype", "bf16")
    assert converted.code == 0
    assert "not 9214f883; .hcd files made with" in converted.err
    refused = run("decode", old, tmp_path / "x.wav", "--checkpoint", native)
    assert refused.code == 2
    assert "was converted with less precision" in refused.err
    assert run("decode", old, tmp_path / "x.wav", "--checkpoint", native, "--force").code == 0
    assert run("decode", old, tmp_path / "original.wav").code == 0
    small_, original = (soundfile.read(tmp_path / name)[0] for name in ("x.wav", "original.wav"))
    assert np.corrcoef(small_.T.ravel(), original.T.ravel())[0, 1] > 0.9


def test_dry_run_lists_tensors_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "x.safetensors"
    listed = run("convert", SUPERCODEC, target, "--dry-run", "--dtype", "bf16")
    assert listed.code == 0
    lines = listed.text.splitlines()
    _, state, _ = read_weights(SUPERCODEC)
    assert [line.split()[0] for line in lines[: len(state)]] == sorted(state)
    assert lines[0].split() == ["decoder.0.conv.bias", "32", "float32"]
    assert "supercodec fe0e1f7f, tokens 56d3d43f: 124 tensors" in lines[len(state)]
    assert lines[-1].startswith(f"would write {target}: safetensors, 0.4 MB, fingerprint ")
    assert not target.exists()
    assert run("convert", SUPERCODEC, "--dry-run").text.splitlines() == lines[:-1]


def test_json_describes_source_and_target(run: Run, tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    native, back = tmp_path / "x.safetensors", tmp_path / "back" / "g_00000012"
    first = json.loads(run("convert", SUPERCODEC, native, "--json").text)
    assert first["target"]["written"] is True
    assert first["fingerprint"] == first["target"]["fingerprint"] == "fe0e1f7f"
    second = json.loads(run("convert", native, back, "--json", "--dry-run").text)
    assert second["target"]["config_file"] == str(tmp_path / "back" / "config.json")
    assert second["target"]["written"] is False
    assert second["provenance"][0]["sha256"] == first["target"]["source_sha256"]
    assert {"name": "encoder.0.conv.bias", "shape": [32], "dtype": "float32"} in second["tensors"]
    assert not back.exists()
    assert run("convert", native, back).code == 0
    assert run("convert", back, "--dry-run").text == run("convert", SUPERCODEC, "--dry-run").text


def test_checkpoint_of_a_training_run_is_converted(run: Run, tmp_path: Path) -> None:
    speech = small.speech(tmp_path / "speech")
    train(small.with_data(small.config(max_steps=2, ema=0.9), speech), tmp_path / "run")
    for name in ("last.ckpt", ""):
        target = tmp_path / "x.safetensors"
        assert run("convert", tmp_path / "run" / name, target, "--overwrite").code == 0
        expected = load_file(tmp_path / "run" / "model.safetensors")
        found = load_file(target)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    refused = run("encode", "x.wav", "--checkpoint", tmp_path / "run" / "last.ckpt")
    assert refused.code == 2


def test_state_of_a_run_with_a_wrong_config_is_refused(run: Run, tmp_path: Path) -> None:
    speech = small.speech(tmp_path / "speech")
    train(small.with_data(small.config(max_steps=2), speech), tmp_path / "run")
    path = tmp_path / "run" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    good = dict(state["trainer"]["config"])
    assert parse(good)
    changes = (
        {"family": "nothing"},
        {"model": {"kind": "waveform"}},
        {"model": {**good["model"], "channels": [1 << 20] * 4}},
        {"model": 7},
    )
    for change in changes:
        state["trainer"]["config"] = {**good, **change}
        torch.save(state, path)
        refused = run("convert", path, tmp_path / "x.safetensors")
        assert refused.code == 2, refused.err
        assert refused.err.startswith(f"error: {path}: ")
        assert refused.err.count("\n") == 1
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.pt", "x.safetensors"], "nothing.pt: no such file or folder"),
        (["speech.wav", "x.safetensors"], "speech.wav: is a RIFF file"),
        (["big.pt"], "give a DST"),
        (["big.pt", "x.onnx"], "x.onnx: name a file that ends in .safetensors"),
        (["big.pt", "big.pt"], "is the source itself"),
        (["big.pt", "-"], "not read from or written to pipes"),
        (["big.pt", "folder"], "folder: name a file"),
        (["big.pt", "missing/x.safetensors"], "there is no folder missing"),
        (["big.pt", "there.safetensors"], "exists; give `--overwrite`"),
        (["big.pt", "x.safetensors", "--dtype", "int8"], "'int8' is not one of"),
        (["big.pt", "x.safetensors", "--config", "none.json"], "none.json"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: list[str],
    message: str,
    run: Run,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(BIGCODEC, "big.pt")
    Path("folder").mkdir()
    Path("there.safetensors").touch()
    before = sorted(tmp_path.rglob("*"))
    failed = run("convert", *arguments)
    assert failed.code == 2
    assert message in failed.err
    assert failed.err.count("\n") == 1
    assert failed.out == b""
    assert sorted(tmp_path.rglob("*")) == before
