"""`ChunkStream`: run a step function on a signal, in chunks of one size, with a carried state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from typing_extensions import Self

from codectool.chunking import Array, Chunker

State = TypeVar("State")
# (x, state, last) -> (y, state)
Step = Callable[[Array, State, bool], tuple[Array, State]]


class RemadeStep(Generic[Array, State]):
    """A step function that copies and pickles of it make again, when they are first called.

    So it may hold work arrays and compiled weights.
    """

    def __init__(self, make: Callable[[], Step[Array, State]]) -> None:
        self._make = make
        self._step: Step[Array, State] | None = make()

    def __call__(self, x: Array, state: State, last: bool) -> tuple[Array, State]:
        """Call the step function."""
        if self._step is None:
            self._step = self._make()
        return self._step(x, state, last)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_step": None}


class ChunkStream(Generic[Array, State]):
    """Run a step function on a signal, in chunks of one size.

    The output does not depend on how the signal was cut before it was pushed.

    A stream can be copied and pickled at any point; see `RemadeStep`.

    Args:
        make_step: returns a function ``(x, state, last) -> (y, state)`` with x ``(1, C, T)`` and y
            ``(1, C', T')``. T is ``chunk_size``; in the last call it is the rest, 0 to
            ``chunk_size - 1``.
        state: state before the first chunk; None for a model without memory.
        chunk_size: time steps per chunk.
        empty: output for no input, ``(1, C', 0)``.
        concatenate: `numpy.concatenate` or `torch.cat`; it copies.
    """

    def __init__(
        self,
        make_step: Callable[[], Step[Array, State]],
        state: State,
        chunk_size: int,
        empty: Array,
        concatenate: Callable[[list[Array], int], Array],
    ) -> None:
        self._step = RemadeStep(make_step)
        self._state = state
        self._chunker: Chunker[Array] = Chunker(chunk_size, axis=2, concatenate=concatenate)
        self._empty = empty
        self._concatenate = concatenate

    def share(self) -> Self:
        """Return a stream for another signal with the same step function and its work arrays.

        To be called before the first `push`. The streams must not run at the same time.
        """
        stream = type(self).__new__(type(self))
        stream.__dict__ |= {**self.__dict__, "_chunker": self._chunker.empty_copy()}
        return stream

    def push(self, x: Array) -> Array:
        """Add input ``(1, C, T)``, T >= 0; return the output ``(1, C', T')`` that is ready."""
        outputs = [self._empty]
        for chunk in self._chunker.push(x):
            outputs.append(self._run_step(chunk, last=False))
        return self._concatenate(outputs, -1)

    def flush(self) -> Array:
        """End the signal; return the rest of the output."""
        rest = self._chunker.flush()
        return self._empty if rest is None else self._run_step(rest, last=True)

    def _run_step(self, x: Array, last: bool) -> Array:
        y, self._state = self._step(x, self._state, last)
        return y

    def run(self, x: Array) -> Array:
        """Process a whole signal ``(1, C, T)``."""
        return self._concatenate([self.push(x), self.flush()], -1)
