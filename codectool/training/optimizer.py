"""Optimizers and their learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta

from codectool.errors import ConfigError
from codectool.schema import MAX_COUNT, Config, Count, Fraction, NonNegativeFloat, PositiveFloat

Beta = Annotated[float, Meta(ge=0, lt=1)]


class OptimizerConfig(Config, frozen=True):
    """Adam, or Adam with decoupled weight decay (AdamW, arXiv 1711.05101).

    Attributes:
        kind: ``"adam"`` or ``"adamw"``.
        learning_rate: largest learning rate; the schedule scales it.
        betas: decay of the moving averages of gradients and of their squares.
        eps: added to the root of the second moment.
        weight_decay: coefficient of the weight decay.
    """

    kind: Literal["adam", "adamw"]
    learning_rate: PositiveFloat
    betas: tuple[Beta, Beta]
    eps: NonNegativeFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0

    def build(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """Build the optimizer over groups of parameters."""
        optimizer = torch.optim.Adam if self.kind == "adam" else torch.optim.AdamW
        return optimizer(
            groups,
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=True,
        )


class ScheduleConfig(Config, frozen=True):
    """Learning rate over the run, as a factor of the optimizer's rate.

    Attributes:
        decay: ``"cosine"``, ``"linear"`` or ``"none"``.
        final: factor at the end of the decay.
        decay_steps: steps from the end of the warm-up to the end of the decay; null for the end of
            the run.
        warmup_steps: steps until the full rate.
        warmup_epochs: epochs until the full rate, instead of `warmup_steps`.
        warmup_from: factor at step 0.
        warmup_power: 1 for a linear warm-up, 2 for a quadratic one.
    """

    decay: Literal["cosine", "linear", "none"] = "cosine"
    final: Fraction = 0.0
    decay_steps: Count | None = None
    warmup_steps: Annotated[int, Meta(ge=0, le=MAX_COUNT)] = 0
    warmup_epochs: Annotated[int, Meta(ge=0, le=MAX_COUNT)] = 0
    warmup_from: Fraction = 0.0
    warmup_power: PositiveFloat = 1.0

    def __post_init__(self) -> None:
        if self.warmup_steps > 0 and self.warmup_epochs > 0:
            raise ConfigError("set either warmup_steps or warmup_epochs, not both")

    def factor(self, step: int, max_steps: int, progress: float) -> float:
        """Return the factor of the learning rate after a number of steps.

        The fraction of the run done, ``progress``, is ahead of ``step / max_steps`` in a run whose
        time is limited.
        """
        if step < self.warmup_steps:
            risen = math.pow(step / self.warmup_steps, self.warmup_power)
            return self.warmup_from + (1 - self.warmup_from) * risen
        if self.decay == "none":
            return 1.0
        if self.decay_steps is None:
            start = min(self.warmup_steps / max_steps, 0.99)
            done = (progress - start) / (1 - start)
        else:
            done = (step - self.warmup_steps) / self.decay_steps
        done = min(max(done, 0.0), 1.0)
        left = 1 - done if self.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.final + (1 - self.final) * left


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the moments from a checkpoint, but keep the settings of the config."""
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
