"""Pitch loss: whether a decoder's source follows the pitch, voicing and phase of the target."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from codectool.codecs.trainable import Reconstruction
from codectool.training.losses.base import Loss, LossConfig


class PitchLossConfig(LossConfig, tag="pitch", frozen=True, kw_only=True):
    """Pitch, voicing and phase of a decoder's source, against Praat's of the target."""

    needs_source = needs_pitch = True

    @override
    def build(self, sample_rate: int) -> PitchLoss:
        return PitchLoss(sample_rate)


class PitchLoss(Loss):
    """Cross-entropy of the pitch, cross-entropy of the voicing and squared error of the phase.

        mean over voiced frames    - sum_k t_k log softmax(pitch)_k
        mean over known frames     binary cross-entropy of the voicing
        mean over known phases     (c - cos 2 pi p)^2 + (s - sin 2 pi p)^2

    with t_k the softmax of ``-(k - b)^2``, b the pitch in bins: as in CREPE (arXiv 1802.06182), the
    target is blurred. The expected vector (c, s) is as long as the phase p is certain.
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.sample_rate = sample_rate

    @override
    def compare(self, output: Reconstruction) -> Tensor:
        source, target = output.source, output.pitch
        assert source is not None
        assert target is not None
        frames = min(source.voicing.shape[1], target.shape[1])
        pitch, turns = target[:, :frames].unbind(-1)
        known, voiced = pitch.isfinite(), pitch > 0
        hertz = torch.where(voiced, pitch, source.lowest_pitch)
        bin_number = torch.log2(hertz / source.lowest_pitch) * source.bins_per_octave
        number = torch.arange(source.pitch.shape[-1], device=pitch.device)
        aim = torch.softmax(-(number - bin_number[..., None]).square(), -1)
        entropy = -(aim * F.log_softmax(source.pitch[:, :frames].float(), -1)).sum(-1)
        voicing = F.binary_cross_entropy_with_logits(
            source.voicing[:, :frames].float(), voiced.float(), reduction="none"
        )
        # the phase belongs to a later sample than the start of the frame
        certain = voiced & turns.isfinite()
        turns = torch.where(certain, turns, 0.0) + source.phase_offset * hertz / self.sample_rate
        vector = torch.polar(torch.ones_like(turns), 2 * math.pi * turns)
        error = (source.phase[:, :frames].float() - torch.view_as_real(vector)).square().sum(-1)
        return _mean(entropy, voiced) + _mean(voicing, known) + _mean(error, certain)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Return the mean of some values; 0 if there are none."""
    return (values * where).sum() / where.sum().clamp(min=1)
