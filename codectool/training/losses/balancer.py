"""Losses weighted by what they do to the output, not by their own size.

A term of the loss reaches the generator only through the gradient with respect to its output. The
balancer scales that of each term to a fixed norm, so that a weight says what share of the step a
term has. After EnCodec (arXiv 2210.13438, section 3.4), which divides the weights by their sum;
ours are absolute, as HILCodec's (arXiv 2405.04752).
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
        # 0 tells nothing about the usual size; NaN and infinity would stay in the average for good.
        # No branch: asking the value would make the processor wait for the accelerator.
        usable = torch.isfinite(norm) & (norm > 0)
        share = torch.where(usable, 1 - DECAY, 0.0)
        self.total.lerp_(torch.where(usable, norm, 0.0), share)
        self.weight.lerp_(torch.ones_like(self.weight), share)

    def value(self) -> Tensor:
        """The average; 0 before the first usable norm."""
        return self.total / self.weight.clamp(min=1 - DECAY)


class GradientBalancer(nn.Module):
    """Sum of gradients at the generator's output, each scaled by its running norm.

        sum over terms of weight * g / E[|g|],   g = d loss / d output

    with E the moving average (decay 0.99) over the steps in which the term was present. The
    averages are part of the state.

    Args:
        weights: norm that the gradient of each term is to have, by name (without a dot).
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.norms = nn.ModuleDict({name: _RunningNorm() for name in weights})

    def combine(self, losses: Mapping[str, Tensor], output: Tensor) -> Tensor:
        """Gradient with which the output is to be backpropagated through the generator.

        The graphs of the losses are kept. A gradient with NaN or infinity leaves the averages as
        they are and is passed on, so that the training loop sees it.

        Args:
            losses: scalars by name, each the mean over this rank's share of the batch. Terms that
                are absent do not count in this step.
            output: what the generator made, within its graph, any shape.

        Returns:
            A tensor like `output`, without graph.

        Raises:
            KeyError: a loss has no weight.
        """
        grads = {
            name: torch.autograd.grad(loss, output, retain_graph=True)[0]
            for name, loss in losses.items()
        }
        combined = torch.zeros_like(output, requires_grad=False)
        if not grads:
            return combined
        for (name, grad), norm in zip(
            grads.items(), _global_norms(list(grads.values())), strict=True
        ):
            running = self.norms[name]
            assert isinstance(running, _RunningNorm)
            running.update(norm)
            scale = self.weights[name] / running.value().clamp(min=SMALLEST_NORM)
            combined += grad * scale.to(grad.dtype)
        return combined

    def running_norms(self) -> dict[str, Tensor]:
        """Averages by name, scalars; 0 for a term that was never present."""
        return {
            name: norm.value()
            for name, norm in self.norms.items()
            if isinstance(norm, _RunningNorm)
        }


def _global_norms(grads: list[Tensor]) -> Tensor:
    """Norms of the gradients of the mean losses over the whole batch, all ranks together.

    A rank's loss is the mean over its own 1 / R of the batch, so its gradient is R times its part
    of the gradient of the mean over all; the parts belong to different items and their squares
    add up:

        |g|^2 = sum_r |g_r / R|^2 = (mean_r |g_r|^2) / R
    """
    squares = torch.stack([grad.float().square().sum() for grad in grads])
    return (all_reduce_mean(squares) / world_size()).sqrt()
