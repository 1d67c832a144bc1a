"""Layers that the blocks of HAC are built from; only `depthwise_conv` looks across time.

Training divides features by running scales and multiplies residuals by gains. Inference does
without both: `fold_` moves them into the weights, `unfold_` undoes that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.codecs.hac.activations import Activation
from codectool.nn.distributed import all_reduce_mean
from codectool.nn.packed import can_use_packed

MIN_IMAGES = 16  # on one thread, PyTorch calls oneDNN for so many images only


class RunningNorm(nn.Module, ABC):
    """Base of the normalisations by running averages over the training batches.

    Training and inference use the same averages, so that inference can fold them into weights. They
    are constants for the gradient.

    Attributes:
        updating: whether training steps update the averages; evaluation never does.
        min_weight: smallest weight of a new batch in the averages; the n-th has at least 1/n.
        count: number of batches averaged so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.updating = True
        self.min_weight = 0.01
        self.count = nn.Buffer(torch.zeros((), dtype=torch.int64))

    @override
    def forward(self, x: Tensor) -> Any:
        if self.training and self.updating:
            with torch.no_grad():
                self.count.add_(1)
                self.update_(x.detach(), (1 / self.count).clamp(min=self.min_weight))
        return self.normalise(x)

    @abstractmethod
    def update_(self, x: Tensor, weight: Tensor) -> None:
        """Move the averages towards the statistics of ``x``."""

    @abstractmethod
    def normalise(self, x: Tensor) -> Tensor:
        """Normalise by the averages as they are."""


class RunningScale(RunningNorm):
    """Division by a running root mean square, a scalar: features get unit variance at any depth."""

    def __init__(self) -> None:
        super().__init__()
        self.mean_square = nn.Buffer(torch.ones(()))

    @override
    def update_(self, x: Tensor, weight: Tensor) -> None:
        norm = torch.linalg.vector_norm(x, dtype=torch.float32)
        self.mean_square.lerp_(all_reduce_mean(norm.square() / x.numel()), weight)

    @override
    def normalise(self, x: Tensor) -> Tensor:
        return x / self.divisor()

    def divisor(self) -> Tensor:
        """Return the root mean square."""
        return torch.sqrt(self.mean_square + 1e-8)


class Pointwise(nn.Module):
    """Matrix product over the last axis, initialised with weights of variance 1 / fan-in."""

    def __init__(self, fan_in: int, out: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, fan_in) * fan_in**-0.5)
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None

    @override
    def forward(self, x: Tensor) -> Tensor:
        training = self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if training and x.ndim > 2 and x.numel() and can_use_packed(x):
            return self._convolve(x)
        return F.linear(x, self.weight, self.bias)

    def _convolve(self, x: Tensor) -> Tensor:
        """Compute the product as a convolution, which oneDNN does, as well as its gradients.

        On processors of AMD it is faster than the library of the products; see `nn.packed`.
        """
        rows = x.flatten(1, -2)
        parts = min(-(-MIN_IMAGES // len(rows)), rows.shape[1])
        while rows.shape[1] % parts:
            parts += 1
        image = rows.reshape(len(rows) * parts, 1, -1, rows.shape[2]).permute(0, 3, 1, 2)
        y = F.conv2d(image, self.weight[:, :, None, None], self.bias)
        return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def depthwise_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, dilation: int = 1
) -> Tensor:
    """Convolve each channel of ``(B, T, C)`` over time with its row of ``weight`` ``(C, k)``.

    Returns:
        ``(B, T', C)`` with ``T' = (T - (k - 1) dilation - 1) // stride + 1``.
    """
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        # The compiler fuses a sum of shifted signals.
        frames = x.shape[1] - (weight.shape[1] - 1) * dilation  # positions where the kernel fits
        total = x.new_zeros(()) if bias is None else bias
        for tap in range(weight.shape[1]):
            first = tap * dilation
            total = total + x[:, first : first + frames : stride] * weight[:, tap]
        return total
    # An image of height 1: PyTorch has a fast path for two-dimensional signals, channels last.
    image = x.transpose(1, 2).unsqueeze(2)
    kernel = weight[:, None, None, :]
    y = F.conv2d(image, kernel, bias, (1, stride), (0, 0), (1, dilation), len(weight))
    return y.squeeze(2).transpose(1, 2)


class ScaledLayer(nn.Module, ABC):
    """Layer that divides its input by a running scale."""

    scale: nn.Module

    @abstractmethod
    def absorb_division_(self, divisor: Tensor) -> None:
        """Change the weights from those for ``x / divisor`` to those for x."""

    @torch.no_grad()
    def fold_(self) -> None:
        """Move the scale into the weights."""
        self.absorb_division_(self._divisor())
        self.scale = nn.Identity()

    @torch.no_grad()
    def unfold_(self) -> None:
        """Turn folded weights into weights for the current scale."""
        self.absorb_division_(1 / self._divisor())

    def _divisor(self) -> Tensor:
        assert isinstance(self.scale, RunningScale)
        return self.scale.divisor()


class ActivatedPointwise(ScaledLayer):
    """``PW( act( S(x) ) )``, where features change their rate or meaning.

    S is the running scale, PW a matrix product.
    """

    def __init__(
        self, activation: Callable[[int], Activation], channels: int, out: int, bias: bool = False
    ) -> None:
        super().__init__()
        self.scale = RunningScale()
        self.activation = activation(channels)
        self.pointwise = Pointwise(channels, out, bias)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.pointwise(self.activation(self.scale(x))))

    @override
    def absorb_division_(self, divisor: Tensor) -> None:
        self.activation.absorb_division_(divisor)
        self.pointwise.weight.div_(divisor)


class PointwiseMLP(nn.Module):
    """``g * PW2( act( PW1(x) ) )``: the wide part of a residual unit.

    The activation, the most expensive operation, occurs only once, on the wide side, as in
    ConvNeXt. The gain g of each channel starts at 0.1: small enough for a deep stack to start near
    the identity, and large enough for all weights to get a gradient in the first step.
    """

    def __init__(self, channels: int, activation: nn.Module, hidden: int) -> None:
        super().__init__()
        self.widen = Pointwise(channels, hidden)
        self.activation = activation
        self.narrow = Pointwise(hidden, channels)
        self.gain: nn.Parameter | None = nn.Parameter(torch.full((channels,), 0.1))

    @override
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.narrow(self.activation(self.widen(x)))
        return y if self.gain is None else y * self.gain

    @torch.no_grad()
    def fold_(self) -> None:
        """Move the gain into the weights."""
        assert self.gain is not None
        self._multiply_rows(self.gain)
        self.gain = None

    @torch.no_grad()
    def unfold_(self) -> None:
        """Turn folded weights into rows of norm 1, about as at initialisation, and gains."""
        assert self.gain is not None
        norms = torch.linalg.vector_norm(self.narrow.weight, dim=1)
        self.gain.copy_(torch.where(norms > 0, norms, 1.0))
        self._multiply_rows(1 / self.gain)

    def _multiply_rows(self, factors: Tensor) -> None:
        assert self.narrow.bias is not None
        self.narrow.weight.mul_(factors[:, None])
        self.narrow.bias.mul_(factors)
