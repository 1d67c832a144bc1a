"""Two processes learn what one would learn from the whole batch."""

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
from codectool.training.checkpoint import LAST, read_snapshot
from codectool.training.run import Observer
from codectool.training.trainer import Trainer
from tests.training import small
from tests.training.two_ranks import on_two_ranks

CPU = torch.device("cpu")
STEPS = 5
# A gradient that is zero but for rounding moves its weight by as much as any other, if Adam
# divides it by nothing but its own size.
STEADY = {**small.HAC["training"]["generator"], "eps": 1e-3}
DUEL = {**small.DUEL, "start": 0.0}
RECIPES = {
    "hac": small.config(generator=STEADY, adversarial=DUEL),
    "supercodec": small.config(
        small.SUPERCODEC, generator=STEADY, batch_size=4, adversarial={**DUEL, "segment_size": 200}
    ),
    "bigcodec": small.config(
        small.BIGCODEC,
        generator=STEADY,
        accumulation=2,
        adversarial={
            **DUEL,
            "segment_size": 200,
            "balance": None,
            "loss": "least_squares",
            "relative_features": False,  # by the size of a part's features, of whom it may hold
        },
    ),
}


def test_alone_there_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    with parallel.process_group(CPU):
        assert (parallel.launched(), parallel.first(), parallel.rank()) == (False, True, 0)
        assert parallel.largest(1.5, -2.0) == [1.5, -2.0]
        assert parallel.agree(3)
        weight = nn.Parameter(torch.ones(2))
        parallel.average_gradients([weight])
        assert weight.grad is None


@dataclass
class Trained:
    """What is left of some steps."""

    state: dict[str, Any]
    reports: list[dict[str, float]]


def train(name: str, rank: int, ranks: int) -> Trained:
    """Some steps on this rank's part of the same batches."""
    trainer = Trainer(RECIPES[name], CPU)
    recipe = trainer.recipe
    reports = []
    for step in range(STEPS):
        batch = small.batch(recipe.batch_size, recipe.segment_size, seed=step)
        report = trainer.step(batch.chunk(ranks)[rank], step / STEPS)
        assert not report.skipped
        reports.append(report.values)
    return Trained(trainer.state(), reports)


def arithmetic(rank: int) -> dict[str, Any]:
    """Exchanges with known results."""
    first, second = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))
    unused, frozen = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    first.grad = torch.tensor([1.0, 2.0, 3.0]) * (1 + 2 * rank)
    second.grad = torch.full((2, 2), float(rank))
    if rank:
        frozen.grad = torch.ones(1)
    old, parallel.BUCKET_NUMBERS = parallel.BUCKET_NUMBERS, 4
    parallel.average_gradients([first, second, unused, frozen])
    parallel.BUCKET_NUMBERS = old
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
    """A step in which rank 1 alone is given what is not finite."""
    trainer = Trainer(RECIPES["hac"], CPU)
    batches = [small.batch(2, 800, seed=10 * step + rank) for step in range(3)]
    skipped = [trainer.step(batches[0], 0.0).skipped]
    before = {k: v.clone() for k, v in trainer.trainee.state_dict().items()}
    if rank == 1:
        batches[1][0, 0, 5] = torch.nan
    skipped.append(trainer.step(batches[1], 0.1).skipped)
    after = {k: v.clone() for k, v in trainer.trainee.state_dict().items()}
    skipped.append(trainer.step(batches[2], 0.2).skipped)
    return skipped, before, after


@dataclass
class Pair:
    """All that two processes did together; starting them is what takes time."""

    arithmetic: list[dict[str, Any]]
    trained: dict[str, list[Trained]]
    bad: list[tuple[list[bool], dict[str, Any], dict[str, Any]]]


@pytest.fixture(scope="module")
def pair() -> Pair:
    def work(rank: int) -> Any:
        return (
            arithmetic(rank),
            {name: train(name, rank, 2) for name in RECIPES},
            bad_part(rank),
        )

    both = on_two_ranks(work)
    return Pair(
        [numbers for numbers, _, _ in both],
        {name: [trained[name] for _, trained, _ in both] for name in RECIPES},
        [bad for _, _, bad in both],
    )


def test_exchanges(pair: Pair) -> None:
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
    # bit for bit the same number, and the gradient of this rank's own share times the ranks
    assert torch.equal(zero["mean"], one["mean"])
    torch.testing.assert_close(zero["mean"], torch.tensor([(1 / 9 + 16 / 9) / 2, 0.01]))
    torch.testing.assert_close(one["through"], torch.tensor([8 / 3, 0.2]))


@pytest.mark.parametrize("name", RECIPES)
def test_same_losses_and_weights_as_one_process(pair: Pair, name: str) -> None:
    """To rounding, with running statistics, codebooks by k-means, discriminators and balancer."""
    whole = train(name, 0, 1)
    for rank in pair.trained[name]:
        for step, (report, expected) in enumerate(zip(rank.reports, whole.reports, strict=True)):
            assert report.keys() == expected.keys()
            for key, value in expected.items():
                assert report[key] == pytest.approx(value, rel=2e-4, abs=1e-5), (key, step)
        for part in ("trainee", "average", "judges"):
            assert_close(rank.state[part], whole.state[part])


@pytest.mark.parametrize("name", RECIPES)
def test_both_ranks_have_the_same_bit_for_bit(pair: Pair, name: str) -> None:
    zero, one = (trained.state for trained in pair.trained[name])
    ours = ("trainee", "average", "judges", "balancer", "optimizer", "judge_optimizer", "steps")
    assert not small.differing({k: zero[k] for k in ours}, {k: one[k] for k in ours})


def test_what_is_not_finite_on_one_is_skipped_by_all(pair: Pair) -> None:
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


def test_a_run_of_two_processes(tmp_path: Path) -> None:
    """Rank 0 alone writes and speaks; resumed, the run ends as if it had never stopped."""
    speech = small.speech(tmp_path / "speech")
    (speech / "broken.wav").write_bytes(b"RIFF nothing")
    recipe = small.config(max_steps=8, save_every=4, validate_every=4, adversarial=small.DUEL)
    whole, parted = tmp_path / "whole", tmp_path / "parted"

    def work(rank: int) -> list[str]:
        os.umask(0o077 if rank else 0o022)  # so that a file tells who wrote it
        said: list[str] = []
        observer = Observer(on_message=said.append, on_warning=said.append)
        config = small.with_data(recipe, speech, speech)
        run.train(config, whole, observer=observer)
        run.train(small.with_data(small.config(max_steps=4), speech), tmp_path / "other")
        parted.mkdir(exist_ok=True)
        if rank == 0:
            (parted / LAST).hardlink_to(whole / "step_00000004.ckpt")
        parallel.largest(0.0)  # the other one waits for the link
        run.train(config, parted, resume=True)
        return said

    zero, one = on_two_ranks(work)
    assert [line for line in zero if "left out" in line]
    assert [line for line in zero if line.startswith("step 8: mel_db")]
    assert not one
    for path in whole.rglob("*"):
        assert path.is_dir() or path.stat().st_mode & 0o044, f"{path} was written by rank 1"
    states = [read_snapshot(folder / LAST) for folder in (whole, parted)]
    for state in states:
        del state["seconds"], state["valid"]  # pystoi adds noise of 1e-16
    assert not small.differing(*states)
