"""The parts that the blocks of HAC are made of; none of them looks across time but `depthwise`.

A running scale and a gain exist for training only: `Foldable.fold_` moves them into the weights,
`Foldable.unfold_` out of them again.

Letters used in shapes: B batch, T time, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.codecs.hac.activations import Smu, Snake
from codectool.nn.distributed import all_reduce_mean


def running_weight(count: Tensor) -> Tensor:
    """Weight of the ``count``-th batch in a running average: a plain mean first, then 1 %."""
    return (1 / count).clamp(min=0.01)


class RunningScale(nn.Module):
    """Divide by a running root mean square: one scalar, no learned parameter.

    The feature map gets unit variance whatever the depth, with the same (averaged) scale in
    training and inference, so that it can be folded into the weights. The scale is a constant for
    the gradient. It moves only in training steps while `updating` is true.
    """

    def __init__(self) -> None:
        super().__init__()
        self.updating = True
        self.mean_square: Tensor
        self.count: Tensor
        self.register_buffer("mean_square", torch.ones(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Scale a feature map of any shape."""
        if self.training and self.updating:
            with torch.no_grad():
                norm = torch.linalg.vector_norm(x.detach(), dtype=torch.float32)
                mean_square = all_reduce_mean(norm.square() / x.numel())
                self.count += 1
                self.mean_square.lerp_(mean_square, running_weight(self.count))
        return x / self.sigma()

    def sigma(self) -> Tensor:
        """The divisor."""
        return torch.sqrt(self.mean_square + 1e-8)


class Pointwise(nn.Module):
    """Matrix product over the last axis, weights of variance 1 / fan-in at the start."""

    def __init__(self, fan_in: int, out: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, fan_in) * fan_in**-0.5)
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """``(..., fan_in)`` -> ``(..., out)``."""
        return F.linear(x, self.weight, self.bias)


def depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, dilation: int = 1
) -> Tensor:
    """Convolve each channel of ``(B, T, C)`` over time by its own row of ``weight`` ``(C, k)``.

    Written as an image of height 1, which reaches the fast path for channels that lie together.
    A compiler does better with a sum of shifted signals, which it fuses with what stands around it.
    """
    if torch.compiler.is_compiling():
        return _shifted_sum(x, weight, bias, stride, dilation)
    image = x.transpose(1, 2).unsqueeze(2)
    kernel = weight[:, None, None, :]
    y = F.conv2d(image, kernel, bias, (1, stride), (0, 0), (1, dilation), len(weight))
    return y.squeeze(2).transpose(1, 2)


def _shifted_sum(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, dilation: int
) -> Tensor:
    last = x.shape[1] - (weight.shape[1] - 1) * dilation  # one past the last start of a kernel
    total = x.new_zeros(()) if bias is None else bias
    for tap in range(weight.shape[1]):
        first = tap * dilation
        total = total + x[:, first : first + last : stride] * weight[:, tap]
    return total


class Foldable(nn.Module):
    """A layer with running scales or gains that inference does without."""

    def fold_(self) -> None:
        """Move them into the weights: the same result with fewer operations."""

    def unfold_(self) -> None:
        """Turn folded weights into those that go with the scales and gains there are now."""


class ActivatedPointwise(Foldable):
    """``PW( act( S(x) ) )``: how features reach a layer that changes their rate or meaning."""

    def __init__(self, activation: Snake | Smu, fan_in: int, out: int, bias: bool = False) -> None:
        super().__init__()
        self.scale: nn.Module = RunningScale()
        self.activation = activation
        self.pointwise = Pointwise(fan_in, out, bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., fan_in)`` -> ``(..., out)``."""
        y: Tensor = self.pointwise(self.activation(self.scale(x)))
        return y

    @torch.no_grad()
    def fold_(self) -> None:
        """Fold the scale into the activation and into the matrix behind it."""
        sigma = take_sigma(self)
        self.activation.absorb_(sigma)
        self.pointwise.weight.div_(sigma)

    @torch.no_grad()
    def unfold_(self) -> None:
        """Undo `fold_`."""
        sigma = sigma_of(self)
        self.activation.absorb_(1 / sigma)
        self.pointwise.weight.mul_(sigma)


class Branch(Foldable):
    """The wide part of a residual unit: ``g * PW2( act( PW1(x) ) )``.

    The activation, the costliest operation, stands once on the wide side, as in ConvNeXt. The gain
    g of each channel starts at 0.1: small enough for a deep stack to start near the identity, yet
    all weights get a gradient in the first step.
    """

    def __init__(self, channels: int, activation: nn.Module, hidden: int) -> None:
        super().__init__()
        self.widen = Pointwise(channels, hidden)
        self.activation = activation
        self.narrow = Pointwise(hidden, channels)
        self.gain: nn.Parameter | None = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` -> ``(..., C)``."""
        y: Tensor = self.narrow(self.activation(self.widen(x)))
        return y if self.gain is None else y * self.gain

    @torch.no_grad()
    def fold_(self) -> None:
        """Fold the gain into the second matrix."""
        assert self.gain is not None
        assert self.narrow.bias is not None
        self.narrow.weight.mul_(self.gain[:, None])
        self.narrow.bias.mul_(self.gain)
        self.gain = None

    @torch.no_grad()
    def unfold_(self) -> None:
        """Choose gains that leave rows of norm 1, which is about what they begin with."""
        assert self.gain is not None
        assert self.narrow.bias is not None
        norms = torch.linalg.vector_norm(self.narrow.weight, dim=1)
        self.gain.copy_(torch.where(norms > 0, norms, 1.0))
        self.narrow.weight.div_(self.gain[:, None])
        self.narrow.bias.div_(self.gain)


def take_sigma(layer: Foldable) -> Tensor:
    """Remove the running scale of a layer that is being folded and return its divisor."""
    sigma = sigma_of(layer)
    layer.scale = nn.Identity()
    return sigma


def sigma_of(layer: Foldable) -> Tensor:
    """Divisor of the running scale of a layer."""
    scale = layer.scale
    assert isinstance(scale, RunningScale)
    return scale.sigma()
