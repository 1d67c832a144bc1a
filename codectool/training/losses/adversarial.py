"""Adversarial losses as functions of the discriminators' outputs.

A discriminator has several sub-discriminators (periods, resolutions, bands). Each gives logits of
any shape, large where it takes the signal for real, and feature maps, the outputs of its hidden
layers. All functions sum over the sub-discriminators, or with ``mean=True`` average.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from codectool.nn.distributed import all_reduce_mean

SMALLEST_FEATURES = 1e-6  # mean size of real features, from which a relative distance is defined


def _reduce(terms: Iterable[Tensor], mean: bool) -> Tensor:
    stacked = torch.stack(list(terms))
    return stacked.mean() if mean else stacked.sum()


def hinge_discriminator(
    real: Sequence[Tensor], fake: Sequence[Tensor], mean: bool = False
) -> Tensor:
    """Return ``sum_i mean relu(1 - D_i(x)) + mean relu(1 + D_i(y))`` (arXiv 1705.02894).

    Args:
        real: logits of each sub-discriminator for real audio x.
        fake: logits of each sub-discriminator for the output y, detached from the codec.
        mean: take the mean over sub-discriminators instead of the sum.

    Returns:
        A scalar; 0 if all real logits are above 1 and all others below -1.
    """
    return _reduce(
        (
            F.relu(1 - x.float()).mean() + F.relu(1 + y.float()).mean()
            for x, y in zip(real, fake, strict=True)
        ),
        mean,
    )


def hinge_generator(fake: Sequence[Tensor], mean: bool = False) -> Tensor:
    """Return ``sum_i mean relu(1 - D_i(y))``, as in HILCodec (arXiv 2405.04752).

    The original hinge loss has no relu here.
    """
    return _reduce((F.relu(1 - y.float()).mean() for y in fake), mean)


def least_squares_discriminator(
    real: Sequence[Tensor], fake: Sequence[Tensor], mean: bool = False
) -> Tensor:
    """Return ``sum_i mean (D_i(x) - 1)^2 + mean D_i(y)^2`` (arXiv 1611.04076, section 3.2).

    Args:
        real: logits of each sub-discriminator for real audio x.
        fake: logits of each sub-discriminator for the output y, detached from the codec.
        mean: take the mean over sub-discriminators instead of the sum.
    """
    return _reduce(
        (
            (x.float() - 1).square().mean() + y.float().square().mean()
            for x, y in zip(real, fake, strict=True)
        ),
        mean,
    )


def least_squares_generator(fake: Sequence[Tensor], mean: bool = False) -> Tensor:
    """Return ``sum_i mean (D_i(y) - 1)^2``."""
    return _reduce(((y.float() - 1).square().mean() for y in fake), mean)


def feature_matching(
    real: Sequence[Sequence[Tensor]],
    fake: Sequence[Sequence[Tensor]],
    relative: bool = False,
    mean: bool = False,
) -> Tensor:
    """Return the distance of feature maps of output and target (arXiv 1512.09300, 1910.06711).

        sum over sub-discriminators and layers of mean |F(x) - F(y)| [/ mean |F(x)|]

    Args:
        real: feature maps of real audio by sub-discriminator and layer; they get no gradient.
        fake: feature maps of the output.
        relative: divide each distance by the mean size of the real map, taken over the batch of all
            processes.
        mean: take the mean over all layers of all sub-discriminators instead of the sum.
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
