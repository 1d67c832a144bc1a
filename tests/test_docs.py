"""What the documents show is run, so that it stays true."""

from __future__ import annotations

import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import codectool
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
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A checkpoint of the codec in docs/design/adding-a-codec.md, registered as the document says."""
    module = types.ModuleType("codectool.codecs.tiny")
    monkeypatch.setitem(sys.modules, "codectool.codecs.tiny", module)
    exec(code_blocks("docs/design/adding-a-codec.md", "python")[0], module.__dict__)
    monkeypatch.setitem(registry.FAMILIES, "tiny", "codectool.codecs.tiny:FAMILY")
    model = module.TinyCodec(16000, 160, 1024)
    path = tmp_path / "tiny.safetensors"
    write_model(path, model)
    return path


def test_python_in_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(GOLDEN / "bigcodec_micro.pt", tmp_path / "bigcodec.pt")
    monkeypatch.chdir(tmp_path)
    samples = np.random.default_rng(0).normal(0, 0.1, (2, 3000)).astype(np.float32)
    names = {"samples": samples, "sample_rate": 22050}
    (program,) = code_blocks("README.md", "python")
    exec(program, names)
    assert names["audio"].shape == samples.shape  # type: ignore[attr-defined]
    assert names["tokens"].tags == {"speaker": "p253"}  # type: ignore[attr-defined]


def test_python_in_the_document_on_streams(codecs: dict[str, Codec]) -> None:
    codec = codecs["hac"]
    samples = np.random.default_rng(0).normal(0, 0.1, (2, 30000)).astype(np.float32)
    names = {"samples": samples, "sample_rate": 22050, "codec": codec}
    (program,) = code_blocks("docs/guides/streaming.md", "python")
    exec(program, names)
    whole = codec.decode(codec.encode(samples, 22050))
    np.testing.assert_array_equal(np.concatenate(names["audio"], axis=1), whole)  # type: ignore[arg-type]


def test_python_in_the_document_on_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recordings/deep").mkdir(parents=True)
    shutil.copy(ROOT / "assets" / "speech_flite.flac", "recordings/deep/a.flac")
    (program,) = code_blocks("docs/guides/folders.md", "python")
    exec(program, {})
    assert Path("tokens/deep/a.hcd").is_file()


def test_a_codec_is_one_module_and_one_line(tiny: Path, tmp_path: Path) -> None:
    codec = codectool.load("tiny", tiny, device="cpu")
    wave = np.random.default_rng(0).normal(0, 0.1, (2, 5000)).astype(np.float32)
    tokens = codec.encode(wave, 22050)
    assert tokens.layout == codectool.TokenLayout("tiny", 16000, 160, (10,))
    path = tmp_path / "x.hcd"
    codectool.write(path, tokens)
    assert codec.decode(codectool.read(path)).shape == (2, 5000)


def test_the_commands_know_it_too(tiny: Path, run: Run, speech: Path, tmp_path: Path) -> None:  # noqa: F811
    packed, back = tmp_path / "x.hcd", tmp_path / "x.wav"
    assert run("encode", speech, packed, "--checkpoint", tiny, "--device", "cpu").code == 0
    assert "codec     tiny, profile custom" in run("info", packed).text
    assert run("decode", packed, back, "--device", "cpu").code == 0
