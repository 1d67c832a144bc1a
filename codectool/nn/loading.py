"""Load tensors into a model; errors list every name and shape that does not match."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from codectool.errors import CheckpointError
from codectool.messages import shorten

MAX_NAMES_SHOWN = 4
Misshapen = tuple[str, tuple[int, ...], tuple[int, ...]]  # name, shape found, shape expected


class TensorMismatchError(CheckpointError):
    """Raised if names or shapes of tensors do not match the model.

    Attributes:
        missing: names in the model that are not in the state.
        unexpected: names in the state that are not in the model.
        misshapen: tensors whose shapes differ.
    """

    def __init__(
        self, missing: Iterable[str], unexpected: Iterable[str], misshapen: Iterable[Misshapen]
    ) -> None:
        self.missing = sorted(missing)
        self.unexpected = sorted(unexpected)
        self.misshapen = sorted(misshapen)
        super().__init__(self.describe())

    def __reduce__(self) -> tuple[Any, ...]:  # for errors in worker processes
        return type(self), (self.missing, self.unexpected, self.misshapen)

    def describe(self, rename: Callable[[str], str] = str) -> str:
        """Return the message, with every tensor name passed through ``rename``."""
        problems = {
            "missing": [rename(name) for name in self.missing],
            "unexpected": [rename(name) for name in self.unexpected],
            "of the wrong shape": [
                f"{rename(name)} {found} instead of {want}" for name, found, want in self.misshapen
            ],
        }
        parts = []
        for problem, names in problems.items():
            more = len(names) - MAX_NAMES_SHOWN
            shown = ", ".join(shorten(name) for name in names[:MAX_NAMES_SHOWN]) + (
                f" and {more} more" if more > 0 else ""
            )
            if names:
                parts.append(f"{len(names)} {problem}: {shown}")
        return "tensors do not fit the model: " + "; ".join(parts)


def load_tensors(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load float tensors for inference as float32, without copying those that are float32.

    Raises:
        TensorMismatchError: Names or shapes do not match; the model is unchanged.
    """
    _check(model, state)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    model.requires_grad_(False)


def copy_tensors(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy ``state`` into the existing parameters of a model that will be trained.

    Raises:
        TensorMismatchError: Names or shapes do not match; the model is unchanged.
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


EXTRA_VALUES = 1 << 20  # allowed beyond the checkpoint: windows, tables
RANDOM_FACTORIES = {torch.rand, torch.randn}
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, *RANDOM_FACTORIES}
INITIALISERS: set[Callable[..., Any]] = {
    Tensor.uniform_,
    Tensor.normal_,
    nn.init.kaiming_uniform_,
    nn.init.uniform_,
    nn.init.normal_,
}


class skip_init(TorchFunctionMode):  # a context manager, named like torch.no_grad
    """Context in which new modules are not initialised and limited in size.

    New tensors are float32 on the CPU unless the call says otherwise, whatever the defaults of the
    program are.

    The meta device would also do, but its first arithmetic imports the compiler, which takes a
    second. Allocated memory that is never written costs nothing.

    Args:
        state: tensors that will be loaded. A model with more than twice as many values cannot match
            them; without this limit a hostile config could allocate any amount of memory.

    Raises:
        CheckpointError: Inside the context, if the model is too large.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._left = 2 * sum(tensor.numel() for tensor in state.values()) + EXTRA_VALUES

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in INITIALISERS:
            return args[0] if args else (kwargs or {})["tensor"]
        kwargs = kwargs or {}
        if func in FACTORIES:
            defaults = {"dtype": torch.float32, "device": torch.device("cpu")}
            kwargs |= {name: kwargs.get(name) or value for name, value in defaults.items()}
            sizes = args[0] if args and isinstance(args[0], tuple | list) else args
            if func is torch.eye:
                sizes = (*sizes, *sizes)
            self._left -= math.prod(size for size in sizes if isinstance(size, int))
            if self._left < 0:
                raise CheckpointError(
                    "the config describes a model with more than twice as many values as the "
                    "checkpoint holds; use the config that belongs to the checkpoint"
                )
        if func in RANDOM_FACTORIES:
            func = torch.empty
        return func(*args, **kwargs)
