"""Two fingerprints: of all weights, and of what makes tokens; files decode by either."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import fields
from torch import Tensor

import codectool
from codectool.checkpoints import registry
from codectool.checkpoints.convert import plan, read
from codectool.checkpoints.fingerprint import fingerprint, token_fingerprint
from codectool.checkpoints.load import load_model, read_weights
from codectool.checkpoints.native import read_same_tokens, write_model, write_native
from codectool.checkpoints.stored import read_stored, token_fingerprint_stored
from codectool.codecs.bigcodec.config import BigCodecConfig, DecoderConfig
from codectool.codecs.hac.config import HacConfig, SpectralHacConfig
from codectool.codecs.registry import get_family
from codectool.codecs.supercodec.config import SuperCodecConfig
from codectool.errors import ConfigError, FingerprintError
from codectool.schema import to_json
from tests.conftest import GOLDEN
from tests.hac_models import load_preset, small_preset, untrained

GOLDEN_FINGERPRINTS = {
    "bigcodec_micro.pt": ("218b61c7", "9214f883"),
    "supercodec_micro": ("fe0e1f7f", "56d3d43f"),
}
ENCODERS = {
    "hac": "encoder.stem.transform.weight",
    "bigcodec": "CodecEnc.block.0.bias",
    "supercodec": "encoder.0.conv.weight",
}
DECODERS = {
    "hac": "decoder.restore.offset",
    "bigcodec": "generator.model.0.bias",
    "supercodec": "decoder.0.conv.weight",
}
CODEBOOKS = {
    "bigcodec": ["generator.quantizer.layers.0._codebook.weight"],
    "supercodec": ["rq.layers.1._codebook.embed"],
}
DECODER_KEYS = {
    HacConfig: {
        *("lookahead", "token_kernel", "source"),
        *("decoder_channels", "decoder_hidden", "decoder_dilations"),
    },
    SpectralHacConfig: {"decoder_units", "decoder_depth"},
    SuperCodecConfig: set(),
}


@pytest.fixture(params=["hac", "bigcodec", "supercodec"])
def source(request: pytest.FixtureRequest, checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A small checkpoint of each family as safetensors."""
    path = tmp_path / "source.safetensors"
    plan(read(checkpoints[request.param]), path).write()
    return path


def changed(source: Path, target: Path, name: str, same_tokens_as: tuple[str, ...] = ()) -> Path:
    """Write a checkpoint with another value in one tensor."""
    weights = read(source)
    state = {**weights.state, name: weights.state[name] + 0.5}
    write_native(target, weights.family, weights.config, state, None, same_tokens_as=same_tokens_as)
    return target


def codec_of(path: Path, **options: Any) -> codectool.Codec:
    return codectool.load(checkpoint=path, device="cpu", **options)


@pytest.mark.parametrize("name", GOLDEN_FINGERPRINTS)
def test_fingerprints_of_golden_checkpoints(name: str) -> None:
    loaded = load_model(GOLDEN / name)
    assert (loaded.fingerprint, loaded.token_fingerprint) == GOLDEN_FINGERPRINTS[name]


def test_decoder_does_not_change_the_token_fingerprint(source: Path, tmp_path: Path) -> None:
    family = read(source).family
    other = changed(source, tmp_path / "other.safetensors", DECODERS[family])
    before, after = load_model(source), load_model(other)
    assert after.fingerprint != before.fingerprint
    assert after.token_fingerprint == before.token_fingerprint != before.fingerprint
    tokens = codec_of(source).encode(np.zeros(9000, np.float32), 16000)
    assert tokens.fingerprint == before.token_fingerprint
    assert codec_of(other).decode(tokens).shape == (1, 9000)
    first = dataclasses.replace(tokens, fingerprint=after.fingerprint)
    assert codec_of(other).decode(first).shape == (1, 9000)


@pytest.mark.parametrize("part", ["encoder", "codebook"])
def test_encoder_and_codebooks_change_the_token_fingerprint(
    source: Path, tmp_path: Path, part: str
) -> None:
    family = read(source).family
    names = [ENCODERS[family]] if part == "encoder" else CODEBOOKS.get(family, [])
    tokens = codec_of(source).encode(np.zeros(9000, np.float32), 16000)
    for name in names:
        other = changed(source, tmp_path / "other.safetensors", name)
        assert load_model(other).token_fingerprint != load_model(source).token_fingerprint
        with pytest.raises(FingerprintError) as caught:
            codec_of(other).decode(tokens)
        text = str(caught.value)
        assert tokens.fingerprint in text
        assert load_model(other).token_fingerprint in text
        assert "--force" in text


def test_projections_of_bigcodec_belong_to_the_tokens() -> None:
    parts = get_family("bigcodec").token_parts
    assert parts is not None
    _, state, _ = read_weights(GOLDEN / "bigcodec_micro.pt")
    chosen = {name for name in state if parts.has_tensor(name)}
    rest = state.keys() - chosen
    assert {name.split(".")[1] for name in rest} == {"model"}
    assert any("out_proj" in name for name in chosen)


def test_training_state_of_codebooks_does_not_matter(tmp_path: Path) -> None:
    source = GOLDEN / "supercodec_micro"
    for name in ("cluster_size", "embed_avg"):
        other = changed(source, tmp_path / f"{name}.st", f"rq.layers.0._codebook.{name}")
        assert load_model(other).token_fingerprint == load_model(source).token_fingerprint


def test_type_of_stored_values_does_not_matter(source: Path, tmp_path: Path) -> None:
    rounded, wide = tmp_path / "bf16.safetensors", tmp_path / "fp32.safetensors"
    plan(read(source), rounded, dtype="bf16").write()
    plan(read(rounded), wide, dtype="fp32").write()
    narrow = read(rounded)
    assert read(wide).token_fingerprint == narrow.token_fingerprint
    assert read(wide).fingerprint != narrow.fingerprint
    # files of version 0.1 name all weights
    assert narrow.fingerprint in read(wide).same_tokens_as
    assert read(source).fingerprint not in read(rounded).same_tokens_as


def test_same_without_torch(source: Path) -> None:
    stored = read_stored(source)
    found = token_fingerprint_stored(stored.family, stored.model, stored.tensors)
    assert found == load_model(source).token_fingerprint


@pytest.mark.parametrize("config", [HacConfig, SpectralHacConfig, SuperCodecConfig])
def test_every_key_belongs_to_the_tokens_or_to_the_decoder(config: Any) -> None:
    """A new key of a config must be added to the token parts or to this list."""
    family = "supercodec" if config is SuperCodecConfig else "hac"
    parts = get_family(family).token_parts
    assert parts is not None
    names = {field.name for field in fields(config)}
    assert names - set(parts.config) == DECODER_KEYS[config]


def test_every_key_of_bigcodec_belongs_to_the_tokens_or_to_the_decoder() -> None:
    parts = get_family("bigcodec").token_parts
    assert parts is not None
    keys = set(parts.config)
    assert {f.name for f in fields(BigCodecConfig)} - keys == {"codec_decoder"}
    decoder = {f.name for f in fields(DecoderConfig) if f"codec_decoder.{f.name}" not in keys}
    assert decoder == {
        *("upsample_initial_channel", "up_ratios", "dilations"),
        *("use_rnn", "rnn_bidirectional", "rnn_num_layers", "in_channels", "vq_dim"),
    }


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"decoder_hidden": [32, 32, 32, 32]}, True),
        ({"lookahead": 1}, True),
        ({"encoder_dilations": [[1], [1, 2], [1, 3], [1, 3]]}, False),
        ({"num_bits": 12}, False),
        ({"sample_rate": 16000}, False),
    ],
)
def test_keys_of_the_config(change: dict[str, Any], same: bool) -> None:
    config = to_json(load_preset("hac"))
    state: dict[str, Tensor] = {"encoder.x": torch.zeros(2), "decoder.x": torch.zeros(2)}
    assert fingerprint("hac", config, state) != fingerprint("hac", {**config, **change}, state)
    found = token_fingerprint("hac", {**config, **change}, state)
    assert (found == token_fingerprint("hac", config, state)) is same


def test_empty_tensors_have_a_fingerprint() -> None:
    state = {"encoder.x": torch.zeros(0, 3), "encoder.y": torch.zeros(())}
    config = to_json(load_preset("hac"))
    swapped = {**state, "encoder.x": torch.zeros(3, 0)}
    assert token_fingerprint("hac", config, state) != token_fingerprint("hac", config, swapped)


def test_spectral_hac_has_a_token_fingerprint(tmp_path: Path) -> None:
    codec = untrained(small_preset("hac-3.6-v13"))
    write_model(tmp_path / "a.safetensors", codec)
    other = changed(
        tmp_path / "a.safetensors",
        tmp_path / "b.safetensors",
        next(name for name in codec.state_dict() if name.startswith("decoder.")),
    )
    first, second = load_model(tmp_path / "a.safetensors"), load_model(other)
    assert first.token_fingerprint == second.token_fingerprint
    assert first.fingerprint != second.fingerprint


def test_checkpoint_lists_whose_tokens_it_decodes(source: Path, tmp_path: Path) -> None:
    """As after `train --freeze encoder`: old files name all weights of the first checkpoint."""
    original = load_model(source)
    name = DECODERS[original.model.family]
    target = changed(source, tmp_path / "new.safetensors", name, original.token_names)
    assert read_same_tokens(target) == (original.fingerprint, original.token_fingerprint)
    tokens = codec_of(source).encode(np.zeros(9000, np.float32), 16000)
    old = dataclasses.replace(tokens, fingerprint=original.fingerprint)
    assert codec_of(target).decode(old).shape == (1, 9000)
    # a conversion keeps the list
    plan(read(target), tmp_path / "copy.safetensors").write()
    assert read_same_tokens(tmp_path / "copy.safetensors") == read_same_tokens(target)
    # a third decoder inherits it
    third = load_model(tmp_path / "copy.safetensors").token_names
    assert original.fingerprint in third
    assert len(set(third)) == len(third)


@pytest.mark.parametrize("values", ['"7391a4ee"', "[1]", '["7391A4EE"]', '["x"]', "{}", "null"])
def test_invalid_list_is_refused(tmp_path: Path, values: str) -> None:
    path = tmp_path / "x.safetensors"
    write_native(path, "hac", {}, {"a": torch.zeros(1)}, same_tokens_as=["01234567"])
    written = path.read_bytes()
    text = rb"[\"01234567\"]"
    filler = json.dumps(values)[1:-1].encode()
    assert text in written
    data = written.replace(text, filler)
    header = int.from_bytes(written[:8], "little") + len(filler) - len(text)
    path.write_bytes(header.to_bytes(8, "little") + data[8:])
    with pytest.raises(ConfigError, match="`same_tokens_as` must be a list"):
        read_same_tokens(path)
    with pytest.raises(ConfigError, match="`same_tokens_as` must be a list"):
        read_stored(path)


def test_known_weights_with_the_same_tokens_are_accepted(source: Path, tmp_path: Path) -> None:
    original = load_model(source)
    other = changed(source, tmp_path / "other.safetensors", DECODERS[original.model.family])
    tokens = codec_of(source).encode(np.zeros(9000, np.float32), 16000)
    old = dataclasses.replace(tokens, fingerprint=original.fingerprint)
    with pytest.raises(FingerprintError):
        codec_of(other).decode(old)
    registry.remember(
        original.fingerprint,
        original.model.family,
        source,
        token_fingerprint=original.token_fingerprint,
    )
    assert codec_of(other).decode(old).shape == (1, 9000)


def test_registry_finds_a_decoder_by_either_fingerprint(tmp_path: Path) -> None:
    place = str(tmp_path)
    registry.record("old", family="hac", fingerprint="00000001", token_fingerprint="0000000a")
    registry.record("new", family="hac", path=place, token_fingerprint="0000000a")
    registry.record("list", family="hac", fingerprint="00000002", same_tokens_as=["00000003"])
    for name in ("00000001", "0000000a"):
        found = registry.find_decoder(name)
        assert found is not None
        assert found.name == "new"  # it is on this machine
        assert registry.token_fingerprint(name) == "0000000a"
    found = registry.find_decoder("00000003")
    assert found is not None
    assert found.name == "list"
    assert registry.token_fingerprint("00000003") == "00000003"  # that of `list` is not known
    assert registry.token_names("0000000a") == {"0000000a", "00000001"}
    assert registry.find_decoder("00000009") is None
    default = registry.find_decoder("f8b188d4")
    assert default is not None
    assert default.name == "hac"


def test_use_of_a_model_records_the_token_fingerprint(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    path = checkpoints["hac"]
    loaded = load_model(path)
    registry.remember(loaded.fingerprint, "hac", path)
    assert registry.find_decoder(loaded.token_fingerprint) is None
    names = loaded.fingerprint, "hac", path, None, loaded.token_fingerprint
    registry.remember(*names, loaded.token_names)
    found = registry.find_decoder(loaded.token_fingerprint)
    assert found is not None
    assert found.path is None
    assert found.find() == path


def test_token_fingerprint_is_computed_without_torch(checkpoints: dict[str, Path]) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from codectool.checkpoints.stored import read_stored, token_fingerprint_stored\n"
        "stored = read_stored(Path(sys.argv[1]))\n"
        "print(token_fingerprint_stored(stored.family, stored.model, stored.tensors))\n"
        "assert 'torch' not in sys.modules\n"
    )
    path = checkpoints["hac"]
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == load_model(path).token_fingerprint


def test_default_model_decodes_old_files_of_its_tokens() -> None:
    for name in ("7391a4ee", "f8b188d4", "ffcef39f"):
        found = registry.find_decoder(name)
        assert found is not None
        assert found.name == "hac"
    found = registry.find("7391a4ee")
    assert found is not None
    assert found.name == "hac-7391a4ee"
