"""Snake, the periodic activation of arXiv 2006.08195, with one learned frequency per channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _SnakeFunction(torch.autograd.Function):
    """Snake with its derivative written out, so that only the input is kept for the backward pass.

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
        return torch.addcmul(x + half_period, angle.cos_(), half_period, value=-1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, log_alpha = ctx.saved_tensors
        (grad,) = grads
        half_period = (0.5 * torch.exp(-log_alpha)).to(x.dtype)
        angle = x / half_period
        weighted_sine = angle.sin().mul_(grad)
        # h (cos - 1) is -s; what multiplies the incoming gradient is summed over all but channels
        rest = angle.cos_().sub_(1.0).mul_(half_period).mul_(grad)
        rest.addcmul_(x, weighted_sine)
        grad_alpha = rest.flatten(0, -2).sum(0, dtype=torch.float32)
        return weighted_sine.add_(grad), grad_alpha.to(log_alpha.dtype)


def snake(x: Tensor, log_alpha: Tensor) -> Tensor:
    """Apply ``x + sin(alpha x)^2 / alpha``, computed as ``x + (1 - cos(2 alpha x)) / (2 alpha)``.

    Args:
        x: ``(..., channels)``.
        log_alpha: ``(channels,)``, the natural logarithm of alpha.
    """
    if (
        torch.compiler.is_compiling()
    ):  # a compiler fuses the plain formula, and keeps only x as well
        half_period = 0.5 * torch.exp(-log_alpha)
        wide = x.float()
        return (wide + half_period * (1 - torch.cos(wide / half_period))).to(x.dtype)
    y: Tensor = _SnakeFunction.apply(x, log_alpha)
    return y


class Snake(nn.Module):
    """Snake with a learned frequency for each channel, ``(..., channels)`` to the same shape.

    The logarithm of the frequency is learned (as in BigVGAN, arXiv 2206.04658) and starts at 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``(..., channels)``."""
        return snake(x, self.log_alpha)

    @torch.no_grad()
    def absorb_(self, sigma: Tensor) -> None:
        """Take over a division of the input by ``sigma``.

        ``snake_alpha(x / sigma) = snake_(alpha / sigma)(x) / sigma``: afterwards the output is
        ``sigma`` times what it was, which the following matrix has to undo.
        """
        self.log_alpha.sub_(sigma.log())


class Smu(nn.Module):
    """Smooth maximum unit (arXiv 2111.04682) of slopes 0.25 and 1, ``(..., C)`` to the same shape.

    The sharpness mu of each channel is learned and starts at 1; the very large start that is also
    seen in use makes it a leaky ReLU whose mu gets no gradient.
    """

    SLOPE = 0.25

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``(..., C)``."""
        rise = 1 - self.SLOPE
        bend = torch.erf(x * (self.mu * rise))
        y: Tensor = 0.5 * x * ((1 + self.SLOPE) + rise * bend)
        return y

    @torch.no_grad()
    def absorb_(self, sigma: Tensor) -> None:
        """Take over a division of the input by ``sigma``; the output grows by ``sigma``."""
        self.mu.div_(sigma)
