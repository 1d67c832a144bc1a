"""Conversion of checkpoints: other layouts to safetensors and back, types, provenance."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

import codectool
from codectool._version import __version__
from codectool.checkpoints.convert import plan, read
from codectool.checkpoints.native import read_provenance, write_safetensors
from codectool.checkpoints.published import read_published
from codectool.checkpoints.stored import METADATA_KEY
from codectool.codec import Codec
from codectool.errors import CheckpointError, ConfigError, FingerprintError, UsageError
from tests.conftest import GOLDEN, shared

BIGCODEC = GOLDEN / "bigcodec_micro.pt"
SUPERCODEC = GOLDEN / "supercodec_micro"


def convert(source: str | Path, target: Path, **options: Any) -> Path:
    plan(read(source), target, **options).write(options.get("overwrite", False))
    return target


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def codes(codec: Codec) -> np.ndarray:
    wave = np.random.default_rng(3).normal(0, 0.1, 9000).astype(np.float32)
    return codec.encode(wave, codec.sample_rate).codes


@pytest.fixture(params=["bigcodec", "supercodec", "hac"])
def source(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> Path:
    """A checkpoint of each family."""
    return checkpoints[request.param]


def test_converted_weights_are_the_same(source: Path, tmp_path: Path) -> None:
    target = convert(source, tmp_path / "x.safetensors")
    assert_equal(read(target).state, read(source).state)
    before = codectool.load(checkpoint=source, device="cpu")
    after = codectool.load(checkpoint=target, device="cpu")
    assert after.fingerprint == before.fingerprint
    assert after.layout == before.layout
    np.testing.assert_array_equal(codes(after), codes(before))


@pytest.mark.parametrize(
    ("original", "name"),
    [
        (BIGCODEC, "back.pt"),
        (BIGCODEC, "back.ckpt"),
        (SUPERCODEC, "g_00000012"),
    ],
)
def test_published_layouts_come_back(original: Path, name: str, tmp_path: Path) -> None:
    native = convert(original, tmp_path / "x.safetensors")
    back = convert(native, tmp_path / name)
    assert_equal(read(back).state, read(original).state)
    codec = codectool.load(checkpoint=back, device="cpu")
    assert codec.fingerprint == read(original).fingerprint
    content = torch.load(back, weights_only=True)  # plain tensors only
    if name == "back.pt":
        reference = torch.load(original, weights_only=True)
        assert {key: list(value) for key, value in content.items()}.keys() == reference.keys()
        for section, tensors in reference.items():
            assert_equal(content[section], tensors)


def test_golden_lightning_checkpoint_converts_both_ways(tmp_path: Path) -> None:
    original = shared("golden", "bigcodec_tiny_lightning.ckpt")
    native = convert(original, tmp_path / "x.safetensors")
    back = convert(native, tmp_path / "y.ckpt")
    assert read(native).fingerprint == read(back).fingerprint == read(original).fingerprint
    assert_equal(read(back).state, read_published(original)[1])


def test_bundled_weights_are_found_by_name(tmp_path: Path) -> None:
    bundled = read("hac-1d8631bb")
    assert bundled.fingerprint == "1d8631bb"
    target = convert("hac-1d8631bb", tmp_path / "x.safetensors")
    assert_equal(read(target).state, bundled.state)


def test_provenance_names_the_source_and_its_checksum(tmp_path: Path) -> None:
    first = convert(BIGCODEC, tmp_path / "a.safetensors")
    entry = {
        "source": "bigcodec_micro.pt",
        "sha256": hashlib.sha256(BIGCODEC.read_bytes()).hexdigest(),
        "fingerprint": "218b61c7",
        "token_fingerprint": "9214f883",
        "dtype": "unchanged",
        "codectool": __version__,
    }
    assert read_provenance(first) == [entry]
    second = convert(first, tmp_path / "b.safetensors", dtype="bf16")
    assert [e["source"] for e in read_provenance(second)] == ["bigcodec_micro.pt", "a.safetensors"]
    assert read_provenance(second)[1]["dtype"] == "bf16"
    with safe_open(first, "pt") as file:
        metadata = json.loads(file.metadata()[METADATA_KEY])
    assert metadata["family"] == "bigcodec"
    assert metadata["model"]["sample_rate"] == 16000


def test_conversion_is_reproducible(source: Path, tmp_path: Path) -> None:
    first = convert(source, tmp_path / "a.safetensors").read_bytes()
    assert convert(source, tmp_path / "b.safetensors").read_bytes() == first


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_other_type_changes_the_fingerprint(source: Path, dtype: str, tmp_path: Path) -> None:
    target = convert(source, tmp_path / "x.safetensors", dtype=dtype)
    original = read(source)
    wanted = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    assert_equal(
        read(target).state, {name: tensor.to(wanted) for name, tensor in original.state.items()}
    )
    assert read(target).fingerprint != original.fingerprint
    assert read(target).token_fingerprint != original.token_fingerprint
    assert read(target).same_tokens_as == ()
    codec = codectool.load(checkpoint=source, device="cpu")
    small = codectool.load(checkpoint=target, device="cpu")
    tokens = codec.encode(np.zeros(9000, np.float32), 16000)
    with pytest.raises(FingerprintError, match=r"was converted with less precision; .*--force"):
        small.decode(tokens)
    assert small.decode(tokens, force=True).shape == (1, 9000)


def test_value_too_large_for_fp16_is_refused(tmp_path: Path) -> None:
    content = torch.load(BIGCODEC, weights_only=True)
    content["CodecEnc"]["block.0.bias"][0] = 1e6
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"CodecEnc.block.0.bias holds 1e\+06, too large"):
        plan(read(tmp_path / "x.pt"), tmp_path / "x.safetensors", dtype="fp16")
    plan(read(tmp_path / "x.pt"), tmp_path / "x.safetensors", dtype="bf16")


def test_config_that_the_shapes_do_not_show_is_written_beside(tmp_path: Path) -> None:
    config = json.loads((GOLDEN / "bigcodec_micro.json").read_text())
    config["sample_rate"] = 24000
    source = read(BIGCODEC, config)
    native = tmp_path / "x.safetensors"
    plan(source, native).write()
    assert codectool.load(checkpoint=native, device="cpu").sample_rate == 24000
    conversion = plan(read(native), tmp_path / "back.pt")
    assert conversion.config_path == tmp_path / "back.json"
    conversion.write()
    back = codectool.load(
        checkpoint=tmp_path / "back.pt", config=tmp_path / "back.json", device="cpu"
    )
    assert back.fingerprint == source.fingerprint


def test_config_of_another_model_is_not_replaced(tmp_path: Path) -> None:
    native = convert(SUPERCODEC, tmp_path / "x.safetensors")
    beside = tmp_path / "config.json"
    beside.write_text('{"sampling_rate": 8000}')
    with pytest.raises(UsageError, match=r"config\.json: exists; .* belongs there"):
        convert(native, tmp_path / "g_00000001")
    shutil.copy(SUPERCODEC / "config.json", beside)
    text = beside.read_text()
    convert(native, tmp_path / "g_00000001")
    assert beside.read_text() == text, "keys for training are kept"


def test_what_cannot_be_written_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    hac = read(checkpoints["hac"])
    with pytest.raises(UsageError, match="hac has no published layout"):
        plan(hac, tmp_path / "x.pt")
    with pytest.raises(UsageError, match=r"x\.bar: name a file that ends in \.safetensors"):
        plan(hac, tmp_path / "x.bar")
    assert plan(hac, tmp_path / "x.bar", layout="safetensors").layout == "safetensors"
    with pytest.raises(UsageError, match="is the source itself"):
        plan(hac, checkpoints["hac"], overwrite=True)
    (tmp_path / "there.safetensors").touch()
    with pytest.raises(UsageError, match="exists"):
        plan(hac, tmp_path / "there.safetensors")
    with pytest.raises(ConfigError, match=r"config\.json beside the checkpoint"):
        read(shutil.copy(SUPERCODEC / "g_00000001", tmp_path))


def test_views_are_stored_without_the_rest_of_their_storage(tmp_path: Path) -> None:
    source = read(BIGCODEC)
    big = torch.zeros(1 << 22)
    name = "CodecEnc.block.0.bias"
    big[: source.state[name].numel()] = source.state[name]
    source.state[name] = big[: source.state[name].numel()]  # type: ignore[index]
    plan(source, tmp_path / "x.pt").write()
    assert (tmp_path / "x.pt").stat().st_size < 2e6
    assert read(tmp_path / "x.pt").fingerprint == source.fingerprint


def test_written_bytes_are_those_of_the_library(tmp_path: Path) -> None:
    state = {
        "b": torch.randn(3, 4),
        "a": torch.randn(5).bfloat16(),
        "c": torch.randn(2).double(),
        "é": torch.randn(3).half(),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(1.0),
        "transposed": torch.randn(3, 4).mT,
    }
    metadata = {"key": 'a "value" é'}
    with (tmp_path / "x").open("wb") as file:
        write_safetensors(file, state, None, metadata)
    expected = save({name: tensor.contiguous() for name, tensor in state.items()}, metadata)
    assert (tmp_path / "x").read_bytes() == expected
