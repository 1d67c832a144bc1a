"""Code in the documentation runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import codectool
from codectool import codecs as codecs_package
from codectool.checkpoints.native import write_model
from codectool.codec import Codec
from codectool.codecs import registry
from tests.cli.conftest import Run, run, speech  # noqa: F401  (fixtures)
from tests.conftest import GOLDEN

ROOT = Path(__file__).parents[1]


def code_blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def tiny_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The folder, the line and the training config of docs/design/adding-a-codec.md."""
    document = "docs/design/adding-a-codec.md"
    folder = tmp_path / "codecs" / "tiny"
    folder.mkdir(parents=True)
    files = ("__init__.py", "model.py", "trainable.py")
    for name, code in zip(files, code_blocks(document, "python"), strict=True):
        (folder / name).write_text(code, encoding="utf-8")
    path = [*codecs_package.__path__, str(folder.parent)]
    monkeypatch.setattr(codecs_package, "__path__", path)
    (line,) = re.findall(r'"(\w+)": "(.*tiny.*)"', code_blocks(document, "diff")[0])
    monkeypatch.setitem(registry.FAMILIES, *line)
    (config,) = code_blocks(document, "json")
    (tmp_path / "tiny.json").write_text(config, encoding="utf-8")
    yield tmp_path / "tiny.json"
    for name in [name for name in sys.modules if name.startswith("codectool.codecs.tiny")]:
        del sys.modules[name]


@pytest.fixture
def tiny(tiny_config: Path, tmp_path: Path) -> Path:
    """A checkpoint of that codec with random weights."""
    model = import_module("codectool.codecs.tiny.model")
    path = tmp_path / "tiny.safetensors"
    write_model(path, model.TinyCodec(model.TinyConfig()))
    return path


def test_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(GOLDEN / "bigcodec_micro.pt", tmp_path / "bigcodec.pt")
    monkeypatch.chdir(tmp_path)
    samples = np.random.default_rng(0).normal(0, 0.1, (2, 3000)).astype(np.float32)
    names = {"samples": samples, "sample_rate": 22050}
    (program,) = code_blocks("README.md", "python")
    exec(program, names)
    assert names["audio"].shape == samples.shape  # type: ignore[attr-defined]
    assert names["tokens"].tags == {"speaker": "p253"}  # type: ignore[attr-defined]


def test_streaming_guide_python_runs(codecs: dict[str, Codec]) -> None:
    codec = codecs["hac"]
    samples = np.random.default_rng(0).normal(0, 0.1, (2, 30000)).astype(np.float32)
    names = {"samples": samples, "sample_rate": 22050, "codec": codec}
    (program,) = code_blocks("docs/guides/streaming.md", "python")
    exec(program, names)
    whole = codec.decode(codec.encode(samples, 22050))
    np.testing.assert_array_equal(np.concatenate(names["audio"], axis=1), whole)  # type: ignore[arg-type]


def test_folders_guide_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recordings/deep").mkdir(parents=True)
    shutil.copy(ROOT / "assets" / "speech_flite.flac", "recordings/deep/a.flac")
    (program,) = code_blocks("docs/guides/folders.md", "python")
    exec(program, {})
    assert Path("tokens/deep/a.hcd").is_file()


def test_programs_guide_python_runs(tmp_path: Path) -> None:
    program, _ = code_blocks("docs/guides/programs.md", "python")
    path = tmp_path / "program.py"
    path.write_text(program + "    print(*(item.shape for item in codes))\n", encoding="utf-8")
    output = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=100, check=True
    ).stdout
    assert output == "(1, 1, 75) (1, 1, 150)\n"


def test_features_of_the_programs_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("speech.wav", np.zeros((12000, 2)), 24000)
    names: dict[str, Any] = {}
    _, program = code_blocks("docs/guides/programs.md", "python")
    exec(program, names)
    assert names["latents"].shape == names["features"].shape == (2, 18, 38)


def test_converting_guide_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(GOLDEN / "bigcodec_micro.pt", "bigcodec.pt")
    (program,) = code_blocks("docs/guides/converting.md", "python")
    exec(program, {})
    assert codectool.load(checkpoint="bigcodec.safetensors", device="cpu").sample_rate == 16000


def test_added_codec_encodes_and_decodes(tiny: Path, tmp_path: Path) -> None:
    codec = codectool.load("tiny", tiny, device="cpu")
    wave = np.random.default_rng(0).normal(0, 0.1, (2, 5000)).astype(np.float32)
    tokens = codec.encode(wave, 22050)
    assert tokens.layout == codectool.TokenLayout("tiny", 16000, 160, (10,))
    path = tmp_path / "x.hcd"
    codectool.write(path, tokens)
    assert codec.decode(codectool.read(path)).shape == (2, 5000)


def test_commands_accept_an_added_codec(tiny: Path, run: Run, speech: Path, tmp_path: Path) -> None:  # noqa: F811
    packed, back = tmp_path / "x.hcd", tmp_path / "x.wav"
    assert run("encode", speech, packed, "--checkpoint", tiny, "--device", "cpu").code == 0
    assert "codec tiny, profile custom" in " ".join(run("info", packed).text.split())
    assert run("decode", packed, back, "--device", "cpu").code == 0


def test_added_codec_trains(tiny_config: Path, run: Run, tmp_path: Path) -> None:  # noqa: F811
    shutil.copytree(ROOT / "assets", tmp_path / "speech", ignore=ignore_all_but_audio)
    run_dir = tmp_path / "run"
    done = run(
        "train", "--config", tiny_config, "--train-files", tmp_path / "speech",
        "--run-dir", run_dir, "--max-steps", 3, "--set", "training.num_workers=0",
        "--device", "cpu",
    )  # fmt: skip
    assert done.code == 0, done.err
    codec = codectool.load(checkpoint=run_dir, device="cpu")
    assert codec.encode(np.zeros(1000, np.float32), 16000).layout.family == "tiny"
    frozen = run(
        "train", "--config", tiny_config, "--train-files", tmp_path / "speech", "--device", "cpu",
        "--run-dir", tmp_path / "frozen", "--freeze", "encoder", "--start-from", run_dir,
        "--max-steps", 2, "--set", "training.num_workers=0",
    )  # fmt: skip
    assert frozen.code == 0, frozen.err
    again = codectool.load(checkpoint=tmp_path / "frozen", device="cpu")
    assert codec.token_fingerprint in again.same_tokens_as
    assert again.fingerprint != codec.fingerprint


def ignore_all_but_audio(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".flac")]
