"""Binary scalar quantization without a codebook: the sign of each channel is its bit.

Follows MaskBit (arXiv 2409.16211) and LFQ (arXiv 2310.05737). Signs are taken after a whitening
computed from exponential moving averages: it puts the threshold where each bit is balanced, so that
no bit can stay constant, and removes the linear dependence between bits.

Shapes: ``(B, T, K)`` with K the bits per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.codecs.hac.layers import Pointwise, RunningNorm
from codectool.nn.distributed import all_reduce_mean

# Floor of the variances, relative to their mean, that keeps the whitening finite. It must be far
# below the smallest variance that carries bits: with a floor of 1 %, one strong direction of a
# trained encoder pushed all others below it.
WHITENING_FLOOR = 1e-4
GROUP_BITS = 6  # bits whose joint entropy is maximised


def signs_to_index(values: Tensor) -> Tensor:
    """Return the index of each sign pattern ``(..., K)``: int64 ``(...)`` in ``0 .. 2^K - 1``.

    A value above zero is bit 1, any other bit 0; channel 0 is the most significant bit.

    >>> signs_to_index(torch.tensor([0.3, -0.1, 0.0, 2.0]))
    tensor(9)
    """
    num_bits = values.shape[-1]
    places = torch.arange(num_bits - 1, -1, -1, device=values.device)
    return ((values > 0).long() << places).sum(-1)


def index_to_signs(index: Tensor, num_bits: int) -> Tensor:
    """Undo `signs_to_index`: integers ``(...)`` to float32 ``(..., K)`` of -1 and +1.

    >>> index_to_signs(torch.tensor(9), 4)
    tensor([ 1., -1., -1.,  1.])
    """
    places = torch.arange(num_bits - 1, -1, -1, device=index.device)
    bits = (index.unsqueeze(-1) >> places) & 1
    return bits.float() * 2 - 1


@dataclass(frozen=True)
class BinaryOutput:
    """Bits for the decoder and quantities for the training loss.

    Attributes:
        signs: ``(B, T, K)`` of -1 and +1, with a straight-through gradient to `values`.
        values: ``(B, T, K)``, whitened, before the sign is taken.
        commitment: mean squared distance of `values` from their signs.
        sample_entropy: mean entropy of one bit of one token in nats, to be minimised.
        batch_entropy: entropy of the mean code distribution in nats per bit, to be maximised.
        decorrelation: distance of the input's mean and covariance from zero and identity.
    """

    signs: Tensor
    values: Tensor
    commitment: Tensor
    sample_entropy: Tensor
    batch_entropy: Tensor
    decorrelation: Tensor


def bit_entropy(logits: Tensor) -> Tensor:
    """Return the entropy in nats of ``sigmoid(logits)``, elementwise, stable for any logit."""
    size = logits.abs()
    return F.softplus(-size) + size * torch.sigmoid(-size)


def group_entropy(logits: Tensor, group_bits: int) -> Tensor:
    """Return the entropy of the mean code distribution in nats per bit, at most ``ln 2``.

    All ``2^K`` codes would be far too many, so the bits are split into groups of ``group_bits``
    with an entropy each, as in BSQ (arXiv 2406.07548); ``logits`` are ``(N, K)``.
    """
    total = logits.new_zeros(())
    ones = torch.sigmoid(logits)
    for first in range(0, logits.shape[-1], group_bits):
        codes = logits.new_ones(len(logits), 1)
        for one in ones[:, first : first + group_bits].unbind(-1):
            codes = torch.cat([codes * (1 - one)[:, None], codes * one[:, None]], dim=-1)
        mean = all_reduce_mean(codes.mean(0))
        total = total - torch.xlogy(mean, mean).sum()
    return total / logits.shape[-1]


def decorrelation(rows: Tensor) -> Tensor:
    """Return how far rows ``(N, K)`` are from white: ``(|mean|^2 + |covariance - I|^2) / K``.

    Without this loss single directions of the input grow, because the whitening undoes growth only
    after its averages have caught up, until all bits depend on one direction. Covariance term as in
    VICReg (arXiv 2105.04906, 4.1).
    """
    num_rows, width = rows.shape
    mean = all_reduce_mean(rows.mean(0))
    centred = rows - mean
    covariance = all_reduce_mean(centred.T @ centred / num_rows)
    excess = covariance - torch.eye(width, device=rows.device)
    return (mean.square().sum() + excess.square().sum()) / width


class BinaryBottleneck(RunningNorm):
    """Whiten, take the sign, pass the gradient straight through.

    With the moving averages mu and C (covariance) of the input p:

        A = (C + 1e-4 tr(C) / K I)^(-1/2)      symmetric root (arXiv 1804.08450)
        e = A (p - mu)                         A and mu are constants for the gradient
        q = +1 where e > 0, else -1

    Computed in float32 under autocast too: rounding can flip a sign.
    """

    def __init__(self, num_bits: int) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(num_bits))
        self.covariance = nn.Buffer(torch.eye(num_bits))
        self.whitening = nn.Buffer(torch.eye(num_bits))

    @override
    def forward(self, projected: Tensor) -> BinaryOutput:
        with torch.autocast(projected.device.type, enabled=False):
            projected = projected.float()
            values = super().forward(projected)
            hard = torch.where(values > 0, 1.0, -1.0)
            logits = 2 * values.flatten(0, -2)
            return BinaryOutput(
                signs=values + (hard - values).detach(),
                values=values,
                commitment=(values - hard).square().mean(),
                sample_entropy=bit_entropy(logits).mean(),
                batch_entropy=group_entropy(logits, GROUP_BITS),
                decorrelation=decorrelation(projected.flatten(0, -2)),
            )

    @override
    def normalise(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.whitening  # A is its own transpose

    @torch.no_grad()
    def whiten_projection_(self, projection: Pointwise) -> None:
        """Fold the whitening into the projection before the bottleneck, in place."""
        assert projection.bias is not None
        projection.bias.copy_(self.whitening @ (projection.bias - self.mean))
        projection.weight.copy_(self.whitening @ projection.weight)

    @override
    def update_(self, x: Tensor, weight: Tensor) -> None:
        rows = x.flatten(0, -2)
        self.mean.lerp_(all_reduce_mean(rows.mean(0)), weight)
        centred = rows - self.mean
        self.covariance.lerp_(all_reduce_mean(centred.T @ centred / len(rows)), weight)
        # float64, because the smallest eigenvalues decide how well the bits are decorrelated; NaN
        # and infinity would make `eigh` raise, and still reach the loss through the mean
        covariance = self.covariance.double().nan_to_num(0.0, 0.0, 0.0)
        floor = WHITENING_FLOOR * covariance.diagonal().mean()
        variances, directions = torch.linalg.eigh(covariance)
        root = directions * (variances.clamp(min=0) + floor).rsqrt() @ directions.T
        self.whitening.copy_(root)
