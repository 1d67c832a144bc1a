"""Messages show at most 200 characters of untrusted text, and format untrusted values cheaply."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from codectool.audio.discovery import parse_list
from codectool.checkpoints.load import load_model
from codectool.checkpoints.native import write_native
from codectool.errors import CheckpointError, ConfigError, TokensError
from codectool.messages import MAX_SHOWN, shorten, shorten_repr
from codectool.schema import (
    MAX_CONFIG_BYTES,
    Config,
    TaggedConfig,
    from_json,
    parse_json,
    read_json,
)
from codectool.tokens import TokenLayout
from codectool.training.checkpoint import load_moments, read_checkpoint
from codectool.training.config import shape_change
from tests.conftest import GOLDEN

LONG = "A" * 100_000


class Circle(TaggedConfig, tag="circle", frozen=True):
    radius: float


class Square(TaggedConfig, tag="square", frozen=True):
    side: float


class Drawing(Config, frozen=True):
    name: str
    shape: Circle | Square | None = None
    anything: Any = None


def doubled(times: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(times):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    "value",
    [LONG, LONG.encode(), [LONG] * 9, doubled(60), {LONG: LONG}, 10**100_000, {1: doubled(60)}],
    ids=lambda value: type(value).__name__,
)
def test_shorten_repr_is_short_and_fast_for_any_value(value: object) -> None:
    assert 0 < len(shorten_repr(value)) <= MAX_SHOWN
    assert len(shorten_repr(value, 20)) <= 20


def test_shorten_keeps_short_text() -> None:
    assert shorten("model.0.bias") == "model.0.bias"
    assert shorten_repr([1, "a", None]) == "[1, 'a', None]"
    assert shorten_repr("a") == "'a'"
    assert shorten("two\nlines") == r"two\nlines"


@pytest.mark.parametrize(
    "value",
    [
        {LONG: 1},
        {"a\nb": 1},
        {"a - at `$.name": 1},
        {"name": 1, " - at `$.x": 1},
        {"name": LONG, LONG: 1},
        {"name": ["x" * 1000] * 50},
        {"name": 10**100_000},
        {"name": "\udc80"},
        {"\udc80": 1},
        {"name": "x", "shape": {"kind": LONG}},
        {"name": "x", "shape": {"kind": "a` - at `$.name"}},
        {"name": "x", "shape": {"kind": "circle", "radius": LONG}},
        {"name": "x", "anything": [{LONG: 1}]},
        {"name": doubled(12)},
    ],
)
def test_config_errors_are_short(value: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        from_json(Drawing, value)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_deep_paths_cost_little() -> None:
    """The path of each of many values 900 levels deep took 50 kB."""
    value: Any = [0] * 60
    for _ in range(900):
        value = {"k" * 60: value}
    with pytest.raises(ConfigError, match="nested too deep") as caught:
        from_json(Drawing, {"name": "x", "anything": value})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 100_000, "9" * 100_000, LONG, f'{{"{LONG}'])
def test_texts_that_are_no_config_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_json(path)
    assert len(str(caught.value)) < len(str(path)) + 400
    with pytest.raises(ConfigError, match="the limit for a config"):
        parse_json(" " * MAX_CONFIG_BYTES + text, "x")


def test_config_that_is_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(ConfigError, match=r"config\.json: is a Git LFS pointer"):
        read_json(path)


def test_names_of_tensors_are_shortened(tmp_path: Path) -> None:
    content = torch.load(GOLDEN / "bigcodec_micro.pt", weights_only=True)
    for number in range(9):
        content["generator"][f"{LONG[:4000]}{number}"] = torch.zeros(1)
    path = tmp_path / "x.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="9 unexpected") as caught:
        load_model(path)
    assert len(str(caught.value)) < len(str(path)) + 4 * 220


def test_family_of_a_file_is_shortened(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_native(path, LONG, {}, {"a": torch.zeros(1)})
    for family in (None, "hac"):
        with pytest.raises(CheckpointError) as caught:
            load_model(path, family)
        assert len(str(caught.value)) < len(str(path)) + 500
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"family": "hac", "model": {"kind": LONG}}))
    write_native(path, "hac", {}, {"a": torch.zeros(1)}, overwrite=True)
    with pytest.raises(ConfigError) as caught_config:
        load_model(path, config=config)
    assert len(str(caught_config.value)) < len(str(path)) + 500


def test_family_of_a_container_is_shortened() -> None:
    with pytest.raises(TokensError) as caught:
        TokenLayout(LONG, 16_000, 320, (10,))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "line",
    [
        {"path": "a", "num_samples": LONG, "sample_rate": 8000},
        {"path": "a", "num_samples": 10**4000, "sample_rate": 8000},
        {"path": "a", "num_samples": 1, "sample_rate": 10**4000},
        {"path": "a", "num_samples": doubled(8), "sample_rate": 1},
        {"path": LONG},
        {LONG: 1},
    ],
    ids=["length", "long length", "long rate", "nested", "path", "key"],
)
def test_line_of_a_list_is_shortened(line: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="line 1") as caught:
        parse_list(io.BytesIO(json.dumps(line).encode()), "x.jsonl", [Path("/nowhere")])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [10**5000, doubled(8), LONG], ids=["number", "lists", "text"])
def test_checkpoint_of_a_run_with_odd_values_is_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"trainer": {}, "format": value}, path)
    with pytest.raises(CheckpointError, match="a checkpoint of format") as caught:
        read_checkpoint(path)
    assert len(str(caught.value)) < len(str(path)) + 200
    before = {"family": "hac", "model": {"num_bits": value}}
    assert len(shape_change(before, {"family": "hac"}) or "") < 300


@pytest.mark.parametrize("values", [[1], {"step": [1]}, {"step": "x"}, {"step": {}}, None, "x"])
def test_optimizer_state_with_odd_values_is_refused(values: Any) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([parameter])
    with pytest.raises(CheckpointError, match="of another model"):
        load_moments(optimizer, [parameter], {"state": {0: values}})
