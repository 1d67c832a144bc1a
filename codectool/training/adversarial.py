"""Adversarial training: discriminators, their losses, and their losses for the codec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from codectool.schema import Config, Count, Fraction, NonNegativeFloat
from codectool.training.discriminators import AnyDiscriminatorConfig
from codectool.training.discriminators.base import DiscriminatorOutput
from codectool.training.losses.adversarial import (
    Kind,
    discriminator_loss,
    feature_matching,
    generator_loss,
)
from codectool.training.losses.balancer import GradientBalancer


class AdversarialConfig(Config, frozen=True):
    """Discriminators and their part in training.

    Attributes:
        discriminators: discriminators, each with several sub-discriminators.
        loss: ``"hinge"`` or ``"least_squares"``.
        start: fraction of the run after which adversarial training starts.
        every: adversarial training takes part in every n-th step.
        segment_size: samples of a random part of each crop that discriminators see; null for all.
        mean: average over the sub-discriminators of a discriminator instead of summing.
        weight: weight of the codec's adversarial loss per discriminator.
        feature_weight: weight of the feature matching loss per discriminator.
        relative_features: divide each layer's distance by the mean size of the real features.
        balance: gradient norms by loss (kinds of losses, ``adversarial``, ``features``) that
            replace all weights but the weights of auxiliary losses while adversarial training is
            active (EnCodec's balancer); null to add the losses by their weights.
    """

    discriminators: Annotated[tuple[AnyDiscriminatorConfig, ...], Meta(min_length=1)]
    loss: Kind = "hinge"
    start: Fraction = 0.0
    every: Count = 1
    segment_size: Count | None = None
    mean: bool = False
    weight: NonNegativeFloat = 1.0
    feature_weight: NonNegativeFloat = 1.0
    relative_features: bool = True
    balance: Mapping[str, NonNegativeFloat] | None = None

    def is_active(self, step: int, progress: float) -> bool:
        """Return whether discriminators take part in a step, with ``progress`` of the run done."""
        return progress >= self.start and step % self.every == 0


class AdversarialLoss(nn.Module):
    """The discriminators and their losses."""

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__()
        self.config = config
        self.discriminators = nn.ModuleList(each.build() for each in config.discriminators)
        norms: dict[str, float] = {}
        for name, norm in (config.balance or {}).items():
            if name in ("adversarial", "features"):
                numbers = range(len(config.discriminators))
                norms |= {f"{name}_{number}": norm for number in numbers}
            else:
                norms[name] = norm
        self.balancer = GradientBalancer(norms)

    def forward(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Compare the output with the target; both losses use the same weights.

        The gradient of the discriminators' loss does not reach the codec, and the gradient of the
        codec's losses does not reach the discriminators.

        Returns:
            The codec's losses, ``adversarial_k`` and ``features_k`` for discriminator k, and the
            discriminators' loss, a scalar.
        """
        kind, mean = self.config.loss, self.config.mean
        losses: dict[str, Tensor] = {}
        total = output.new_zeros(())
        for number, discriminator in enumerate(self.discriminators):
            # real speech is processed once for both losses
            real, fake = discriminator(target), discriminator(output.detach())
            total = total + discriminator_loss(_logits(real), _logits(fake), kind, mean)
            with _frozen(discriminator):
                fake = discriminator(output)
            losses[f"adversarial_{number}"] = generator_loss(_logits(fake), kind, mean)
            losses[f"features_{number}"] = feature_matching(
                _features(real), _features(fake), self.config.relative_features, mean
            )
        return losses, total

    def crop(self, output: Tensor, target: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Cut the same random part of `segment_size` samples from output and target."""
        length = self.config.segment_size
        if length is None or length >= output.shape[-1]:
            return output, target
        generator = torch.Generator().manual_seed(seed)
        start = int(torch.randint(output.shape[-1] - length + 1, (), generator=generator))
        return output[..., start : start + length], target[..., start : start + length]

    def combine(
        self, reconstruction: Mapping[str, Tensor], losses: Mapping[str, Tensor], output: Tensor
    ) -> Tensor:
        """Add the codec's losses by their weights, or so that their gradients have given norms.

        Args:
            reconstruction: weighted reconstruction losses by kind.
            losses: losses from `forward`.
            output: ``(B, 1, N)`` from the codec.
        """
        if self.config.balance is not None:
            gradient = self.balancer.combine({**reconstruction, **losses}, output)
            return (gradient * output).sum()
        weights = {"adversarial": self.config.weight, "features": self.config.feature_weight}
        total = sum(reconstruction.values(), output.new_zeros(()))
        for name, value in losses.items():
            total = total + weights[name.partition("_")[0]] * value
        return total


def _logits(outputs: Sequence[DiscriminatorOutput]) -> list[Tensor]:
    return [output.logits for output in outputs]


def _features(outputs: Sequence[DiscriminatorOutput]) -> list[list[Tensor]]:
    return [output.features for output in outputs]


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
