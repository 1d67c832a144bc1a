"""The programs of docs/guides/deployment.md and the page in examples/browser run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from codectool.codec import Codec
from codectool.export.check import synthetic_speech
from tests.export.conftest import Exported
from tests.test_docs import ROOT, code_blocks

GUIDE = "docs/guides/deployment.md"
SCRIPT = """
import { createRequire } from "node:module";
import * as fs from "node:fs";
import { load } from "./codec.mjs";

const path = createRequire(import.meta.url).resolve("onnxruntime-web");
const module = await import(path);
const ort = module.default ?? module;
ort.env.wasm.numThreads = 1;
const open = (name) => load(ort, new Uint8Array(fs.readFileSync(`hac-onnx/${name}.onnx`)));
const bytes = fs.readFileSync("audio.f32");
const wave = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
const ids = await (await open("encoder_step")).encode(wave);
const audio = await (await open("decoder_step")).decode(ids);
fs.writeFileSync("out.f32", new Uint8Array(audio.buffer));
console.log(JSON.stringify(ids));
"""


@pytest.fixture
def exported_hac(
    graphs: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Codec, Path]:
    """Change to a folder that contains ``hac-onnx``."""
    codec, folder, _ = graphs["hac"]
    (tmp_path / "hac-onnx").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    return codec, tmp_path


def test_ids_become_audio(exported_hac: tuple[Codec, Path]) -> None:
    codec, folder = exported_hac
    program, *_ = code_blocks(GUIDE, "python")
    names: dict[str, Any] = {}
    exec(program, names)
    audio, rate = soundfile.read(folder / "out.wav")
    assert rate == codec.sample_rate
    assert len(audio) == 150 * codec.hop_length
    (expected,) = codec.runner.decode([names["ids"][None].astype(np.int32)])
    np.testing.assert_allclose(names["audio"][0], expected, atol=2e-4)


def test_live_loop_equals_whole_signals(exported_hac: tuple[Codec, Path]) -> None:
    codec, _ = exported_hac
    _, program, _ = code_blocks(GUIDE, "python")
    names: dict[str, Any] = {}
    exec(program, names)
    wave = names["microphone"].reshape(1, -1)
    (audio,) = codec.runner.decode(codec.runner.encode([wave]))
    np.testing.assert_allclose(names["audio"][0], audio, atol=1e-4)


def test_browser_module_runs_in_webassembly(exported_hac: tuple[Codec, Path]) -> None:
    """Set NODE_PATH to a folder with onnxruntime-web to run it."""
    codec, folder = exported_hac
    node = shutil.which("node")
    found = node and subprocess.run(
        [node, "-e", "require.resolve('onnxruntime-web')"], capture_output=True, check=False
    )
    if not node or not found or found.returncode:
        pytest.skip("node and onnxruntime-web are not installed")
    shutil.copy(ROOT / "examples" / "browser" / "codec.js", folder / "codec.mjs")
    (folder / "run.mjs").write_text(SCRIPT)
    wave = synthetic_speech(codec.sample_rate, 1.3)
    wave.tofile(folder / "audio.f32")
    done = subprocess.run([node, "run.mjs"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    frames = codec.model.num_frames(wave.shape[1])
    padded = np.pad(wave, ((0, 0), (0, frames * codec.hop_length - wave.shape[1])))
    (codes,) = codec.runner.encode([padded])
    assert done.stdout.strip() == str(codes[0].tolist()).replace(" ", "")
    (audio,) = codec.runner.decode([codes])
    out = np.fromfile(folder / "out.f32", np.float32)
    np.testing.assert_allclose(out, audio[0], atol=1e-5)
