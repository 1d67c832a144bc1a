"""Activations of HAC, each with one learned parameter per channel: Snake and SMU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override


class Activation(nn.Module):
    """Base of the activations, ``(..., C)`` -> ``(..., C)``."""

    def absorb_division_(self, divisor: Tensor) -> None:
        """Change the parameter so that ``act(x)`` is ``divisor * act(x / divisor)`` from before."""
        raise NotImplementedError


class Snake(Activation):
    """Periodic activation ``x + sin(alpha x)^2 / alpha`` (arXiv 2006.08195), alpha > 0 learned.

    The logarithm of alpha is learned, as in BigVGAN (arXiv 2206.04658), and starts at 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.zeros(channels))

    @override
    def forward(self, x: Tensor) -> Tensor:
        return snake(x, self.log_alpha)

    @override
    @torch.no_grad()
    def absorb_division_(self, divisor: Tensor) -> None:
        self.log_alpha.sub_(divisor.log())


def snake(x: Tensor, log_alpha: Tensor) -> Tensor:
    """Compute ``x + sin(alpha x)^2 / alpha`` as ``x + (1 - cos(2 alpha x)) / (2 alpha)``.

    Args:
        x: ``(..., C)``.
        log_alpha: ``(C,)``, the natural logarithm of alpha.
    """
    if torch.compiler.is_compiling():  # it fuses the formula, and saves only x for backward, too
        half_period = 0.5 * torch.exp(-log_alpha)
        x32 = x.float()
        return (x32 + half_period * (1 - torch.cos(x32 / half_period))).to(x.dtype)
    y: Tensor = _SnakeFunction.apply(x, log_alpha)
    return y


class _SnakeFunction(torch.autograd.Function):
    """Snake with an explicit derivative, so that only the input is saved for the backward pass.

    With ``alpha = exp(a)`` and ``s = (1 - cos(2 alpha x)) / (2 alpha)``:

        snake    = x + s
        d / dx   = 1 + sin(2 alpha x)
        d / da   = x sin(2 alpha x) - s
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, log_alpha: Tensor) -> Tensor:
        ctx.save_for_backward(x, log_alpha)
        half_period = (0.5 * torch.exp(-log_alpha)).to(x.dtype)
        # x + s written as (x + h) - h cos(x / h): three passes over the data, two of them in place
        angle = x / half_period
        # as in inference, unless gradients are wanted
        cosine = _cos_(angle) if any(ctx.needs_input_grad) else angle.cos_()
        return torch.addcmul(x + half_period, cosine, half_period, value=-1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, log_alpha = ctx.saved_tensors
        (grad,) = grads
        half_period = (0.5 * torch.exp(-log_alpha)).to(x.dtype)
        angle = x / half_period
        grad_sine = _sin(angle).mul_(grad)
        # h (cos - 1) equals -s; the gradient of a is summed over all axes but the channels
        grad_a = _cos_(angle).sub_(1.0).mul_(half_period).mul_(grad)
        grad_a.addcmul_(x, grad_sine)
        grad_log_alpha = grad_a.flatten(0, -2).sum(0, dtype=torch.float32)
        return grad_sine.add_(grad), grad_log_alpha.to(log_alpha.dtype)


def _cos_(x: Tensor) -> Tensor:
    if not _numpy_is_faster(x):
        return x.cos_()
    with np.errstate(invalid="ignore"):
        np.cos(x.numpy(), out=x.numpy())
    return x


def _sin(x: Tensor) -> Tensor:
    if not _numpy_is_faster(x):
        return x.sin()
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.sin(x.numpy()))


def _numpy_is_faster(x: Tensor) -> bool:
    """Return whether NumPy is faster than PyTorch, as it is in one thread."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and torch.get_num_threads() == 1


class Smu(Activation):
    """Smooth maximum unit (arXiv 2111.04682) of slopes 0.25 and 1, with learned sharpness mu.

    mu starts at 1. With a very large start, as in some implementations, SMU is a leaky ReLU whose
    mu gets no gradient.
    """

    SLOPE = 0.25

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.ones(channels))

    @override
    def forward(self, x: Tensor) -> Tensor:
        slope_change = 1 - self.SLOPE
        smooth_sign = torch.erf(x * (self.mu * slope_change))
        return 0.5 * x * ((1 + self.SLOPE) + slope_change * smooth_sign)

    @override
    @torch.no_grad()
    def absorb_division_(self, divisor: Tensor) -> None:
        self.mu.div_(divisor)
