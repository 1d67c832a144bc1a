"""A run in its folder: it can be stopped at any moment and goes on as if it never was."""

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
from codectool.checkpoints.load import LoadedModel, read_weights
from codectool.codec import Codec
from codectool.errors import (
    CheckpointError,
    CodectoolError,
    ConfigError,
    TrainingError,
    UsageError,
)
from codectool.training import run as running
from codectool.training.checkpoint import BEST, LAST, read_snapshot
from codectool.training.config import TrainingConfig, load, parse
from codectool.training.metrics_log import read_journal
from codectool.training.models import build
from codectool.training.run import Meter, Observer, Outcome, train
from codectool.training.trainer import StepReport, Trainer
from codectool.training.validation import ValidationResult
from tests.conftest import GOLDEN
from tests.training import small

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.speech(tmp_path_factory.mktemp("run") / "speech")


@pytest.fixture
def hac(speech: Path) -> TrainingConfig:
    """Twelve steps, the last ten with discriminators."""
    duel = {**small.FEW, "start": 0.15}
    return small.with_data(small.config(adversarial=duel, save_every=6), speech)


def content(folder: Path, name: str = LAST) -> dict[str, Any]:
    """What must be the same whenever the same was done."""
    state = read_snapshot(folder / name)
    del state["seconds"], state["valid"]  # pystoi adds noise of 1e-16
    return state


def assert_same_end(one: Path, other: Path) -> None:
    assert not small.differing(content(one), content(other))
    weights = [(folder / "model.safetensors").read_bytes() for folder in (one, other)]
    assert weights[0] == weights[1]


def keep_only(folder: Path, step: int, into: Path) -> Path:
    """What a run that was killed some time after a step leaves behind."""
    into.mkdir()
    (into / LAST).write_bytes((folder / f"step_{step:08d}.ckpt").read_bytes())
    return into


class Said(Observer):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.steps: list[running.Progress] = []
        self.messages: list[str] = []
        self.warnings: list[str] = []
        super().__init__(self.steps.append, self.messages.append, self.warnings.append)


# -- going on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [small.HAC, small.SUPERCODEC, small.BIGCODEC])
def test_a_resumed_run_ends_like_one_that_never_stopped(
    values: dict[str, Any], speech: Path, tmp_path: Path
) -> None:
    """Bit for bit: weights, averages, moments, balancer, codebooks and random states.

    The validation after step 5 draws no numbers that training would have drawn.
    """
    piece = values["training"]["segment_size"] // 2
    duel = {**small.FEW, "start": 0.25, "every": 2, "segment_size": piece}
    recipe = {"adversarial": duel, "save_every": 6, "validate_every": 5}
    config = small.with_data(small.config(values, **recipe), speech, speech)
    assert train(config, tmp_path / "whole").finished
    resumed = keep_only(tmp_path / "whole", 6, tmp_path / "resumed")
    if values is small.HAC:  # others may read the audio then
        config = small.with_data(small.config(values, **recipe, num_workers=2), speech, speech)
    train(config, resumed, resume=True)
    one, other = content(tmp_path / "whole"), content(resumed)
    del one["trainer"]["config"], other["trainer"]["config"]
    assert not small.differing(one, other)
    assert other["trainer"]["judge_optimizer"]["state"]
    weights = [load_file(f / "model.safetensors") for f in (tmp_path / "whole", resumed)]
    assert not small.differing(*weights)


def test_the_same_seed_gives_the_same_weights(hac: TrainingConfig, tmp_path: Path) -> None:
    for name in ("one", "other"):
        torch.rand(3)  # what was drawn before does not matter
        train(hac, tmp_path / name)
    assert_same_end(tmp_path / "one", tmp_path / "other")
    other_seed = replace(hac, training=replace(hac.training, seed=8))
    train(other_seed, tmp_path / "third")
    assert small.differing(content(tmp_path / "one"), content(tmp_path / "third"))


def signal_in_step(monkeypatch: pytest.MonkeyPatch, step: int, *numbers: signal.Signals) -> None:
    """Let signals arrive in the middle of a step."""
    learn = Trainer.step

    def step_and_signal(self: Trainer, batch: torch.Tensor, progress: float) -> StepReport:
        report = learn(self, batch, progress)
        if self.steps == step:
            for number in numbers:
                os.kill(os.getpid(), number)
        return report

    monkeypatch.setattr(Trainer, "step", step_and_signal)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_and_leaves(
    number: signal.Signals, hac: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(hac, tmp_path / "whole")
    handlers = [signal.getsignal(each) for each in SIGNALS]
    with monkeypatch.context() as context:
        signal_in_step(context, 5, number, number)  # as torchrun and a terminal together send it
        outcome = train(hac, tmp_path / "stopped")
    assert outcome == Outcome(5, finished=False, signal=int(number), valid={})
    assert [signal.getsignal(each) for each in SIGNALS] == handlers
    assert read_snapshot(tmp_path / "stopped" / LAST)["trainer"]["steps"] == 5
    assert train(hac, tmp_path / "stopped", resume=True).finished
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")


def test_a_second_signal_leaves_at_once(
    hac: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "ONE_WISH", -1.0)
    signal_in_step(monkeypatch, 8, signal.SIGTERM, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(hac, tmp_path / "run")
    assert read_snapshot(tmp_path / "run" / LAST)["trainer"]["steps"] == 6


def test_a_signal_in_the_last_step_changes_nothing(
    hac: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_in_step(monkeypatch, 12, signal.SIGINT)
    assert train(hac, tmp_path / "run") == Outcome(12, finished=True, signal=None, valid={})


def test_being_interrupted_while_saving_leaves_the_last_snapshot(
    hac: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def save_half(state: dict[str, Any], file: Any) -> None:
        save(state, file)
        if state["trainer"]["steps"] == 12:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", save_half)
    with pytest.raises(KeyboardInterrupt):
        train(hac, tmp_path / "run")
    assert read_snapshot(tmp_path / "run" / LAST)["trainer"]["steps"] == 6
    assert not list((tmp_path / "run").glob(".*"))


def test_hours_end_a_run(hac: TrainingConfig, tmp_path: Path) -> None:
    """Schedules go by time, so the rate is down at the end of the hours; more hours go on."""
    said = Said()
    outcome = train(hac, tmp_path / "run", max_hours=1e-7, observer=said)
    assert (outcome.step, outcome.finished) == (1, True)
    assert said.steps[-1].share == 1
    train(hac, tmp_path / "run", max_hours=1e-7, resume=True)
    assert read_snapshot(tmp_path / "run" / LAST)["trainer"]["steps"] == 1
    assert train(hac, tmp_path / "run", resume=True).step == 12


def test_a_finished_run_can_be_made_longer(hac: TrainingConfig, tmp_path: Path) -> None:
    train(hac, tmp_path / "run")
    longer = replace(hac, training=replace(hac.training, max_steps=14))
    assert train(longer, tmp_path / "run", resume=True).step == 14
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == longer.to_json()


def test_settings_that_change_count_from_then_on(hac: TrainingConfig, tmp_path: Path) -> None:
    """Those in the snapshot must not come back with it."""
    train(hac, tmp_path / "run")
    recipe = hac.training
    generator = replace(recipe.generator, betas=(0.5, 0.6), weight_decay=0.5, eps=1e-3)
    assert recipe.adversarial is not None
    balance = {**(recipe.adversarial.balance or {}), "mel": 0.1}
    changed = replace(
        recipe,
        max_steps=13,
        generator=generator,
        ema=None,
        adversarial=replace(recipe.adversarial, balance=balance),
    )
    train(replace(hac, training=changed), tmp_path / "run", resume=True)
    decayed, spared = read_snapshot(tmp_path / "run" / LAST)["trainer"]["optimizer"]["param_groups"]
    assert tuple(decayed["betas"]) == (0.5, 0.6)
    assert (decayed["eps"], decayed["weight_decay"], spared["weight_decay"]) == (1e-3, 0.5, 0.0)


def test_what_is_new_in_a_recipe_begins_when_it_is_resumed(speech: Path, tmp_path: Path) -> None:
    plain = small.with_data(small.config(max_steps=4, ema=None), speech)
    train(plain, tmp_path / "run")
    duel = {**small.FEW, "start": 0.0}
    more = small.with_data(small.config(max_steps=6, ema=0.9, adversarial=duel), speech)
    train(more, tmp_path / "run", resume=True)
    trainer = read_snapshot(tmp_path / "run" / LAST)["trainer"]
    assert trainer["average"]["count"] == 2
    steps = {float(moments["step"]) for moments in trainer["judge_optimizer"]["state"].values()}
    assert steps == {2.0}


# -- refusing ---------------------------------------------------------------------------------


def test_a_run_is_not_overwritten(hac: TrainingConfig, tmp_path: Path) -> None:
    train(hac, tmp_path)
    before = (tmp_path / LAST).read_bytes()
    with pytest.raises(UsageError, match=r"holds a run already; go on with `--resume`"):
        train(hac, tmp_path)
    assert (tmp_path / LAST).read_bytes() == before


def test_resuming_what_is_not_there_begins(hac: TrainingConfig, tmp_path: Path) -> None:
    assert train(hac, tmp_path / "new" / "folder", resume=True).step == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model.num_bits=5"], r"the run was begun with `model.num_bits` 6, the config says 5"),
        (["model.encoder_hidden=[8,16]"], r"`model.encoder_hidden\[1\]` 12, the config says 16"),
        (
            ["training.adversarial.discriminators.0.channels=[2,2,2,2,3]"],
            r"`training.adversarial.discriminators\[0\].channels\[4\]` 2, the config says 3",
        ),
    ],
)
def test_another_model_is_refused(
    changes: list[str], message: str, hac: TrainingConfig, tmp_path: Path
) -> None:
    train(hac, tmp_path)
    other = small.config(hac.to_json(), *changes)
    with pytest.raises(ConfigError, match=rf"last\.ckpt: .*{message}"):
        train(other, tmp_path, resume=True)


def test_another_family_is_refused(speech: Path, tmp_path: Path) -> None:
    train(small.with_data(small.config(max_steps=1), speech), tmp_path)
    other = small.with_data(small.config(small.BIGCODEC), speech)
    with pytest.raises(ConfigError, match=r"begun with `family` 'hac', the config says 'bigcodec'"):
        train(other, tmp_path, resume=True)


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch exploded",)


@pytest.fixture(scope="module")
def snapshot(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("snapshot")
    train(small.with_data(small.config(max_steps=1), speech), folder)
    return read_snapshot(folder / LAST)


def foreign(case: str, path: Path, snapshot: dict[str, Any]) -> None:
    if case == "empty":
        path.write_bytes(b"")
    elif case == "text":
        path.write_text("step 3000")
    elif case == "folder":
        path.mkdir()
    elif case == "half":
        torch.save(snapshot, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif case == "code":
        torch.save({**snapshot, "valid": Bomb()}, path)
    elif case == "old code":
        path.write_bytes(pickle.dumps({**{"trainer": {}}, "valid": Bomb()}))
    elif case == "weights":
        torch.save(snapshot["trainer"]["trainee"], path)
    elif case == "later format":
        torch.save({**snapshot, "format": 99}, path)
    elif case == "no optimizer":
        rest = {k: v for k, v in snapshot["trainer"].items() if k != "optimizer"}
        torch.save({**snapshot, "trainer": rest}, path)
    elif case == "no steps":
        torch.save({**snapshot, "trainer": {**snapshot["trainer"], "steps": None}}, path)


CASES = {
    "empty": "",
    "text": "",
    "folder": "",
    "half": "",
    "code": "run `posix.system`",
    "old code": "",
    "weights": "not a snapshot of a training run",
    "later format": "a snapshot of format 99; this codectool knows format 1",
    "no optimizer": "not all that a run needs is there",
    "no steps": "not all that a run needs is there",
}


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_or_foreign_snapshot_is_refused(
    case: str,
    snapshot: dict[str, Any],
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    foreign(case, tmp_path / LAST, snapshot)
    config = small.with_data(small.config(max_steps=1), speech)
    with pytest.raises(CodectoolError, match=f"last.ckpt.*{CASES[case]}") as caught:
        train(config, tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


def test_nothing_to_train_on(hac: TrainingConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --train-files a folder or a list"):
        train(replace(hac, data=None), tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty: holds no audio that can be read"):
        train(small.with_data(hac, tmp_path / "empty"), tmp_path / "run")
    with pytest.raises(UsageError, match=r"nowhere"):
        train(small.with_data(hac, tmp_path / "nowhere"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_crops_too_short_for_a_loss_are_refused_before_the_run_is_begun(
    hac: TrainingConfig, tmp_path: Path
) -> None:
    config = small.config(hac.to_json(), "training.losses.0.windows=[1024,64]")
    with pytest.raises(ConfigError, match=r"`training.losses`: 760 samples are too few .* 1024"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_does_not_divide_is_refused(
    hac: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "world_size", lambda: 3)
    with pytest.raises(UsageError, match=r"batch_size 4 does not divide over 3 processes"):
        train(hac, tmp_path / "run")


# -- speech that cannot be used ---------------------------------------------------------------


def test_files_that_cannot_be_used_are_named_once(
    speech: Path, tmp_path: Path, hac: TrainingConfig
) -> None:
    """One is no audio, one is shorter than its list says: a problem that only a step can find."""
    (tmp_path / "noise.wav").write_bytes(b"RIFF but nothing else")
    soundfile.write(tmp_path / "cut.wav", np.zeros(2000, np.float32), 8000)
    lines = [*map(str, sorted(speech.iterdir()))]
    lines += [str(tmp_path / "noise.wav"), f"{tmp_path / 'cut.wav'}\t200000\t8000"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    said = Said()
    assert train(small.with_data(hac, tmp_path / "list.txt"), tmp_path / "run", observer=said)
    noise, without, cut = said.warnings
    assert noise.startswith(str(tmp_path / "noise.wav"))
    assert noise.endswith("; left out")
    assert "no --valid-files" in without
    assert (
        cut
        == f"{tmp_path / 'cut.wav'}: is shorter than the list says; make the list anew; left out"
    )


def test_when_no_file_can_be_read_any_more_the_run_is_saved(
    tmp_path: Path, hac: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = small.speech(tmp_path / "speech", 2)
    learn = Trainer.step

    def step_and_delete(self: Trainer, batch: torch.Tensor, progress: float) -> StepReport:
        if self.steps == 4:
            for path in speech.iterdir():
                path.write_bytes(b"")
        return learn(self, batch, progress)

    monkeypatch.setattr(Trainer, "step", step_and_delete)
    with pytest.raises(CodectoolError, match="files of a whole batch could be read"):
        train(small.with_data(hac, speech), tmp_path / "run")
    assert read_snapshot(tmp_path / "run" / LAST)["trainer"]["steps"] == 5
    assert read_journal(tmp_path / "run" / "metrics.jsonl")[-1]["kind"] == "event"


# -- what is not finite -----------------------------------------------------------------------


def poison(monkeypatch: pytest.MonkeyPatch, steps: range) -> None:
    learn = Trainer.step

    def step(self: Trainer, batch: torch.Tensor, progress: float) -> StepReport:
        return learn(self, batch * torch.nan if self.steps in steps else batch, progress)

    monkeypatch.setattr(Trainer, "step", step)


def test_steps_left_out_are_counted_and_told(
    hac: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, range(4, 7))
    said = Said()
    train(hac, tmp_path, observer=said)
    assert read_snapshot(tmp_path / LAST)["trainer"]["skipped"] == 3
    told = [line for line in said.warnings if "left out" in line]
    assert [line.partition(" of ")[0] for line in told] == ["step 6: 2", "step 8: 1"]
    entries = read_journal(tmp_path / "metrics.jsonl")
    assert [entry.get("skipped") for entry in entries] == [None, None, 2.0, 1.0, None, None]
    assert "loss" not in entries[2]


@pytest.mark.parametrize(("values", "first"), [(small.HAC, 3), (small.SUPERCODEC, 0)])
def test_too_many_of_them_end_the_run_saved(
    values: dict[str, Any],
    first: int,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also from the first step on, when SuperCodec has no codewords that could be stored."""
    poison(monkeypatch, range(first, 1000))
    config = small.with_data(small.config(values, max_bad_steps=4), speech)
    with pytest.raises(TrainingError, match="4 steps in a row .* not finite"):
        train(config, tmp_path)
    trainer = read_snapshot(tmp_path / LAST)["trainer"]
    assert (trainer["steps"], trainer["skipped"]) == (first + 4, 4)
    assert read_journal(tmp_path / "metrics.jsonl")[-1]["message"].startswith("4 steps in a row")
    assert (tmp_path / "model.safetensors").exists() == (first > 0)
    monkeypatch.undo()
    assert train(config, tmp_path, resume=True).finished


# -- what a run leaves behind -----------------------------------------------------------------


def test_the_newest_snapshots_stay(hac: TrainingConfig, tmp_path: Path) -> None:
    config = replace(hac, training=replace(hac.training, save_every=2, keep=3))
    train(config, tmp_path / "three")
    names = sorted(path.name for path in (tmp_path / "three").glob("step_*"))
    assert names == ["step_00000008.ckpt", "step_00000010.ckpt", "step_00000012.ckpt"]
    for name in names:
        steps = read_snapshot(tmp_path / "three" / name)["trainer"]["steps"]
        assert name == f"step_{steps:08d}.ckpt"
    train(replace(config, training=replace(config.training, keep=0)), tmp_path / "none")
    assert not list((tmp_path / "none").glob("step_*"))
    assert (tmp_path / "none" / LAST).exists()


def test_the_best_is_the_one_nearest_in_mel(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over a pause: what was best before it is remembered."""
    scores = iter([5.0, 3.0, 4.0, 3.5, 2.9, 9.0])

    def measured(codec: Any, clips: Any) -> ValidationResult:
        result = validate(codec, clips)
        return ValidationResult(result.clips, {"mel_db": next(scores)})

    validate = running.validate
    monkeypatch.setattr(running, "validate", measured)
    config = small.config(max_steps=8, validate_every=2)
    train(small.with_data(config, speech, speech), tmp_path)
    assert read_snapshot(tmp_path / BEST)["trainer"]["steps"] == 4
    for max_steps, best in ((10, 10), (12, 10)):
        longer = replace(config, training=replace(config.training, max_steps=max_steps))
        train(small.with_data(longer, speech, speech), tmp_path, resume=True)
        assert read_snapshot(tmp_path / BEST)["trainer"]["steps"] == best
    assert read_snapshot(tmp_path / LAST)["valid"] == {"mel_db": 9.0}


def test_the_journal(speech: Path, tmp_path: Path) -> None:
    config = small.with_data(small.config(max_steps=8, validate_every=4), speech, speech)
    said = Said()
    outcome = train(config, tmp_path, observer=said)
    entries = read_journal(tmp_path / "metrics.jsonl")
    assert [(entry["kind"], entry["step"]) for entry in entries] == [
        ("train", 2),
        ("train", 4),
        ("valid", 4),
        ("train", 6),
        ("train", 8),
        ("valid", 8),
    ]
    expected = {"loss", "mel", "waveform", "gradient", "learning_rate", "waited"}
    assert expected <= entries[0].keys()
    assert {"mel_db", "si_sdr", "stoi", "perplexity_0"} <= entries[2].keys()
    assert outcome.valid["mel_db"] == entries[-1]["mel_db"]
    assert [progress.step for progress in said.steps] == [2, 4, 6, 8]
    assert [progress.share for progress in said.steps] == [0.25, 0.5, 0.75, 1]
    assert said.messages[-1].startswith("step 8: mel_db ")


@pytest.mark.parametrize("values", [small.HAC, small.SUPERCODEC, small.BIGCODEC])
def test_the_folder_is_a_checkpoint(values: dict[str, Any], speech: Path, tmp_path: Path) -> None:
    """What is stored are the averaged weights, where there are any."""
    config = small.with_data(small.config(values, max_steps=3), speech)
    train(config, tmp_path)
    codec = codectool.load(values["family"], tmp_path, device="cpu")
    trainer = Trainer(config, torch.device("cpu"))
    trainer.load_state(read_snapshot(tmp_path / LAST)["trainer"])
    with trainer.average.applied() if trainer.average else nullcontext():
        expected = Codec(LoadedModel(trainer.trainee.codec(), "01234567", tmp_path), codec.device)
    wave = small.batch(1, 4000)[0]
    found, wanted = codec.encode(wave, 8000), expected.encode(wave, 8000)
    assert np.array_equal(found.codes, wanted.codes)
    assert np.array_equal(codec.decode(found), expected.decode(wanted))


def test_a_warm_up_as_long_as_the_run_is_told(hac: TrainingConfig, tmp_path: Path) -> None:
    said = Said()
    train(replace(hac, training=replace(hac.training, max_steps=3)), tmp_path, observer=said)
    assert any("never reaches its full value" in line for line in said.warnings)


# -- beginning with other weights -------------------------------------------------------------


def micro() -> dict[str, Any]:
    """A recipe for the golden SuperCodec."""
    values: dict[str, Any] = json.loads((GOLDEN / "supercodec_micro" / "config.json").read_text())
    return {**values, "num_workers": 0, "batch_size": 1, "filters": 2, "max_epoch": 1}


@pytest.fixture(scope="module")
def wide_speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.speech(tmp_path_factory.mktemp("wide") / "speech", count=2, rate=16000)


def test_begin_with_the_authors_weights(wide_speech: Path, tmp_path: Path) -> None:
    """At a learning rate of next to nothing they stay; only the codebooks learn."""
    config = small.with_data(parse({**micro(), "lr": 1e-20, "segment_size": 4000}), wide_speech)
    golden = GOLDEN / "supercodec_micro" / "g_00000001"
    train(config, tmp_path / "run", start_from=golden)
    _, before, _ = read_weights(golden)
    _, after, _ = read_weights(tmp_path / "run")
    assert before.keys() == after.keys()
    learned = [name for name in before if not torch.equal(before[name], after[name])]
    assert learned
    assert all("_codebook." in name for name in learned)


def published_rest(run: Path, folder: Path) -> Path:
    """What a run of ours would be in the authors' layout: a copy of the weights and a ``do_``."""
    state = read_snapshot(run / "last.ckpt")["trainer"]
    _, weights, _ = read_weights(run)
    order = [name for name in weights if "_codebook." not in name]
    trainee = build(load(str(run / "config.json")))
    names = [name for name, _ in trainee.named_parameters()]
    where = {id(p): names.index(name) for name, p in trainee.named_parameters()}
    ours = [where[id(p)] for p in trainee.parameters_by(order)]
    moments = state["optimizer"]["state"]
    folder.mkdir()
    torch.save({"generator": weights}, folder / "g_00000012")
    rest = {
        "discriminator": state["judges"],
        "optim_g": {"state": {n: moments[i] for n, i in enumerate(ours)}, "param_groups": []},
        "optim_d": state["judge_optimizer"],
        "steps": 12,
        "epoch": 1,
    }
    torch.save(rest, folder / "do_00000012")
    return folder


def test_go_on_from_what_the_authors_training_left(wide_speech: Path, tmp_path: Path) -> None:
    values = {**micro(), "segment_size": 4000}
    config = small.with_data(parse(values), wide_speech)
    train(config, tmp_path / "first")
    begin = published_rest(tmp_path / "first", tmp_path / "published")
    told: list[str] = []
    longer = small.with_data(parse({**values, "max_epoch": 7}), wide_speech)
    observer = Observer(on_message=told.append)
    outcome = train(longer, tmp_path / "run", start_from=begin, observer=observer)
    assert outcome.step == 14
    assert any("begun at step 12" in line for line in told)
    # had nothing been taken over, Adam would count two steps
    after = read_snapshot(tmp_path / "run" / "last.ckpt")["trainer"]
    before = read_snapshot(tmp_path / "first" / "last.ckpt")["trainer"]
    for side in ("optimizer", "judge_optimizer"):
        counts = {float(entry["step"]) for entry in after[side]["state"].values()}
        started = {float(entry["step"]) for entry in before[side]["state"].values()}
        assert counts == {count + 2 for count in started}


def test_rest_of_another_model_is_refused(wide_speech: Path, tmp_path: Path) -> None:
    values = {**micro(), "segment_size": 4000}
    train(small.with_data(parse(values), wide_speech), tmp_path / "first")
    begin = published_rest(tmp_path / "first", tmp_path / "published")
    wider = small.with_data(parse({**values, "filters": 3}), wide_speech)
    with pytest.raises(CheckpointError, match="do_00000012: the discriminator is of another shape"):
        train(wider, tmp_path / "run", start_from=begin)
    torch.save({"steps": "many"}, begin / "do_00000012")
    with pytest.raises(CheckpointError, match="do_00000012: lacks `steps`"):
        train(wider, tmp_path / "run", start_from=begin)


def test_other_weights_are_refused(wide_speech: Path, tmp_path: Path, hac: TrainingConfig) -> None:
    golden = GOLDEN / "supercodec_micro" / "g_00000001"
    config = small.with_data(parse(micro()), wide_speech)
    with pytest.raises(CheckpointError, match="is a supercodec checkpoint, the config is for hac"):
        train(hac, tmp_path / "run", start_from=golden)
    wider = small.with_data(parse({**micro(), "codebook_dim": 8}), wide_speech)
    with pytest.raises(
        CheckpointError, match=r"g_00000001: tensors do not fit .* give `model` in the"
    ):
        train(wider, tmp_path / "run", start_from=golden)
    with pytest.raises(CheckpointError, match=r"nothing: no such file"):
        train(config, tmp_path / "run", start_from=tmp_path / "nothing")
    assert not (tmp_path / "run").exists()


def test_hac_begins_with_folded_weights(hac: TrainingConfig, tmp_path: Path) -> None:
    """At a learning rate of next to nothing they stay."""
    train(hac, tmp_path / "first")
    still = replace(hac.training.generator, learning_rate=1e-20)
    config = replace(hac, training=replace(hac.training, generator=still))
    train(config, tmp_path / "second", start_from=tmp_path / "first")
    _, before, _ = read_weights(tmp_path / "first")
    _, after, _ = read_weights(tmp_path / "second")
    assert before.keys() == after.keys()
    # the running statistics follow the crops all the same, but they were measured on such
    for name, tensor in before.items():
        if name.startswith("decoder."):
            torch.testing.assert_close(after[name], tensor, rtol=0.1, atol=1e-3)


def test_hac_weights_of_another_shape_are_refused(hac: TrainingConfig, tmp_path: Path) -> None:
    train(hac, tmp_path / "first")
    wider = replace(hac, model={**hac.model, "encoder_channels": [6, 10]})
    with pytest.raises(CheckpointError, match=r"first: tensors do not fit .* wrong shape"):
        train(wider, tmp_path / "second", start_from=tmp_path / "first")


# -- the clock --------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that pass only when a test says so."""
    now = [100.0]
    monkeypatch.setattr(running.time, "monotonic", lambda: now[0])
    return now


def test_speed_without_pauses(clock: list[float]) -> None:
    """Validating and saving one after the other is not counted twice, nor as training."""
    meter = Meter()
    for loss in (1.0, 3.0):
        clock[0] += 2
        meter.add(StepReport({"loss": loss}, skipped=False), waited=0.5)
    clock[0] += 50  # validation
    meter.pause()
    clock[0] += 10  # saving
    meter.pause()
    values = meter.take()
    assert values == {"loss": 2.0, "steps_per_second": 0.5, "waited": 0.25}
    clock[0] += 30  # a pause after figures were taken
    meter.pause()
    clock[0] += 4
    meter.add(StepReport({"loss": 7.0}, skipped=True), waited=0.0)
    assert meter.take() == {"steps_per_second": 0.25, "waited": 0.0, "skipped": 1.0}
