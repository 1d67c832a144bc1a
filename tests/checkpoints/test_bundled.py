"""The weights that come with codectool."""

from __future__ import annotations

from pathlib import Path

import pytest

import codectool
from codectool.checkpoints import bundled, registry
from codectool.checkpoints.load import load_model
from codectool.errors import CheckpointError, UsageError
from tests.cli.conftest import Run, run, speech  # noqa: F401  (fixtures)

PUBLISHED_BITS = 18
PUBLISHED_RATE = 75


@pytest.mark.parametrize("weights", bundled.all_bundled(), ids=lambda weights: weights.name)
def test_index_says_what_the_files_are(weights: bundled.BundledWeights) -> None:
    loaded = load_model(weights.path)
    assert loaded.fingerprint == weights.fingerprint
    assert loaded.model.family == weights.family
    assert bundled.find(weights.fingerprint) == weights


def test_names_and_fingerprints_are_unique() -> None:
    for field in ("name", "fingerprint", "file"):
        values = [getattr(weights, field) for weights in bundled.all_bundled()]
        assert len(set(values)) == len(values)


def test_default_hac_is_the_published_preset() -> None:
    weights = bundled.default("hac")
    assert weights is not None
    assert weights.path.stat().st_size < 9_000_000
    codec = codectool.load()
    layout = codec.layout
    assert layout.family == "hac"
    assert layout.sample_rate == 24000
    assert layout.bits_per_frame == PUBLISHED_BITS
    assert layout.sample_rate / layout.hop_length == PUBLISHED_RATE
    assert sum(p.numel() for p in codec.model.parameters()) == 4_054_706


def test_no_weights_of_others_are_shipped() -> None:
    assert bundled.default("bigcodec") is None
    assert bundled.find("00000000") is None


@pytest.mark.parametrize("fingerprint", ["1110df23", "2c307f6d", "1d8631bb"])
def test_weights_of_before_are_found_by_name_and_by_fingerprint(
    fingerprint: str,
    run: Run,  # noqa: F811
    tmp_path: Path,
    speech: Path,  # noqa: F811
) -> None:
    packed, name = tmp_path / "old.hcd", f"hac-{fingerprint}"
    before = ("--checkpoint", name, "--device", "cpu")
    assert run("encode", speech, packed, *before).code == 0
    assert codectool.read(packed).fingerprint == fingerprint
    assert run("decode", packed, tmp_path / "back.wav", "--device", "cpu").code == 0
    # a file of that name is meant before anything else
    (tmp_path / name).write_text("no weights")
    with pytest.raises(CheckpointError, match=f"{name}: "):
        load_model(tmp_path / name)
    assert bundled.named("hac-2") is None


def test_config_needs_a_checkpoint() -> None:
    with pytest.raises(UsageError, match="--checkpoint"):
        codectool.load("hac", config={"kind": "waveform"})


def test_decode_finds_them_without_a_list(run: Run, tmp_path: Path, speech: Path) -> None:  # noqa: F811
    packed = tmp_path / "out.hcd"
    assert run("encode", speech, packed, "--device", "cpu").code == 0
    assert not (registry.home() / registry.LIST_NAME).exists()
    assert run("decode", packed, tmp_path / "back.wav", "--device", "cpu").code == 0
