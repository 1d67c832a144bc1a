"""The bundled HAC model in ONNX Runtime: same tokens as in PyTorch, and no PyTorch is imported."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import codectool
from codectool.codec import Codec
from codectool.encoding import encode_file
from codectool.errors import AudioError, CheckpointError, UnsupportedError, UsageError
from codectool.onnx.graph import Graph, read_metadata
from codectool.onnx.load import BUNDLED
from codectool.onnx.protobuf import external_initializers
from tests.cli.conftest import Run
from tests.cli.conftest import run as run
from tests.signals import speechlike, split_randomly

pytest.importorskip("onnxruntime")

AUDIO_ERROR = 1e-3  # a source with high harmonics multiplies the rounding of its phase
GRAPH = BUNDLED / "hac-encoder_step.onnx"
# Runs commands, each a list of arguments, in one process that cannot import PyTorch.
WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None
from codectool.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as ended:
        print(ended.code, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def onnx() -> Codec:
    return codectool.load("hac", runtime="onnx")


@pytest.fixture(scope="module")
def torch_codec() -> Codec:
    return codectool.load("hac", runtime="torch", device="cpu")


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    soundfile.write(path, speechlike(1.3, 22050, 2).T, 22050)
    return path


def run_without_torch(*commands: list[Any]) -> tuple[list[int], str]:
    """Return exit codes and messages of commands in a process without PyTorch."""
    arguments = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, arguments], capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    codes = [int(line) for line in lines if line.isdecimal()]
    return codes, "\n".join(line for line in lines if not line.isdecimal())


def test_tokens_equal_those_of_torch_and_audio_agrees(onnx: Codec, torch_codec: Codec) -> None:
    assert (onnx.runner.runtime, torch_codec.runner.runtime) == ("onnx", "torch")
    assert onnx.fingerprint == torch_codec.fingerprint
    for seconds, rate, channels in [(2.3, 24000, 1), (0.7, 44100, 2), (0.0, 16000, 1)]:
        wave = speechlike(seconds, rate, channels)
        found, expected = onnx.encode(wave, rate), torch_codec.encode(wave, rate)
        np.testing.assert_array_equal(found.codes, expected.codes)
        assert found.num_samples == expected.num_samples
        np.testing.assert_allclose(
            onnx.decode(found), torch_codec.decode(expected), atol=AUDIO_ERROR
        )


def test_properties_of_the_model_equal_those_of_torch(onnx: Codec, torch_codec: Codec) -> None:
    names = ["family", "sample_rate", "hop_length", "codebook_sizes", "min_frames", "latency"]
    names += ["segment_frames", "decode_context", "cpu_threads", "hyper_parameters"]
    for name in names:
        assert getattr(onnx.model, name) == getattr(torch_codec.model, name), name
    for length in (0, 1, 319, 320, 321):
        assert onnx.model.num_frames(length) == torch_codec.model.num_frames(length)
        assert onnx.model.reference_frames(length) == torch_codec.model.reference_frames(length)


@pytest.mark.parametrize("chunk_frames", [None, 1, 7])
def test_streams_do_not_depend_on_the_chunks(onnx: Codec, chunk_frames: int | None) -> None:
    wave = speechlike(1.7, 22050, 2)
    encoder = onnx.stream_encoder(22050, 2, chunk_frames=chunk_frames)
    codes = [*map(encoder.push, split_randomly(wave, 3000)), encoder.flush()]
    tokens = onnx.encode(wave, 22050)
    np.testing.assert_array_equal(np.concatenate(codes, axis=2), tokens.codes)
    decoder = onnx.stream_decoder(22050, 2, chunk_frames=chunk_frames)
    audio = [*map(decoder.push, codes), decoder.flush(tokens.num_samples)]
    np.testing.assert_allclose(np.concatenate(audio, axis=1), onnx.decode(tokens), atol=AUDIO_ERROR)


def test_stream_continues_after_pickling(onnx: Codec) -> None:
    wave = speechlike(1.0, 24000)
    encoder = onnx.stream_encoder()
    codes = [encoder.push(wave[:, :11000])]
    encoder = pickle.loads(pickle.dumps(encoder))
    codes += [encoder.push(wave[:, 11000:]), encoder.flush()]
    np.testing.assert_array_equal(np.concatenate(codes, axis=2), onnx.encode(wave, 24000).codes)


def test_previous_weights_run_in_the_bundled_graphs() -> None:
    path = codectool.models.get("hac-1d8631bb").find()
    if path is None:
        pytest.skip("previous weights are in the repository only")
    wave = speechlike(0.5, 24000)
    found = codectool.load(checkpoint="hac-1d8631bb", runtime="onnx").encode(wave, 24000)
    expected = codectool.load(checkpoint=path, device="cpu").encode(wave, 24000)
    assert found.fingerprint == expected.fingerprint == "1ec5e85b"
    np.testing.assert_array_equal(found.codes, expected.codes)


def test_commands_without_torch(torch_codec: Codec, speech: Path, tmp_path: Path) -> None:
    expected = tmp_path / "expected.hcd"
    encode_file(torch_codec, speech, expected)
    folder, tokens, audio = tmp_path / "in", tmp_path / "tokens", tmp_path / "audio"
    folder.mkdir()
    shutil.copy(speech, folder)
    codes, messages = run_without_torch(
        ["encode", speech, tmp_path / "a.hcd", "--runtime", "onnx"],
        ["encode", speech, tmp_path / "b.hcd"],  # PyTorch is not there, so ONNX Runtime is used
        ["encode", speech, tmp_path / "live.hcd", "--live"],
        ["decode", tmp_path / "a.hcd", tmp_path / "a.wav"],
        ["decode", tmp_path / "a.hcd", tmp_path / "r.wav", "--start", "0.5", "--duration", "0.25"],
        ["reconstruct", speech, tmp_path / "back.wav"],
        ["encode", folder, tokens],
        ["decode", tokens, audio],
        ["encode", speech, tmp_path / "c.hcd", "--runtime", "torch"],
        ["train", "--config", "hac-tiny", "--run-dir", tmp_path / "run"],
    )
    assert codes == [0] * 8 + [2, 2], messages
    assert messages.splitlines()[-2] == ("error: PyTorch is not installed; run `pip install torch`")
    assert messages.splitlines()[-1] == "error: this needs PyTorch; run `pip install torch`"
    for path in (tmp_path / "a.hcd", tmp_path / "b.hcd", tokens / "speech.hcd"):
        assert path.read_bytes() == expected.read_bytes()
    whole, _ = soundfile.read(tmp_path / "a.wav")
    part, rate = soundfile.read(tmp_path / "r.wav")
    first = round(0.5 * rate)
    np.testing.assert_allclose(part, whole[first : first + len(part)], atol=AUDIO_ERROR)
    np.testing.assert_allclose(soundfile.read(tmp_path / "back.wav")[0], whole, atol=AUDIO_ERROR)
    assert (audio / "speech.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()


def test_torch_is_not_imported_where_it_is_installed(speech: Path, tmp_path: Path) -> None:
    program = f"""
import sys, codectool
from codectool.cli import main
for arguments in ["encode", {str(speech)!r}, {str(tmp_path / "x.hcd")!r}, "--runtime", "onnx"], [
    "decode", {str(tmp_path / "x.hcd")!r}, {str(tmp_path / "x.wav")!r}, "--runtime", "onnx"]:
    try:
        main(arguments)
    except SystemExit as ended:
        assert not ended.code
assert "onnxruntime" in sys.modules
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_runtime_from_the_environment(
    speech: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODECTOOL_RUNTIME", "onnx")
    assert run("encode", speech, tmp_path / "x.hcd", "--device", "cuda").code == 2
    assert run("encode", speech, tmp_path / "x.hcd", "--device", "cpu").code == 0
    assert run("decode", tmp_path / "x.hcd", tmp_path / "x.wav", "--runtime", "torch").code == 0
    monkeypatch.setenv("CODECTOOL_RUNTIME", "tensorflow")
    text = run("decode", tmp_path / "x.hcd", tmp_path / "y.wav").err
    assert "(env var: 'CODECTOOL_RUNTIME'): 'tensorflow' is not one of 'torch', 'onnx'" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "bf16"], "ONNX Runtime computes in fp32; use `--runtime torch`"),
        (["--device", "cuda"], "device cuda: ONNX Runtime runs on the CPU"),
        (["--checkpoint", "CHECKPOINT"], "run `codectool export "),
        (["--checkpoint", "CHECKPOINT", "--config", "x.json"], "`--config` needs PyTorch"),
        (["--checkpoint", "no.onnx"], "no.onnx: no such file or folder"),
    ],
)
def test_what_onnx_runtime_cannot_do_is_refused(
    run: Run,
    speech: Path,
    checkpoints: dict[str, Path],
    options: list[str],
    message: str,
) -> None:
    options = [str(checkpoints["bigcodec"]) if word == "CHECKPOINT" else word for word in options]
    result = run("encode", speech, "--runtime", "onnx", *options)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not speech.with_suffix(".hcd").exists()


def test_runtimes_that_are_missing_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no runtime is called `tensorrt`; use torch or onnx"):
        codectool.load(runtime="tensorrt")
    monkeypatch.setattr("codectool.loading.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="neither PyTorch nor ONNX Runtime is installed"):
        codectool.load()
    with pytest.raises(UsageError, match=r"pip install 'codectool\[onnx\]'"):
        codectool.load(runtime="onnx")
    assert importlib.util.find_spec("torch") is not None


def test_latents_and_features_need_torch(onnx: Codec) -> None:
    wave = speechlike(0.1, 24000)
    with pytest.raises(UsageError, match='need PyTorch: load the model with runtime="torch"'):
        onnx.latents(wave, 24000)
    with pytest.raises(UsageError, match="need PyTorch"):
        onnx.embed(onnx.encode(wave, 24000))


def test_tokens_of_other_weights_are_refused(onnx: Codec) -> None:
    tokens = onnx.encode(speechlike(0.1, 24000), 24000)
    with pytest.raises(CheckpointError, match="have the fingerprint 00000000"):
        onnx.decode(dataclasses.replace(tokens, fingerprint="00000000"))


def test_documented_packages_are_the_dependencies_without_torch() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs/guides/without-pytorch.md").read_text("utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith("    pip install numpy"))
    project = (root / "pyproject.toml").read_text("utf-8")
    core = project.partition("dependencies = [")[2].partition("\n]")[0]
    names = set(re.findall(r'^    "([a-z-]+)[^;\n]*$', core, re.MULTILINE))
    packages = line.partition(" && ")[0].split()[2:]
    assert set(packages) == names - {"torch", "torchaudio"} | {"onnxruntime"}


# Damaged graphs


def exported(tmp_path: Path, **files: bytes) -> Path:
    """Write a folder with graphs by part."""
    folder = tmp_path / "export"
    folder.mkdir()
    for part, data in files.items():
        (folder / f"{part}.onnx").write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "is a RIFF file"),
        (b"\x08\x07\x12\x04ONNX", "is an ONNX graph, but not one that `codectool export` wrote"),
        (GRAPH.read_bytes()[:20000], "is not an ONNX graph, or is a damaged one"),
        (bytes(range(1, 200)), "is not an ONNX graph, or is a damaged one"),
    ],
)
def test_files_that_are_no_exported_graphs(tmp_path: Path, data: bytes, message: str) -> None:
    folder = exported(tmp_path, encoder=data, decoder=data)
    with pytest.raises(CheckpointError, match=message):
        codectool.load(checkpoint=folder)


def test_graphs_of_a_later_format_are_refused(tmp_path: Path) -> None:
    data = GRAPH.read_bytes().replace(b'"format_version": 1', b'"format_version": 9')
    with pytest.raises(UnsupportedError, match="exported by a later codectool"):
        codectool.load(checkpoint=exported(tmp_path, encoder_step=data))


def test_folders_with_missing_or_foreign_graphs(tmp_path: Path) -> None:
    folder = exported(tmp_path, encoder_step=GRAPH.read_bytes())
    with pytest.raises(CheckpointError, match=r"decoder.onnx is missing; export the model again"):
        codectool.load(checkpoint=folder)
    (folder / "decoder_step.onnx").write_bytes(GRAPH.read_bytes())
    with pytest.raises(CheckpointError, match="has no weights|contains the part encoder_step"):
        codectool.load(checkpoint=folder)
    with pytest.raises(UsageError, match="is an exported model, which ONNX Runtime runs"):
        codectool.load(checkpoint=folder, runtime="torch")


def test_damage_inside_of_a_graph_is_one_error(tmp_path: Path) -> None:
    data = bytearray(GRAPH.read_bytes())
    for position in range(2000, 20000, 50):
        data[position] ^= 255
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="not (a|an ONNX) graph"):
        Graph(path, {}).run(1, {})


def test_bundled_graphs_hold_no_weights_but_name_them() -> None:
    metadata = read_metadata(GRAPH)
    assert metadata.fingerprint is None
    assert metadata.step is not None
    names = external_initializers(GRAPH)
    assert names
    assert all(name.startswith("encoder.") for name in names)
    assert GRAPH.stat().st_size < 100_000


def test_signal_longer_than_the_limit_names_it(onnx: Codec) -> None:
    with pytest.raises(AudioError, match="longer than the 30 s that hac processes at once"):
        onnx.runner._check_length(30 * 75 + 1)  # type: ignore[attr-defined]
