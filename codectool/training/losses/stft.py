"""STFT loss: distance of magnitude spectra at several resolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.schema import EvenSizes
from codectool.training.losses.base import SILENCE, Loss, LossConfig
from codectool.training.losses.spectrum import Spectrum

CONVERGENCE = 0.2  # weight of the spectral convergence


class StftLossConfig(LossConfig, tag="stft", frozen=True, kw_only=True):
    """Distance of magnitude spectra at several resolutions.

    Attributes:
        windows: lengths of the Hann windows in samples; hops are a quarter.
    """

    windows: EvenSizes

    @override
    def build(self, sample_rate: int) -> StftLoss:
        return StftLoss(self)


class StftLoss(Loss):
    """Log-magnitude distance plus spectral convergence, the mean over windows.

        mean |log10 max(|Y|, floor) - log10 max(|X|, floor)| + 0.2 || |Y| - |X| ||_F / || X ||_F

    A full-scale sine has magnitude 1. After Parallel WaveGAN (arXiv 1910.11480, section 2.2), with
    other weights. The ratio is taken per item, so that the loss of a batch is the mean of the
    losses of its items. The norm of a target below the floor is the norm of the floor.
    """

    def __init__(self, config: StftLossConfig) -> None:
        super().__init__()
        self.spectra = nn.ModuleList(
            Spectrum(window, window, window // 4, full_scale=True) for window in config.windows
        )

    @override
    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        total = output.new_zeros(())
        for spectrum in self.spectra:
            total = total + _spectral_distance(spectrum(output), spectrum(target))
        return total / len(self.spectra)


def _spectral_distance(size_y: Tensor, size_x: Tensor) -> Tensor:
    log_y, log_x = (size.clamp(min=SILENCE).log10() for size in (size_y, size_x))
    error = torch.linalg.vector_norm(size_y - size_x, dim=(1, 2))
    smallest = SILENCE * size_x[0].numel() ** 0.5
    norm = torch.linalg.vector_norm(size_x, dim=(1, 2)).clamp(min=smallest)
    ratio: Tensor = (error / norm).mean()
    return F.l1_loss(log_y, log_x) + CONVERGENCE * ratio
