"""Energy distance of spectra: whether outputs are distributed like the target, noise included.

A distance of log magnitudes to a random target is least for a smooth magnitude, so it prefers a
buzz to noise of the right level: noise pays for its own randomness, too. The energy distance gives
that back. With two outputs y, y' of the same tokens, which differ in their noise only,

    d(y, x) / 2 + d(y', x) / 2 - d(y, y') / 2

is least where y has the distribution that x has, given the tokens (arXiv 2008.01160, section 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from codectool.codecs.trainable import Reconstruction
from codectool.errors import ConfigError
from codectool.schema import EvenSizes, NonNegativeFloat, Sizes
from codectool.training.losses.base import SILENCE, Loss, LossConfig
from codectool.training.losses.mel import mel_bands
from codectool.training.losses.spectrum import Spectrum

CORNER = 2000.0  # Hz above which bins weigh less, as they are finer than hearing


class EnergyDistanceLossConfig(LossConfig, tag="energy_distance", frozen=True, kw_only=True):
    """Energy distance of spectra, for decoders with noise.

    The distance d of two signals is the sum of three mean absolute differences, over windows.

    Attributes:
        windows: lengths of the Hann windows in samples; hops are a quarter.
        bands: number of mel bands for each window.
        bins: weight of the decimal logarithms of magnitudes.
        mel: weight of the decimal logarithms of mel bands.
        linear: weight of magnitudes, relative to the mean magnitude of the target.
    """

    windows: EvenSizes
    bands: Sizes
    bins: NonNegativeFloat = 1.0
    mel: NonNegativeFloat = 1.0
    linear: NonNegativeFloat = 0.1

    def __post_init__(self) -> None:
        if len(self.windows) != len(self.bands):
            raise ConfigError("windows and bands differ in length")

    @override
    def build(self, sample_rate: int) -> EnergyDistanceLoss:
        return EnergyDistanceLoss(self, sample_rate)


class EnergyDistanceLoss(Loss):
    """Energy distance of spectra; with one output, the distance to the target."""

    def __init__(self, config: EnergyDistanceLossConfig, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        self.spectra = nn.ModuleList(
            Spectrum(window, window, window // 4, full_scale=True) for window in config.windows
        )
        for number, (window, bands) in enumerate(zip(config.windows, config.bands, strict=True)):
            weight = 1 / (1 + torch.arange(window // 2 + 1) * (sample_rate / window / CORNER))
            self.register_buffer(f"weight{number}", weight / weight.mean(), persistent=False)
            matrix = mel_bands(window, bands, sample_rate, unit_sum=True)
            self.register_buffer(f"bands{number}", matrix, persistent=False)

    @override
    def compare(self, output: Reconstruction) -> Tensor:
        outputs, target = [output.audio, *output.others][:2], output.target
        with torch.autocast(target.device.type, enabled=False):
            flat = [each.squeeze(1).float() for each in outputs]
            return self._distance(flat, target.squeeze(1).float())

    @override
    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        return self._distance([output], target)

    def _distance(self, outputs: list[Tensor], target: Tensor) -> Tensor:
        signals = [*outputs, target.detach()]
        pairs = [(0, 1, 1.0)] if len(outputs) == 1 else [(0, 2, 0.5), (1, 2, 0.5), (0, 1, -0.5)]
        total = target.new_zeros(())
        for number, spectrum in enumerate(self.spectra):
            sizes = spectrum(torch.cat(signals))
            for features, weight in self._features(number, sizes, len(target)):
                parts = features.chunk(len(signals))
                for first, second, sign in pairs:
                    total = total + sign * weight * (parts[first] - parts[second]).abs().mean()
        return total / len(self.spectra)

    def _features(self, number: int, sizes: Tensor, count: int) -> list[tuple[Tensor, float]]:
        """Return what is compared, and weights; the last ``count`` spectra are the target's."""
        config = self.config
        bins: Tensor = getattr(self, f"weight{number}")
        bands: Tensor = getattr(self, f"bands{number}")
        level = sizes[-count:].detach().mean((1, 2), keepdim=True) + SILENCE
        return [
            (sizes.clamp(min=SILENCE).log10() * bins, config.bins),
            ((sizes @ bands).clamp(min=SILENCE).log10(), config.mel),
            (sizes / level.repeat(len(sizes) // count, 1, 1), config.linear),
        ]
