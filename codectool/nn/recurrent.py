"""Convolutions, an LSTM and convolutions again, over one signal in pieces or over many at once.

Letters used in shapes: B batch, C channels, T time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from codectool.nn.delay import Flow, Layer
from codectool.nn.packed import PackedLSTM, State


@dataclass(frozen=True, eq=False)
class RecurrentStack:
    """Layers in three parts, the middle one of which remembers without limit.

    Attributes:
        front: gives one column per frame.
        lstm: added to its own input; None if there is none.
        back: takes one column per frame.
        rate: columns per frame that go into the front.
    """

    front: Layer
    lstm: PackedLSTM | None
    back: Layer
    rate: int

    def needs(self, columns: int) -> int:
        """Columns of input that so many first columns of output depend on."""
        return self.front.needs(self.back.needs(columns))

    def side_by_side(self, signals: Sequence[Tensor], window: int, together: bool) -> list[Tensor]:
        """Run over signals ``(T, C)`` of any lengths; each gets what it gets alone.

        The LSTM runs over all of them at once, for its weights are what takes the time.

        Args:
            signals: at least one, of at least a frame.
            window: frames worked on at once.
            together: whether convolutions, too, run over signals of about the same length at once.
        """
        frames = [len(signal) // self.rate for signal in signals]
        groups = list(_of_like_length(frames) if together else ([i] for i in range(len(frames))))
        inner = _in_groups(self.front, signals, frames, groups, window * self.rate)
        if self.lstm is not None:
            inner = _recur(self.lstm, inner, window)
        return _in_groups(self.back, inner, frames, groups, window)


class StackStream:
    """One signal on its way through a stack, cut anew into windows of equal length.

    Args:
        stack: the layers.
        window: frames worked on at once.
        begin: makes columns ``(1, T, C)`` of as many columns of what is pushed.
    """

    def __init__(
        self,
        stack: RecurrentStack,
        window: int,
        begin: Callable[[Tensor], Tensor] = torch.clone,
    ) -> None:
        self._stack = stack
        self._begin = begin
        self._size = window * stack.rate
        self._flow = Flow()
        self._state: State | None = None
        self._waiting: list[Tensor] = []
        self._length = 0

    def push(self, x: Tensor) -> list[Tensor]:
        """Take columns ``(1, T, ...)``; return what has become of each window that is full."""
        done = []
        while x.shape[1]:
            piece = x[:, : self._size - self._length]
            x = x[:, piece.shape[1] :]
            self._waiting.append(piece.clone())
            self._length += piece.shape[1]
            if self._length == self._size:
                done.append(self._run(last=False))
        return done

    def flush(self, empty: Tensor) -> Tensor:
        """End the signal; return the rest.

        Args:
            empty: no columns, otherwise like what was pushed.
        """
        self._waiting.append(empty)
        return self._run(last=True)

    def _run(self, last: bool) -> Tensor:
        x = self._begin(torch.cat(self._waiting, 1))
        self._waiting, self._length = [], 0
        x = self._stack.front.push(x, self._flow, last)
        lstm = self._stack.lstm
        if lstm is not None and x.shape[1]:
            y, self._state = lstm(x, self._state or lstm.start(x))
            x = x + y
        return self._stack.back.push(x, self._flow, last)


def _in_groups(
    layer: Layer,
    signals: Sequence[Tensor],
    frames: Sequence[int],
    groups: Sequence[Sequence[int]],
    size: int,
) -> list[Tensor]:
    """Run over the signals of each group at once, in windows of ``size`` columns."""
    done: dict[int, Tensor] = {}
    for group in groups:
        lengths = [frames[i] for i in group]
        batch = pad_sequence([signals[i] for i in group], batch_first=True)
        flow = Flow(None if len(set(lengths)) == 1 else lengths)
        *pieces, final = torch.split(batch, size, 1)
        parts = [layer.push(piece, flow, False) for piece in pieces]
        y = torch.cat((*parts, layer.push(final, flow, True)), 1)
        rate = y.shape[1] // max(lengths)
        done |= {i: row[: frames[i] * rate] for i, row in zip(group, y, strict=True)}
    return [done[i] for i in range(len(signals))]


def _of_like_length(frames: Sequence[int]) -> Iterator[list[int]]:
    """Groups in which no signal is shorter than half of the longest."""
    group: list[int] = []
    for i in sorted(range(len(frames)), key=frames.__getitem__, reverse=True):
        if group and 2 * frames[i] < frames[group[0]]:
            yield group
            group = []
        group.append(i)
    yield group


def _recur(lstm: PackedLSTM, signals: Sequence[Tensor], window: int) -> list[Tensor]:
    """Add the LSTM's output to signals ``(T, C)``.

    It runs from one signal's end to the next, over those that have not ended, and over no more than
    a window of columns at once.
    """
    order = sorted(range(len(signals)), key=lambda i: len(signals[i]), reverse=True)
    longest = len(signals[order[0]])
    stops = sorted({len(signal) for signal in signals} | set(range(0, longest, window)))
    parts: list[list[Tensor]] = [[] for _ in signals]
    state: State | None = None
    for start, stop in pairwise(stops):
        order = [i for i in order if len(signals[i]) >= stop]
        x = torch.stack([signals[i][start:stop] for i in order])
        h, c = state or lstm.start(x)
        y, state = lstm(x, (h[:, : len(order)].contiguous(), c[:, : len(order)].contiguous()))
        for i, row in zip(order, x + y, strict=True):
            parts[i].append(row)
    return [torch.cat(rows) for rows in parts]
