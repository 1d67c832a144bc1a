"""Training runs: results, stopping and resuming, errors, start from other weights."""

from __future__ import annotations

import json
import os
import pickle
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from msgspec.structs import replace
from safetensors.torch import load_file

import codectool
from codectool.checkpoints.load import read_weights
from codectool.checkpoints.published import model_name
from codectool.codec import Codec
from codectool.errors import (
    CheckpointError,
    CodectoolError,
    ConfigError,
    TrainingError,
    UsageError,
)
from codectool.torch_runner import TorchRunner
from codectool.training import metrics_log, stop_signals
from codectool.training import run as running
from codectool.training.checkpoint import BEST, LAST, read_checkpoint, read_weights_of_run
from codectool.training.config import RunConfig, load, parse
from codectool.training.metrics_log import StepMeter, read_metrics
from codectool.training.run import Callbacks, RunResult, train
from codectool.training.trainer import StepReport, Trainer
from codectool.training.validation import ValidationResult
from tests.conftest import GOLDEN
from tests.training import small

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.speech(tmp_path_factory.mktemp("run") / "speech")


@pytest.fixture
def hac(speech: Path) -> RunConfig:
    """Twelve steps, the last ten with a discriminator."""
    adversarial = {**small.ONE_DISCRIMINATOR, "start": 0.15}
    return small.with_data(small.config(adversarial=adversarial, save_every=6), speech)


def content(folder: Path, name: str = LAST) -> dict[str, Any]:
    """Return the part of a checkpoint that is deterministic."""
    state = read_checkpoint(folder / name)
    del state["seconds"], state["valid"]
    return state


def assert_same_end(one: Path, other: Path) -> None:
    assert not small.differing(content(one), content(other))
    weights = [(folder / "model.safetensors").read_bytes() for folder in (one, other)]
    assert weights[0] == weights[1]


def assert_same_weights(folder: Path) -> None:
    """Assert that the last checkpoint of a run yields what its ``model.safetensors`` holds."""
    family, state, config = read_weights_of_run(folder / LAST)
    stored_family, stored, stored_config = read_weights(folder)
    assert (family, config) == (stored_family, stored_config)
    assert state.keys() == stored.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())


def keep_only(folder: Path, step: int, into: Path) -> Path:
    """Copy the state of a run that was killed some time after a step."""
    into.mkdir()
    (into / LAST).write_bytes((folder / f"step_{step:08d}.ckpt").read_bytes())
    return into


class RecordingCallbacks(Callbacks):
    """Callbacks that keep what they are called with."""

    def __init__(self) -> None:
        self.steps: list[running.Progress] = []
        self.messages: list[str] = []
        self.warnings: list[str] = []
        super().__init__(self.steps.append, self.messages.append, self.warnings.append)


# -- stopping and resuming ---------------------------------------------------------------------


@pytest.mark.parametrize("values", [small.HAC, small.SUPERCODEC, small.BIGCODEC])
def test_resumed_run_is_bit_equal_to_uninterrupted_run(
    values: dict[str, Any], speech: Path, tmp_path: Path
) -> None:
    """Weights, averages, moments, balancer, codebooks and random states.

    The validation after step 5 does not change the random numbers of training.
    """
    segment_size = values["training"]["segment_size"] // 2
    adversarial = {**small.ONE_DISCRIMINATOR, "start": 0.25, "segment_size": segment_size}
    settings = {"adversarial": {**adversarial, "every": 2}, "save_every": 6, "validate_every": 5}
    config = small.with_data(small.config(values, **settings), speech, speech)
    assert train(config, tmp_path / "whole").finished
    resumed = keep_only(tmp_path / "whole", 6, tmp_path / "resumed")
    if values is small.HAC:  # with workers
        config = small.with_data(small.config(values, **settings, num_workers=2), speech, speech)
    train(config, resumed, resume=True)
    one, other = content(tmp_path / "whole"), content(resumed)
    del one["trainer"]["config"], other["trainer"]["config"]
    assert not small.differing(one, other)
    assert other["trainer"]["discriminator_optimizer"]["state"]
    assert_same_weights(tmp_path / "whole")
    weights = [load_file(f / "model.safetensors") for f in (tmp_path / "whole", resumed)]
    assert not small.differing(*weights)


def test_same_seed_gives_the_same_weights(hac: RunConfig, tmp_path: Path) -> None:
    for name in ("one", "other"):
        torch.rand(3)  # earlier random numbers do not matter
        train(hac, tmp_path / name)
    assert_same_end(tmp_path / "one", tmp_path / "other")
    other_seed = replace(hac, training=replace(hac.training, seed=8))
    train(other_seed, tmp_path / "third")
    assert small.differing(content(tmp_path / "one"), content(tmp_path / "third"))


def signal_in_step(monkeypatch: pytest.MonkeyPatch, step: int, *numbers: signal.Signals) -> None:
    """Send signals in the middle of a step."""
    original = Trainer.step

    def step_and_signal(
        self: Trainer, batch: torch.Tensor, progress: float, *rest: Any
    ) -> StepReport:
        report = original(self, batch, progress, *rest)
        if self.steps == step:
            for number in numbers:
                os.kill(os.getpid(), number)
        return report

    monkeypatch.setattr(Trainer, "step", step_and_signal)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_saves_and_stops(
    number: signal.Signals, hac: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(hac, tmp_path / "whole")
    handlers = [signal.getsignal(each) for each in SIGNALS]
    with monkeypatch.context() as context:
        signal_in_step(context, 5, number, number)  # from torchrun and a terminal
        result = train(hac, tmp_path / "stopped")
    assert result == RunResult(5, finished=False, signal=int(number), valid={})
    assert [signal.getsignal(each) for each in SIGNALS] == handlers
    assert read_checkpoint(tmp_path / "stopped" / LAST)["trainer"]["steps"] == 5
    assert train(hac, tmp_path / "stopped", resume=True).finished
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")


def test_second_signal_stops_immediately(
    hac: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop_signals, "SAME_REQUEST_S", -1.0)
    signal_in_step(monkeypatch, 8, signal.SIGTERM, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(hac, tmp_path / "run")
    assert read_checkpoint(tmp_path / "run" / LAST)["trainer"]["steps"] == 6


def test_signal_in_the_last_step_is_ignored(
    hac: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_in_step(monkeypatch, 12, signal.SIGINT)
    assert train(hac, tmp_path / "run") == RunResult(12, finished=True, signal=None, valid={})


def test_interrupt_while_saving_keeps_the_last_checkpoint(
    hac: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def save_half(state: dict[str, Any], file: Any) -> None:
        save(state, file)
        if state["trainer"]["steps"] == 12:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", save_half)
    with pytest.raises(KeyboardInterrupt):
        train(hac, tmp_path / "run")
    assert read_checkpoint(tmp_path / "run" / LAST)["trainer"]["steps"] == 6
    assert not list((tmp_path / "run").glob(".*"))


def test_max_hours_ends_a_run(hac: RunConfig, tmp_path: Path) -> None:
    """More hours continue it."""
    recorded = RecordingCallbacks()
    result = train(hac, tmp_path / "run", max_hours=1e-7, callbacks=recorded)
    assert (result.step, result.finished) == (1, True)
    assert recorded.steps[-1].share == 1
    train(hac, tmp_path / "run", max_hours=1e-7, resume=True)
    assert read_checkpoint(tmp_path / "run" / LAST)["trainer"]["steps"] == 1
    assert train(hac, tmp_path / "run", resume=True).step == 12


def test_finished_run_can_be_extended(hac: RunConfig, tmp_path: Path) -> None:
    train(hac, tmp_path / "run")
    longer = replace(hac, training=replace(hac.training, max_steps=14))
    assert train(longer, tmp_path / "run", resume=True).step == 14
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == longer.to_json()


def test_changed_settings_apply_when_resumed(hac: RunConfig, tmp_path: Path) -> None:
    """The settings in the checkpoint are not restored."""
    train(hac, tmp_path / "run")
    training = hac.training
    generator = replace(training.generator, betas=(0.5, 0.6), weight_decay=0.5, eps=1e-3)
    assert training.adversarial is not None
    balance = {**(training.adversarial.balance or {}), "mel": 0.1}
    changed = replace(
        training,
        max_steps=13,
        generator=generator,
        ema=None,
        adversarial=replace(training.adversarial, balance=balance),
    )
    train(replace(hac, training=changed), tmp_path / "run", resume=True)
    decayed, other = read_checkpoint(tmp_path / "run" / LAST)["trainer"]["optimizer"][
        "param_groups"
    ]
    assert tuple(decayed["betas"]) == (0.5, 0.6)
    assert (decayed["eps"], decayed["weight_decay"], other["weight_decay"]) == (1e-3, 0.5, 0.0)


def test_added_average_and_discriminators_start_when_resumed(speech: Path, tmp_path: Path) -> None:
    plain = small.with_data(small.config(max_steps=4, ema=None), speech)
    train(plain, tmp_path / "run")
    adversarial = {**small.ONE_DISCRIMINATOR, "start": 0.0}
    more = small.config(max_steps=6, ema=0.9, adversarial=adversarial)
    train(small.with_data(more, speech), tmp_path / "run", resume=True)
    trainer = read_checkpoint(tmp_path / "run" / LAST)["trainer"]
    assert trainer["average"]["count"] == 2
    steps = {
        float(moments["step"]) for moments in trainer["discriminator_optimizer"]["state"].values()
    }
    assert steps == {2.0}


# -- errors ------------------------------------------------------------------------------------


def test_existing_run_is_not_overwritten(hac: RunConfig, tmp_path: Path) -> None:
    train(hac, tmp_path)
    before = (tmp_path / LAST).read_bytes()
    with pytest.raises(UsageError, match=r"holds a run already; continue it with `--resume`"):
        train(hac, tmp_path)
    assert (tmp_path / LAST).read_bytes() == before


def test_resume_starts_a_missing_run(hac: RunConfig, tmp_path: Path) -> None:
    assert train(hac, tmp_path / "new" / "folder", resume=True).step == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model.num_bits=5"], r"the run was started with `model.num_bits` 6, the config says 5"),
        (["model.encoder_hidden=[8,16]"], r"`model.encoder_hidden\[1\]` 12, the config says 16"),
        (
            ["training.adversarial.discriminators.0.channels=[2,2,2,2,3]"],
            r"`training.adversarial.discriminators\[0\].channels\[4\]` 2, the config says 3",
        ),
    ],
)
def test_resume_with_another_model_is_refused(
    changes: list[str], message: str, hac: RunConfig, tmp_path: Path
) -> None:
    train(hac, tmp_path)
    other = small.config(hac.to_json(), *changes)
    with pytest.raises(ConfigError, match=rf"last\.ckpt: .*{message}"):
        train(other, tmp_path, resume=True)


def test_resume_with_another_family_is_refused(speech: Path, tmp_path: Path) -> None:
    train(small.with_data(small.config(max_steps=1), speech), tmp_path)
    other = small.with_data(small.config(small.BIGCODEC), speech)
    message = "the run was started with `family` 'hac', the config says 'bigcodec'"
    with pytest.raises(ConfigError, match=message):
        train(other, tmp_path, resume=True)


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch exploded",)


@pytest.fixture(scope="module")
def checkpoint(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("checkpoint")
    train(small.with_data(small.config(max_steps=1), speech), folder)
    return read_checkpoint(folder / LAST)


def write_broken(case: str, path: Path, checkpoint: dict[str, Any]) -> None:
    if case == "empty":
        path.write_bytes(b"")
    elif case == "text":
        path.write_text("step 3000")
    elif case == "folder":
        path.mkdir()
    elif case == "half":
        torch.save(checkpoint, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif case == "code":
        torch.save({**checkpoint, "valid": Bomb()}, path)
    elif case == "old code":
        path.write_bytes(pickle.dumps({**{"trainer": {}}, "valid": Bomb()}))
    elif case == "weights":
        torch.save(checkpoint["trainer"]["model"], path)
    elif case == "later format":
        torch.save({**checkpoint, "format": 99}, path)
    elif case == "no optimizer":
        others = {k: v for k, v in checkpoint["trainer"].items() if k != "optimizer"}
        torch.save({**checkpoint, "trainer": others}, path)
    elif case == "no steps":
        torch.save({**checkpoint, "trainer": {**checkpoint["trainer"], "steps": None}}, path)


CASES = {
    "empty": "",
    "text": "",
    "folder": "",
    "half": "",
    "code": "run `posix.system`",
    "old code": "",
    "weights": "not a checkpoint of a training run",
    "later format": "a checkpoint of format 99; this version of codectool reads format 2",
    "no optimizer": "the state of the training run is incomplete",
    "no steps": "the state of the training run is incomplete",
}


@pytest.mark.parametrize("case", CASES)
def test_damaged_or_other_checkpoint_is_refused(
    case: str,
    checkpoint: dict[str, Any],
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_broken(case, tmp_path / LAST, checkpoint)
    config = small.with_data(small.config(max_steps=1), speech)
    with pytest.raises(CodectoolError, match=f"last.ckpt.*{CASES[case]}") as caught:
        train(config, tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


def test_missing_training_data_is_refused(hac: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --train-files a folder or a list"):
        train(replace(hac, data=None), tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty: holds no audio that can be read"):
        train(small.with_data(hac, tmp_path / "empty"), tmp_path / "run")
    with pytest.raises(UsageError, match=r"nowhere"):
        train(small.with_data(hac, tmp_path / "nowhere"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_short_crops_are_refused_before_the_run_starts(hac: RunConfig, tmp_path: Path) -> None:
    config = small.config(hac.to_json(), "training.losses.0.windows=[1024,64]")
    with pytest.raises(ConfigError, match=r"`training.losses`: 760 samples are too few .* 1024"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_uneven_batch_is_refused(
    hac: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "world_size", lambda: 3)
    with pytest.raises(UsageError, match=r"batch_size 4 cannot be split evenly over 3 processes"):
        train(hac, tmp_path / "run")


# -- unusable audio ----------------------------------------------------------------------------


def test_unusable_files_are_named_once(speech: Path, tmp_path: Path, hac: RunConfig) -> None:
    """A file that is no audio, and a file shorter than the list says, which only a step finds."""
    (tmp_path / "noise.wav").write_bytes(b"RIFF but nothing else")
    soundfile.write(tmp_path / "cut.wav", np.zeros(2000, np.float32), 8000)
    lines = [*map(str, sorted(speech.iterdir()))]
    lines += [str(tmp_path / "noise.wav"), f"{tmp_path / 'cut.wav'}\t200000\t8000"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    recorded = RecordingCallbacks()
    assert train(small.with_data(hac, tmp_path / "list.txt"), tmp_path / "run", callbacks=recorded)
    noise, without, cut = recorded.warnings
    assert noise.startswith(str(tmp_path / "noise.wav"))
    assert noise.endswith("; left out")
    assert "no --valid-files" in without
    assert cut.startswith(f"{tmp_path / 'cut.wav'}: has 2000 samples at 8000 Hz, but the list ")
    assert cut.endswith("; left out")


def test_run_is_saved_when_all_files_become_unreadable(
    tmp_path: Path, hac: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = small.speech(tmp_path / "speech", 2)
    original = Trainer.step

    def step_and_delete(
        self: Trainer, batch: torch.Tensor, progress: float, *rest: Any
    ) -> StepReport:
        if self.steps == 4:
            for path in speech.iterdir():
                path.write_bytes(b"")
        return original(self, batch, progress, *rest)

    monkeypatch.setattr(Trainer, "step", step_and_delete)
    with pytest.raises(CodectoolError, match="files of a batch could be read"):
        train(small.with_data(hac, speech), tmp_path / "run")
    assert read_checkpoint(tmp_path / "run" / LAST)["trainer"]["steps"] == 5
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["kind"] == "event"


# -- non-finite losses -------------------------------------------------------------------------


def make_batches_nan(monkeypatch: pytest.MonkeyPatch, steps: range) -> None:
    original = Trainer.step

    def step(self: Trainer, batch: torch.Tensor, progress: float, *rest: Any) -> StepReport:
        return original(self, batch * torch.nan if self.steps in steps else batch, progress)

    monkeypatch.setattr(Trainer, "step", step)


def test_skipped_steps_are_counted_and_reported(
    hac: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_batches_nan(monkeypatch, range(4, 7))
    recorded = RecordingCallbacks()
    train(hac, tmp_path, callbacks=recorded)
    assert read_checkpoint(tmp_path / LAST)["trainer"]["skipped"] == 3
    warnings = [line for line in recorded.warnings if "skipped" in line]
    assert [line.partition(" of ")[0] for line in warnings] == ["step 6: 2", "step 8: 1"]
    assert all("loss" in line and "files: " in line for line in warnings)
    entries = read_metrics(tmp_path / "metrics.jsonl")
    events = [entry for entry in entries if entry["kind"] == "event"]
    assert [entry["step"] for entry in events] == [5, 6, 7]
    assert all(str(tmp_path.parent) in entry["message"] for entry in events)
    entries = [entry for entry in entries if entry["kind"] == "train"]
    assert [entry.get("skipped") for entry in entries] == [None, None, 2.0, 1.0, None, None]
    assert "loss" not in entries[2]


@pytest.mark.parametrize(("values", "first"), [(small.HAC, 3), (small.SUPERCODEC, 0)])
def test_too_many_skipped_steps_end_and_save_the_run(
    values: dict[str, Any],
    first: int,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also from the first step, when SuperCodec has no codebooks yet."""
    make_batches_nan(monkeypatch, range(first, 1000))
    config = small.with_data(small.config(values, max_bad_steps=4), speech)
    with pytest.raises(TrainingError, match="4 consecutive steps .* not finite"):
        train(config, tmp_path)
    trainer = read_checkpoint(tmp_path / LAST)["trainer"]
    assert (trainer["steps"], trainer["skipped"]) == (first + 4, 4)
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["message"].startswith("4 consecutive steps")
    assert (tmp_path / "model.safetensors").exists() == (first > 0)
    monkeypatch.undo()
    assert train(config, tmp_path, resume=True).finished


def test_gradient_that_is_not_finite_is_named_with_step_and_files(
    hac: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As gradients of bf16 convolutions on a CPU whose channels are no multiple of 8."""
    original = Trainer.step
    names: list[str] = []

    def step(self: Trainer, batch: torch.Tensor, progress: float, *rest: Any) -> StepReport:
        name, weight = list(self.model.named_parameters())[3]
        names.append(name)
        handle = weight.register_hook(lambda grad: grad * (torch.nan if self.steps == 4 else 1))
        try:
            return original(self, batch, progress, *rest)
        finally:
            handle.remove()

    recorded = RecordingCallbacks()
    monkeypatch.setattr(Trainer, "step", step)
    train(hac, tmp_path, callbacks=recorded)
    (warning,) = [line for line in recorded.warnings if "skipped" in line]
    assert f"step 5, grad_norm, gradient of {names[0]} not finite, files: " in warning
    (event,) = [e for e in read_metrics(tmp_path / "metrics.jsonl") if e["kind"] == "event"]
    assert event["step"] == 5
    assert ".wav" in event["message"]


def test_weights_that_are_not_finite_are_never_saved(
    hac: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer.step

    def step(self: Trainer, batch: torch.Tensor, progress: float, *rest: Any) -> StepReport:
        report = original(self, batch, progress, *rest)
        if self.steps == 8:
            with torch.no_grad():
                next(self.model.parameters()).fill_(torch.inf)
        return report

    monkeypatch.setattr(Trainer, "step", step)
    config = replace(hac, training=replace(hac.training, save_every=4, max_bad_steps=2))
    with pytest.raises(
        TrainingError, match=r"consecutive steps|is not finite, so nothing is saved"
    ):
        train(config, tmp_path)
    state = read_checkpoint(tmp_path / LAST)["trainer"]
    assert state["steps"] == 4
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    tensors = load_file(tmp_path / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    monkeypatch.undo()
    assert train(config, tmp_path, resume=True).finished


def test_checkpoint_with_weights_that_are_not_finite_is_refused(
    hac: RunConfig, tmp_path: Path
) -> None:
    train(hac, tmp_path)
    state = torch.load(tmp_path / LAST, weights_only=True)
    floats = {k: v for k, v in state["trainer"]["model"].items() if v.is_floating_point()}
    name, tensor = next(iter(floats.items()))
    tensor.fill_(torch.nan)
    torch.save(state, tmp_path / LAST)
    with pytest.raises(CheckpointError, match=rf"{name} is not finite; start from an earlier"):
        train(hac, tmp_path, resume=True)


# -- changed training audio --------------------------------------------------------------------


def test_resuming_with_other_audio_is_reported(hac: RunConfig, tmp_path: Path) -> None:
    speech = small.speech(tmp_path / "speech")
    config = small.with_data(hac, speech)
    train(small.with_data(small.config(hac.to_json(), max_steps=6), speech), tmp_path / "run")
    speech = speech.rename(tmp_path / "moved")  # the folder does not count
    recorded = RecordingCallbacks()
    moved = small.with_data(small.config(hac.to_json(), max_steps=8), speech)
    train(moved, tmp_path / "run", resume=True, callbacks=recorded)
    assert not [line for line in recorded.warnings if "training audio" in line]
    (speech / "0.wav").unlink()
    train(small.with_data(config, speech), tmp_path / "run", resume=True, callbacks=recorded)
    (warning,) = [line for line in recorded.warnings if "training audio" in line]
    assert "(6 files, 0.00 h; now 5 files, 0.00 h)" in warning
    entries = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [entry["message"] for entry in entries if entry["kind"] == "event"] == [warning]


# -- files of a run ----------------------------------------------------------------------------


def test_newest_checkpoints_are_kept(hac: RunConfig, tmp_path: Path) -> None:
    config = replace(hac, training=replace(hac.training, save_every=2, keep=3))
    train(config, tmp_path / "three")
    names = sorted(path.name for path in (tmp_path / "three").glob("step_*"))
    assert names == ["step_00000008.ckpt", "step_00000010.ckpt", "step_00000012.ckpt"]
    for name in names:
        steps = read_checkpoint(tmp_path / "three" / name)["trainer"]["steps"]
        assert name == f"step_{steps:08d}.ckpt"
    train(replace(config, training=replace(config.training, keep=0)), tmp_path / "none")
    assert not list((tmp_path / "none").glob("step_*"))
    assert (tmp_path / "none" / LAST).exists()


def test_best_checkpoint_has_the_lowest_mel_distance(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best value is kept when the run is resumed."""
    scores = iter([5.0, 3.0, 4.0, 3.5, 2.9, 9.0])

    def validate(codec: Any, clips: Any) -> ValidationResult:
        result = original(codec, clips)
        return ValidationResult(result.outputs, result.clip_values, {"mel_db": next(scores)})

    original = running.validate
    monkeypatch.setattr(running, "validate", validate)
    config = small.config(max_steps=8, validate_every=2)
    train(small.with_data(config, speech, speech), tmp_path)
    assert read_checkpoint(tmp_path / BEST)["trainer"]["steps"] == 4
    for max_steps, best in ((10, 10), (12, 10)):
        longer = replace(config, training=replace(config.training, max_steps=max_steps))
        train(small.with_data(longer, speech, speech), tmp_path, resume=True)
        assert read_checkpoint(tmp_path / BEST)["trainer"]["steps"] == best
    assert read_checkpoint(tmp_path / LAST)["valid"] == {"mel_db": 9.0}


def test_metrics_log_and_callbacks(speech: Path, tmp_path: Path) -> None:
    config = small.with_data(small.config(max_steps=8, validate_every=4), speech, speech)
    recorded = RecordingCallbacks()
    result = train(config, tmp_path, callbacks=recorded)
    entries = read_metrics(tmp_path / "metrics.jsonl")
    assert [(entry["kind"], entry["step"]) for entry in entries] == [
        ("train", 2),
        ("train", 4),
        ("valid", 4),
        ("train", 6),
        ("train", 8),
        ("valid", 8),
    ]
    expected = {"loss", "mel", "waveform", "grad_norm", "learning_rate", "data_wait_fraction"}
    assert expected <= entries[0].keys()
    assert {"mel_db", "si_sdr_db", "stoi", "perplexity_0"} <= entries[2].keys()
    assert result.valid["mel_db"] == entries[-1]["mel_db"]
    assert [progress.step for progress in recorded.steps] == [2, 4, 6, 8]
    assert [progress.share for progress in recorded.steps] == [0.25, 0.5, 0.75, 1]
    assert recorded.messages[-1].startswith("step 8: mel_db ")


@pytest.mark.parametrize("values", [small.HAC, small.SUPERCODEC, small.BIGCODEC])
def test_run_folder_is_a_checkpoint(values: dict[str, Any], speech: Path, tmp_path: Path) -> None:
    """It holds the averaged weights, if there are any."""
    config = small.with_data(small.config(values, max_steps=3), speech)
    train(config, tmp_path)
    codec = codectool.load(values["family"], tmp_path, device="cpu")
    trainer = Trainer(config, torch.device("cpu"))
    trainer.load_state(read_checkpoint(tmp_path / LAST)["trainer"])
    with trainer.average.applied() if trainer.average else nullcontext():
        runner = TorchRunner(trainer.model.inference_model(), codec.device)
        expected = Codec(runner, "01234567", tmp_path)
    wave = small.batch(1, 4000)[0]
    found, wanted = codec.encode(wave, 8000), expected.encode(wave, 8000)
    assert np.array_equal(found.codes, wanted.codes)
    assert np.array_equal(codec.decode(found), expected.decode(wanted))


def test_warm_up_as_long_as_the_run_is_reported(hac: RunConfig, tmp_path: Path) -> None:
    recorded = RecordingCallbacks()
    train(replace(hac, training=replace(hac.training, max_steps=3)), tmp_path, callbacks=recorded)
    assert any("never reaches its full value" in line for line in recorded.warnings)


# -- start from other weights ------------------------------------------------------------------


def micro() -> dict[str, Any]:
    """A published config for the golden SuperCodec."""
    values: dict[str, Any] = json.loads((GOLDEN / "supercodec_micro" / "config.json").read_text())
    return {**values, "num_workers": 0, "batch_size": 1, "filters": 2, "max_epoch": 1}


@pytest.fixture(scope="module")
def wide_speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.speech(tmp_path_factory.mktemp("wide") / "speech", count=2, rate=16000)


def test_start_from_published_weights(wide_speech: Path, tmp_path: Path) -> None:
    """At a negligible learning rate only the codebooks change."""
    config = small.with_data(parse({**micro(), "lr": 1e-20, "segment_size": 4000}), wide_speech)
    golden = GOLDEN / "supercodec_micro" / "g_00000001"
    train(config, tmp_path / "run", start_from=golden)
    _, before, _ = read_weights(golden)
    _, after, _ = read_weights(tmp_path / "run")
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed
    assert all("_codebook." in name for name in changed)


def write_published(run: Path, folder: Path) -> Path:
    """Write the weights and optimizers of a run in the published layout."""
    state = read_checkpoint(run / "last.ckpt")["trainer"]
    _, weights, _ = read_weights(run)
    order = [name for name in weights if "_codebook." not in name]
    config = load(str(run / "config.json"))
    model = config.trainable.from_config(config.model)
    numbers = {id(p): number for number, p in enumerate(model.parameters())}
    names = [model_name(config.family, name) for name in order]
    ours = [numbers[id(p)] for p in model.parameters_in_order(names)]
    moments = state["optimizer"]["state"]
    folder.mkdir()
    torch.save({"generator": weights}, folder / "g_00000012")
    optimizers = {
        "discriminator": state["discriminators"],
        "optim_g": {"state": {n: moments[i] for n, i in enumerate(ours)}, "param_groups": []},
        "optim_d": state["discriminator_optimizer"],
        "steps": 12,
        "epoch": 1,
    }
    torch.save(optimizers, folder / "do_00000012")
    return folder


def test_start_from_published_optimizer_state(wide_speech: Path, tmp_path: Path) -> None:
    values = {**micro(), "segment_size": 4000}
    config = small.with_data(parse(values), wide_speech)
    train(config, tmp_path / "first")
    start = write_published(tmp_path / "first", tmp_path / "published")
    messages: list[str] = []
    longer = small.with_data(parse({**values, "max_epoch": 7}), wide_speech)
    callbacks = Callbacks(on_message=messages.append)
    result = train(longer, tmp_path / "run", start_from=start, callbacks=callbacks)
    assert result.step == 14
    assert any("started at step 12" in line for line in messages)
    # without the moments, Adam would count two steps
    after = read_checkpoint(tmp_path / "run" / "last.ckpt")["trainer"]
    before = read_checkpoint(tmp_path / "first" / "last.ckpt")["trainer"]
    for name in ("optimizer", "discriminator_optimizer"):
        counts = {float(entry["step"]) for entry in after[name]["state"].values()}
        started = {float(entry["step"]) for entry in before[name]["state"].values()}
        assert counts == {count + 2 for count in started}


def test_optimizer_state_of_another_model_is_refused(wide_speech: Path, tmp_path: Path) -> None:
    values = {**micro(), "segment_size": 4000}
    train(small.with_data(parse(values), wide_speech), tmp_path / "first")
    start = write_published(tmp_path / "first", tmp_path / "published")
    wider = small.with_data(parse({**values, "filters": 3}), wide_speech)
    with pytest.raises(CheckpointError, match="do_00000012: the discriminator has another shape"):
        train(wider, tmp_path / "run", start_from=start)
    torch.save({"steps": "many"}, start / "do_00000012")
    with pytest.raises(CheckpointError, match="do_00000012: lacks `steps`"):
        train(wider, tmp_path / "run", start_from=start)


def test_weights_of_another_model_are_refused(
    wide_speech: Path, tmp_path: Path, hac: RunConfig
) -> None:
    golden = GOLDEN / "supercodec_micro" / "g_00000001"
    config = small.with_data(parse(micro()), wide_speech)
    with pytest.raises(CheckpointError, match="is a supercodec checkpoint, the config is for hac"):
        train(hac, tmp_path / "run", start_from=golden)
    wider = small.with_data(parse({**micro(), "codebook_dim": 8}), wide_speech)
    with pytest.raises(
        CheckpointError, match=r"g_00000001: tensors do not fit .* set `model` in the"
    ):
        train(wider, tmp_path / "run", start_from=golden)
    with pytest.raises(CheckpointError, match=r"nothing: no such file"):
        train(config, tmp_path / "run", start_from=tmp_path / "nothing")
    assert not (tmp_path / "run").exists()


def test_start_hac_from_folded_weights(hac: RunConfig, tmp_path: Path) -> None:
    """At a negligible learning rate they hardly change."""
    train(hac, tmp_path / "first")
    frozen = replace(hac.training.generator, learning_rate=1e-20)
    config = replace(hac, training=replace(hac.training, generator=frozen))
    train(config, tmp_path / "second", start_from=tmp_path / "first")
    _, before, _ = read_weights(tmp_path / "first")
    _, after, _ = read_weights(tmp_path / "second")
    assert before.keys() == after.keys()
    # the running statistics follow the crops, on which they were calibrated
    for name, tensor in before.items():
        if name.startswith("decoder."):
            torch.testing.assert_close(after[name], tensor, rtol=0.1, atol=1e-3)


def test_hac_weights_of_another_shape_are_refused(hac: RunConfig, tmp_path: Path) -> None:
    train(hac, tmp_path / "first")
    wider = replace(hac, model={**hac.model, "encoder_channels": [6, 10]})
    with pytest.raises(CheckpointError, match=r"first: tensors do not fit .* wrong shape"):
        train(wider, tmp_path / "second", start_from=tmp_path / "first")


# -- speed -------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr(metrics_log.time, "monotonic", lambda: now[0])
    return now


def test_speed_excludes_validation_and_saving(clock: list[float]) -> None:
    meter = StepMeter()
    for loss in (1.0, 3.0):
        clock[0] += 2
        meter.add(StepReport({"loss": loss}), wait_seconds=0.5)
    clock[0] += 50  # validation
    meter.pause()
    clock[0] += 10  # saving
    meter.pause()
    values = meter.take()
    assert values == {"loss": 2.0, "steps_per_second": 0.5, "data_wait_fraction": 0.25}
    clock[0] += 30  # a pause after the means were taken
    meter.pause()
    clock[0] += 4
    meter.add(StepReport({"loss": 7.0}, ("loss",)), wait_seconds=0.0)
    assert meter.take() == {"steps_per_second": 0.25, "data_wait_fraction": 0.0, "skipped": 1.0}
