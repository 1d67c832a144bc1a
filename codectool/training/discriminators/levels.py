"""Discriminator on log levels of mel bands: it sees the spectrum of each sound, but no phases.

Losses that compare levels are least for their mean, and means are smoother over frequency than
speech. Windows are shorter than a period of most voices, and many per second, so that the image has
formants and the pulses of a voice, but no harmonics.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn
from typing_extensions import override

from codectool.errors import ConfigError
from codectool.schema import Size, Sizes
from codectool.training.discriminators.base import (
    Discriminator,
    DiscriminatorConfig,
    SubDiscriminator,
    require_samples,
)
from codectool.training.losses.mel import mel_bands
from codectool.training.losses.spectrum import magnitudes

SLOPE = 0.2
SMALLEST_POWER = 1e-8  # about the noise of 16-bit audio


class LogMelConfig(DiscriminatorConfig, tag="log_mel", frozen=True):
    """Discriminator on log levels of mel bands.

    Attributes:
        sample_rate: of the codec, in Hz.
        window: length of the Hann windows in samples.
        hop: samples from window to window.
        fft_size: at least the window.
        bands: number of mel bands, from 0 to half the sample rate.
        channels: widths of the layers; time and bands are halved from each to the next.
    """

    sample_rate: Size = 24000
    window: Size = 320
    hop: Size = 80
    fft_size: Size = 512
    bands: Annotated[int, Meta(ge=2, le=256)] = 80
    channels: Sizes = (24, 32, 48, 64)

    def __post_init__(self) -> None:
        if self.fft_size < self.window:
            raise ConfigError(
                f"fft_size {self.fft_size} of a log-mel discriminator is less than its window of "
                f"{self.window} samples"
            )

    @override
    def build(self) -> Discriminator:
        channels = self.channels
        hidden = [nn.Conv2d(1, channels[0], 5, padding=2)]
        for before, width in pairwise(channels):
            hidden.append(nn.Conv2d(before, width, (5, 3), 2, padding=(2, 1)))
        hidden.append(nn.Conv2d(channels[-1], channels[-1], 3, padding=1))
        last = nn.Conv2d(channels[-1], 1, 3, padding=1)
        return Discriminator([SubDiscriminator(LogMelImage(self), hidden, last, SLOPE)])


class LogMelImage(nn.Module):
    """Waves ``(B, 1, N)`` as log levels ``(B, T, bands, 1)``, about -2 to 2 for speech.

    ``T = (N - window) // hop + 1`` windows, not centred, so that no sample is seen twice.
    """

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.hop, self.fft_size = config.hop, config.fft_size
        hann = torch.hann_window(config.window)
        self.window = nn.Buffer(hann / hann.square().sum().sqrt(), persistent=False)
        bands = mel_bands(config.fft_size, config.bands, config.sample_rate, unit_sum=True)
        self.bands = nn.Buffer(bands, persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Return levels in float32, also under autocast."""
        size = len(self.window)
        require_samples(wave, size, f"the log-mel discriminator of window {size}")
        with torch.autocast(wave.device.type, enabled=False):
            signal = wave.squeeze(1).float()
            power = magnitudes(signal, self.window, self.fft_size, self.hop, power=2) @ self.bands
            levels: Tensor = 0.25 * (power + SMALLEST_POWER).log() + 3.0
            return levels.unsqueeze(3)
