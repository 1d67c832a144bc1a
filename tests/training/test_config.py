"""Configs: what is right stays as it is, what is wrong is named in one line."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from codectool.errors import CodectoolError, ConfigError, UsageError
from codectool.training.config import load, override, parse, shipped
from codectool.training.models import build
from tests.conftest import GOLDEN
from tests.training.small import HAC

RELEASED = GOLDEN / "supercodec_micro" / "config.json"


def changed(key: str, value: Any) -> dict[str, Any]:
    """`HAC` with one key set, or removed where ``value`` is ``...``."""
    values = copy.deepcopy(HAC)
    *path, last = key.split(".")
    inside: Any = values
    for step in path:
        inside = inside[int(step)] if isinstance(inside, list) else inside[step]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    return values


@pytest.mark.parametrize("name", shipped())
def test_shipped_configs_are_whole(name: str) -> None:
    config = load(name)
    assert parse(config.to_json()) == config
    assert parse(json.loads(json.dumps(config.to_json()))) == config
    assert config.description
    with torch.device("meta"):  # the largest has 159 M parameters
        trainee = build(config)
    assert config.training.segment_size % trainee.hop_length == 0
    assert set(config.training.penalties) <= set(trainee.penalty_names)


def test_shipped_names() -> None:
    wanted = {"hac", "hac-v01", "hac-v02", "hac-3.6-v12", "hac-3.6-v13", "bigcodec", "supercodec"}
    assert wanted | {"bigcodec-small", "supercodec-small"} <= set(shipped())


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("training.batchsize", 4, ["training.batchsize", "did you mean `batch_size`"]),
        ("colour", "red", ["unknown key `colour`"]),
        ("training.batch_size", ..., ["training.batch_size", "missing"]),
        ("training.generator.learning_rate", ..., ["training.generator.learning_rate", "missing"]),
        ("training.batch_size", 4.5, ["training.batch_size", "integer", "4.5"]),
        ("training.batch_size", True, ["training.batch_size", "integer", "True"]),
        ("training.batch_size", "8", ["training.batch_size", "integer"]),
        ("training.batch_size", 0, ["batch_size", "1 or more"]),
        ("training.clip_norm", float("nan"), ["training.clip_norm", "finite"]),
        ("training.compile", 1, ["training.compile", "true or false"]),
        ("training.precision", "fp8", ["training.precision", "'fp32', 'bf16', 'fp16'"]),
        ("training.generator.kind", "sgd", ["training.generator.kind", "'adam', 'adamw'"]),
        ("training.generator.betas", [0.9], ["training.generator.betas", "a list of 2"]),
        ("training.generator.betas", [0.9, 1.0], ["training.generator", "betas"]),
        ("training.losses.0.kind", "magic", ["training.losses[0].kind", "'mel'"]),
        ("training.losses.0.bands", [16], ["training.losses[0]", "windows and bands"]),
        ("training.losses", [], ["losses is empty"]),
        ("training.segment_size", 801, ["training.segment_size", "multiple of the hop length 40"]),
        ("training.segment_size", 40, ["training.segment_size", "too short"]),
        ("training.accumulation", 3, ["batch_size 4", "accumulation 3"]),
        ("training.max_epochs", 3, ["max_steps", "max_epochs"]),
        ("training.max_steps", ..., ["max_steps", "max_epochs"]),
        ("training.penalties.beauty", 1.0, ["penalties", "beauty", "commitment"]),
        ("training.ema", 1.0, ["ema"]),
        ("training.gain_db", [3, -3], ["gain_db"]),
        ("training.adversarial", {"discriminators": []}, ["training.adversarial", "empty"]),
        ("family", "opus", ["family", "'hac'"]),
        ("model.strides", [8, "5"], ["strides"]),
        ("model.beauty", 1, ["beauty"]),
    ],
)
def test_what_is_wrong_is_named(key: str, value: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(changed(key, value))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(changed("training.batch_size", "many")))
    with pytest.raises(ConfigError, match=re.escape(f"{path}: `training.batch_size`")):
        load(str(path))
    with pytest.raises(ConfigError, match="nowhere.json"):
        load(str(tmp_path / "nowhere.json"))
    with pytest.raises(ConfigError, match="neither a file nor one of the shipped configs: big"):
        load("hacc")


def test_override() -> None:
    values = {"a": {"b": [1, {"c": 2}]}, "d": None}
    result = override(values, ["a.b.1.c=3", "a.b.0=true", "d.e=text", 'f={"g": [1]}', "a.h=0.5"])
    assert result == {
        "a": {"b": [True, {"c": 3}], "h": 0.5},
        "d": {"e": "text"},
        "f": {"g": [1]},
    }
    assert values == {"a": {"b": [1, {"c": 2}]}, "d": None}, "the original stays"


@pytest.mark.parametrize("assignment", ["novalue", "=3", "a..b=3", "a.b.7=1", "a.b.0.c=1"])
def test_override_that_leads_nowhere(assignment: str) -> None:
    with pytest.raises(CodectoolError) as caught:
        override({"a": {"b": [1, 2]}}, [assignment])
    assert isinstance(caught.value, UsageError)


def test_released_supercodec_config_runs_as_it_is() -> None:
    released = json.loads(RELEASED.read_text())
    config = load(str(RELEASED), ["batch_size=2"])
    training = config.training
    assert config.family == "supercodec"
    assert training.batch_size == 2
    assert training.segment_size == released["segment_size"]
    assert training.max_epochs == released["max_epoch"]
    assert training.generator.learning_rate == released["lr"]
    assert training.discriminator is not None
    assert training.discriminator.learning_rate == released["disc_lr"]
    assert training.generator.betas == (0.5, 0.9)
    assert config.model["strides"] == released["strides"]
    assert parse(config.to_json()) == config


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("lr", ..., ["lr", "missing"]),
        ("lr", "fast", ["lr", "number"]),
        ("codebooks", 3, ["codebooks", "unknown"]),
        ("segment_size", 16001, ["segment_size", "hop"]),
    ],
)
def test_wrong_released_config(tmp_path: Path, key: str, value: Any, words: list[str]) -> None:
    values = json.loads(RELEASED.read_text())
    values.pop(key, None)
    if value is not ...:
        values[key] = value
    path = tmp_path / "config_v1.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_epochs_become_steps() -> None:
    values = changed("training.max_steps", ...)
    values["training"] |= {"max_epochs": 5, "schedule": {"warmup_epochs": 2}}
    training = parse(values).training.in_steps(items_per_epoch=42)  # ten batches of four
    assert (training.max_steps, training.schedule.warmup_steps) == (50, 20)
