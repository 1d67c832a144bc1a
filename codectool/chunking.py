"""`Chunker`: cut a signal that arrives in parts of any length into chunks of one size.

>>> chunker = Chunker(3, axis=0)
>>> [chunk.tolist() for chunk in chunker.push(np.arange(5))]
[[0, 1, 2]]
>>> [chunk.tolist() for chunk in chunker.push(np.arange(5, 7))]
[[3, 4, 5]]
>>> chunker.flush().tolist()
[6]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np


class ArrayLike(Protocol):
    """A NumPy array or a torch tensor."""

    @property
    def shape(self) -> Sequence[int]:
        """Size of each axis."""

    def __getitem__(self, index: Any, /) -> Any:
        """Return a view."""


Array = TypeVar("Array", bound=ArrayLike)


class Chunker(Generic[Array]):
    """Collect arrays and return them as chunks of ``size`` elements along one axis.

    Args:
        size: elements per chunk.
        axis: axis to cut, counted from the front.
        concatenate: `numpy.concatenate` or `torch.cat`; it copies.

    Attributes:
        waiting: number of elements that do not fill a chunk yet.
    """

    def __init__(
        self, size: int, axis: int, concatenate: Callable[..., Any] = np.concatenate
    ) -> None:
        self.waiting = 0
        self._size = size
        self._axis = axis
        self._before = (slice(None),) * axis  # index of the axes before it
        self._concatenate = concatenate
        self._parts: list[Array] = []

    def empty_copy(self) -> Chunker[Array]:
        """Return a chunker of the same kind without elements."""
        return Chunker(self._size, self._axis, self._concatenate)

    def push(self, array: Array) -> list[Array]:
        """Add elements; return the chunks that are now full.

        A chunk may be a view of ``array``. Waiting elements are copies.
        """
        chunks = []
        start, length = 0, array.shape[self._axis]
        for stop in range(self._size - self.waiting, length + 1, self._size):
            where = (*self._before, slice(start, stop))
            chunk = array[where]
            if self.waiting:
                chunk = self._concatenate([*self._parts, chunk], self._axis)
            chunks.append(chunk)
            self._parts, self.waiting, start = [], 0, stop
        rest = (*self._before, slice(start, length))
        self._parts.append(self._concatenate([array[rest]], self._axis))
        self.waiting += length - start
        return chunks

    def flush(self) -> Array | None:
        """Return the waiting elements, fewer than a chunk; None if nothing was pushed."""
        rest: Array | None = None
        if self._parts:
            rest = self._concatenate(self._parts, self._axis)
        self._parts, self.waiting = [], 0
        return rest
