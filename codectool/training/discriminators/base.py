"""Base of discriminators: 2-d convolutions on a time-frequency image of the wave.

In this file H and W are height and width of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from codectool.errors import ConfigError
from codectool.nn.weight_norm import weight_normed
from codectool.schema import TaggedConfig


@dataclass(frozen=True)
class DiscriminatorOutput:
    """Output of one sub-discriminator for a batch."""

    logits: Tensor  # float32 (B, L), one per position of the last layer; large means real
    features: list[Tensor]  # (B, H, W, C) after each hidden activation, in the type of autocast


class SubDiscriminator(nn.Module):
    """Two-dimensional convolutions on an image of the wave.

    Images and features have their channels last, in memory too. On a CPU that makes convolutions
    faster than one plane per channel, and a loss reads contiguous features faster: together 1.2
    times in float32 and 1.4 times in bfloat16 for HAC's small discriminators.

    Args:
        image: turns float32 waves ``(B, 1, N)`` into ``(B, H, W, C)``.
        hidden: convolutions, each followed by a leaky ReLU.
        last: the convolution to one channel.
        slope: slope of the leaky ReLU below 0.
        norm_first: use weight norm in the first layer, as in all others.
    """

    def __init__(
        self,
        image: nn.Module,
        hidden: Sequence[nn.Conv2d],
        last: nn.Conv2d,
        slope: float,
        norm_first: bool = True,
    ) -> None:
        super().__init__()
        self.image, self.slope = image, slope
        self.hidden, self.last = nn.ModuleList(hidden), last
        for layer in [*hidden, last] if norm_first else [*hidden[1:], last]:
            weight_normed(layer)

    def forward(self, wave: Tensor) -> DiscriminatorOutput:
        """Return logits and features of waves ``(B, 1, N)``."""
        x, features = self.image(wave).permute(0, 3, 1, 2), []
        for convolution in self.hidden:
            x = F.leaky_relu(convolution(x), self.slope, inplace=True)
            features.append(x.permute(0, 2, 3, 1))
        return DiscriminatorOutput(self.last(x).flatten(1).float(), features)


class Discriminator(nn.Module):
    """The same kind of network on several images of the wave."""

    def __init__(self, members: Sequence[SubDiscriminator]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, wave: Tensor) -> list[DiscriminatorOutput]:
        """Return the output of each member for waves ``(B, 1, N)``, float32 in [-1, 1].

        Raises:
            ConfigError: The waves are too short for one of the images.
        """
        return [member(wave) for member in self.members]


class DiscriminatorConfig(TaggedConfig, frozen=True):
    """Base of the configs of all discriminators."""

    def build(self) -> Discriminator:
        """Build the discriminator; its weights are drawn from torch's global generator."""
        raise NotImplementedError


def require_samples(wave: Tensor, minimum: int, name: str) -> None:
    """Raise `ConfigError` if waves have fewer samples; `name` is the discriminator's."""
    if wave.shape[-1] < minimum:
        raise ConfigError(
            f"{name} needs crops of at least {minimum} samples, not {wave.shape[-1]}: "
            "train on longer crops or make it smaller"
        )
