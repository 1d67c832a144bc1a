"""Distances of waveforms, sample by sample.

Letters used in shapes: B batch, N samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Energy in squared full scales that nothing audible has; keeps ratios of silence finite.
TINY = 1e-12


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean ``|y - x|`` of signals ``(B, 1, N)``, a scalar."""
    return (output.float() - target.float()).abs().mean()


def relative_l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean ``|y - x|`` over ``std(x) + 1e-3``, item by item, then the mean over items.

    A quiet item counts as much as a loud one, down to about -60 dBFS. HAC's waveform loss.

    Args:
        output: ``(B, 1, N)``.
        target: ``(B, 1, N)``; no gradient is passed to it.
    """
    y, x = output.float().flatten(1), target.detach().float().flatten(1)
    return ((y - x).abs().mean(1) / (x.std(1, correction=0) + 1e-3)).mean()


def si_sdr(output: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB of zero-mean signals.

        10 log10(|a x|^2 / |a x - y|^2)  with  a = <y, x> / |x|^2

    Source: Le Roux, Wisdom, Erdogan, Hershey 2019, arXiv 1811.02508, section 2.

    Args:
        output: ``(B, 1, N)``.
        target: ``(B, 1, N)``.

    Returns:
        float32 ``(B,)``; finite also where a signal is silent or equal to the other.
    """
    y, x = output.float().flatten(1), target.float().flatten(1)
    y, x = y - y.mean(1, keepdim=True), x - x.mean(1, keepdim=True)
    scale = (y * x).sum(1, keepdim=True) / (x.square().sum(1, keepdim=True) + TINY)
    aligned = scale * x
    signal = aligned.square().sum(1) + TINY
    distortion = (aligned - y).square().sum(1) + TINY
    return 10 * torch.log10(signal / distortion)
