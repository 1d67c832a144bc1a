"""The training loop, from a batch of crops to new weights.

One step, for a generator G (the codec) and discriminators D::

    y, penalties = G(x)
    D:  L_D = sum of hinge or least-squares losses of D(x), D(y)
    G:  L_G = distances(y, x) + adversarial(D(y)) + features(D(y), D(x)) + penalties

Both sides are judged by the same weights of D, so real speech is judged once for both. Whoever
reads only one function reads `Trainer.step`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from codectool.errors import CheckpointError, ConfigError, TrainingError
from codectool.nn.distributed import all_reduce_sum, world_size
from codectool.training.checkpoint import Rest, take_moments, take_tensors
from codectool.training.config import Optimizer, Schedule, TrainingConfig, shape_change
from codectool.training.losses.balancer import GradientBalancer
from codectool.training.models import build
from codectool.training.objective import (
    Distances,
    build_discriminator,
    discriminator_loss,
    generator_losses,
    penalty_sum,
)
from codectool.training.parallel import average_gradients, broadcast_parameters


class WeightAverage:
    """Exponential moving average of parameters and float buffers, which belong together.

    Running statistics are averaged like the weights they were measured with; counters are not.

    Args:
        model: what to follow.
        decay: per step, in the long run; the first steps count more (``(1 + n) / (10 + n)``).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.count = 0
        self._followed = _floats(model)
        self.tensors = {name: tensor.detach().clone() for name, tensor in self._followed.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of the step just done."""
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        self.count += 1
        torch._foreach_lerp_(
            list(self.tensors.values()), list(self._followed.values()), weight=1 - decay
        )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the averaged weights for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, tensor in self._followed.items():
            mine = self.tensors[name]
            kept = tensor.detach().clone()
            tensor.copy_(mine)
            mine.copy_(kept)

    def state(self) -> dict[str, object]:
        """For a checkpoint."""
        return {"count": self.count, "tensors": self.tensors}

    def load_state(self, count: int, tensors: dict[str, Tensor]) -> None:
        """From a checkpoint."""
        self.count = count
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])


def _floats(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach()
        for name, tensor in model.state_dict(keep_vars=True).items()
        if torch.is_floating_point(tensor)
    }


def rate_factor(schedule: Schedule, step: int, max_steps: int, progress: float) -> float:
    """Share of the optimizer's learning rate in a step.

    Args:
        schedule: what the config asks for.
        step: steps done so far.
        max_steps: length of the run.
        progress: done share of the run, which is ahead of ``step / max_steps`` where time is what
            ends it.
    """
    if step < schedule.warmup_steps:
        risen = math.pow(step / schedule.warmup_steps, schedule.warmup_power)
        return schedule.warmup_from + (1 - schedule.warmup_from) * risen
    if schedule.decay == "none":
        return 1.0
    if schedule.decay_steps is None:
        start = min(schedule.warmup_steps / max_steps, 0.99)
        done = (progress - start) / (1 - start)
    else:
        done = (step - schedule.warmup_steps) / schedule.decay_steps
    done = min(max(done, 0.0), 1.0)
    left = 1 - done if schedule.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
    return schedule.final + (1 - schedule.final) * left


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepReport:
    """What a step has to say.

    Attributes:
        values: losses and norms by name, of the whole batch.
        skipped: the step was left out: something was not finite.
    """

    values: dict[str, float]
    skipped: bool


class Trainer:
    """Weights, optimizers and all else that a step changes.

    Args:
        config: what to train, and how.
        device: where.

    Attributes:
        trainee: the codec.
        judges: families of discriminators.
        average: running average of the codec's weights, or None.
        steps: done so far, skipped ones included.
        bad_steps: skipped ones in a row.
        skipped: skipped ones in all.
    """

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.recipe = recipe = config.training
        torch.manual_seed(recipe.seed)
        self.trainee = build(config).to(device)
        rate = self.trainee.sample_rate
        self.distances = Distances(recipe.losses, rate).to(device)
        adversarial = recipe.adversarial
        families = adversarial.discriminators if adversarial else ()
        self.judges = nn.ModuleList(build_discriminator(f) for f in families).to(device)
        self.balancer = self._balancer().to(device)
        broadcast_parameters(self.trainee)
        broadcast_parameters(self.judges)
        self.average = WeightAverage(self.trainee, recipe.ema) if recipe.ema else None

        self.optimizer = make_optimizer(recipe.generator, self._decay_groups())
        judge_recipe = recipe.discriminator or recipe.generator
        self.judge_optimizer = (
            make_optimizer(judge_recipe, [{"params": list(self.judges.parameters())}])
            if families
            else None
        )
        # fp16 gradients vanish unless the loss is scaled up
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self.steps = self.bad_steps = self.skipped = 0
        self._try_lengths()
        if recipe.compile:
            self.trainee.compile_parts()

    def step(self, batch: Tensor, progress: float) -> StepReport:
        """Learn from crops.

        Args:
            batch: float32 ``(B, 1, N)``, this rank's part of the batch.
            progress: done share of the run, 0 to 1: what schedules go by.

        Raises:
            TrainingError: too many steps in a row had something that was not finite.
        """
        recipe = self.recipe
        dueling = self._dueling(progress)
        optimizers = [self.optimizer]
        if dueling and self.judge_optimizer is not None:
            optimizers.append(self.judge_optimizer)
        self._set_rates(progress)
        self.trainee.train().prepare(self.steps, progress)
        before = [buffer.clone() for buffer in self._buffers()]
        seen: dict[str, Tensor] = {}

        for part in batch.chunk(recipe.accumulation):
            with self._autocast():
                made = self.trainee(part)
            if dueling:
                losses, judge_loss = self._judge(made.audio, made.target)
                backward(judge_loss / recipe.accumulation)
                add_up(seen, {"discriminator": judge_loss}, recipe.accumulation)
            else:
                losses = {}
            plain, weighted = self.distances(made.audio, made.target)
            penalty = penalty_sum(made.penalties, recipe.penalties)
            total = self._total({**weighted, **losses}, made.audio, dueling) + penalty
            backward(self.scaler.scale(total / recipe.accumulation))
            add_up(seen, {**plain, **losses, **made.penalties}, recipe.accumulation)
            add_up(seen, {"loss": sum(weighted.values()) + penalty}, recipe.accumulation)

        average_gradients(self.trainee.parameters())
        self.scaler.unscale_(self.optimizer)
        seen["gradient"] = clip(self.trainee, recipe.clip_norm)
        if len(optimizers) > 1:
            average_gradients(self.judges.parameters())
            seen["judge_gradient"] = clip(self.judges, recipe.clip_norm)
        # one wait for the device in the whole step; what is not finite on one rank is so on all
        means = all_reduce_sum(torch.stack(list(seen.values()))) / world_size()
        values = dict(zip(seen, means.tolist(), strict=True))
        finite = all(map(math.isfinite, values.values()))
        if finite:
            self.scaler.step(self.optimizer)
            for optimizer in optimizers[1:]:
                optimizer.step()
            if self.average is not None:
                self.average.update()
        else:  # the running statistics have seen it already
            for buffer, kept in zip(self._buffers(), before, strict=True):
                buffer.copy_(kept)
        self.scaler.update()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self._count(finite)
        values["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        return StepReport(values, skipped=not finite)

    def _judge(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """What the discriminators say: losses for the generator, and their own.

        The gradient of their own loss must not reach the generator, nor the generator's their
        weights.
        """
        adversarial = self.recipe.adversarial
        assert adversarial is not None
        output, target = self._piece(output, target)
        losses: dict[str, Tensor] = {}
        total = output.new_zeros(())
        for number, judge in enumerate(self.judges):
            with self._autocast(wide_only=True):
                real, made = judge(target), judge(output.detach())
                total = total + discriminator_loss(adversarial, real, made)
                with frozen(judge):
                    said = generator_losses(adversarial, real, judge(output))
            losses |= {f"{name}_{number}": value for name, value in said.items()}
        return losses, total

    def _total(self, losses: Mapping[str, Tensor], output: Tensor, dueling: bool) -> Tensor:
        """Add the losses up: by their weights, or so that their gradients have given norms."""
        adversarial = self.recipe.adversarial
        if dueling and adversarial is not None and adversarial.balance is not None:
            gradient = self.balancer.combine(losses, output)
            return (gradient * output).sum()
        weights = {}
        if adversarial is not None:
            weights = {
                "adversarial": adversarial.weight,
                "features": adversarial.feature_weight,
            }
        total = output.new_zeros(())
        for name, value in losses.items():
            total = total + weights.get(name.partition("_")[0], 1.0) * value
        return total

    def _piece(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The same random stretch of both, as long as the discriminators want it."""
        adversarial = self.recipe.adversarial
        length = adversarial.segment_size if adversarial else None
        if length is None or length >= output.shape[-1]:
            return output, target
        # drawn from the step's number: the same on all ranks, and after a resume
        generator = torch.Generator().manual_seed(self.recipe.seed + self.steps)
        start = int(torch.randint(output.shape[-1] - length + 1, (), generator=generator))
        return output[..., start : start + length], target[..., start : start + length]

    def _dueling(self, progress: float) -> bool:
        adversarial = self.recipe.adversarial
        if adversarial is None:
            return False
        return progress >= adversarial.start and self.steps % adversarial.every == 0

    def _set_rates(self, progress: float) -> None:
        recipe = self.recipe
        assert recipe.max_steps is not None, "lengths are in steps by now"
        factor = rate_factor(recipe.schedule, self.steps, recipe.max_steps, progress)
        sides = [(self.optimizer, recipe.generator)]
        if self.judge_optimizer is not None:
            sides.append((self.judge_optimizer, recipe.discriminator or recipe.generator))
        for optimizer, asked in sides:
            for group in optimizer.param_groups:
                group["lr"] = factor * asked.learning_rate

    @torch.no_grad()
    def _try_lengths(self) -> None:
        """Let a crop of silence through everything, to learn now whether crops are long enough.

        Raises:
            ConfigError: a loss or a discriminator needs more samples.
        """
        crop = torch.zeros(1, 1, self.recipe.segment_size, device=self.device)
        made = self.trainee.eval()(crop)
        try:
            self.distances(made.audio, made.target)
        except ConfigError as error:
            raise ConfigError(f"`training.losses`: {error}") from error
        try:
            for judge in self.judges:
                judge(self._piece(made.audio, made.target)[0])
        except ConfigError as error:
            raise ConfigError(f"`training.adversarial`: {error}") from error

    def _decay_groups(self) -> list[dict[str, Any]]:
        decayed: list[nn.Parameter] = []
        spared: list[nn.Parameter] = []
        for name, parameter in self.trainee.named_parameters():
            (decayed if self.trainee.decayed(name, parameter) else spared).append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": decayed},
            {"params": spared, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def _balancer(self) -> GradientBalancer:
        adversarial = self.recipe.adversarial
        if adversarial is None or adversarial.balance is None:
            return GradientBalancer({})
        norms = dict(adversarial.balance)
        each = {name: norms.pop(name) for name in ("adversarial", "features") if name in norms}
        for number in range(len(adversarial.discriminators)):
            norms |= {f"{name}_{number}": norm for name, norm in each.items()}
        return GradientBalancer(norms)

    def _autocast(self, wide_only: bool = False) -> torch.autocast:
        """Lower precision for what bears it; ``wide_only`` excludes fp16's narrow range."""
        precision = self.recipe.precision
        enabled = precision != "fp32" and not (wide_only and precision == "fp16")
        return torch.autocast(self.device.type, DTYPES[precision], enabled=enabled)

    def _buffers(self) -> Iterable[Tensor]:
        return [*self.trainee.buffers(), *self.judges.buffers(), *self.balancer.buffers()]

    def _count(self, finite: bool) -> None:
        self.bad_steps = 0 if finite else self.bad_steps + 1
        self.skipped += 0 if finite else 1
        if self.bad_steps >= self.recipe.max_bad_steps:
            raise TrainingError(
                f"{self.bad_steps} steps in a row had a loss or gradient that is not finite; "
                "stopped at the last good weights: try a lower learning rate, or fp32"
            )

    def start_from(
        self, state: Mapping[str, Tensor], crops: Callable[[], Tensor], rest: Rest | None = None
    ) -> None:
        """Begin with the weights of a checkpoint.

        Args:
            state: tensors by canonical name, in the order of the file.
            crops: draws ``(B, 1, N)`` from the speech to be trained on, the same on all ranks.
            rest: what else a training of the authors left: discriminators, moments, steps.

        Raises:
            CheckpointError: they are those of another model.
        """
        self.trainee.load_codec_state(state)
        self.trainee.settle(lambda: crops().to(self.device))
        if self.average is not None:
            self.average = WeightAverage(self.trainee, self.average.decay)
        if rest is None:
            return
        try:
            take_moments(self.optimizer, self.trainee.parameters_by(state), rest.optimizers[0])
            if self.judge_optimizer is not None:
                judged = list(self.judges.parameters())
                take_tensors(judged, rest.discriminator)
                take_moments(self.judge_optimizer, judged, rest.optimizers[1])
        except CheckpointError as error:
            raise CheckpointError(
                f"{rest.path}: {error}; without this file, its weights do"
            ) from error
        self.steps = rest.steps

    def state(self) -> dict[str, Any]:
        """Everything that `load_state` needs to go on as if nothing had happened."""
        return {
            "config": self.config.to_json(),
            "steps": self.steps,
            "bad_steps": self.bad_steps,
            "skipped": self.skipped,
            "trainee": self.trainee.state_dict(),
            "average": self.average.state() if self.average else None,
            "judges": self.judges.state_dict(),
            "balancer": self.balancer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "judge_optimizer": self.judge_optimizer.state_dict() if self.judge_optimizer else None,
            "scaler": self.scaler.state_dict(),
            "random": random_state(self.device),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave.

        The recipe may be another one: what it newly has begins now, what it lacks is left.

        Raises:
            ConfigError: it is that of another model, or of other discriminators.
            CheckpointError: something is missing.
        """
        try:
            self._take(state)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            change = shape_change(state.get("config"), self.config.to_json())
            if change is not None:
                raise ConfigError(f"the run was begun with {change}") from error
            raise CheckpointError(
                f"not all that a run needs is there ({str(error).splitlines()[-1].strip():.100})"
            ) from error

    def _take(self, state: Mapping[str, Any]) -> None:
        self.trainee.load_state_dict(state["trainee"])
        take_optimizer(self.optimizer, state["optimizer"])
        if self.average is not None:
            if state["average"]:
                self.average.load_state(**state["average"])
            else:  # an average that begins now
                self.average = WeightAverage(self.trainee, self.average.decay)
        if self.judge_optimizer is not None and state["judge_optimizer"]:
            self.judges.load_state_dict(state["judges"])
            take_optimizer(self.judge_optimizer, state["judge_optimizer"])
            self.balancer.load_state_dict(state["balancer"], strict=False)
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.steps = int(state["steps"])
        self.bad_steps, self.skipped = int(state["bad_steps"]), int(state["skipped"])
        set_random_state(state["random"], self.device)


def make_optimizer(recipe: Optimizer, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    """Adam or AdamW over groups of parameters."""
    kind = torch.optim.Adam if recipe.kind == "adam" else torch.optim.AdamW
    return kind(
        groups,
        lr=recipe.learning_rate,
        betas=recipe.betas,
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def take_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over the moments of a snapshot, but not its settings: those are the recipe's."""
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def clip(owner: nn.Module, norm: float | None) -> Tensor:
    """Scale the gradients down to ``norm`` and return what their norm was."""
    limit = math.inf if norm is None else norm
    return nn.utils.clip_grad_norm_(owner.parameters(), limit)


@contextmanager
def frozen(judge: nn.Module) -> Iterator[None]:
    """Let no gradient reach the weights of ``judge``."""
    judge.requires_grad_(False)
    try:
        yield
    finally:
        judge.requires_grad_(True)


def backward(loss: Tensor) -> None:
    """Add the gradient of ``loss`` to those of the weights."""
    loss.backward()  # type: ignore[no-untyped-call]


def add_up(seen: dict[str, Tensor], new: Mapping[str, Tensor], parts: int) -> None:
    """Add a part's share of each value."""
    for name, value in new.items():
        share = value.detach().float() / parts
        seen[name] = seen[name] + share if name in seen else share


def random_state(device: torch.device) -> dict[str, Tensor]:
    """States of torch's global random number generators."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Undo `random_state`."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
