"""Building a model only to fill it with a checkpoint: no time for values that nobody will see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from codectool.errors import CheckpointError

FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
RANDOM_FACTORIES = {torch.rand, torch.randn}
RANDOM_FILLS: set[Callable[..., Any]] = {Tensor.uniform_, Tensor.normal_}
# These are handed over as a whole, before they come to fill anything.
RANDOM_FILLS |= {nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_}
SMALL_CHANGE = 1 << 20


class BlankModel(TorchFunctionMode):
    """Inside, new modules hold arbitrary values, and not many more of them than the checkpoint.

    PyTorch's meta device would do as much, but the first arithmetic on it imports the compiler,
    which takes a second. Memory that is asked for and not written to costs nothing here either.

    Args:
        state: the tensors that the model will be filled with. A model that asks for more than
            twice their numbers cannot fit them; a hostile config could ask for any amount.

    Raises:
        CheckpointError: the model is too large for the checkpoint.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._left = 2 * sum(tensor.numel() for tensor in state.values()) + SMALL_CHANGE

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Leave out what draws values; count what is asked for."""
        if func in RANDOM_FILLS:
            return args[0] if args else (kwargs or {})["tensor"]
        if func in FACTORIES:
            sizes = args[0] if args and isinstance(args[0], tuple | list) else args
            self._left -= math.prod(size for size in sizes if isinstance(size, int))
            if self._left < 0:
                raise CheckpointError(
                    "the hyper-parameters describe a model of many more numbers than there are"
                )
        if func in RANDOM_FACTORIES:
            func = torch.empty
        return func(*args, **(kwargs or {}))
