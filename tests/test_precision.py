"""`precision`: what encoders and decoders are run with, on which processors."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import codectool
from codectool import torch_runner
from codectool.codec import Codec
from codectool.errors import CodectoolWarning, UsageError
from codectool.loading import load
from codectool.nn import packed
from codectool.pipeline.operations import DecodeOperation, DecodeOptions, ReconstructOperation
from codectool.pipeline.ray.worker import OperationSpec
from tests.cli.conftest import Run, run  # noqa: F401

Checkpoints = dict[str, Path]
FAMILIES = ("bigcodec", "supercodec", "hac")
WAVE = np.random.default_rng(7).normal(0, 0.1, 12000).astype(np.float32)


@pytest.fixture(params=[True, False], ids=["bf16-cpu", "other-cpu"])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Let the CPU have instructions for bf16, or not."""
    monkeypatch.setattr(torch_runner, "has_bf16_instructions", lambda: request.param)
    return bool(request.param)


@pytest.mark.parametrize("family", FAMILIES)
def test_auto_encodes_in_fp32_and_decodes_in_bf16_where_that_is_faster(
    family: str, checkpoints: Checkpoints, fast: bool
) -> None:
    codec = load(family, checkpoints[family], device="cpu", precision="auto")
    in_bf16 = fast and family in ("bigcodec", "supercodec")
    assert codec.precision == "auto"
    assert codec.encode_precision == "fp32"
    assert codec.decode_precision == ("bf16" if in_bf16 else "fp32")


def test_precision_of_hac_on_a_cpu_is_fp32(checkpoints: Checkpoints) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CodectoolWarning)
        codec = load("hac", checkpoints["hac"], device="cpu", precision="bf16")
    assert (codec.encode_precision, codec.decode_precision) == ("fp32", "fp32")


def test_auto_is_fp32_on_other_devices(checkpoints: Checkpoints, fast: bool) -> None:
    model = load("supercodec", checkpoints["supercodec"], device="cpu").model
    runner = torch_runner.TorchRunner(model, torch.device("meta"), "auto")
    assert (runner.encode_precision, runner.decode_precision) == ("fp32", "fp32")


@pytest.mark.parametrize("family", FAMILIES)
def test_fp16_on_a_cpu_is_refused(family: str, checkpoints: Checkpoints) -> None:
    with pytest.raises(UsageError, match=r"precision fp16: .* CPU; use `--precision bf16`"):
        load(family, checkpoints[family], device="cpu", precision="fp16")


def test_unknown_precision_is_refused(checkpoints: Checkpoints) -> None:
    with pytest.raises(UsageError, match="no precision is called `int8`; use auto, fp32, bf16"):
        load("hac", checkpoints["hac"], device="cpu", precision="int8")


def test_bf16_warns_only_where_it_is_not_faster(checkpoints: Checkpoints, fast: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load("hac", checkpoints["hac"], device="cpu", precision="bf16")
    found = [warning for warning in caught if warning.category is CodectoolWarning]
    assert len(found) == (not fast)
    if found:
        assert "bf16: this CPU has no instructions for it" in str(found[0].message)
        assert found[0].filename == __file__


def test_command_line_prints_the_warning_and_the_error(
    run: Run,  # noqa: F811
    checkpoints: Checkpoints,
    fast: bool,
    tmp_path: Path,
) -> None:
    source, target = Path(__file__).parents[1] / "assets" / "speech_flite.flac", tmp_path / "x.hcd"
    options = ("--checkpoint", checkpoints["hac"], "--device", "cpu", "--precision")
    refused = run("encode", source, target, *options, "fp16")
    assert refused.code == 2
    assert refused.err.startswith("error: precision fp16: ")
    assert not target.exists()
    result = run("encode", source, target, *options, "bf16")
    assert result.code == 0
    assert ("warning: precision bf16: " in result.err) == (not fast)


def test_instructions_are_those_of_this_cpu() -> None:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        pytest.skip("needs Linux")
    known = {"avx512_bf16", "amx_tile", "bf16"}
    assert torch_runner.has_bf16_instructions() == bool(known & set(info.read_text().split()))


def test_folder_runs_are_continued_only_with_the_same_precision(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_runner, "has_bf16_instructions", lambda: True)
    options = DecodeOptions("wav", None, False, False, False)

    def settings(operation: type[DecodeOperation | ReconstructOperation], precision: str) -> object:
        codec = load("supercodec", checkpoints["supercodec"], device="cpu", precision=precision)
        return operation(codec, options).settings

    assert settings(DecodeOperation, "auto") == settings(DecodeOperation, "bf16")
    assert settings(DecodeOperation, "auto") != settings(DecodeOperation, "fp32")
    coded = [settings(ReconstructOperation, name) for name in ("auto", "bf16", "fp32")]
    assert coded[0] not in coded[1:]


def test_workers_that_decode_in_another_precision_are_refused(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_runner, "has_bf16_instructions", lambda: True)
    codec = load("supercodec", checkpoints["supercodec"], device="cpu", precision="auto")
    spec = OperationSpec.of(DecodeOperation(codec, DecodeOptions("wav", None, False, False, False)))
    assert spec.build("cpu").codec.decode_precision == "bf16"
    monkeypatch.setattr(torch_runner, "has_bf16_instructions", lambda: False)
    with pytest.raises(UsageError, match=r"auto: decodes in fp32 on .* bf16 here; use `--prec"):
        spec.build("cpu")


def test_decode_command_with_auto_writes_the_audio_of_bf16(
    run: Run,  # noqa: F811
    codecs: dict[str, Codec],
    checkpoints: Checkpoints,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(torch_runner, "has_bf16_instructions", lambda: True)
    source = tmp_path / "x.hcd"
    codectool.write(source, codecs["supercodec"].encode(WAVE, 16000))
    options = ("--checkpoint", checkpoints["supercodec"], "--device", "cpu", "--precision")
    audio = {}
    for precision in ("fp32", "bf16", "auto"):
        target = tmp_path / f"{precision}.wav"
        assert run("decode", source, target, *options, precision).code == 0
        audio[precision] = target.read_bytes()
    assert audio["auto"] == audio["bf16"] != audio["fp32"]


def signal_to_noise(reference: np.ndarray, other: np.ndarray) -> float:
    """Return the energy of a signal over that of the difference, in dB."""
    return float(10 * np.log10((reference**2).sum() / (((reference - other) ** 2).sum() + 1e-20)))


@pytest.fixture(params=[True, False], ids=["bf16-products", "rounded-factors"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in bf16, or multiply rounded factors in float32 as on CPUs without bf16."""
    if request.param and not packed.has_bf16_instructions():
        pytest.skip("this CPU has no instructions for bf16")
    monkeypatch.setattr(packed, "has_bf16_instructions", lambda: request.param)
    monkeypatch.setattr(torch_runner, "has_bf16_instructions", lambda: True)


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_in_bf16_is_close_to_fp32(
    family: str, codecs: dict[str, Codec], checkpoints: Checkpoints
) -> None:
    low = load(family, checkpoints[family], device="cpu", precision="bf16")
    tokens = codecs[family].encode(WAVE, 16000)
    assert (low.encode(WAVE, 16000).bits == tokens.bits).mean() > 0.8
    audio = codecs[family].decode(tokens)
    error = signal_to_noise(audio, low.decode(tokens))
    assert error > 25
    assert (error > 150) == (family == "hac")  # which decodes in fp32


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("family", ["bigcodec", "supercodec"])
def test_ranges_and_streams_in_bf16_are_those_of_the_whole_file(
    family: str, checkpoints: Checkpoints
) -> None:
    low = load(family, checkpoints[family], device="cpu", precision="auto")
    assert low.decode_precision == "bf16"
    tokens = low.encode(WAVE, 16000)
    whole = low.decode(tokens)
    decoder = low.stream_decoder(num_samples=tokens.num_samples)
    codes = np.array_split(tokens.codes, 3, axis=-1)
    parts = [*(decoder.push(part) for part in codes), decoder.flush()]
    streamed = np.concatenate(parts, axis=-1)
    assert signal_to_noise(whole, streamed) > 40
