"""The same tokens and audio whatever the program around has set in PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from codectool.checkpoints import registry
from codectool.checkpoints.native import write_model
from codectool.codec import Codec
from codectool.loading import load
from codectool.tokens import Tokens
from tests.hac_models import small_preset, untrained
from tests.signals import speechlike

RATE = 22050
WAVE = speechlike(1.1, RATE, channels=2)
Context = Callable[[], AbstractContextManager[Any]]


@contextmanager
def setting(read: Callable[[], Any], write: Callable[[Any], Any], value: Any) -> Iterator[None]:
    """Change a setting of PyTorch; check at the end that it was left alone."""
    before = read()
    write(value)
    try:
        yield
        assert read() == value
    finally:
        write(before)


def attribute(owner: Any, name: str, value: object) -> Context:
    return lambda: setting(
        lambda: getattr(owner, name), lambda new: setattr(owner, name, new), value
    )


def default_dtype(dtype: torch.dtype) -> Context:
    return lambda: setting(torch.get_default_dtype, torch.set_default_dtype, dtype)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
        assert torch.get_default_device().type == name
    finally:
        torch.set_default_device(None)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    smallest = torch.tensor([1e-45])
    torch.set_flush_denormal(True)
    try:
        yield
        assert not (smallest * 1).any()
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def nested_autocast() -> Iterator[None]:
    with torch.autocast("cpu", torch.float16), torch.autocast("cpu", torch.bfloat16):
        yield
        assert torch.is_autocast_enabled("cpu")


mkldnn = torch.backends.mkldnn
SETTINGS: dict[str, Context] = {
    "autocast bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", torch.float16),
    "nested autocast": nested_autocast,
    "default float64": default_dtype(torch.float64),
    "default float16": default_dtype(torch.float16),
    "default bfloat16": default_dtype(torch.bfloat16),
    "device meta": lambda: torch.device("meta"),
    "default device meta": lambda: default_device("meta"),
    "default device cuda": lambda: torch.device("cuda"),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "enable_grad": torch.enable_grad,
    "deterministic": lambda: setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "matmul medium": lambda: setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "matmul high": lambda: setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "high"
    ),
    "cuda tf32": attribute(torch.backends.cuda.matmul, "allow_tf32", True),
    "oneDNN matmul bf16": attribute(mkldnn.matmul, "fp32_precision", "bf16"),
    "oneDNN conv bf16": attribute(mkldnn.conv, "fp32_precision", "bf16"),
    "oneDNN rnn bf16": attribute(mkldnn.rnn, "fp32_precision", "bf16"),
    "oneDNN off": attribute(mkldnn, "enabled", False),
    "all tf32": attribute(torch.backends, "fp32_precision", "tf32"),
    "denormals flushed": flushed_denormals,
    "NumPy raises": lambda: np.errstate(all="raise"),
}


@pytest.fixture(scope="module")
def paths(
    checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    spectral = tmp_path_factory.mktemp("spectral") / "spectral.safetensors"
    write_model(spectral, untrained(small_preset("hac-3.6-v13")))
    weights = registry.default("hac")
    assert weights is not None
    return {**checkpoints, "hac": weights.locate(), "hac spectral": spectral}


@pytest.fixture(scope="module", params=["bigcodec", "supercodec", "hac", "hac spectral"])
def path(request: pytest.FixtureRequest, paths: dict[str, Path]) -> Path:
    return paths[request.param]


Results = list[np.ndarray]


def use(codec: Codec) -> Results:
    """Return the results of all ways to run a codec: whole, in chunks, as a batch."""
    tokens = codec.encode(WAVE, RATE)
    clips = [codec.prepare(WAVE, RATE), codec.prepare(WAVE[:, :9000], RATE)]
    batch = codec.encode_clips(clips)
    encoder = codec.stream_encoder(RATE, 2, chunk_frames=20)
    codes = [encoder.push(WAVE[:, :9000]), encoder.push(WAVE[:, 9000:]), encoder.flush()]
    decoder = codec.stream_decoder(RATE, 2, chunk_frames=20)
    samples = [decoder.push(tokens.codes), decoder.flush(tokens.num_samples)]
    return [
        tokens.codes,
        codec.decode(tokens),
        *(item.codes for item in batch),
        *codec.decode_clips(batch),
        *codes,
        *samples,
    ]


@pytest.fixture(scope="module")
def expected(path: Path) -> Results:
    return use(load(checkpoint=path, device="cpu"))


@pytest.mark.parametrize("name", SETTINGS)
def test_results_do_not_depend_on_settings(path: Path, expected: Results, name: str) -> None:
    before = load(checkpoint=path, device="cpu")
    started = before.stream_encoder(RATE, 2)
    started.push(WAVE[:, :9000])
    with SETTINGS[name]():
        results = [use(before), use(load(checkpoint=path, device="cpu"))]
        rest = [started.push(WAVE[:, 9000:]), started.flush()]
        assert all(type(item) is np.ndarray for item in results[0])
    for result in results:
        for item, right in zip(result, expected, strict=True):
            np.testing.assert_array_equal(item, right)
    count = sum(codes.shape[2] for codes in rest)
    codes = np.concatenate(rest, axis=2)
    np.testing.assert_array_equal(codes, expected[0][:, :, -count:])


@pytest.mark.parametrize("name", ["inference_mode", "device meta", "default float64"])
def test_weights_loaded_under_a_setting_are_ordinary(path: Path, name: str) -> None:
    with SETTINGS[name]():
        model = load(checkpoint=path, device="cpu").model
    for tensor in (*model.parameters(), *model.buffers()):
        assert not tensor.is_inference()
        assert tensor.device.type == "cpu"
        assert tensor.dtype in (torch.float32, torch.int64, torch.complex64)
    copy.deepcopy(model).requires_grad_(True)


def test_training_code_may_encode_between_steps(path: Path, expected: Results) -> None:
    codec = load(checkpoint=path, device="cpu")
    codec.model.train()
    codec.model.requires_grad_(True)
    layer = nn.Linear(4, 1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = layer(torch.ones(2, 4)).sum()
        tokens = codec.encode(torch.from_numpy(WAVE).requires_grad_(True), RATE)
        wave = codec.decode(tokens)
    loss.backward()
    assert layer.weight.grad is not None
    np.testing.assert_array_equal(tokens.codes, expected[0])
    np.testing.assert_array_equal(wave, expected[1])


def test_audio_without_samples_under_another_default_dtype(path: Path) -> None:
    with SETTINGS["default float64"]():
        codec = load(checkpoint=path, device="cpu")
        tokens: Tokens = codec.encode(np.zeros(0, np.float32), RATE)
        assert codec.decode(tokens).dtype == np.float32
