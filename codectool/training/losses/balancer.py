"""Gradient balancer: losses weighted by the size of their gradients, not by their values.

A loss reaches the codec only through its gradient at the output. The balancer scales each of these
gradients to a given norm, so that a weight is the share of a loss in the step. After EnCodec
(arXiv 2210.13438, section 3.4), which divides the weights by their sum; here they are absolute, as
in HILCodec (arXiv 2405.04752).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from codectool.nn.distributed import all_reduce_mean, world_size

DECAY = 0.99
SMALLEST_NORM = 1e-12


class _RunningNorm(nn.Module):
    """Exponential moving average of a norm, corrected for its start at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.total: Tensor
        self.weight: Tensor
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def update(self, norm: Tensor) -> None:
        # 0 says nothing about the usual size; NaN and infinity would never leave the average.
        # No branch: reading the value would make the CPU wait for the GPU.
        usable = torch.isfinite(norm) & (norm > 0)
        share = torch.where(usable, 1 - DECAY, 0.0)
        self.total.lerp_(torch.where(usable, norm, 0.0), share)
        self.weight.lerp_(torch.ones_like(self.weight), share)

    def value(self) -> Tensor:
        """Return the average; 0 before the first usable norm."""
        return self.total / self.weight.clamp(min=1 - DECAY)


class GradientBalancer(nn.Module):
    """Sum of gradients at the codec's output, each scaled by its running norm.

        sum over losses of weight * g / E[|g|],   g = d loss / d output

    with E the moving average (decay 0.99) over the steps in which the loss was present. The
    averages are part of the state.

    Args:
        weights: norm of the gradient of each loss, by name (without a dot).
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.norms = nn.ModuleDict({name: _RunningNorm() for name in weights})

    def combine(self, losses: Mapping[str, Tensor], output: Tensor) -> Tensor:
        """Return the gradient at the output to backpropagate through the codec.

        Each loss is the mean over this process's part of the batch; not all need to be present.
        Their graphs are kept. A gradient with NaN or infinity does not change the averages but is
        part of the result, so that the training loop notices it.
        """
        combined = torch.zeros_like(output, requires_grad=False)
        if not losses:
            return combined
        grads = [torch.autograd.grad(e, output, retain_graph=True)[0] for e in losses.values()]
        for name, grad, norm in zip(losses, grads, _global_norms(grads), strict=True):
            running = self.norms[name]
            assert isinstance(running, _RunningNorm)
            running.update(norm)
            scale = self.weights[name] / running.value().clamp(min=SMALLEST_NORM)
            combined += grad * scale.to(grad.dtype)
        return combined


def _global_norms(grads: list[Tensor]) -> Tensor:
    """Return the norms of the gradients of the mean losses over the batch of all processes.

    The loss of a process is the mean over 1 / R of the batch, so its gradient is R times its part
    of the gradient of the mean over all. The parts belong to different items and their squares add:

        |g|^2 = sum_r |g_r / R|^2 = (mean_r |g_r|^2) / R
    """
    squares = torch.stack([grad.float().square().sum() for grad in grads])
    return (all_reduce_mean(squares) / world_size()).sqrt()
