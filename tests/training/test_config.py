"""Training configs: bundled, published and wrong ones."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from codectool.errors import ConfigError, UsageError
from codectool.training.config import bundled, load, override, parse
from tests.conftest import GOLDEN
from tests.training.small import ADVERSARIAL, BIGCODEC, HAC, SOURCE, SUPERCODEC, config

PUBLISHED = GOLDEN / "supercodec_micro" / "config.json"
PHASES: dict[str, Any] = {"kind": "phase_coherence", "weight": 1, "windows": [64]}
ENVELOPES: dict[str, Any] = {"kind": "envelope", "weight": 1, "f_max": 3000}


def changed(key: str, value: Any, of: dict[str, Any] = HAC) -> dict[str, Any]:
    """Set a key of a config, or remove it if ``value`` is ``...``."""
    values = copy.deepcopy(of)
    *path, last = key.split(".")
    inside: Any = values
    for step in path:
        inside = inside[int(step)] if isinstance(inside, list) else inside[step]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    return values


@pytest.mark.parametrize("name", bundled())
def test_bundled_config_is_valid_and_round_trips(name: str) -> None:
    config = load(name)
    assert parse(config.to_json()) == config
    assert parse(json.loads(json.dumps(config.to_json()))) == config
    assert config.description
    with torch.device("meta"):  # the largest has 159 M parameters
        model = config.trainable.from_config(config.model)
    assert config.training.segment_size % config.crop_spec().hop_length == 0
    assert config.crop_spec().sample_rate == model.sample_rate
    assert set(config.training.auxiliary_losses) <= set(model.auxiliary_loss_names)


def test_names_of_bundled_configs() -> None:
    wanted = {"hac", "hac-v01", "hac-v02", "hac-3.6-v12", "hac-3.6-v13", "bigcodec", "supercodec"}
    assert wanted | {"bigcodec-small", "supercodec-small"} <= set(bundled())


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
        ("training.batch_size", 0, ["training.batch_size", "an integer >= 1"]),
        ("training.clip_norm", float("nan"), ["training.clip_norm", "finite"]),
        ("training.compile", 1, ["training.compile", "true or false"]),
        ("training.precision", "fp8", ["training.precision", "'fp32', 'bf16', 'fp16'"]),
        ("training.generator.kind", "sgd", ["training.generator.kind", "'adam', 'adamw'"]),
        ("training.generator.betas", [0.9], ["training.generator.betas", "a list of 2"]),
        ("training.generator.betas", [0.9, 1.0], ["training.generator.betas[1]", "< 1"]),
        ("training.losses.0.kind", "magic", ["training.losses[0].kind", "'mel'"]),
        ("training.losses.0.bands", [16], ["training.losses[0]", "windows and bands"]),
        ("training.losses", [], ["training.losses", "a list of >= 1"]),
        ("training.segment_size", 801, ["training.segment_size", "multiple of the hop length 40"]),
        ("training.segment_size", 40, ["training.segment_size", "too short"]),
        ("training.accumulation", 3, ["batch_size 4", "accumulation 3"]),
        ("training.max_epochs", 3, ["max_steps", "max_epochs"]),
        ("training.max_steps", ..., ["max_steps", "max_epochs"]),
        ("training.auxiliary_losses.beauty", 1.0, ["auxiliary_losses", "beauty", "commitment"]),
        ("training.ema", 1.0, ["training.ema", "< 1"]),
        ("training.gain_db", [3, -3], ["gain_db"]),
        ("training.adversarial", {"discriminators": []}, ["adversarial.discriminators", ">= 1"]),
        ("family", "opus", ["family", "'hac'"]),
        ("model.strides", [8, "5"], ["strides"]),
        ("model.beauty", 1, ["`model`", "beauty"]),
        ("training.losses.0.windows", [256, 63], ["training.losses[0]", "even"]),
        ("training.losses.0.windows", [], ["training.losses[0].windows", ">= 1"]),
        ("training.losses.0.bands", [16, 10**6], ["training.losses[0].bands[1]", "65536"]),
        ("training.losses.0.fft_size", 128, ["training.losses[0]", "fft_size 128 is shorter"]),
        ("training.losses.0.f_max", 5000, ["training.losses[0]", "f_max", "4000 Hz"]),
        ("training.losses.0.f_max", 0, ["training.losses[0]", "f_max 0.0 is not above"]),
        ("training.losses.0.f_min", 4000, ["training.losses[0]", "f_min", "4000 Hz"]),
        (
            "training.losses",
            [{**PHASES, "windows": [63]}],
            ["losses[0].windows[0]", "multiple of 2"],
        ),
        ("training.losses", [{**PHASES, "f_min": 2000}], ["f_max 1000.0 is not above f_min"]),
        ("training.losses", [{**PHASES, "f_max": 5000}], ["training.losses[0]", "4000 Hz"]),
        ("training.losses", [{**ENVELOPES, "window": 63}], ["losses[0].window", "multiple of 2"]),
        ("training.losses", [{**ENVELOPES, "frames": 1}], ["losses[0].frames", "an integer >= 2"]),
        ("training.losses", [{**ENVELOPES, "f_min": 0}], ["losses[0].f_min", "a number > 0"]),
        ("training.losses", [{**ENVELOPES, "f_min": 3000}], ["f_max 3000.0 is not above f_min"]),
        ("training.losses", [{**ENVELOPES, "f_max": 5000}], ["training.losses[0]", "4000 Hz"]),
        ("training.losses.0.power", True, ["training.losses[0].power", "1, 2", "True"]),
        ("training.losses.1.weight", -1, ["training.losses[1].weight", "a number >= 0"]),
        ("training.auxiliary_losses.entropy", -0.1, ["auxiliary_losses.entropy", ">= 0"]),
        ("training.generator.eps", -1e-8, ["training.generator.eps"]),
        ("training.generator.learning_rate", 0, ["training.generator.learning_rate", "> 0"]),
        ("training.schedule.warmup_epochs", 2, ["training.schedule", "not both"]),
        ("training.schedule.warmup_power", 0, ["training.schedule.warmup_power"]),
        ("training.schedule.final", 1.5, ["training.schedule.final", "a number <= 1"]),
        ("training.dead_code_threshold", 2, ["training.dead_code_threshold", "hac"]),
        ("training.num_workers", -1, ["training.num_workers"]),
        ("training.seed", -1, ["training.seed"]),
        ("training.keep", -1, ["training.keep"]),
        ("training.start_padding_prob", 1.1, ["training.start_padding_prob"]),
        ("training.batch_size", 10**40, ["batch_size"]),
    ],
)
def test_wrong_value_is_named(key: str, value: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(changed(key, value))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("segment_size", 900, ["adversarial.segment_size 900 is longer than segment_size 800"]),
        ("segment_size", 0, ["training.adversarial.segment_size", ">= 1"]),
        ("start", 1.1, ["training.adversarial.start", "1.1"]),
        ("every", 0, ["training.adversarial.every"]),
        ("loss", "wasserstein", ["training.adversarial.loss", "'hinge'"]),
        ("feature_weight", -1, ["training.adversarial.feature_weight"]),
        (
            "balance",
            {"mel": 1, "beauty": 2},
            ["`training`", "adversarial.balance: unknown loss beauty"],
        ),
        ("balance", {"mel": 1, "features": 1}, ["no norm for adversarial, waveform"]),
        ("balance", {**ADVERSARIAL["balance"], "mel": -1}, ["training.adversarial.balance.mel"]),
        ("discriminators", [{"kind": "periods", "periods": []}], ["[0].periods", ">= 1"]),
        ("discriminators", [{"kind": "periods", "periods": [0]}], ["[0].periods[0]", ">= 1"]),
        ("discriminators", [{"kind": "filter_bands", "bands": [21]}], ["[0]", "1 to 20"]),
        ("discriminators", [{"kind": "complex_stft", "windows": [30]}], ["[0]", "multiple of 4"]),
        ("discriminators", [{"kind": "wavelets"}], ["discriminators[0].kind", "'filter_bands'"]),
        ("discriminators", [{"kind": "filter_bands", "channels": [2, 0]}], ["[0]", "channels"]),
    ],
)
def test_wrong_adversarial_value_is_named(key: str, value: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(changed("training.adversarial", {**ADVERSARIAL, key: value}))
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [HAC, SUPERCODEC, BIGCODEC])
@pytest.mark.parametrize("wrong", [0, -1, "many", None, 2.5, True, [], 10**9])
def test_wrong_hyper_parameter_is_named(values: dict[str, Any], wrong: Any) -> None:
    """Each value is refused by name, or a model can be built."""

    def keys(part: Any, path: str) -> list[str]:
        if isinstance(part, dict):
            return [key for name in part for key in keys(part[name], f"{path}.{name}")]
        return [path]

    def refusal(key: str) -> str | None:
        try:
            config = parse(changed(key, wrong, values))
        except ConfigError as error:
            return str(error)
        with torch.device("meta"):
            config.trainable.from_config(config.model)
        return None

    for key in keys(values["model"], "model"):
        message = refusal(key)
        if message is not None:
            assert key.rpartition(".")[2] in message or "segment_size" in message, message
            assert "\n" not in message


def test_deep_nesting_is_refused() -> None:
    values: Any = 1
    for _ in range(900):
        values = [values]
    with pytest.raises(ConfigError):
        parse(override({**HAC, "model": values}, []))


def test_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(changed("training.batch_size", "many")))
    with pytest.raises(ConfigError, match=re.escape(f"{path}: `training.batch_size`")):
        load(str(path))
    with pytest.raises(ConfigError, match="nowhere.json"):
        load(str(tmp_path / "nowhere.json"))
    with pytest.raises(ConfigError, match="neither a file nor a bundled config; choose from big"):
        load("hacc")


def test_override_sets_values_and_keeps_the_original() -> None:
    values = {"a": {"b": [1, {"c": 2}]}, "d": None}
    result = override(values, ["a.b.1.c=3", "a.b.0=true", "d.e=text", 'f={"g": [1]}', "a.h=0.5"])
    assert result == {
        "a": {"b": [True, {"c": 3}], "h": 0.5},
        "d": {"e": "text"},
        "f": {"g": [1]},
    }
    assert values == {"a": {"b": [1, {"c": 2}]}, "d": None}, "the original is unchanged"
    assert override({"a": [None]}, ["a.0.b=NaN", "c=01"])["a"][0].keys() == {"b"}
    assert override({}, ["c=01", "d=a=b", " e =1"]) == {"c": "01", "d": "a=b", "e": 1}


@pytest.mark.parametrize(
    "assignment", ["novalue", "=3", "a..b=3", "a.b.7=1", "a.b.0.c=1", "a.b.-1=1"]
)
def test_override_of_missing_key_is_refused(assignment: str) -> None:
    with pytest.raises(UsageError, match=f"--set .*{re.escape(assignment)}"):
        override({"a": {"b": [1, 2]}}, [assignment])


def test_published_supercodec_config_is_translated() -> None:
    published = json.loads(PUBLISHED.read_text())
    config = load(str(PUBLISHED), ["batch_size=2"])
    training = config.training
    assert config.family == "supercodec"
    assert training.batch_size == 2
    assert training.segment_size == published["segment_size"]
    assert training.max_epochs == published["max_epoch"]
    assert training.generator.learning_rate == published["lr"]
    assert training.discriminator is not None
    assert training.discriminator.learning_rate == published["disc_lr"]
    assert training.generator.betas == (0.5, 0.9)
    assert config.model["strides"] == published["strides"]
    assert parse(config.to_json()) == config


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("lr", ..., ["lr", "missing"]),
        ("lr", "fast", ["lr", "number"]),
        ("codebooks", 3, ["unknown key `codebooks`"]),
        ("warmup_epochs", 3, ["unknown key `warmup_epochs`; did you mean `warmup_epoch`"]),
        ("strides", [4, "5"], ["strides[1]", "integer"]),
        ("fmax_for_loss", "all", ["fmax_for_loss", "number"]),
        ("rq_num_quantizers", ..., ["key `rq_num_quantizers` is missing"]),
        ("segment_size", 16001, ["segment_size", "hop"]),
    ],
)
def test_wrong_published_config_is_refused(
    tmp_path: Path, key: str, value: Any, words: list[str]
) -> None:
    values = json.loads(PUBLISHED.read_text())
    values.pop(key, None)
    if value is not ...:
        values[key] = value
    path = tmp_path / "config_v1.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_published_and_bundled_supercodec_training_are_equal() -> None:
    assert load(str(PUBLISHED)).training == load("supercodec").training


def test_epochs_are_converted_to_steps() -> None:
    values = changed("training.max_steps", ...)
    values["training"] |= {"max_epochs": 5, "schedule": {"warmup_epochs": 2}}
    training = parse(values).training.in_steps(items_per_epoch=42)  # ten batches of four
    assert (training.max_steps, training.schedule.warmup_steps) == (50, 20)


def test_old_names_of_keys_are_read() -> None:
    values = changed("training.auxiliary_losses", ...)
    values["training"] |= {
        "penalties": {"commitment": 1, "whiteness": 2},
        "early_start": 0.25,
        "silence": 0.125,
        "losses": [{**PHASES, "kind": "coherence"}],
        "adversarial": {
            **ADVERSARIAL,
            "balance": {"coherence": 1, "adversarial": 1, "features": 1},
        },
    }
    del values["training"]["start_padding_prob"]
    training = parse(override(values, ["training.silence=0.5"])).training
    assert training.auxiliary_losses == {"commitment": 1, "decorrelation": 2}
    assert (training.start_padding_prob, training.silence_prob) == (0.25, 0.5)
    assert training.losses[0].kind == "phase_coherence"
    assert training.adversarial is not None
    assert training.adversarial.balance == {"phase_coherence": 1, "adversarial": 1, "features": 1}
    with pytest.raises(ConfigError, match="`silence` is the old name of `silence_prob`"):
        parse(changed("training.silence", 0.1, changed("training.silence_prob", 0.2)))


@pytest.mark.parametrize("kind", ["pitch", "source_level"])
def test_losses_of_a_source_need_one(kind: str) -> None:
    losses = [*HAC["training"]["losses"], {"kind": kind, "weight": 1}]
    with pytest.raises(ConfigError, match=rf"`training.losses\[2\]`: {kind} is for decoders"):
        config(HAC, losses=losses)
    config(HAC, f"model.source={json.dumps(SOURCE)}", losses=losses)
