"""Layers made of layers that take a signal in pieces; see `delay`.

Letters used in shapes: B batch, C channels, T time.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from codectool.nn.delay import Flow, Layer


class Chain(Layer):
    """Layers one after the other."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._layers = list(layers)

    def push(self, x: Tensor, flow: Flow, last: bool) -> Tensor:
        """Through all of them."""
        for layer in self._layers:
            x = layer.push(x, flow, last)
        return x

    def needs(self, columns: int) -> int:
        """From the last layer back to the first."""
        for layer in reversed(self._layers):
            columns = layer.needs(columns)
        return columns


class Skip(Layer):
    """A layer plus its own input, which waits for it."""

    def __init__(self, inner: Layer) -> None:
        self._inner = inner

    def push(self, x: Tensor, flow: Flow, last: bool) -> Tensor:
        """Add the input from where the output has come to."""
        waiting = flow.kept.get(self)
        waiting = x if waiting is None else torch.cat((waiting, x), 1)
        y = self._inner.push(x, flow, last)
        flow.kept[self] = waiting[:, y.shape[1] :].clone()
        return y.add_(waiting[:, : y.shape[1]])

    def needs(self, columns: int) -> int:
        """The inner layer looks further."""
        return max(columns, self._inner.needs(columns))


class Cut(Layer):
    """A layer that is given few columns at a time, so that all of them stay in the cache.

    Args:
        inner: the layer.
        columns: how many; on devices other than a CPU the layer takes all there are.
    """

    def __init__(self, inner: Layer, columns: int) -> None:
        self._inner, self._columns = inner, columns

    def push(self, x: Tensor, flow: Flow, last: bool) -> Tensor:
        """Piece after piece."""
        if x.device.type != "cpu" or x.shape[1] <= self._columns:
            return self._inner.push(x, flow, last)
        pieces = torch.split(x, self._columns, 1)
        done = [self._inner.push(piece, flow, False) for piece in pieces[:-1]]
        return torch.cat((*done, self._inner.push(pieces[-1], flow, last)), 1)

    def needs(self, columns: int) -> int:
        """As the layer itself."""
        return self._inner.needs(columns)


class Tanh(Layer):
    """Hyperbolic tangent, column by column."""

    def push(self, x: Tensor, flow: Flow, last: bool) -> Tensor:
        """Apply it."""
        return x.tanh()

    def needs(self, columns: int) -> int:
        """Nothing else."""
        return columns
