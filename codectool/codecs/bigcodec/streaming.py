"""Layers that take a signal in pieces of any length and give out columns as early as they can.

Each layer keeps the columns that it will need again, so nothing is computed twice. The first piece
gets the layer's border in front, the last one behind; where the signal was cut in between makes no
difference but of rounding. Signals of different lengths can go side by side: behind the end of each
the border is written over what the layer before has made there.

Letters used in shapes: B batch, C channels, T time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from codectool.codecs.bigcodec.packed import PackedConv, PackedLSTM, State


class Flow:
    """How far one batch of signals has come in every layer.

    Args:
        frames: lengths of the signals in frames, where they differ.
    """

    def __init__(self, frames: Sequence[int] | None = None) -> None:
        self.frames = frames
        self.kept: dict[Layer, Tensor] = {}
        self.first: dict[Layer, int] = {}  # index in the signal of the first column kept


class Layer(ABC):
    """Something a signal passes through."""

    @abstractmethod
    def push(self, x: Tensor, flow: Flow, last: bool) -> Tensor:
        """Take the next columns ``(B, T, C)``; return those now known, ``(B, T', C')``.

        Args:
            x: may have no columns.
            flow: what was kept of the columns before, brought up to date.
            last: whether the signal ends with them.
        """

    @abstractmethod
    def needs(self, columns: int) -> int:
        """Columns of input that so many first columns of output depend on, with no end near."""


class Sliding(Layer):
    """A layer that looks at a window of its input, moved on step by step.

    Args:
        span: columns that are looked at.
        stride: columns from one window to the next.
        left: columns of border in front of the signal.
        right: columns of border behind it.
        edge: whether the border repeats the signal's first and last column, or is zero.
        rate: columns per frame.
    """

    def __init__(self, span: int, stride: int, left: int, right: int, edge: bool, rate: int):
        self.span, self.stride, self.left, self.right = span, stride, left, right
        self.edge, self.rate = edge, rate

    @property
    @abstractmethod
    def out_channels(self) -> int:
        """Channels that come out."""

    @abstractmethod
    def apply(self, columns: Tensor) -> Tensor:
        """Output of all windows in ``(B, T, C)``."""

    def push(self, x: Tensor, flow: Flow, last: bool) -> Tensor:
        """Look at all windows now complete."""
        columns = self._columns(x, flow, last)
        windows = max(0, (columns.shape[1] - self.span) // self.stride + 1)
        flow.kept[self] = columns[:, windows * self.stride :].clone()
        flow.first[self] = flow.first.get(self, -self.left) + windows * self.stride
        if not windows:
            return x.new_empty(len(x), 0, self.out_channels)
        return self.apply(columns[:, : (windows - 1) * self.stride + self.span])

    def needs(self, columns: int) -> int:
        """Up to the end of the last window."""
        return (columns - 1) * self.stride + self.span - self.left

    def _columns(self, x: Tensor, flow: Flow, last: bool) -> Tensor:
        kept = flow.kept.get(self)
        if kept is None or kept.shape[1] < self.left:  # nothing came yet to repeat
            kept = self._border(x[:, :1], self.left)
        columns = torch.cat((kept, x), 1) if kept.shape[1] else x
        if last and self.right:
            columns = torch.cat((columns, self._border(columns[:, -1:], self.right)), 1)
        if flow.frames is not None and self.right:
            self._write_borders(columns, flow.first.get(self, -self.left), flow.frames)
        return columns

    def _border(self, column: Tensor, width: int) -> Tensor:
        if self.edge:
            return column.expand(-1, width if column.shape[1] else 0, -1)
        return column.new_zeros(column.shape[0], width, column.shape[2])

    def _write_borders(self, columns: Tensor, first: int, frames: Sequence[int]) -> None:
        """Put the border behind the end of each signal, as far as these columns reach."""
        places = [
            (item, column, max(0, end - 1))
            for item, end in enumerate(count * self.rate - first for count in frames)
            for column in range(max(0, end), min(end + self.right, columns.shape[1]))
        ]
        if places:
            items, targets, edges = (
                torch.tensor(places).to(columns.device, non_blocking=True).unbind(1)
            )
            columns[items, targets] = columns[items, edges] if self.edge else columns.new_zeros(())


class Conv(Sliding):
    """A convolution with zeros around the signal.

    Args:
        module: its weights.
        rate: columns per frame that go in.
    """

    def __init__(self, module: nn.Conv1d, rate: int) -> None:
        (width,), (stride,), (dilation,) = module.kernel_size, module.stride, module.dilation
        left = int(module.padding[0])
        span = (width - 1) * dilation + 1
        super().__init__(span, stride, left, span - stride - left, edge=False, rate=rate)
        self._module = module
        self._convolve: PackedConv | None = None

    @property
    def out_channels(self) -> int:
        """Channels that come out."""
        return self._module.out_channels

    def apply(self, columns: Tensor) -> Tensor:
        """Convolve."""
        if self._convolve is None:
            weight, bias = self._module.weight, self._module.bias
            self._convolve = PackedConv(weight, bias, self.stride, self._module.dilation[0])
        return self._convolve(columns)


class Growing(Sliding):
    """A sliding layer of stride 1 that makes several columns of each window.

    It slides half a window over both ends of the signal; what lies outside is cut off.

    Args:
        span: columns that are looked at.
        left: columns of border in front of the signal.
        right: columns of border behind it, so that there is one window more than columns.
        edge: whether the border repeats the signal's ends, or is zero.
        rate: columns per frame that go in.
        times: columns made of each window.
        cut: how many of them lie in front of the signal.
    """

    def __init__(
        self, span: int, left: int, right: int, edge: bool, rate: int, times: int, cut: int
    ) -> None:
        super().__init__(span, 1, left, right, edge, rate)
        self.times, self.cut = times, cut

    def push(self, x: Tensor, flow: Flow, last: bool) -> Tensor:
        """Cut off what lies outside."""
        begins = flow.first.get(self, -self.left) == -self.left
        y = super().push(x, flow, last)
        return y[:, self.cut * begins : y.shape[1] - (self.times - self.cut) * last]

    def needs(self, columns: int) -> int:
        """Up to the end of the window that makes the last of them."""
        return super().needs((columns - 1 + self.cut) // self.times + 1)


class UpConv(Growing):
    """A transposed convolution whose kernel is two strides wide.

    Every output column is made of two neighbouring input columns, so it is an ordinary convolution
    of width 2 to ``stride`` times the channels, which in this layout are ``stride`` columns.

    Args:
        module: its weights.
        rate: columns per frame that go in.
    """

    def __init__(self, module: nn.ConvTranspose1d, rate: int) -> None:
        times, cut = module.stride[0], int(module.padding[0])
        super().__init__(2, 1, 1, edge=False, rate=rate, times=times, cut=cut)
        self._module = module
        self._convolve: PackedConv | None = None

    @property
    def out_channels(self) -> int:
        """Channels that come out."""
        return self._module.out_channels

    def apply(self, columns: Tensor) -> Tensor:
        """Convolve; the outputs of one window follow each other."""
        if self._convolve is None:
            weight, bias = self._module.weight.detach(), self._module.bias
            now, before = weight[..., : self.times], weight[..., self.times :]
            weight = torch.stack((before, now), -1).permute(2, 1, 0, 3).flatten(0, 1)
            bias = None if bias is None else bias.detach().repeat(self.times)
            self._convolve = PackedConv(weight, bias)
        y = self._convolve(columns)
        return y.view(len(y), -1, self.out_channels)


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


StackState = tuple[Flow, State | None]


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

    def step(self, x: Tensor, state: StackState, last: bool) -> tuple[Tensor, StackState]:
        """Run over the next columns ``(1, T, C)`` of one signal."""
        flow, memory = state
        x = self.front.push(x, flow, last)
        if self.lstm is not None and x.shape[1]:
            y, memory = self.lstm(x, memory or self.lstm.start(x))
            x = x + y
        return self.back.push(x, flow, last), (flow, memory)

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
