"""Adversarial losses as functions of the discriminators' outputs.

A discriminator has several sub-discriminators (periods, resolutions, bands). Each gives logits of
any shape, large where it takes the signal for real, and feature maps, the outputs of its hidden
layers. All functions sum over the sub-discriminators, or with ``mean=True`` average.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from codectool.nn.distributed import all_reduce_mean

SMALLEST_FEATURES = 1e-6  # mean size of real features, from which a relative distance is defined

Kind = Literal["hinge", "least_squares"]


def discriminator_loss(
    real: Sequence[Tensor], fake: Sequence[Tensor], kind: Kind, mean: bool = False
) -> Tensor:
    """Return the loss of a discriminator, a scalar.

    ``sum_i mean relu(1 - D_i(x)) + mean relu(1 + D_i(y))`` (hinge, arXiv 1705.02894), or
    ``sum_i mean (D_i(x) - 1)^2 + mean D_i(y)^2`` (least squares, arXiv 1611.04076).

    Args:
        real: logits of each sub-discriminator for real audio x.
        fake: logits of each sub-discriminator for the output y, detached from the codec.
        kind: of the loss.
        mean: take the mean over sub-discriminators instead of the sum.
    """
    pairs = zip(real, fake, strict=True)
    return _reduce((_error(x, True, kind) + _error(y, False, kind) for x, y in pairs), mean)


def generator_loss(fake: Sequence[Tensor], kind: Kind, mean: bool = False) -> Tensor:
    """Return the loss of the codec, ``sum_i mean relu(1 - D_i(y))`` or ``mean (D_i(y) - 1)^2``.

    The original hinge loss has no relu here; this is the form of HILCodec (arXiv 2405.04752).
    """
    return _reduce((_error(y, True, kind) for y in fake), mean)


def _error(logits: Tensor, real: bool, kind: Kind) -> Tensor:
    logits = logits.float()
    if kind == "hinge":
        return F.relu(1 - logits if real else 1 + logits).mean()
    return (logits - 1 if real else logits).square().mean()


def _reduce(terms: Iterable[Tensor], mean: bool) -> Tensor:
    stacked = torch.stack(list(terms))
    return stacked.mean() if mean else stacked.sum()


def feature_matching(
    real: Sequence[Sequence[Tensor]],
    fake: Sequence[Sequence[Tensor]],
    relative: bool = False,
    mean: bool = False,
) -> Tensor:
    """Return the distance of feature maps of output and target (arXiv 1512.09300, 1910.06711).

        sum over sub-discriminators and layers of mean |F(x) - F(y)| [/ mean |F(x)|]

    Feature maps are by sub-discriminator and layer; real maps get no gradient. With `relative`,
    each distance is divided by the mean size of the real map over the batch of all
    processes. With `mean`, the mean over all layers is taken instead of the sum.
    """
    pairs = [
        (x.detach().float(), y.float())
        for maps_x, maps_y in zip(real, fake, strict=True)
        for x, y in zip(maps_x, maps_y, strict=True)
    ]
    distances = torch.stack([(x - y).abs().mean() for x, y in pairs])
    if relative:
        sizes = all_reduce_mean(torch.stack([x.abs().mean() for x, _ in pairs]))
        distances = distances / sizes.clamp(min=SMALLEST_FEATURES)
    return distances.mean() if mean else distances.sum()
