"""Training benchmark: the reference training computes what codectool computes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from benchmarks import training as benchmark
from benchmarks.reference_training import (
    Comparison,
    ReferenceTrainer,
    agree,
    compare,
    reference_form,
    share_codewords,
)
from codectool.errors import UsageError
from codectool.training.config import RunConfig
from codectool.training.trainer import Trainer
from tests.training import small

CPU = torch.device("cpu")


def small_config(**changed: object) -> RunConfig:
    """SuperCodec's config with everything small."""
    mel = {"kind": "mel", "weight": 15, "windows": [80], "bands": [20], "fft_size": 128}
    spectral = {"kind": "mel", "weight": 1, "windows": [16, 32, 128], "bands": [16, 16, 16]}
    discriminator = {
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
            "discriminators": [discriminator],
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


def weights(trainer: Trainer | ReferenceTrainer) -> dict[str, torch.Tensor]:
    """Return everything that a step changes."""
    if isinstance(trainer, Trainer):
        assert trainer.adversarial is not None
        discriminators = trainer.adversarial.discriminators[0].members
    else:
        discriminators = trainer.discriminators
    found = {f"codec.{name}": value for name, value in trainer.model.state_dict().items()}
    for number, discriminator in enumerate(discriminators):
        found |= {f"{number}.{name}": value for name, value in discriminator.state_dict().items()}
    return {name: value.detach().clone() for name, value in found.items()}


def test_reference_training_takes_the_same_steps() -> None:
    config = reference_form(small_config(), steps=10)
    trainer, reference = Trainer(config, CPU), ReferenceTrainer(config)
    share_codewords(trainer, reference, small.batch(2, 400, 3))
    before = weights(trainer)
    assert small.differing(before, weights(reference)) == []
    for seed in range(3):  # later steps would show leftover gradients or different learning rates
        losses = agree(trainer, reference, small.batch(2, 400, seed))
        assert losses.keys() >= {"mel", "adversarial_0", "features_0", "discriminator", "loss"}
    after, other = weights(trainer), weights(reference)
    assert sum(not torch.equal(after[name], before[name]) for name in after) > len(after) / 2
    for part in ("codec.", "0.", "1."):
        # Adam takes full steps for gradients at the level of rounding, so a few weights differ
        moved = sum((after[n] - before[n]).square().sum() for n in after if n.startswith(part))
        distance = sum((after[n] - other[n]).square().sum() for n in after if n.startswith(part))
        assert distance < 1e-4 * moved


def test_agree_fails_if_a_loss_differs() -> None:
    config = reference_form(small_config(), steps=10)
    reference = ReferenceTrainer(config)
    with torch.no_grad():
        reference.discriminators[0].last.bias += 0.01
    trainer, batch = Trainer(config, CPU), small.batch(2, 400)
    share_codewords(trainer, reference, batch)
    with pytest.raises(AssertionError, match="adversarial_0"):
        agree(trainer, reference, batch)


def test_compare_times_all_batches_but_the_first() -> None:
    batches = [small.batch(2, 400, seed) for seed in range(3)]
    comparison = compare(reference_form(small_config(), steps=10), batches)
    assert [len(pairs) for pairs in comparison.seconds.values()] == [2, 2]
    assert all(min(pair) > 0 for pair in comparison.seconds["cpu"])


def test_summary_gives_ratios_of_pairs() -> None:
    seconds = {"cpu": [(1, 2), (2, 3), (4, 4)], "wall": [(2, 2), (4, 4), (8, 8)]}
    summary = Comparison(seconds, {}).summary()
    assert summary["cpu_ratio"] == [1.5, 1.0, 2.0]
    assert summary["wall_ratio"] == [1.0, 1.0, 1.0]
    assert summary["cpu_reference"] == 3


@pytest.mark.parametrize(
    "config", [small.config(), small_config(adversarial=None), small_config(ema=0.9)]
)
def test_reference_form_refuses_other_configs(config: RunConfig) -> None:
    with pytest.raises(UsageError, match="only SuperCodec"):
        reference_form(config, steps=10)


def job(tmp_path: Path, adversarial: bool, seconds: float = 60) -> benchmark.Job:
    return benchmark.Job(
        # length in epochs, as in SuperCodec's published config
        config=str(small.write(tmp_path / "r.json", small_config(max_steps=None, max_epochs=9**9))),
        settings=("training.batch_size=2",),
        files=str(small.speech(tmp_path / "speech")),
        adversarial=adversarial,
        steps=4,
        seconds=seconds,
        warm_up=2,
        threads=1,
    )


@pytest.mark.parametrize("adversarial", [False, True])
def test_measure_returns_a_row(tmp_path: Path, adversarial: bool) -> None:
    small_job = job(tmp_path, adversarial)
    config = benchmark.benchmark_config(small_job).training.adversarial
    assert (config is not None) == adversarial
    assert config is None or config.start == 0
    row = benchmark.measure(small_job)
    assert (row.steps, row.adversarial, row.batch) == (4, adversarial, (2, 0.05))
    assert row.precision == "fp32"
    assert row.audio_seconds == pytest.approx(2 * 0.05 / row.cpu_seconds)
    assert 0 < row.core_share < 1.1
    # without reader processes, all reading is waiting
    assert 0 < row.data_wait < 1
    assert 0 < row.reading_seconds < row.cpu_seconds
    assert 1e7 < row.memory < 1e11
    assert len(benchmark.cells(row)) == len(benchmark.COLUMNS)


def test_time_limit_stops_after_the_minimum_of_steps(tmp_path: Path) -> None:
    assert benchmark.measure(job(tmp_path, False, seconds=0)).steps == benchmark.MIN_STEPS


def test_jobs_cover_the_bundled_configs() -> None:
    options = argparse.Namespace(
        config=None,
        settings=["training.batch_size=4"],
        files="speech",
        plain=False,
        start_from=None,
        steps=20,
        seconds=30,
        warm_up=2,
        threads=1,
    )
    rows = [(job.config, job.adversarial, len(job.settings)) for job in benchmark.jobs(options)]
    assert rows.count(("supercodec", False, 1)) == rows.count(("supercodec", True, 1)) == 1
    assert ("hac", False, 3) in rows  # bf16 and compiled
    assert ("hac", True, 1) not in rows  # has no discriminators
    assert not {name for name, _, _ in rows} & benchmark.EXCLUDED
