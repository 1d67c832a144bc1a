"""Exponential moving average of the weights (EMA)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of parameters and float buffers.

    Running statistics are averaged like the weights they were measured with; counters are not.

    Args:
        model: the model whose weights are averaged.
        decay: decay per step in the long run; at first it is ``(1 + n) / (10 + n)``.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.count = 0
        self._weights = {
            name: tensor.detach()
            for name, tensor in model.state_dict(keep_vars=True).items()
            if torch.is_floating_point(tensor)
        }
        self.tensors = {name: tensor.clone() for name, tensor in self._weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the present weights to the average."""
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        self.count += 1
        averages, weights = list(self.tensors.values()), list(self._weights.values())
        torch._foreach_lerp_(averages, weights, weight=1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights inside the context."""
        kept = {name: tensor.clone() for name, tensor in self._weights.items()}
        self._set_weights(self.tensors)
        try:
            yield
        finally:
            self._set_weights(kept)

    @torch.no_grad()
    def _set_weights(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self._weights.items():
            tensor.copy_(tensors[name])

    def state(self) -> dict[str, object]:
        """Return the state for a checkpoint."""
        return {"count": self.count, "tensors": self.tensors}

    def load_state(self, count: int, tensors: dict[str, Tensor]) -> None:
        """Load the state from a checkpoint."""
        self.count = count
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
