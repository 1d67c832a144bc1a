"""A running average of the weights: smoother than the weights of any one step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of parameters and float buffers, which belong together.

    Running statistics are averaged like the weights they were measured with; counters are not.

    Args:
        model: what to follow.
        decay: per step, in the long run; the first steps count more (``(1 + n) / (10 + n)``).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.count = 0
        self._followed = _floats(model)
        self.tensors = {name: tensor.detach().clone() for name, tensor in self._followed.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of the step just done."""
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        self.count += 1
        torch._foreach_lerp_(
            list(self.tensors.values()), list(self._followed.values()), weight=1 - decay
        )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the averaged weights for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, tensor in self._followed.items():
            mine = self.tensors[name]
            kept = tensor.detach().clone()
            tensor.copy_(mine)
            mine.copy_(kept)

    def state(self) -> dict[str, object]:
        """For a checkpoint."""
        return {"count": self.count, "tensors": self.tensors}

    def load_state(self, count: int, tensors: dict[str, Tensor]) -> None:
        """From a checkpoint."""
        self.count = count
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])


def _floats(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach()
        for name, tensor in model.state_dict(keep_vars=True).items()
        if torch.is_floating_point(tensor)
    }
