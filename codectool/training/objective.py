"""From the config's terms to losses: what a reconstruction and a judgement are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from codectool.training import config as settings
from codectool.training.discriminators.bands import FilterBandDiscriminator
from codectool.training.discriminators.base import Judgement
from codectool.training.discriminators.periods import MultiPeriodDiscriminator
from codectool.training.discriminators.stft import (
    ComplexStftDiscriminator,
    MagnitudeStftDiscriminator,
)
from codectool.training.losses import adversarial
from codectool.training.losses.coherence import CoherenceDistance
from codectool.training.losses.envelope import EnvelopeDistance
from codectool.training.losses.spectral import LogMelDistance, MelScale, StftDistance
from codectool.training.losses.waveform import l1, relative_l1


class Distances(nn.Module):
    """The weighted distances between output and target."""

    def __init__(self, terms: Sequence[settings.Term], sample_rate: int) -> None:
        super().__init__()
        self.weights = [term.weight for term in terms]
        self.names = [term.kind for term in terms]
        self.terms = nn.ModuleList(build_term(term, sample_rate) for term in terms)

    def forward(
        self, output: Tensor, target: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Distances of ``(B, 1, N)`` and their weighted form, summed by kind of term."""
        plain: dict[str, Tensor] = {}
        weighted: dict[str, Tensor] = {}
        for name, weight, term in zip(self.names, self.weights, self.terms, strict=True):
            value = term(output, target)
            plain[name] = plain[name] + value if name in plain else value
            scaled = weight * value
            weighted[name] = weighted[name] + scaled if name in weighted else scaled
        return plain, weighted


class WaveformDistance(nn.Module):
    """Mean absolute difference of samples, plain or relative to the target's deviation."""

    def __init__(self, relative: bool) -> None:
        super().__init__()
        self.relative = relative

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """``(B, 1, N)`` twice to a scalar."""
        return relative_l1(output, target) if self.relative else l1(output, target)


def build_term(term: settings.Term, sample_rate: int) -> nn.Module:
    """The loss that a term of the config describes."""
    if isinstance(term, settings.MelTerm):
        return LogMelDistance(
            sample_rate,
            mel_scales(term),
            floor=term.floor,
            natural_log=term.natural_log,
            squared=term.squared,
            mean=term.mean,
        )
    if isinstance(term, settings.StftTerm):
        return StftDistance(term.windows)
    if isinstance(term, settings.CoherenceTerm):
        return CoherenceDistance(sample_rate, term.windows, term.f_min, term.f_max)
    if isinstance(term, settings.EnvelopeTerm):
        return EnvelopeDistance(
            sample_rate, term.window, term.frames, term.f_min, term.f_max, term.spectra
        )
    if isinstance(term, settings.WaveformTerm):
        return WaveformDistance(term.relative)
    from codectool.training.losses.whisper import WhisperDistance

    return WhisperDistance(Path(term.folder), sample_rate, term.blocks)


def mel_scales(term: settings.MelTerm) -> list[MelScale]:
    """One resolution for each window."""
    hops = term.hops or tuple(max(1, window // 4) for window in term.windows)
    scales = []
    for window, bands, hop in zip(term.windows, term.bands, hops, strict=True):
        fft_size = term.fft_size or window
        padding = {"none": 0, "centre": fft_size // 2, "same": (fft_size - hop) // 2}[term.padding]
        scales.append(
            MelScale(
                fft_size=fft_size,
                window=window,
                hop=hop,
                bands=bands,
                f_min=term.f_min,
                f_max=term.f_max,
                power=term.power,
                padding=padding,
                unit_sum=term.unit_sum,
                full_scale=term.full_scale,
                epsilon=term.epsilon,
            )
        )
    return scales


def build_discriminator(described: settings.Discriminator) -> nn.Module:
    """The family that the config describes."""
    if isinstance(described, settings.Periods):
        return MultiPeriodDiscriminator(
            described.periods, described.channels, described.factor, described.max_channels
        )
    if isinstance(described, settings.MagnitudeStft):
        return MagnitudeStftDiscriminator(
            described.fft_sizes, described.channels, described.max_channels
        )
    if isinstance(described, settings.ComplexStft):
        return ComplexStftDiscriminator(described.windows, described.channels, described.norm_first)
    return FilterBandDiscriminator(described.bands, described.channels)


def discriminator_loss(
    chosen: settings.Adversarial, real: Sequence[Judgement], made: Sequence[Judgement]
) -> Tensor:
    """What one family has got wrong about real and made speech."""
    hinge = chosen.loss == "hinge"
    loss = adversarial.hinge_discriminator if hinge else adversarial.least_squares_discriminator
    return loss([j.logits for j in real], [j.logits for j in made], mean=chosen.mean)


def generator_losses(
    chosen: settings.Adversarial, real: Sequence[Judgement], made: Sequence[Judgement]
) -> dict[str, Tensor]:
    """What one family holds against the generator: ``adversarial`` and ``features``."""
    hinge = chosen.loss == "hinge"
    loss = adversarial.hinge_generator if hinge else adversarial.least_squares_generator
    return {
        "adversarial": loss([j.logits for j in made], mean=chosen.mean),
        "features": adversarial.feature_matching(
            [j.features for j in real],
            [j.features for j in made],
            relative=chosen.relative_features,
            mean=chosen.mean,
        ),
    }


def penalty_sum(penalties: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Weighted sum of the quantizer's losses; those without a weight do not count."""
    total = torch.zeros((), device=next(iter(penalties.values())).device)
    for name, value in penalties.items():
        total = total + weights.get(name, 0.0) * value
    return total
