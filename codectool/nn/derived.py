"""`Derived`: a value computed from weights, such as packed weights, and kept until they change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

Value = TypeVar("Value")


class Derived(Generic[Value]):
    """A value computed from the weights of a module, kept until they change.

    Replaced and moved weights are noticed (`to`, `load_state_dict`, `share_memory`), and changes in
    place, except through ``weight.data``. Copies and pickles do not contain the value, so that it
    may hold memory in any form. Threads may share it: at worst each computes it once.
    """

    def __init__(self) -> None:
        self._kept: tuple[list[tuple[int, int]], list[Tensor], Value] | None = None

    def get(self, module: nn.Module, compute: Callable[[], Value]) -> Value:
        """Return the value; call ``compute`` if the weights of ``module`` have changed."""
        weights: list[Tensor] = []
        _collect(module, weights)
        state = [
            (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
            for tensor in weights
        ]
        kept = self._kept
        if kept is None or kept[0] != state:
            # The weights are kept as well: their memory must not be used for others.
            kept = self._kept = state, [tensor.detach() for tensor in weights], compute()
        return kept[2]

    def __getstate__(self) -> dict[str, Any]:
        return {"_kept": None}


def _collect(module: nn.Module, weights: list[Tensor]) -> None:
    """Append parameters and buffers, several times as fast as ``module.parameters()`` is."""
    for tensors in (module._parameters, module._buffers):
        if tensors:
            weights += [tensor for tensor in tensors.values() if tensor is not None]
    for child in module._modules.values():
        if child is not None:
            _collect(child, weights)
