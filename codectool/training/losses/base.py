"""Base of reconstruction losses, and their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from codectool.codecs.trainable import Reconstruction
from codectool.errors import ConfigError
from codectool.schema import NonNegativeFloat, TaggedConfig

LOWEST_POWER = 3e-9  # power of samples; levels of bands differ little below it
SILENCE = 1e-4  # amplitude of a sine; spectral losses treat weaker bins as silent


class Loss(nn.Module):
    """A distance between output and target, in float32 whatever autocast says.

    No gradient is passed to the target.
    """

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Compare ``(B, 1, N)`` with ``(B, 1, N)``; return a scalar.

        Raises:
            ConfigError: The signals are too short.
        """
        with torch.autocast(output.device.type, enabled=False):
            return self.distance(output.squeeze(1).float(), target.detach().squeeze(1).float())

    def compare(self, output: Reconstruction) -> Tensor:
        """Compare what a model returned with its target; return a scalar.

        Most losses use the first output only.
        """
        value: Tensor = self(output.audio, output.target)
        return value

    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        """Compare ``(B, N)`` with ``(B, N)``; return a scalar."""
        raise NotImplementedError


class LossConfig(TaggedConfig, frozen=True, kw_only=True):
    """Base of the configs of all losses.

    Attributes:
        weight: factor in the sum of losses.
    """

    needs_source: ClassVar[bool] = False  # only for decoders with a source
    needs_pitch: ClassVar[bool] = False  # of the target

    weight: NonNegativeFloat

    def build(self, sample_rate: int) -> Loss:
        """Build the loss for signals of a sampling rate in Hz."""
        raise NotImplementedError

    def check_rate(self, sample_rate: int) -> None:
        """Raise `ConfigError` if the loss does not suit the sampling rate, in Hz."""


class BandLossConfig(LossConfig, frozen=True, kw_only=True):
    """Base of the configs of losses in a range of frequencies.

    Attributes:
        f_min: lowest frequency in Hz.
        f_max: highest frequency in Hz; null for half the sampling rate.
    """

    f_min: NonNegativeFloat = 0.0
    f_max: NonNegativeFloat | None = None

    def __post_init__(self) -> None:
        if self.f_max is not None and self.f_max <= self.f_min:
            raise ConfigError(f"f_max {self.f_max} is not above f_min {self.f_min}")

    @override
    def check_rate(self, sample_rate: int) -> None:
        if self.f_min >= sample_rate / 2 or (self.f_max or 0) > sample_rate / 2:
            raise ConfigError(
                f"f_min or f_max is above half the sampling rate, {sample_rate / 2:g} Hz"
            )


class ReconstructionLoss(nn.Module):
    """The weighted sum of the losses of a config."""

    def __init__(self, configs: Sequence[LossConfig], sample_rate: int) -> None:
        super().__init__()
        self.configs = configs
        self.losses = nn.ModuleList(config.build(sample_rate) for config in configs)

    def forward(self, output: Reconstruction) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compare what a model returned with its target.

        Returns:
            The losses and the weighted losses, each summed over the configs of a kind.
        """
        plain: dict[str, Tensor] = {}
        weighted: dict[str, Tensor] = {}
        for config, loss in zip(self.configs, self.losses, strict=True):
            assert isinstance(loss, Loss)
            value, kind = loss.compare(output), config.kind
            scaled = config.weight * value
            plain[kind] = plain[kind] + value if kind in plain else value
            weighted[kind] = weighted[kind] + scaled if kind in weighted else scaled
        return plain, weighted
