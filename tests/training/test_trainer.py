"""Training steps, compared with reference computations."""

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
    Kind,
    discriminator_loss,
    feature_matching,
    generator_loss,
)
from codectool.training.trainer import StepReport, Trainer
from tests.training import small

CPU = torch.device("cpu")
# With a small eps, Adam moves a weight whose gradient is rounding noise as far as any other.
STEADY = {**small.HAC["training"]["generator"], "eps": 1e-2}
ADVERSARIAL = {**small.ADVERSARIAL, "start": 0.0, "balance": None, "segment_size": None}
ONE_DISCRIMINATOR = {**small.ONE_DISCRIMINATOR, "segment_size": 200}
FAMILIES = [small.HAC, small.SUPERCODEC, small.BIGCODEC]


def trainer_of(values: Mapping[str, Any] = small.HAC, **training: Any) -> Trainer:
    return Trainer(small.config(values, **training), CPU)


def crops(trainer: Trainer, seed: int = 0) -> Tensor:
    return small.batch(trainer.config.batch_size, trainer.config.segment_size, seed)


class Gradients:
    """The gradients that the optimizers got in the last step."""

    def __init__(self, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.codec: dict[str, Tensor] = {}
        self.discriminators: dict[str, Tensor] = {}
        step = self._keeper(trainer.model, self.codec)
        monkeypatch.setattr(trainer.optimizer, "step", step)
        if trainer.adversarial is not None:
            step = self._keeper(trainer.adversarial.discriminators, self.discriminators)
            monkeypatch.setattr(trainer.discriminator_optimizer, "step", step)

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


# -- adversarial training ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hinge", "least_squares"])
@pytest.mark.parametrize("mean", [True, False])
def test_gradients_of_codec_and_discriminators_match_reference(
    kind: Kind, mean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets the gradient of its own losses at the same weights of the other."""
    adversarial = {
        **ADVERSARIAL,
        "loss": kind,
        "mean": mean,
        "weight": 2.0,
        "feature_weight": 3.0,
        "relative_features": mean,
    }
    trainer = trainer_of(adversarial=adversarial, clip_norm=None)
    reference = copy.deepcopy(trainer)
    gradients = Gradients(trainer, monkeypatch)
    batch = crops(trainer)
    values = trainer.step(batch, 0.3).values

    reference.model.train().prepare_step(0, 0.3)
    output = reference.model(batch)
    audio, target = output.audio, output.target
    discriminator_total, adversarial_total = audio.new_zeros(()), audio.new_zeros(())
    assert reference.adversarial is not None
    discriminators = reference.adversarial.discriminators
    for discriminator in discriminators:
        outputs = [discriminator(wave) for wave in (target, audio.detach(), audio)]
        real, detached, fake = ([each.logits for each in side] for side in outputs)
        features = [[each.features for each in side] for side in (outputs[0], outputs[2])]
        discriminator_total = discriminator_total + discriminator_loss(real, detached, kind, mean)
        matching = feature_matching(*features, relative=mean, mean=mean)
        adversarial_total = adversarial_total + 2 * generator_loss(fake, kind, mean) + 3 * matching
    mel, waveform = (loss(audio, target) for loss in reference.reconstruction.losses)
    losses = output.auxiliary_losses
    auxiliary = 0.25 * losses["commitment"] + 1.44 * losses["entropy"]
    total = 10 * mel + waveform + auxiliary + adversarial_total

    expected = gradients_of(discriminator_total, discriminators)
    assert_close(gradients.discriminators, expected)
    assert_close(gradients.codec, gradients_of(total, reference.model))
    assert values["discriminator"] == pytest.approx(discriminator_total.item(), rel=1e-5)
    assert values["loss"] == pytest.approx((10 * mel + waveform + auxiliary).item(), rel=1e-5)
    norm = torch.stack([g.square().sum() for g in gradients.codec.values()]).sum().sqrt()
    assert values["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)


def test_balanced_gradient_matches_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the output each loss's gradient has its norm; auxiliary losses are added by weight."""
    norms = {"mel": 0.5, "waveform": 0.2, "adversarial": 1.0, "features": 0.3}
    adversarial = {
        **ADVERSARIAL,
        "discriminators": ADVERSARIAL["discriminators"][:2],
        "balance": norms,
    }
    trainer = trainer_of(adversarial=adversarial, clip_norm=None)
    reference = copy.deepcopy(trainer)
    gradients = Gradients(trainer, monkeypatch)
    batch = crops(trainer)
    trainer.step(batch, 0.0)

    reference.model.train().prepare_step(0, 0.0)
    output = reference.model(batch)
    audio, target = output.audio, output.target
    mel, waveform = (loss(audio, target) for loss in reference.reconstruction.losses)
    losses = [(0.5, mel), (0.2, waveform)]
    assert reference.adversarial is not None
    for discriminator in reference.adversarial.discriminators:
        real, fake = discriminator(target), discriminator(audio)
        losses += [(1.0, generator_loss([each.logits for each in fake], "hinge", mean=True))]
        maps = [[each.features for each in side] for side in (real, fake)]
        losses += [(0.3, feature_matching(*maps, relative=True, mean=True))]
    at_output = torch.zeros_like(audio)
    for norm, loss in losses:
        (gradient,) = torch.autograd.grad(loss, audio, retain_graph=True)
        at_output += norm * gradient / gradient.norm()
    commitment, entropy = (output.auxiliary_losses[name] for name in ("commitment", "entropy"))
    total = (at_output.detach() * audio).sum() + 0.25 * commitment + 1.44 * entropy
    assert_close(gradients.codec, gradients_of(total, reference.model))


def test_adversarial_training_starts_late_and_skips_steps() -> None:
    trainer = trainer_of(adversarial={**ONE_DISCRIMINATOR, "start": 0.4, "every": 3})
    assert trainer.adversarial is not None
    parameters = list(trainer.adversarial.parameters())
    initial = [p.detach().clone() for p in parameters]
    active = []
    for step in range(12):
        values = trainer.step(crops(trainer, step), step / 12).values
        active.append("discriminator" in values)
        pairs = zip(parameters, initial, strict=True)
        assert any(not torch.equal(p, before) for p, before in pairs) == any(active)
    assert [step for step, met in enumerate(active) if met] == [6, 9]


def test_discriminators_see_the_same_random_crop_of_output_and_target() -> None:
    adversarial = trainer_of(adversarial={**ADVERSARIAL, "segment_size": 160}).adversarial
    assert adversarial is not None
    ramp = torch.arange(760.0).expand(2, 1, 760)
    starts = []
    for seed in range(40):
        output, target = adversarial.crop(ramp, ramp + 1000, seed)
        assert output.shape == (2, 1, 160)
        assert torch.equal(output + 1000, target)
        assert torch.equal(adversarial.crop(ramp, ramp, seed)[0], output)
        starts.append(int(output[0, 0, 0]))
    assert min(starts) < 100
    assert 500 < max(starts) <= 600
    assert adversarial.crop(ramp[..., :50], ramp[..., :50], 0)[0].shape == (2, 1, 50)


# -- optimizers -------------------------------------------------------------------------------


def test_accumulation_matches_the_whole_batch() -> None:
    """To rounding, for a model without statistics of the batch."""
    settings = {
        "batch_size": 6,
        "generator": STEADY,
        "adversarial": {**ADVERSARIAL, "relative_features": False, "segment_size": 200},
    }
    whole = trainer_of(small.BIGCODEC, **settings)
    parts = trainer_of(small.BIGCODEC, **settings, accumulation=3)
    for step in range(3):
        batch = crops(whole, step)
        one, other = (trainer.step(batch, step / 3).values for trainer in (whole, parts))
        assert one == {name: pytest.approx(value, rel=1e-4) for name, value in other.items()}
    for name in ("model", "adversarial"):
        one, other = (getattr(trainer, name).state_dict() for trainer in (whole, parts))
        assert_close(one, other)


def test_gradients_of_codec_and_discriminators_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    free = trainer_of(adversarial=ADVERSARIAL, clip_norm=None)
    bound = trainer_of(adversarial=ADVERSARIAL, clip_norm=0.001)
    values = []
    for trainer in (free, bound):
        gradients = Gradients(trainer, monkeypatch)
        values.append(trainer.step(crops(trainer), 0.0).values)
    assert values[0] == values[1]  # norms before clipping
    for side in (gradients.codec, gradients.discriminators):
        norm = torch.stack([g.square().sum() for g in side.values()]).sum().sqrt()
        assert norm.item() == pytest.approx(0.001, rel=1e-2)


def test_learning_rates_follow_the_schedule() -> None:
    slow = {**STEADY, "learning_rate": 4e-4}
    schedule = {"decay": "linear", "final": 0.2, "warmup_steps": 2, "warmup_from": 0.5}
    trainer = trainer_of(
        max_steps=10,
        schedule=schedule,
        discriminator=slow,
        adversarial={**ONE_DISCRIMINATOR, "start": 0.0},
    )
    rates = []
    for step in range(10):
        trainer.step(crops(trainer), step / 10)
        assert trainer.discriminator_optimizer is not None
        optimizers = (trainer.optimizer, trainer.discriminator_optimizer)
        rates.append([group["lr"] for each in optimizers for group in each.param_groups])
    factors = [0.5, 0.75, *(1 - 0.8 * step / 8 for step in range(8))]
    expected = [[1e-3 * factor, 1e-3 * factor, 4e-4 * factor] for factor in factors]
    assert rates == [pytest.approx(each) for each in expected]


def test_weight_decay_of_each_family() -> None:
    """Matrices and kernels of HAC, all of BigCodec, none of SuperCodec."""
    share = {}
    for values in FAMILIES:
        groups = trainer_of(values).optimizer.param_groups
        numbers = {g["weight_decay"]: sum(p.numel() for p in g["params"]) for g in groups}
        share[values["family"]] = numbers.get(0.01, 0) / sum(numbers.values())
    assert 0.8 < share["hac"] < 1
    assert (share["bigcodec"], share["supercodec"]) == (1, 0)
    other = trainer_of().optimizer.param_groups[1]["params"]
    assert {parameter.ndim for parameter in other} == {1}


def test_average_follows_the_weights() -> None:
    trainer = trainer_of(ema=0.3)
    average = trainer.average
    assert average is not None
    expected = {n: t.clone() for n, t in trainer.model.state_dict().items()}
    for step in range(5):
        trainer.step(crops(trainer, step), step / 5)
        decay = min(0.3, (1 + step) / (10 + step))
        for name, tensor in trainer.model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
    assert average.tensors.keys() == {n for n, t in expected.items() if t.is_floating_point()}
    assert "network.bottleneck.whitening" in average.tensors
    for name, tensor in average.tensors.items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


@pytest.mark.parametrize("values", FAMILIES)
def test_same_seed_gives_bit_equal_state(values: dict[str, Any]) -> None:
    """After twenty steps of HAC, or ten of the slower models; another seed differs."""
    states, count = [], 20 if values is small.HAC else 10
    for seed in (3, 3, 4):
        trainer = trainer_of(values, seed=seed, adversarial=ONE_DISCRIMINATOR)
        for step in range(count if seed == 3 else 1):
            trainer.step(crops(trainer, step), step / count)
        states.append({k: v for k, v in trainer.state().items() if k != "config"})
    assert not small.differing(states[0], states[1])
    assert small.differing(states[0]["model"], states[2]["model"])


# -- non-finite losses and gradients ----------------------------------------------------------


def kept(trainer: Trainer) -> dict[str, Any]:
    """Return the state that a skipped step must not change."""
    parts = {
        name: trainer.state()[name] for name in ("model", "average", "discriminators", "balancer")
    }
    for name in (
        "optimizer",
        "discriminator_optimizer",
    ):  # learning rates change in each step
        parts[name] = (trainer.state()[name] or {}).get("state")
    return copy.deepcopy(parts)


@pytest.mark.parametrize(("steps", "bad"), [(0, math.nan), (2, math.nan), (2, 1e38)])
@pytest.mark.parametrize("values", FAMILIES)
def test_non_finite_batch_does_not_change_the_state(
    values: dict[str, Any], steps: int, bad: float
) -> None:
    """Bit for bit: weights, averages, moments, running statistics, codebooks, balancer.

    A bad sample of one crop in the second of two parts, also in the first step, which initialises
    SuperCodec's codebooks.
    """
    trainer = trainer_of(values, adversarial={**ONE_DISCRIMINATOR, "start": 0.0}, accumulation=2)
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


def test_non_finite_gradient_skips_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of()
    before = kept(trainer)
    weight = next(trainer.model.parameters())
    handle = weight.register_hook(lambda grad: grad * torch.inf)
    report = trainer.step(crops(trainer), 0.0)
    assert report.skipped
    assert math.isfinite(report.values["loss"])
    assert not small.differing(kept(trainer), before)
    handle.remove()
    assert not trainer.step(crops(trainer), 0.0).skipped


def test_too_many_consecutive_bad_steps_are_an_error() -> None:
    trainer = trainer_of(max_bad_steps=3)
    good, bad = crops(trainer), crops(trainer) * torch.nan
    for batch in (bad, bad, good, bad, bad):
        trainer.step(batch, 0.0)
    with pytest.raises(TrainingError, match="3 consecutive steps had a loss or gradient"):
        trainer.step(bad, 0.0)
    assert (trainer.steps, trainer.skipped) == (6, 5)


# -- lower precision --------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("values", FAMILIES)
def test_lower_precision_is_close_to_float32(values: dict[str, Any], precision: str) -> None:
    """Weights stay float32."""
    adversarial = {**ONE_DISCRIMINATOR, "start": 0.0}
    reports: list[StepReport] = []
    for each in ("fp32", precision):
        trainer = trainer_of(values, adversarial=adversarial, precision=each, max_bad_steps=30)
        reports.append(trainer.step(crops(trainer), 0.0))
    for name in ("mel", "waveform", "commitment", "discriminator"):
        exact, rough = (report.values[name] for report in reports)
        assert rough == pytest.approx(exact, rel=0.1, abs=0.01), name
    assert reports[0].values["mel"] != reports[1].values["mel"]
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


def test_fp16_scale_is_reduced_and_stored() -> None:
    """Too large a scale skips steps."""
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
    trainer_of(precision="fp32").load_state(trainer.state())  # precision may change
    resumed.load_state(trainer_of(precision="fp32").state())


# -- lengths ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["losses.0.windows=[1024,64]"], "`training.losses`: 760 samples are too few"),
        (["losses.0.fft_size=1024"], "`training.losses`: 760 samples are too few"),
        (
            ["adversarial.segment_size=100"],
            "`training.adversarial`: the STFT discriminator of window 128 needs crops of at least "
            "128 samples, not 100",
        ),
        (
            ["adversarial.discriminators.0.windows=[800]", "adversarial.segment_size=null"],
            "window 800 needs crops of at least 800 samples, not 760",  # without the look-ahead
        ),
    ],
)
def test_short_crops_are_refused_before_the_first_step(changes: list[str], message: str) -> None:
    values = small.config(adversarial=small.ADVERSARIAL).to_json()
    with pytest.raises(ConfigError, match=message):
        Trainer(small.config(values, *(f"training.{change}" for change in changes)), CPU)


@pytest.mark.parametrize("values", FAMILIES)
def test_crop_length_check_does_not_change_the_state(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = trainer_of(values)
    monkeypatch.setattr(Trainer, "_check_crop_length", lambda self: None)
    assert not small.differing(checked.state(), trainer_of(values).state())
