"""The straightforward step is worth comparing with because it computes what ours computes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from benchmarks import training as benchmark
from benchmarks.reference_training import (
    Comparison,
    Duration,
    StraightforwardTrainer,
    agree,
    compare,
    settle_codewords,
    upstream_form,
)
from codectool.errors import UsageError
from codectool.training.config import RunConfig
from codectool.training.trainer import Trainer
from tests.training import small

CPU = torch.device("cpu")


def recipe(**changed: object) -> RunConfig:
    """SuperCodec's recipe with everything small."""
    mel = {"kind": "mel", "weight": 15, "windows": [80], "bands": [20], "fft_size": 128}
    spectral = {"kind": "mel", "weight": 1, "windows": [16, 32, 128], "bands": [16, 16, 16]}
    judge = {
        "kind": "complex_stft",
        "windows": [64, 128],
        "channels": [4, 4, 4, 4, 4],
        "norm_first": False,
    }
    training = {
        "generator": {"kind": "adam", "learning_rate": 3e-4, "betas": [0.5, 0.9]},
        "discriminator": {"kind": "adam", "learning_rate": 1e-4, "betas": [0.5, 0.9]},
        "schedule": {"decay": "cosine", "final": 0.1},
        "losses": [
            {**mel, "hops": [20], "padding": "same", "epsilon": 1e-9, "natural_log": True},
            {**spectral, "fft_size": 128, "power": 2, "padding": "same", "squared": 1},
            {"kind": "waveform", "weight": 0.1},
        ],
        "auxiliary_losses": {"commitment": 1},
        "adversarial": {
            "discriminators": [judge],
            "loss": "hinge",
            "mean": True,
            "weight": 3,
            "feature_weight": 3,
            "start": 0.5,
            "segment_size": 200,
        },
        "clip_norm": None,
        "dead_code_threshold": 0.0,
    }
    return small.config(small.SUPERCODEC, **{**training, **changed})


def weights(trainer: Trainer | StraightforwardTrainer) -> dict[str, torch.Tensor]:
    """Everything that a step changes."""
    if isinstance(trainer, Trainer):
        assert trainer.adversarial is not None
        judges = trainer.adversarial.discriminators[0].members
    else:
        judges = trainer.judges
    found = {f"codec.{name}": value for name, value in trainer.model.state_dict().items()}
    for number, judge in enumerate(judges):
        found |= {f"{number}.{name}": value for name, value in judge.state_dict().items()}
    return {name: value.detach().clone() for name, value in found.items()}


def test_both_compute_the_same_losses_and_take_the_same_steps() -> None:
    config = upstream_form(recipe(), steps=10)
    ours, theirs = Trainer(config, CPU), StraightforwardTrainer(config)
    settle_codewords(ours, theirs, small.batch(2, 400, 3))
    before = weights(ours)
    assert small.differing(before, weights(theirs)) == []
    for seed in range(3):  # the later ones see whether gradients were left behind, or rates differ
        losses = agree(ours, theirs, small.batch(2, 400, seed))
        assert losses.keys() >= {"mel", "adversarial_0", "features_0", "discriminator", "loss"}
    after, other = weights(ours), weights(theirs)
    assert sum(not torch.equal(after[name], before[name]) for name in after) > len(after) / 2
    for part in ("codec.", "0.", "1."):
        # Adam makes whole steps of gradients that are nothing but rounding: a few weights differ
        moved = sum((after[n] - before[n]).square().sum() for n in after if n.startswith(part))
        apart = sum((after[n] - other[n]).square().sum() for n in after if n.startswith(part))
        assert apart < 1e-4 * moved


def test_another_loss_is_noticed() -> None:
    config = upstream_form(recipe(), steps=10)
    theirs = StraightforwardTrainer(config)
    with torch.no_grad():
        theirs.judges[0].last.bias += 0.01
    ours, batch = Trainer(config, CPU), small.batch(2, 400)
    settle_codewords(ours, theirs, batch)
    with pytest.raises(AssertionError, match="adversarial_0"):
        agree(ours, theirs, batch)


def test_both_take_turns_on_all_batches_but_the_first() -> None:
    batches = [small.batch(2, 400, seed) for seed in range(3)]
    comparison = compare(upstream_form(recipe(), steps=10), batches)
    assert len(comparison.ours) == len(comparison.theirs) == 2
    assert all(time.cpu > 0 for time in comparison.ours + comparison.theirs)


def test_the_ratio_is_that_of_pairs() -> None:
    ours = [Duration(1, 2), Duration(2, 4), Duration(4, 8)]
    theirs = [Duration(2, 2), Duration(3, 4), Duration(4, 8)]
    summary = Comparison(ours, theirs, {}).summary()
    assert summary["cpu_ratio"] == [1.5, 1.0, 2.0]
    assert summary["wall_ratio"] == [1.0, 1.0, 1.0]
    assert summary["cpu_straightforward"] == 3


@pytest.mark.parametrize("config", [small.config(), recipe(adversarial=None), recipe(ema=0.9)])
def test_other_recipes_are_not_compared(config: RunConfig) -> None:
    with pytest.raises(UsageError, match="only SuperCodec"):
        upstream_form(config, steps=10)


def job(tmp_path: Path, judged: bool, seconds: float = 60) -> benchmark.Job:
    return benchmark.Job(
        # its length in epochs, as SuperCodec gives it
        config=str(small.write(tmp_path / "r.json", recipe(max_steps=None, max_epochs=9**9))),
        settings=("training.batch_size=2",),
        files=str(small.speech(tmp_path / "speech")),
        judged=judged,
        steps=4,
        seconds=seconds,
        warm_up=2,
        threads=1,
    )


@pytest.mark.parametrize("judged", [False, True])
def test_a_row_of_the_table(tmp_path: Path, judged: bool) -> None:
    asked = job(tmp_path, judged)
    adversarial = benchmark.prepared(asked).training.adversarial
    assert (adversarial is not None) == judged
    assert adversarial is None or adversarial.start == 0
    row = benchmark.measure(asked)
    assert (row.steps, row.judged, row.batch, row.arithmetic) == (4, judged, (2, 0.05), "fp32")
    assert row.audio_seconds == pytest.approx(2 * 0.05 / row.cpu_seconds)
    assert 0 < row.core_share < 1.1
    # without reading processes, all reading is waiting
    assert 0 < row.waited < 1
    assert 0 < row.reading_seconds < row.cpu_seconds
    assert 1e7 < row.memory < 1e11
    assert len(benchmark.cells(row)) == len(benchmark.COLUMNS)


def test_slow_steps_are_few(tmp_path: Path) -> None:
    assert benchmark.measure(job(tmp_path, False, seconds=0)).steps == benchmark.FEWEST_STEPS


def test_rows_of_the_shipped_configs() -> None:
    options = argparse.Namespace(
        config=None,
        settings=["training.batch_size=4"],
        files="speech",
        plain=False,
        steps=20,
        seconds=30,
        warm_up=2,
        threads=1,
    )
    rows = [(job.config, job.judged, len(job.settings)) for job in benchmark.jobs(options)]
    assert rows.count(("supercodec", False, 1)) == rows.count(("supercodec", True, 1)) == 1
    assert ("hac", False, 3) in rows  # bf16 and compiled
    assert ("hac", True, 1) not in rows  # its recipe has no discriminators
    assert not {name for name, _, _ in rows} & benchmark.LEFT_OUT
