"""What the families share: a picture of the wave, and convolutions that judge it.

Letters used in shapes: B batch, N samples, C channels, H height, W width of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from codectool.errors import ConfigError


@dataclass(frozen=True)
class Judgement:
    """What one sub-discriminator says about a batch.

    Attributes:
        logits: float32 ``(B, L)``, one for each place that it looked at: large means real.
        features: ``(B, H, W, C)`` after each hidden activation, from the first to the last; of
            autocast's type where autocast is on.
    """

    logits: Tensor
    features: list[Tensor]


class SubDiscriminator(nn.Module):
    """A picture of the wave and the two-dimensional convolutions that judge it.

    Pictures and features have their channels last, in memory too. On a CPU that makes convolutions
    faster than one plane for each channel does, and a loss reads contiguous features faster:
    together 1.2 times in float32 and 1.4 times in bfloat16 for HAC's small discriminators.

    Args:
        picture: turns float32 waves ``(B, 1, N)`` into ``(B, H, W, C)``.
        hidden: convolutions, each followed by a leaky ReLU.
        last: the convolution to one channel.
        slope: of the leaky ReLU below 0.
    """

    def __init__(
        self, picture: nn.Module, hidden: Sequence[nn.Conv2d], last: nn.Conv2d, slope: float
    ) -> None:
        super().__init__()
        self.picture = picture
        self.hidden = nn.ModuleList(hidden)
        self.last = last
        self.slope = slope

    def forward(self, wave: Tensor) -> Judgement:
        """Judge waves ``(B, 1, N)``."""
        x, features = self.picture(wave).permute(0, 3, 1, 2), []
        for convolution in self.hidden:
            x = F.leaky_relu(convolution(x), self.slope, inplace=True)
            features.append(x.permute(0, 2, 3, 1))
        return Judgement(self.last(x).flatten(1).float(), features)


class Discriminator(nn.Module):
    """A family: the same kind of network on several pictures of the wave."""

    def __init__(self, members: Sequence[SubDiscriminator]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, wave: Tensor) -> list[Judgement]:
        """Judge waves ``(B, 1, N)``, float32, full scale 1; one judgement for each member.

        Raises:
            ConfigError: the waves are too short for one of the pictures.
        """
        return [member(wave) for member in self.members]


def require_samples(wave: Tensor, least: int, reader: str) -> None:
    """Refuse waves ``(B, 1, N)`` shorter than ``least`` samples.

    Raises:
        ConfigError: they are; the message names ``reader``, the part that cannot work with them.
    """
    if wave.shape[-1] < least:
        raise ConfigError(
            f"{reader} needs pieces of at least {least} samples, not {wave.shape[-1]}: "
            f"train on longer pieces or make it smaller"
        )
