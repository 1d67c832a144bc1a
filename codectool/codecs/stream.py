"""`Stream`: a codec model over one signal that arrives in pieces of any length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from codectool.chunking import Chunker

State = TypeVar("State")
Step = Callable[[Tensor, State, bool], tuple[Tensor, State]]


class Stream(Generic[State]):
    """Run a step over a signal that is pushed in pieces of any length.

    The step sees chunks of one size whatever the pieces were, so its output does not depend on how
    the signal was cut.

    Args:
        step: ``(x, state, last) -> (y, state)`` on ``(1, C, T)`` tensors. T is ``chunk_size``; in
            the last call x is what is left, 0 to ``chunk_size - 1`` columns.
        state: the state before the first chunk; None for a model without memory.
        chunk_size: columns per chunk.
        empty: the output for no input, ``(1, C', 0)``.
    """

    def __init__(self, step: Step[State], state: State, chunk_size: int, empty: Tensor) -> None:
        self._step = step
        self._state = state
        self._chunker: Chunker[Tensor] = Chunker(chunk_size, axis=2, concatenate=torch.cat)
        self._empty = empty

    def push(self, x: Tensor) -> Tensor:
        """Take the next columns ``(1, C, T)``, T >= 0; return the output so far, ``(1, C', T')``."""
        return self._run(self._chunker.push(x), last=False)

    def flush(self) -> Tensor:
        """End the signal; return the rest of its output."""
        rest = self._chunker.flush()
        return self._run([] if rest is None else [rest], last=True)

    @torch.no_grad()
    def _run(self, chunks: list[Tensor], last: bool) -> Tensor:
        outputs = [self._empty]
        for chunk in chunks:
            y, self._state = self._step(chunk, self._state, last)
            outputs.append(y)
        return torch.cat(outputs, dim=-1)
