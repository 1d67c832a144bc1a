"""Phase coherence loss: difference of phases around the fundamental of a voice.

Distances of magnitudes leave the phase open, and a decoder without recurrence cannot keep a phase:
the tokens have to carry it. Until an encoder has learned to do so, voiced sounds come out as noise
in the shape of the vowel. This loss trains the encoder to do so.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from codectool.errors import ConfigError
from codectool.schema import EvenSizes, NonNegativeFloat
from codectool.training.losses.base import SILENCE, BandLossConfig, Loss


class PhaseCoherenceLossConfig(BandLossConfig, tag="phase_coherence", frozen=True, kw_only=True):
    """Difference of phases at low frequencies.

    Attributes:
        windows: lengths of the Hann windows in samples; hops are a quarter.
        f_min: lowest frequency in Hz.
        f_max: highest frequency in Hz.
    """

    windows: EvenSizes
    f_min: NonNegativeFloat = 60.0
    f_max: NonNegativeFloat = 1000.0

    @override
    def build(self, sample_rate: int) -> PhaseCoherenceLoss:
        return PhaseCoherenceLoss(self, sample_rate)


class PhaseCoherenceLoss(Loss):
    """One minus the mean cosine of the phase differences, weighted by magnitudes.

        1 - sum w cos(arg Y - arg X) / sum w,   w = sqrt(|Y| |X|)

    with the sums over the frames and bins of each item, and the mean over items and windows: 0 for
    signals in phase, 1 for independent signals, 2 for opposite phases. It does not depend on
    levels. The root gives weaker harmonics some weight beside the strongest one.

    Raises:
        ConfigError: A window has no bin in the range of frequencies.
    """

    def __init__(self, config: PhaseCoherenceLossConfig, sample_rate: int) -> None:
        super().__init__()
        self.bins = []
        for number, window in enumerate(config.windows):
            shape = torch.hann_window(window)
            self.register_buffer(f"window{number}", 2 * shape / shape.sum(), persistent=False)
            edges = (config.f_min, config.f_max)
            first, last = (round(edge / sample_rate * window) for edge in edges)
            last = min(last, window // 2)
            if last < first:
                raise ConfigError(
                    f"no bin of a window of {window} lies in {edges[0]} to {edges[1]} Hz"
                )
            self.bins.append((first, last + 1))

    @override
    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        total = output.new_zeros(())
        for window, bins in zip(self.buffers(), self.bins, strict=True):
            total = total + 1 - _agreement(*(_spectrum(s, window, bins) for s in (output, target)))
        return total / len(self.bins)


def _spectrum(signal: Tensor, window: Tensor, bins: tuple[int, int]) -> Tensor:
    """Return complex ``(B, T, K)`` of ``(B, N)``; a full-scale sine is 1."""
    length = len(window)
    if signal.shape[-1] < length:
        raise ConfigError(
            f"{signal.shape[-1]} samples are too few for a phase coherence loss with windows of "
            f"{length}: use longer crops or shorter windows"
        )
    frames = signal.unfold(-1, length, length // 4) * window
    spectrum: Tensor = torch.fft.rfft(frames)[..., slice(*bins)]
    return spectrum


def _agreement(y: Tensor, x: Tensor) -> Tensor:
    """Return the mean cosine of the phase differences, a scalar."""
    # the root has no derivative at 0
    sizes = [torch.view_as_real(s).square().sum(-1).add(SILENCE**2).sqrt() for s in (y, x)]
    dots = (torch.view_as_real(y) * torch.view_as_real(x)).sum(-1)
    weights = (sizes[0] * sizes[1]).sqrt()
    ratio: Tensor = (dots / weights).sum((1, 2)) / weights.sum((1, 2))
    return ratio.mean()
