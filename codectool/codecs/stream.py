"""`Stream`: run a codec model on one signal that arrives in chunks of any length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from codectool.chunking import Chunker

State = TypeVar("State")
Step = Callable[[Tensor, State, bool], tuple[Tensor, State]]


class Stream(Generic[State]):
    """Run a step function on a signal, in chunks of one size.

    The output does not depend on how the signal was cut before it was pushed.

    Args:
        step: ``(x, state, last) -> (y, state)`` with x ``(1, C, T)`` and y ``(1, C', T')``. T is
            ``chunk_size``; in the last call it is the rest, 0 to ``chunk_size - 1``.
        state: state before the first chunk; None for a model without memory.
        chunk_size: time steps per chunk.
        empty: output for no input, ``(1, C', 0)``.
    """

    def __init__(self, step: Step[State], state: State, chunk_size: int, empty: Tensor) -> None:
        self._step = step
        self._state = state
        self._chunker: Chunker[Tensor] = Chunker(chunk_size, axis=2, concatenate=torch.cat)
        self._empty = empty

    @torch.no_grad()
    def push(self, x: Tensor) -> Tensor:
        """Add input ``(1, C, T)``, T >= 0; return the output ``(1, C', T')`` that is ready."""
        outputs = [self._empty]
        for chunk in self._chunker.push(x):
            y, self._state = self._step(chunk, self._state, False)
            outputs.append(y)
        return torch.cat(outputs, dim=-1)

    @torch.no_grad()
    def flush(self) -> Tensor:
        """End the signal; return the rest of the output."""
        rest = self._chunker.flush()
        return self._empty if rest is None else self._step(rest, self._state, True)[0]

    def run(self, x: Tensor) -> Tensor:
        """Process a whole signal ``(1, C, T)``."""
        return torch.cat([self.push(x), self.flush()], dim=-1)
