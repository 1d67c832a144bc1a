"""Putting tensors into a model, with every disagreement named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

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
