"""Two processes train like one with the whole batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codectool.nn.distributed import all_reduce_mean
from codectool.training import parallel, run
from codectool.training.checkpoint import LAST, read_checkpoint
from codectool.training.run import Callbacks
from codectool.training.trainer import Trainer
from tests.training import small
from tests.training.two_processes import on_two_processes

CPU = torch.device("cpu")
STEPS = 5
# With a small eps, Adam moves a weight whose gradient is rounding noise as far as any other.
STEADY = {**small.HAC["training"]["generator"], "eps": 1e-3}
ADVERSARIAL = {**small.ADVERSARIAL, "start": 0.0}
CONFIGS = {
    "hac": small.config(generator=STEADY, adversarial=ADVERSARIAL),
    "supercodec": small.config(
        small.SUPERCODEC,
        generator=STEADY,
        batch_size=4,
        adversarial={**ADVERSARIAL, "segment_size": 200},
    ),
    "bigcodec": small.config(
        small.BIGCODEC,
        generator=STEADY,
        accumulation=2,
        adversarial={
            **ADVERSARIAL,
            "segment_size": 200,
            "balance": None,
            "loss": "least_squares",
            "relative_features": False,  # they would depend on the accumulated part
        },
    ),
}


def test_single_process_has_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    with parallel.process_group(CPU):
        assert (parallel.is_launched(), parallel.is_main_process(), parallel.rank()) == (
            False,
            True,
            0,
        )
        assert parallel.largest(1.5, -2.0) == [1.5, -2.0]
        assert parallel.agree(3)
        weight = nn.Parameter(torch.ones(2))
        parallel.average_gradients([weight])
        assert weight.grad is None


@dataclass
class Trained:
    """State and metrics after some steps."""

    state: dict[str, Any]
    reports: list[dict[str, float]]


def train(name: str, rank: int, ranks: int) -> Trained:
    """Train some steps on this process's part of the batches."""
    trainer = Trainer(CONFIGS[name], CPU)
    config = trainer.config
    reports = []
    for step in range(STEPS):
        batch = small.batch(config.batch_size, config.segment_size, seed=step)
        report = trainer.step(batch.chunk(ranks)[rank], step / STEPS)
        assert not report.skipped
        reports.append(report.values)
    return Trained(trainer.state(), reports)


def arithmetic(rank: int) -> dict[str, Any]:
    """Collective operations with known results."""
    first, second = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))
    unused, frozen = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    first.grad = torch.tensor([1.0, 2.0, 3.0]) * (1 + 2 * rank)
    second.grad = torch.full((2, 2), float(rank))
    if rank:
        frozen.grad = torch.ones(1)
    old, parallel.BUCKET_SIZE = parallel.BUCKET_SIZE, 4
    parallel.average_gradients([first, second, unused, frozen])
    parallel.BUCKET_SIZE = old
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, rank)
    parallel.broadcast_parameters(layer)
    x = torch.tensor([1 / 3 + rank, 0.1], requires_grad=True)
    mean = all_reduce_mean(x.square())
    mean.sum().backward()
    return {
        "gradients": [p.grad for p in (first, second, unused, frozen)],
        "largest": parallel.largest(rank, -rank, 7.0),
        "agree": [parallel.agree(rank), parallel.agree(5)],
        "copied": layer.weight.detach(),
        "mean": mean.detach(),
        "through": x.grad,
    }


def bad_part(rank: int) -> tuple[list[bool], dict[str, Any], dict[str, Any]]:
    """Train a step in which only rank 1 has a non-finite sample."""
    trainer = Trainer(CONFIGS["hac"], CPU)
    batches = [small.batch(2, 800, seed=10 * step + rank) for step in range(3)]
    skipped = [trainer.step(batches[0], 0.0).skipped]
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    if rank == 1:
        batches[1][0, 0, 5] = torch.nan
    skipped.append(trainer.step(batches[1], 0.1).skipped)
    after = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    skipped.append(trainer.step(batches[2], 0.2).skipped)
    return skipped, before, after


@dataclass
class Pair:
    """All results of two processes, because starting them takes time."""

    arithmetic: list[dict[str, Any]]
    trained: dict[str, list[Trained]]
    bad: list[tuple[list[bool], dict[str, Any], dict[str, Any]]]


@pytest.fixture(scope="module")
def pair() -> Pair:
    def work(rank: int) -> Any:
        return (
            arithmetic(rank),
            {name: train(name, rank, 2) for name in CONFIGS},
            bad_part(rank),
        )

    both = on_two_processes(work)
    return Pair(
        [numbers for numbers, _, _ in both],
        {name: [trained[name] for _, trained, _ in both] for name in CONFIGS},
        [bad for _, _, bad in both],
    )


def test_collective_operations(pair: Pair) -> None:
    zero, one = pair.arithmetic
    expected = [
        torch.tensor([2.0, 4, 6]),
        torch.full((2, 2), 0.5),
        torch.zeros(2),
        torch.ones(1) / 2,
    ]
    for rank in pair.arithmetic:
        assert not small.differing(rank["gradients"], expected)
        assert rank["largest"] == [1.0, 0.0, 7.0]
        assert rank["agree"] == [False, True]
        assert torch.equal(rank["copied"], torch.zeros(2, 2))
    # bit-equal means; the gradient is the process's own part times the number of processes
    assert torch.equal(zero["mean"], one["mean"])
    torch.testing.assert_close(zero["mean"], torch.tensor([(1 / 9 + 16 / 9) / 2, 0.01]))
    torch.testing.assert_close(one["through"], torch.tensor([8 / 3, 0.2]))


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_and_weights_match_one_process(pair: Pair, name: str) -> None:
    """To rounding, with running statistics, codebooks by k-means, discriminators and balancer."""
    whole = train(name, 0, 1)
    for rank in pair.trained[name]:
        for step, (report, expected) in enumerate(zip(rank.reports, whole.reports, strict=True)):
            assert report.keys() == expected.keys()
            for key, value in expected.items():
                assert report[key] == pytest.approx(value, rel=2e-4, abs=1e-5), (key, step)
        for part in ("model", "average", "discriminators"):
            assert_close(rank.state[part], whole.state[part])


@pytest.mark.parametrize("name", CONFIGS)
def test_state_is_bit_equal_in_both_processes(pair: Pair, name: str) -> None:
    zero, one = (trained.state for trained in pair.trained[name])
    ours = (
        "model",
        "average",
        "discriminators",
        "balancer",
        "optimizer",
        "discriminator_optimizer",
        "steps",
    )
    assert not small.differing({k: zero[k] for k in ours}, {k: one[k] for k in ours})


def test_non_finite_step_is_skipped_by_all_processes(pair: Pair) -> None:
    for skipped, before, after in pair.bad:
        assert skipped == [False, True, False]
        assert not small.differing(before, after)


def assert_close(found: Any, expected: Any, path: str = "") -> None:
    for (name, one), (_, other) in zip(tensors(found), tensors(expected), strict=True):
        scale = float(other.double().abs().max()) + 1e-3
        error = float((one.double() - other.double()).abs().max()) / scale
        assert error < 2e-4, f"{name}: {error}"


def tensors(nest: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(nest, Tensor):
        yield path, nest
    elif isinstance(nest, dict):
        for key, value in nest.items():
            yield from tensors(value, f"{path}.{key}")


def test_run_of_two_processes_resumes_exactly(tmp_path: Path) -> None:
    """Only rank 0 writes files and messages."""
    speech = small.speech(tmp_path / "speech")
    (speech / "broken.wav").write_bytes(b"RIFF nothing")
    config = small.config(
        max_steps=8, save_every=4, validate_every=4, adversarial=small.ADVERSARIAL
    )
    whole, parted = tmp_path / "whole", tmp_path / "parted"

    def work(rank: int) -> list[str]:
        os.umask(0o077 if rank else 0o022)  # so that the mode of a file shows who wrote it
        messages: list[str] = []
        callbacks = Callbacks(on_message=messages.append, on_warning=messages.append)
        with_data = small.with_data(config, speech, speech)
        run.train(with_data, whole, callbacks=callbacks)
        run.train(small.with_data(small.config(max_steps=4), speech), tmp_path / "other")
        parted.mkdir(exist_ok=True)
        if rank == 0:
            (parted / LAST).hardlink_to(whole / "step_00000004.ckpt")
        parallel.largest(0.0)  # rank 1 waits for the link
        run.train(with_data, parted, resume=True)
        return messages

    zero, one = on_two_processes(work)
    assert [line for line in zero if "left out" in line]
    assert [line for line in zero if line.startswith("step 8: mel_db")]
    assert not one
    for path in whole.rglob("*"):
        assert path.is_dir() or path.stat().st_mode & 0o044, f"{path} was written by rank 1"
    states = [read_checkpoint(folder / LAST) for folder in (whole, parted)]
    for state in states:
        del state["seconds"], state["valid"]  # not deterministic
    assert not small.differing(*states)
