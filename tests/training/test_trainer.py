"""One step of training, against the same step made by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codectool.errors import ConfigError, TrainingError
from codectool.training.losses.adversarial import (
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    least_squares_discriminator,
    least_squares_generator,
)
from codectool.training.trainer import StepReport, Trainer
from tests.training import small

CPU = torch.device("cpu")
# Adam divides a gradient that is zero but for rounding by its own size, unless by something more.
STEADY = {**small.HAC["training"]["generator"], "eps": 1e-2}
DUEL = {**small.DUEL, "start": 0.0, "balance": None, "segment_size": None}
FEW = {**small.FEW, "segment_size": 200}
FAMILIES = [small.HAC, small.SUPERCODEC, small.BIGCODEC]


def trainer_of(values: Mapping[str, Any] = small.HAC, **training: Any) -> Trainer:
    return Trainer(small.config(values, **training), CPU)


def crops(trainer: Trainer, seed: int = 0) -> Tensor:
    return small.batch(trainer.recipe.batch_size, trainer.recipe.segment_size, seed)


class Gradients:
    """Those that the optimizers were given in the last step."""

    def __init__(self, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.codec: dict[str, Tensor] = {}
        self.judges: dict[str, Tensor] = {}
        sides: list[tuple[torch.optim.Optimizer | None, nn.Module, dict[str, Tensor]]] = [
            (trainer.optimizer, trainer.trainee, self.codec),
            (trainer.judge_optimizer, trainer.judges, self.judges),
        ]
        for optimizer, owner, kept in sides:
            if optimizer is not None:
                monkeypatch.setattr(optimizer, "step", self._keeper(owner, kept))

    def _keeper(self, owner: nn.Module, kept: dict[str, Tensor]) -> Any:
        def keep() -> None:
            kept.clear()
            grads = {name: p.grad for name, p in owner.named_parameters() if p.grad is not None}
            kept.update({name: grad.clone() for name, grad in grads.items()})

        return keep


def gradients_of(loss: Tensor, owner: nn.Module) -> dict[str, Tensor]:
    named = dict(owner.named_parameters())
    grads = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    return {name: g for name, g in zip(named, grads, strict=True) if g is not None}


def assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() >= expected.keys()
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5 * largest, msg=name)
    assert all(not found[name].any() for name in found.keys() - expected.keys())


# -- the duel ---------------------------------------------------------------------------------


@pytest.mark.parametrize("hinge", [True, False])
@pytest.mark.parametrize("mean", [True, False])
def test_gradients_of_both_sides(hinge: bool, mean: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each side learns from its own losses alone, and both meet the same weights of the other."""
    adversarial = {
        **DUEL,
        "loss": "hinge" if hinge else "least_squares",
        "mean": mean,
        "weight": 2.0,
        "feature_weight": 3.0,
        "relative_features": hinge,
    }
    trainer = trainer_of(adversarial=adversarial, clip_norm=None)
    by_hand = copy.deepcopy(trainer)
    gradients = Gradients(trainer, monkeypatch)
    batch = crops(trainer)
    values = trainer.step(batch, 0.3).values

    by_hand.trainee.train().prepare(0, 0.3)
    made = by_hand.trainee(batch)
    judging, being_judged = made.audio.new_zeros(()), made.audio.new_zeros(())
    for judge in by_hand.judges:
        real, fixed, live = judge(made.target), judge(made.audio.detach()), judge(made.audio)
        logits = [[said.logits for said in side] for side in (real, fixed, live)]
        features = [[said.features for said in side] for side in (real, live)]
        against = hinge_discriminator if hinge else least_squares_discriminator
        fool = hinge_generator if hinge else least_squares_generator
        judging = judging + against(logits[0], logits[1], mean=mean)
        matching = feature_matching(*features, relative=hinge, mean=mean)
        being_judged = being_judged + 2 * fool(logits[2], mean=mean) + 3 * matching
    mel, waveform = (term(made.audio, made.target) for term in by_hand.distances.terms)
    penalties = 0.25 * made.penalties["commitment"] + 1.44 * made.penalties["entropy"]
    total = 10 * mel + waveform + penalties + being_judged

    assert_close(gradients.judges, gradients_of(judging, by_hand.judges))
    assert_close(gradients.codec, gradients_of(total, by_hand.trainee))
    assert values["discriminator"] == pytest.approx(judging.item(), rel=1e-5)
    assert values["loss"] == pytest.approx((10 * mel + waveform + penalties).item(), rel=1e-5)
    norm = torch.stack([g.square().sum() for g in gradients.codec.values()]).sum().sqrt()
    assert values["gradient"] == pytest.approx(norm.item(), rel=1e-5)


def test_balanced_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the output every term's gradient has the norm it was given; penalties are added as is."""
    norms = {"mel": 0.5, "waveform": 0.2, "adversarial": 1.0, "features": 0.3}
    adversarial = {**DUEL, "discriminators": DUEL["discriminators"][:2], "balance": norms}
    trainer = trainer_of(adversarial=adversarial, clip_norm=None)
    by_hand = copy.deepcopy(trainer)
    gradients = Gradients(trainer, monkeypatch)
    batch = crops(trainer)
    trainer.step(batch, 0.0)

    by_hand.trainee.train().prepare(0, 0.0)
    made = by_hand.trainee(batch)
    losses = [(0.5, by_hand.distances.terms[0](made.audio, made.target))]
    losses += [(0.2, by_hand.distances.terms[1](made.audio, made.target))]
    for judge in by_hand.judges:
        real, live = judge(made.target), judge(made.audio)
        losses += [(1.0, hinge_generator([said.logits for said in live], mean=True))]
        maps = [[said.features for said in side] for side in (real, live)]
        losses += [(0.3, feature_matching(*maps, relative=True, mean=True))]
    at_output = torch.zeros_like(made.audio)
    for norm, loss in losses:
        (gradient,) = torch.autograd.grad(loss, made.audio, retain_graph=True)
        at_output += norm * gradient / gradient.norm()
    penalties = 0.25 * made.penalties["commitment"] + 1.44 * made.penalties["entropy"]
    total = (at_output.detach() * made.audio).sum() + penalties
    assert_close(gradients.codec, gradients_of(total, by_hand.trainee))


def test_discriminators_come_late_and_not_every_time() -> None:
    trainer = trainer_of(adversarial={**FEW, "start": 0.4, "every": 3})
    judges = [p.detach().clone() for p in trainer.judges.parameters()]
    seen = []
    for step in range(12):
        values = trainer.step(crops(trainer, step), step / 12).values
        seen.append("discriminator" in values)
        changed = any(
            not torch.equal(p, before)
            for p, before in zip(trainer.judges.parameters(), judges, strict=True)
        )
        assert changed == any(seen)
    assert [step for step, met in enumerate(seen) if met] == [6, 9]


def test_both_are_judged_by_the_same_piece_another_one_each_step() -> None:
    trainer = trainer_of(adversarial={**DUEL, "segment_size": 160})
    ramp = torch.arange(760.0).expand(2, 1, 760)
    starts = []
    for trainer.steps in range(40):
        output, target = trainer._piece(ramp, ramp + 1000)
        assert output.shape == (2, 1, 160)
        assert torch.equal(output + 1000, target)
        assert torch.equal(trainer._piece(ramp, ramp)[0], output)
        starts.append(int(output[0, 0, 0]))
    assert min(starts) < 100
    assert 500 < max(starts) <= 600
    assert trainer._piece(ramp[..., :50], ramp[..., :50])[0].shape == (2, 1, 50)


# -- optimizers -------------------------------------------------------------------------------


def test_accumulated_parts_are_the_whole_batch() -> None:
    """To rounding, for a model without statistics of the batch."""
    recipe = {
        "batch_size": 6,
        "generator": STEADY,
        "adversarial": {**DUEL, "relative_features": False, "segment_size": 200},
    }
    whole = trainer_of(small.BIGCODEC, **recipe)
    parts = trainer_of(small.BIGCODEC, **recipe, accumulation=3)
    for step in range(3):
        batch = crops(whole, step)
        one, other = (trainer.step(batch, step / 3).values for trainer in (whole, parts))
        assert one == {name: pytest.approx(value, rel=1e-4) for name, value in other.items()}
    for owner in ("trainee", "judges"):
        one, other = (getattr(trainer, owner).state_dict() for trainer in (whole, parts))
        assert_close(one, other)


def test_gradients_are_clipped_on_each_side(monkeypatch: pytest.MonkeyPatch) -> None:
    free = trainer_of(adversarial=DUEL, clip_norm=None)
    bound = trainer_of(adversarial=DUEL, clip_norm=0.001)
    values = []
    for trainer in (free, bound):
        gradients = Gradients(trainer, monkeypatch)
        values.append(trainer.step(crops(trainer), 0.0).values)
    assert values[0] == values[1]  # norms are those before
    for side in (gradients.codec, gradients.judges):
        norm = torch.stack([g.square().sum() for g in side.values()]).sum().sqrt()
        assert norm.item() == pytest.approx(0.001, rel=1e-2)


def test_rates_of_both_sides_follow_the_schedule() -> None:
    slow = {**STEADY, "learning_rate": 4e-4}
    schedule = {"decay": "linear", "final": 0.2, "warmup_steps": 2, "warmup_from": 0.5}
    trainer = trainer_of(
        max_steps=10, schedule=schedule, discriminator=slow, adversarial={**FEW, "start": 0.0}
    )
    rates = []
    for step in range(10):
        trainer.step(crops(trainer), step / 10)
        judge_optimizer = trainer.judge_optimizer
        assert judge_optimizer is not None
        sides = (trainer.optimizer, judge_optimizer)
        rates.append([group["lr"] for side in sides for group in side.param_groups])
    factors = [0.5, 0.75, *(1 - 0.8 * step / 8 for step in range(8))]
    expected = [[1e-3 * factor, 1e-3 * factor, 4e-4 * factor] for factor in factors]
    assert rates == [pytest.approx(each) for each in expected]


def test_which_weights_decay() -> None:
    """Matrices and kernels of HAC, all of BigCodec, none of SuperCodec."""
    share = {}
    for values in FAMILIES:
        groups = trainer_of(values).optimizer.param_groups
        numbers = {g["weight_decay"]: sum(p.numel() for p in g["params"]) for g in groups}
        share[values["family"]] = numbers.get(0.01, 0) / sum(numbers.values())
    assert 0.8 < share["hac"] < 1
    assert (share["bigcodec"], share["supercodec"]) == (1, 0)
    spared = trainer_of().optimizer.param_groups[1]["params"]
    assert {parameter.ndim for parameter in spared} == {1}


def test_the_average_of_the_weights() -> None:
    trainer = trainer_of(ema=0.3)
    average = trainer.average
    assert average is not None
    expected = {n: t.clone() for n, t in trainer.trainee.state_dict().items()}
    for step in range(5):
        trainer.step(crops(trainer, step), step / 5)
        decay = min(0.3, (1 + step) / (10 + step))
        for name, tensor in trainer.trainee.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
    assert average.tensors.keys() == {n for n, t in expected.items() if t.is_floating_point()}
    assert "network.bottleneck.whitening" in average.tensors
    for name, tensor in average.tensors.items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


@pytest.mark.parametrize("values", FAMILIES)
def test_the_same_seed_the_same_weights(values: dict[str, Any]) -> None:
    """Bit for bit after twenty steps of HAC, ten of the slower ones; another seed elsewhere."""
    states, count = [], 20 if values is small.HAC else 10
    for seed in (3, 3, 4):
        trainer = trainer_of(values, seed=seed, adversarial=FEW)
        for step in range(count if seed == 3 else 1):
            trainer.step(crops(trainer, step), step / count)
        states.append({k: v for k, v in trainer.state().items() if k != "config"})
    assert not small.differing(states[0], states[1])
    assert small.differing(states[0]["trainee"], states[2]["trainee"])


# -- what is not finite -----------------------------------------------------------------------


def kept(trainer: Trainer) -> dict[str, Any]:
    """What a step that is left out must not change."""
    parts = {name: trainer.state()[name] for name in ("trainee", "average", "judges", "balancer")}
    for name in ("optimizer", "judge_optimizer"):  # rates go by the step, whatever becomes of it
        parts[name] = (trainer.state()[name] or {}).get("state")
    return copy.deepcopy(parts)


@pytest.mark.parametrize(("steps", "bad"), [(0, math.nan), (2, math.nan), (2, 1e38)])
@pytest.mark.parametrize("values", FAMILIES)
def test_a_bad_batch_leaves_everything_as_it_was(
    values: dict[str, Any], steps: int, bad: float
) -> None:
    """Bit for bit: weights, averages, moments, running statistics, codebooks, balancer.

    One bad sample of one crop in the second of two parts, also in the very first step, in which
    SuperCodec makes its codebooks.
    """
    trainer = trainer_of(values, adversarial={**FEW, "start": 0.0}, accumulation=2)
    for step in range(steps):
        assert not trainer.step(crops(trainer, step), 0.1).skipped
    before = kept(trainer)
    batch = crops(trainer, 50)
    batch[-1, 0, 33:60] = bad
    assert trainer.step(batch, 0.1).skipped
    assert not small.differing(kept(trainer), before)
    assert (trainer.steps, trainer.skipped, trainer.bad_steps) == (steps + 1, 1, 1)
    assert not trainer.step(crops(trainer, 51), 0.1).skipped
    assert (trainer.steps, trainer.skipped, trainer.bad_steps) == (steps + 2, 1, 0)
    assert small.differing(kept(trainer), before)


def test_a_bad_gradient_behind_a_good_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of()
    before = kept(trainer)
    weight = next(trainer.trainee.parameters())
    handle = weight.register_hook(lambda grad: grad * torch.inf)
    report = trainer.step(crops(trainer), 0.0)
    assert report.skipped
    assert math.isfinite(report.values["loss"])
    assert not small.differing(kept(trainer), before)
    handle.remove()
    assert not trainer.step(crops(trainer), 0.0).skipped


def test_too_many_bad_steps_in_a_row() -> None:
    trainer = trainer_of(max_bad_steps=3)
    good, bad = crops(trainer), crops(trainer) * torch.nan
    for batch in (bad, bad, good, bad, bad):
        trainer.step(batch, 0.0)
    with pytest.raises(TrainingError, match="3 steps in a row had a loss or gradient"):
        trainer.step(bad, 0.0)
    assert (trainer.steps, trainer.skipped) == (6, 5)


# -- lower precision --------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("values", FAMILIES)
def test_lower_precision(values: dict[str, Any], precision: str) -> None:
    """Not the same as float32, but near it; weights stay float32."""
    duel = {**FEW, "start": 0.0}
    reports: list[StepReport] = []
    for each in ("fp32", precision):
        trainer = trainer_of(values, adversarial=duel, precision=each, max_bad_steps=30)
        reports.append(trainer.step(crops(trainer), 0.0))
    for name in ("mel", "waveform", "commitment", "discriminator"):
        exact, rough = (report.values[name] for report in reports)
        assert rough == pytest.approx(exact, rel=0.1, abs=0.01), name
    assert reports[0].values["mel"] != reports[1].values["mel"]
    assert {p.dtype for p in trainer.trainee.parameters()} == {torch.float32}


def test_fp16_finds_its_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale that is too large costs steps, not weights; the right one is kept in the state."""
    trainer = trainer_of(precision="fp16")
    trainer.step(crops(trainer), 0.0)
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 2.0**120})
    before = kept(trainer)
    assert trainer.step(crops(trainer), 0.0).skipped
    assert trainer.scaler.get_scale() == 2.0**119
    assert not small.differing(kept(trainer), before)
    resumed = trainer_of(precision="fp16")
    resumed.load_state(trainer.state())
    assert resumed.scaler.get_scale() == 2.0**119
    trainer_of(precision="fp32").load_state(trainer.state())  # the other way round, too
    resumed.load_state(trainer_of(precision="fp32").state())


# -- lengths ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["losses.0.windows=[1024,64]"], "`training.losses`: 760 samples are too few"),
        (["losses.0.fft_size=1024"], "`training.losses`: 760 samples are too few"),
        (
            ["adversarial.segment_size=100"],
            "`training.adversarial`: the STFT discriminator of window 128 needs pieces of at least "
            "128 samples, not 100",
        ),
        (
            ["adversarial.discriminators.0.windows=[800]", "adversarial.segment_size=null"],
            "window 800 needs pieces of at least 800 samples, not 760",  # the look-ahead is cut off
        ),
    ],
)
def test_too_short_crops_are_found_before_the_first_step(changes: list[str], message: str) -> None:
    values = small.config(adversarial=small.DUEL).to_json()
    with pytest.raises(ConfigError, match=message):
        Trainer(small.config(values, *(f"training.{change}" for change in changes)), CPU)


def test_trying_the_lengths_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for values in FAMILIES:
        tried = trainer_of(values)
        with monkeypatch.context() as context:
            context.setattr(Trainer, "_try_lengths", lambda self: None)
            untried = trainer_of(values)
            assert not small.differing(tried.state(), untried.state())
