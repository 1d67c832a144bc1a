"""ONNX graphs compute what the models compute, with operators that WebAssembly has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from codectool.checkpoints.native import write_model
from codectool.codec import Codec
from codectool.codecs.registry import FAMILIES, get_family
from codectool.export.bundled import write_bundled
from codectool.export.check import check_clips, check_part
from codectool.export.graphs import build_graph, describe, operators, save_graph
from codectool.export.run import open_graph, trace
from codectool.loading import load
from codectool.onnx.graph import Graph, read_metadata
from codectool.onnx.load import BUNDLED, load_exported
from codectool.onnx.metadata import ABSENT_CODE, CODES
from tests.export.conftest import Exported, require_onnx
from tests.hac_models import small_preset, untrained

# onnxruntime-web compiles the CPU kernels of all operators of the standard domain to WebAssembly.
# A new operator here must be one of these, and no rare one.
ALLOWED = {
    *("Abs", "Add", "ArgMin", "Cast", "Clip", "Concat", "ConstantOfShape", "Conv"),
    *("ConvTranspose", "Cos", "Div", "Erf", "Exp", "Expand", "Gather", "Gemm", "Greater"),
    *("GreaterOrEqual", "LSTM", "LeakyRelu", "MatMul", "Mod", "Mul", "Neg", "Pad", "Pow", "Range"),
    *("ReduceL2", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Shape", "Sin", "Slice"),
    *("Softmax", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where"),
}
# of HAC decoders with a source; onnxruntime-web 1.30 runs them
ALLOWED_IN_SOURCES = {
    *("ArgMax", "Atan", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal", "Floor"),
    *("IsNaN", "Less", "LessOrEqual", "Log", "Max", "Min", "Reciprocal", "Scan", "Sigmoid"),
    *("Split", "Sqrt"),
}

family = pytest.mark.parametrize("family", FAMILIES)


@family
def test_graphs_compute_what_the_model_computes(graphs: Exported, family: str) -> None:
    _, _, files = graphs[family]
    checks = [file.check for file in files.values()]
    assert all(check.equal == check.tokens for check in checks)
    assert sum(check.tokens for check in checks) > 100
    # a source with high harmonics multiplies the rounding of its phase
    limit = 1e-4 if family == "hac" else 1e-5
    assert all((check.max_error or 0) < limit for check in checks)


@family
def test_graphs_use_only_operators_that_webassembly_has(graphs: Exported, family: str) -> None:
    _, _, files = graphs[family]
    used = {name for file in files.values() for name in file.operators}
    assert used <= ALLOWED | (ALLOWED_IN_SOURCES if family == "hac" else set())
    assert ("LSTM" in used) == (family == "bigcodec")


@family
def test_files_hold_no_trace_of_the_machine(graphs: Exported, family: str) -> None:
    _, folder, files = graphs[family]
    for name in files:
        assert b"site-packages" not in (folder / name).read_bytes()


@family
def test_metadata_describes_the_model(graphs: Exported, family: str) -> None:
    codec, folder, files = graphs[family]
    for name in files:
        metadata = read_metadata(folder / name)
        assert metadata.part == Path(name).stem
        assert metadata.fingerprint == codec.fingerprint
        assert metadata.layout == codec.layout
        assert metadata.model == codec.model.hyper_parameters
        for samples in (0, 1, 320, 321, 4000, 48000):
            assert metadata.num_frames(samples) == codec.model.num_frames(samples)
            assert metadata.reference_frames(samples) == codec.model.reference_frames(samples)


@family
def test_inputs_and_outputs_are_as_documented(graphs: Exported, family: str) -> None:
    onnx = pytest.importorskip("onnx")
    _, folder, files = graphs[family]
    for name in files:
        graph = onnx.load(folder / name).graph
        metadata = read_metadata(folder / name)
        states = metadata.step.states if metadata.step else ()
        ends = ("audio", "codes") if metadata.part.startswith("encoder") else ("codes", "audio")
        assert [value.name for value in graph.input] == [ends[0], *(s.input for s in states)]
        assert [value.name for value in graph.output] == [ends[1], *(s.output for s in states)]
        types = {"audio": onnx.TensorProto.FLOAT, "codes": onnx.TensorProto.INT64}
        for value in (graph.input[0], graph.output[0]):
            assert value.type.tensor_type.elem_type == types[value.name]
            assert value.type.tensor_type.shape.dim[2].dim_param


@pytest.mark.parametrize("family", ["bigcodec", "supercodec"])
def test_absent_codes_leave_the_first_codebooks(graphs: Exported, family: str) -> None:
    codec, folder, _ = graphs[family]
    codes = np.random.default_rng(0).integers(0, min(codec.model.codebook_sizes), (1, 2, 20))
    codes[:, 1] = ABSENT_CODE
    (wave,) = Graph(folder / "decoder.onnx").run(1, {CODES: codes})
    (expected,) = codec.runner.decode([codes[0, :1].astype(np.int32)])
    np.testing.assert_allclose(wave[0], expected, atol=1e-5)


def test_hac_on_spectra_is_exported_without_fourier_operators(tmp_path: Path) -> None:
    require_onnx()
    write_model(tmp_path / "hac.safetensors", untrained(small_preset("hac-3.6-v13")))
    codec = load(checkpoint=tmp_path / "hac.safetensors", device="cpu")
    clips = check_clips(codec)
    for part in get_family("hac").export_parts(codec.model)[2:]:
        metadata = describe(codec, part)
        graph = build_graph(trace(codec, part), part, metadata)
        save_graph(graph, tmp_path / "part.onnx")
        assert operators(graph).keys() <= ALLOWED
        result = check_part(metadata, open_graph(tmp_path / "part.onnx"), clips)
        assert result.equal == result.tokens
        assert (result.max_error or 0) < 1e-5


def test_bundled_graphs_are_what_the_exporter_makes_today(tmp_path: Path) -> None:
    """After a change of the model, run ``python -m codectool.export.bundled``."""
    require_onnx()
    for made in write_bundled(tmp_path):
        bundled = BUNDLED / made.name
        old, new = read_metadata(bundled), read_metadata(made)
        assert replace(old, versions={}) == replace(new, versions={})
        if old.versions == new.versions:
            assert bundled.read_bytes() == made.read_bytes()
        assert made.stat().st_size < 150_000


def test_bundled_graphs_give_the_tokens_of_the_bundled_weights(codec_hac: Codec) -> None:
    require_onnx()
    loaded = load_exported(Path("hac"))
    runner, fingerprint = loaded.runner, loaded.fingerprint
    assert fingerprint == codec_hac.fingerprint
    (clip,) = check_clips(codec_hac)[2:]
    (codes,) = runner.encode([clip.wave])
    assert np.array_equal(codes, clip.codes)
    (audio,) = runner.decode([codes])
    np.testing.assert_allclose(audio, clip.audio, atol=1e-3)


@pytest.fixture(scope="module")
def codec_hac() -> Codec:
    """Return the bundled HAC."""
    return load("hac", device="cpu")


def test_models_are_unchanged_by_export(graphs: Exported) -> None:
    codec, _, _ = graphs["bigcodec"]
    wave = torch.zeros(1, 10 * codec.hop_length).numpy()
    assert codec.runner.encode([wave])[0].shape == (2, 10)
