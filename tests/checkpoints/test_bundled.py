"""Bundled weights: the default in the package, previous ones in a checkout."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import codectool
from codectool.checkpoints import registry
from codectool.checkpoints.load import load_model
from codectool.codec import model_layout
from codectool.errors import CheckpointError, UsageError, WeightsMissingError
from tests.checkpoints.bundled_pins import bundled_entries
from tests.cli.conftest import Run, run, speech  # noqa: F401  (fixtures)

PUBLISHED_BITS = 18
PUBLISHED_RATE = 75
PREVIOUS = [
    f"hac-{fingerprint}" for fingerprint in ("1110df23", "2c307f6d", "1d8631bb", "7391a4ee")
]


@pytest.fixture
def no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as if installed from a wheel, whose only weights are in the package."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "codectool").symlink_to(registry.REPOSITORY / "codectool")
    monkeypatch.setattr(registry, "REPOSITORY", tmp_path / "site")


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file made with previous weights whose encoder is another one."""
    path = tmp_path_factory.mktemp("previous") / "old.hcd"
    codec = codectool.load(checkpoint="hac-1d8631bb", device="cpu")
    codectool.write(path, codec.encode([0.0] * 2000, 24000))
    return path


@pytest.mark.parametrize("entry", bundled_entries(), ids=lambda entry: entry.name)
def test_registry_matches_the_bundled_files(entry: registry.ModelEntry) -> None:
    content = entry.locate().read_bytes()
    assert len(content) == entry.size
    assert hashlib.sha256(content).hexdigest() == entry.sha256
    loaded = load_model(entry.locate())
    layout = model_layout(loaded.model)
    assert loaded.fingerprint == entry.fingerprint
    assert loaded.token_fingerprint == entry.token_fingerprint
    assert set(loaded.token_names) == entry.token_names
    assert layout.family == entry.family
    assert (layout.sample_rate, layout.bit_rate) == (entry.sample_rate, entry.bit_rate)
    assert registry.find(loaded.fingerprint) == entry


def test_all_previous_weights_are_in_the_checkout() -> None:
    assert [entry.name for entry in bundled_entries()] == ["hac", *reversed(PREVIOUS)]


def test_sources_and_fingerprints_are_unique() -> None:
    for field in ("source", "fingerprint"):
        values = [getattr(entry, field) for entry in registry.entries().values()]
        assert len(set(values)) == len(values)


@pytest.mark.usefixtures("no_checkout")
def test_package_holds_the_default_weights_only() -> None:
    names = {path.name for path in registry.PACKAGE_FILE.parent.glob("*.safetensors")}
    assert names == {entry.locate().name for entry in bundled_entries()} == {"hac.safetensors"}


def test_default_hac_is_the_published_preset() -> None:
    weights = registry.default("hac")
    assert weights is not None
    assert weights.locate().stat().st_size < 9_000_000
    codec = codectool.load()
    layout = codec.layout
    assert layout.family == "hac"
    assert layout.sample_rate == 24000
    assert layout.bits_per_frame == PUBLISHED_BITS
    assert layout.sample_rate / layout.hop_length == PUBLISHED_RATE
    assert sum(p.numel() for p in codec.model.parameters()) == 4_188_993


def test_weights_of_other_authors_are_not_bundled() -> None:
    entry = registry.default("bigcodec")
    assert entry is not None
    assert entry.find() is None
    assert registry.default("supercodec") is None
    assert registry.find("00000000") is None


@pytest.mark.parametrize("name", PREVIOUS)
def test_previous_weights_are_found_by_name_and_by_fingerprint(
    name: str,
    run: Run,  # noqa: F811
    tmp_path: Path,
    speech: Path,  # noqa: F811
) -> None:
    packed, entry = tmp_path / "old.hcd", registry.named(name)
    assert entry is not None
    chosen = ("--checkpoint", name, "--device", "cpu")
    assert run("encode", speech, packed, *chosen).code == 0
    assert codectool.read(packed).fingerprint == entry.token_fingerprint
    assert run("decode", packed, tmp_path / "back.wav", "--device", "cpu").code == 0
    # a file of that name takes precedence
    (tmp_path / name).write_text("no weights")
    with pytest.raises(CheckpointError, match=f"{name}: "):
        load_model(tmp_path / name)
    assert registry.named("hac-2") is None


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
    entry = registry.find("1110df23")
    assert entry is not None
    assert entry.find() is None


@pytest.mark.usefixtures("no_checkout")
def test_info_names_previous_weights_that_are_absent(previous: Path, run: Run) -> None:  # noqa: F811
    result = run("info", previous)
    assert result.code == 0
    assert "1ec5e85b (tokens), hac-1d8631bb, not found on this machine" in result.text
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
    assert not (registry.home() / registry.FILE_NAME).exists()
    assert run("decode", packed, tmp_path / "back.wav", "--device", "cpu").code == 0
