"""Putting tensors into a model, with every disagreement named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from codectool.errors import CheckpointError

MAX_NAMED = 4


class TensorMismatchError(CheckpointError):
    """Tensors that a model needs are missing, left over or of another shape.

    Attributes:
        missing: names the model has and the state has not.
        unexpected: names the state has and the model has not.
        misshapen: name, shape found, shape expected.
    """

    def __init__(
        self,
        missing: Iterable[str],
        unexpected: Iterable[str],
        misshapen: Iterable[tuple[str, tuple[int, ...], tuple[int, ...]]],
    ):
        self.missing = sorted(missing)
        self.unexpected = sorted(unexpected)
        self.misshapen = sorted(misshapen)
        super().__init__(self.describe())

    def describe(self, rename: Callable[[str], str] = str) -> str:
        """One line naming what is wrong, with names as ``rename`` gives them."""
        shapes = [f"{rename(n)} {found} instead of {want}" for n, found, want in self.misshapen]
        parts = [
            f"{len(names)} {label}: {_some(names)}"
            for label, names in (
                ("missing", [rename(name) for name in self.missing]),
                ("unexpected", [rename(name) for name in self.unexpected]),
                ("of the wrong shape", shapes),
            )
            if names
        ]
        return "tensors do not fit the model: " + "; ".join(parts)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} and {len(names) - MAX_NAMED} more"


def load_tensors(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Make ``state`` the parameters and buffers of ``model``, without copying float32 tensors.

    Args:
        model: may hold arbitrary values (`BlankModel`) or none (the meta device).
        state: float tensors by the names of ``model.state_dict()``; computed with as float32.

    Raises:
        TensorMismatchError: if names or shapes disagree. Nothing is loaded then.
    """
    _check(model, state)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    model.requires_grad_(False)


def copy_tensors(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy ``state`` into a model that is to be trained further, on the device where it is.

    Args:
        model: its parameters stay what they are, only their values change.
        state: float tensors by the names of ``model.state_dict()``.

    Raises:
        TensorMismatchError: if names or shapes disagree. Nothing is copied then.
    """
    _check(model, state)
    model.load_state_dict(state)


def _check(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    misshapen = [
        (name, tuple(state[name].shape), shape)
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    missing, unexpected = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or unexpected or misshapen:
        raise TensorMismatchError(missing, unexpected, misshapen)


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
