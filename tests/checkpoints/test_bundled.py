"""Bundled weights: the default in the package, previous ones in a checkout."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import codectool
from codectool.checkpoints import bundled, registry
from codectool.checkpoints.load import load_model
from codectool.errors import CheckpointError, UsageError, WeightsMissingError
from tests.cli.conftest import Run, run, speech  # noqa: F401  (fixtures)

PUBLISHED_BITS = 18
PUBLISHED_RATE = 75
PREVIOUS = [f"hac-{fingerprint}" for fingerprint in ("1110df23", "2c307f6d", "1d8631bb")]


@pytest.fixture
def no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as if installed from a wheel."""
    monkeypatch.setattr(bundled, "CHECKOUT_FOLDER", tmp_path / "no-checkout")


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file made with previous weights."""
    path = tmp_path_factory.mktemp("previous") / "old.hcd"
    codec = codectool.load(checkpoint=PREVIOUS[-1], device="cpu")
    codectool.write(path, codec.encode([0.0] * 2000, 24000))
    return path


@pytest.mark.parametrize("weights", bundled.all_bundled(), ids=lambda weights: weights.name)
def test_index_matches_the_files(weights: bundled.BundledWeights) -> None:
    content = weights.path.read_bytes()
    assert len(content) == weights.size
    assert hashlib.sha256(content).hexdigest() == weights.sha256
    loaded = load_model(weights.path)
    assert loaded.fingerprint == weights.fingerprint
    assert loaded.model.family == weights.family
    assert bundled.find(weights.fingerprint) == weights
    assert bundled.find_available(weights.fingerprint) == weights


def test_names_and_fingerprints_are_unique() -> None:
    for field in ("name", "fingerprint", "file"):
        values = [getattr(weights, field) for weights in bundled.all_bundled()]
        assert len(set(values)) == len(values)


def test_package_holds_the_default_weights_only() -> None:
    names = {path.name for path in bundled.PACKAGE_FOLDER.glob("*.safetensors")}
    families = {weights.family for weights in bundled.all_bundled()}
    defaults = [bundled.default(family) for family in families]
    assert names == {weights.file for weights in defaults if weights}


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


def test_weights_of_other_authors_are_not_bundled() -> None:
    assert bundled.default("bigcodec") is None
    assert bundled.find("00000000") is None


@pytest.mark.parametrize("name", PREVIOUS)
def test_previous_weights_are_found_by_name_and_by_fingerprint(
    name: str,
    run: Run,  # noqa: F811
    tmp_path: Path,
    speech: Path,  # noqa: F811
) -> None:
    packed, fingerprint = tmp_path / "old.hcd", name.removeprefix("hac-")
    chosen = ("--checkpoint", name, "--device", "cpu")
    assert run("encode", speech, packed, *chosen).code == 0
    assert codectool.read(packed).fingerprint == fingerprint
    assert run("decode", packed, tmp_path / "back.wav", "--device", "cpu").code == 0
    # a file of that name takes precedence
    (tmp_path / name).write_text("no weights")
    with pytest.raises(CheckpointError, match=f"{name}: "):
        load_model(tmp_path / name)
    assert bundled.named("hac-2") is None


@pytest.mark.usefixtures("no_checkout")
def test_decode_names_previous_weights_that_are_absent(
    previous: Path,
    run: Run,  # noqa: F811
    tmp_path: Path,
) -> None:
    result = run("decode", previous, tmp_path / "back.wav", "--device", "cpu")
    assert result.code == 2
    (line,) = result.err.strip().splitlines()
    assert f"{previous}: made with the weights hac-1d8631bb" in line
    assert "get assets/weights/hac-1d8631bb.safetensors (8.1 MB)" in line
    assert "`--checkpoint PATH`" in line


@pytest.mark.usefixtures("no_checkout")
def test_decode_uses_previous_weights_given_by_path(
    previous: Path,
    run: Run,  # noqa: F811
    tmp_path: Path,
) -> None:
    weights = Path(__file__).parents[2] / "assets" / "weights" / "hac-1d8631bb.safetensors"
    chosen = ("--checkpoint", weights, "--device", "cpu")
    assert run("decode", previous, tmp_path / "a.wav", *chosen).code == 0
    # and finds them by fingerprint from then on
    assert run("decode", previous, tmp_path / "b.wav", "--device", "cpu").code == 0


@pytest.mark.usefixtures("no_checkout")
def test_loading_absent_previous_weights_says_where_to_get_them() -> None:
    with pytest.raises(WeightsMissingError, match=r"hac-1110df23 are not on this machine: get "):
        codectool.load(checkpoint="hac-1110df23")
    assert bundled.find("1110df23") is not None
    assert bundled.find_available("1110df23") is None


@pytest.mark.usefixtures("no_checkout")
def test_info_names_previous_weights_that_are_absent(previous: Path, run: Run) -> None:  # noqa: F811
    result = run("info", previous)
    assert result.code == 0
    assert "1d8631bb, hac-1d8631bb, not found on this machine" in result.text
    data = json.loads(run("info", "--json", previous).text)
    assert (data["weights_name"], data["checkpoint"]) == ("hac-1d8631bb", None)


def test_config_needs_a_checkpoint() -> None:
    with pytest.raises(UsageError, match="--checkpoint"):
        codectool.load("hac", config={"kind": "waveform"})


def test_decode_finds_default_weights_without_registry(
    run: Run,  # noqa: F811
    tmp_path: Path,
    speech: Path,  # noqa: F811
) -> None:
    packed = tmp_path / "out.hcd"
    assert run("encode", speech, packed, "--device", "cpu").code == 0
    assert not (registry.home() / registry.LIST_NAME).exists()
    assert run("decode", packed, tmp_path / "back.wav", "--device", "cpu").code == 0
