"""What the steps of `steps` are made of: products and activations into memory that is there.

One identity saves most operations: with ``h = 1 / (2 alpha)`` and ``u = x / h``

    snake(x) = x + h - h cos(x / h) = h (u - cos u) + h

so that the matrix before the activation gives u itself, the one behind it takes ``u - cos u``, and
the constant goes into its bias.

Numpy computes the cosine in less than half of torch's time, and its plain loops run on one thread
whatever the machine. Larger products stay with torch, whose number of threads is ours to set.

Letters used in shapes: T frames of one piece, C channels, H hidden channels, K taps.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from codectool.codecs.hac.layers import ActivatedPointwise, Pointwise
from codectool.codecs.hac.rings import Array, Buffer, Scratch, as_buffer
from codectool.nn.snake import Snake

LONG = 8192  # numbers in a piece from which one pass per tap is quicker than one for all taps
FEW = 2  # rows for which a matrix is multiplied without a library


class Affine:
    """A matrix and a bias, by one of two ways to multiply.

    For one or two rows a plain pass over the matrix is quicker than any library's product.

    Args:
        weight: ``(out, fan_in)``.
        bias: ``(out,)``.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight = as_buffer(weight.T.float().contiguous())
        self.bias = as_buffer(bias.float())

    def __call__(self, x: Buffer, out: Buffer) -> None:
        """Multiply rows ``(T, fan_in)`` and add the bias: ``(T, out)``."""
        if len(x.array) > FEW:
            torch.addmm(self.bias.tensor, x.tensor, self.weight.tensor, out=out.tensor)
            return
        np.einsum("tc,ch->th", x.array, self.weight.array, out=out.array)
        np.add(out.array, self.bias.array, out=out.array)


def affine(pointwise: Pointwise, scale: Tensor | None = None) -> Affine:
    """A layer, each of its outputs multiplied by ``scale`` if there is one."""
    assert pointwise.bias is not None
    weight, bias = pointwise.weight.double(), pointwise.bias.double()
    if scale is not None:
        weight, bias = weight * scale[:, None], bias * scale
    return Affine(weight, bias)


def after_snake(half_period: Tensor, pointwise: Pointwise) -> Affine:
    """A layer behind the activation, as applied to ``u - cos u``."""
    weight = pointwise.weight.double()
    bias = weight @ half_period
    if pointwise.bias is not None:
        bias = bias + pointwise.bias
    return Affine(weight * half_period, bias)


def half_period(activation: nn.Module) -> Tensor:
    """The h of an activation, float64 ``(H,)``."""
    assert isinstance(activation, Snake)
    return 0.5 * torch.exp(-activation.log_alpha.double())


def bend(angle: Array, cosine: Array) -> None:
    """Replace u by ``u - cos u``."""
    np.cos(angle, out=cosine)
    np.subtract(angle, cosine, out=angle)


def sweep(window: Buffer, taps: Buffer, out: Buffer) -> None:
    """Weigh the K frames ``(T, K, C)`` of each output frame by ``(K, C)`` and add them up."""
    if out.array.size < LONG:
        np.einsum("tkc,kc->tc", window.array, taps.array, out=out.array)
        return
    torch.mul(window.tensor[:, 0], taps.tensor[0], out=out.tensor)
    for tap in range(1, len(taps.tensor)):
        out.tensor.addcmul_(window.tensor[:, tap], taps.tensor[tap])


def taps_of(weight: Tensor) -> Buffer:
    """Depthwise weights ``(C, K)`` as ``(K, C)``."""
    return as_buffer(weight.T.clone(memory_format=torch.contiguous_format))


class Entry:
    """See `ActivatedPointwise`."""

    def __init__(self, layer: ActivatedPointwise) -> None:
        half = half_period(layer.activation)
        self.frequency = (1 / half).float()
        self.affine = after_snake(half, layer.pointwise)

    def allocate(self, frames: int, scratch: Scratch) -> Buffer:
        """Lay out the memory; return where the input goes."""
        width = len(self.frequency)
        self.angle = scratch.take("angle", frames, width)
        self.cosine = scratch.take("cosine", frames, width)
        return scratch.take("inlet", frames, width)

    def __call__(self, given: Buffer, out: Buffer) -> None:
        """Compute ``(T, C)`` -> ``(T, out)``."""
        torch.mul(given.tensor, self.frequency, out=self.angle.tensor)
        bend(self.angle.array, self.cosine.array)
        self.affine(self.angle, out)
