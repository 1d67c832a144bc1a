"""Convolutions over a signal that comes in pieces, each with the past that it still needs.

For inference: every product is a plain matrix product on views of the signal, laid out with time
first, in buffers that are used again and so stay in the processor's cache. What comes out of a
layer is what could be computed so far. Letters used in shapes: T time, C channels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOM = 32  # rows; the past that the layers of a block put before a piece
NARROW = 16  # columns; products of so few are better done in one than tap by tap

Item = TypeVar("Item")


def lay_out_by_taps(model: nn.Module) -> None:
    """Let frozen convolution kernels below ``model`` lie in memory tap by tap, in place.

    Nothing changes but the speed: their matrices become views, where they had to be copied.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and not module.weight.requires_grad:
            weight = _by_taps(module.weight).transpose(1, 2)
            module.weight = nn.Parameter(weight, requires_grad=False)


def _by_taps(weight: Tensor) -> Tensor:
    """``(C1, C2, taps)`` -> ``(C1, taps, C2)``; copies unless `lay_out_by_taps` was there."""
    return weight.detach().transpose(1, 2).contiguous()


class Window:
    """Rows ``(T, C)`` of a signal in a buffer with room before them.

    Args:
        capacity: rows that it can hold; it grows where it must.
        width: columns.
        like: tensor of the wanted type, on the wanted device.
    """

    def __init__(self, capacity: int, width: int, like: Tensor) -> None:
        self._base = like.new_empty(ROOM + capacity, width)
        self._start = self._stop = ROOM

    @property
    def rows(self) -> Tensor:
        """A view of what it holds."""
        return self._base[self._start : self._stop]

    def clear(self) -> None:
        """Hold nothing."""
        self._start = self._stop = ROOM

    def extend(self, rows: int) -> Tensor:
        """Hold so many rows more; they are to be written into the view that comes back."""
        self._stop += rows
        if self._stop > len(self._base):
            more = self._base.new_empty(self._stop, self._base.shape[1])
            self._base = torch.cat((self._base, more))
        return self._base[self._stop - rows : self._stop]

    def after(self, past: Tensor) -> Tensor:
        """What it holds with ``past`` before it, as one view."""
        missing = len(past) - self._start
        if missing > 0:
            self._base = torch.cat((self._base.new_empty(missing, past.shape[1]), self._base))
            self._start, self._stop = self._start + missing, self._stop + missing
        first = self._start - len(past)
        self._base[first : self._start] = past
        return self._base[first : self._stop]

    def shift(self, back: int, rows: int) -> None:
        """Hold ``rows`` rows, of which the first ``back`` were put before by `after`."""
        self._start -= back
        self._stop = self._start + rows


class Queue:
    """Rows ``(T, C)`` that wait for others."""

    def __init__(self) -> None:
        self._parts: deque[Tensor] = deque()

    def put(self, x: Tensor) -> None:
        """Add rows at the end."""
        self._parts.append(x)

    def take(self, rows: int) -> list[Tensor]:
        """Remove so many rows, of those there are, from the front; in parts."""
        found = []
        while rows:
            part = self._parts.popleft()
            found.append(part[:rows])
            if len(part) > rows:
                self._parts.appendleft(part[rows:])
            rows -= len(found[-1])
        return found


def windows(pieces: Iterable[Tensor], rows: int) -> Iterator[tuple[Window, bool]]:
    """Cut a signal anew: windows of ``rows`` rows, the last of what is left.

    Args:
        pieces: ``(T, C)`` of any lengths; each is used up before the next one is asked for.
        rows: length of a window.

    Yields:
        The window, always the same one, and whether it is the last.
    """
    window: Window | None = None
    held = 0
    for piece in pieces:
        while len(piece):
            if window is None:
                window = Window(rows, piece.shape[1], piece)
            if held == rows:
                yield window, False
                window.clear()
                held = 0
            part = piece[: rows - held]
            window.extend(len(part)).copy_(part)
            held += len(part)
            piece = piece[len(part) :]
    if window is not None:
        yield window, True


def marked(items: Iterable[Item]) -> Iterator[tuple[Item, bool]]:
    """Each item, and whether it is the last."""
    iterator = iter(items)
    for item in iterator:
        for following in iterator:
            yield item, False
            item = following
        yield item, True


class CausalLine:
    """Strided convolution; the missing past is the signal mirrored.

    Args:
        conv: its kernel is a multiple of its stride.

    Attributes:
        begun: whether enough of the signal was there to be mirrored; nothing comes out before.
    """

    def __init__(self, conv: nn.Conv1d) -> None:
        weight = _by_taps(conv.weight)
        c_out, kernel, c_in = weight.shape
        self._stride = conv.stride[0]
        self._past = kernel - self._stride
        self._matrix = weight.view(c_out, kernel * c_in).T
        self._bias = _bias(conv)
        self._kept = weight.new_empty(0, c_in)  # what coming outputs depend on
        self.begun = False

    def push(self, window: Window) -> Tensor:
        """``(T, C)`` -> ``(T', C')``; rows that do not fill a stride wait."""
        groups = self._groups(window)
        out = self._bias.repeat(max(0, len(groups) - self._past // self._stride), 1)
        return self._multiply(groups, out, 1)

    def subtract(self, window: Window, onto: Tensor) -> None:
        """Subtract what `push` would return, of the same shape, from ``onto``."""
        self._multiply(self._groups(window), onto.sub_(self._bias), -1)

    def _groups(self, window: Window) -> Tensor:
        """The rows of a stride beside each other, the past before them."""
        seen = window.after(self._kept)
        if not self.begun and len(seen) > self._past:
            mirrored = seen[1 : self._past + 1].flip(0)
            seen = window.after(torch.cat((mirrored, self._kept)))
            self.begun = True
        groups = len(seen) // self._stride if self.begun else 0
        used = max(0, groups * self._stride - self._past)
        self._kept = seen[used:].clone()
        return seen[: groups * self._stride].view(groups, self._stride * seen.shape[1])

    def _multiply(self, groups: Tensor, out: Tensor, sign: int) -> Tensor:
        width = groups.shape[1]
        if width <= NARROW and len(out):
            groups = groups.unfold(0, len(self._matrix) // width, 1).mT.flatten(1)
            width = len(self._matrix)
        for tap, matrix in enumerate(torch.split(self._matrix, width)):
            out.addmm_(groups[tap : tap + len(out)], matrix, alpha=sign)
        return out


class TransposedLine:
    """Upsampling by the stride, the kernel being two of them; waits for nothing."""

    def __init__(self, conv: nn.ConvTranspose1d) -> None:
        weight = _by_taps(conv.weight)
        c_in, kernel, self._width = weight.shape
        self._stride = conv.stride[0]
        self._now, self._before = weight.view(c_in, kernel * self._width).chunk(2, dim=1)
        self._bias = _bias(conv)
        self._kept = weight.new_zeros(1, c_in)

    def push(self, x: Tensor, out: Tensor) -> None:
        """Write what becomes of ``(T, C)`` into ``(T * stride, C')``."""
        self._multiply(x, out.copy_(self._bias), 1)

    def subtract(self, x: Tensor, onto: Tensor) -> None:
        """Subtract what `push` would write from ``onto``."""
        self._multiply(x, onto.sub_(self._bias), -1)

    def _multiply(self, x: Tensor, out: Tensor, sign: int) -> None:
        if len(x):
            groups = out.view(len(x), -1)
            groups.addmm_(x, self._now, alpha=sign)
            groups[:1].addmm_(self._kept, self._before, alpha=sign)
            groups[1:].addmm_(x[:-1], self._before, alpha=sign)
            self._kept = x[-1:].clone()

    def output(self, rows: int) -> int:
        """Rows that ``rows`` rows become."""
        return rows * self._stride


class ResidualLine:
    """Leaky ReLU, dilated convolution of width 3 with zeros beyond both ends, plus the input.

    Args:
        conv: the convolution.
        slope: of the leaky ReLU for negative values.
        active: a buffer to work in, of nobody else's between two pushes.
    """

    def __init__(self, conv: nn.Conv1d, slope: float, active: Window) -> None:
        weight = _by_taps(conv.weight)
        self._taps = [weight[:, tap].T for tap in range(3)]
        self._bias, self._slope, self._active = _bias(conv), slope, active
        self._reach = conv.dilation[0]
        self._kept = weight.new_zeros(self._reach, weight.shape[2])  # as the convolution sees it
        self._late = weight.new_empty(0, weight.shape[2])  # the end of it, as it came in

    def push(self, window: Window, last: bool) -> None:
        """Replace the rows by those that are ready: a dilation behind until the last piece."""
        reach = self._reach
        self._active.clear()
        self._active.extend(len(self._kept)).copy_(self._kept)
        F.leaky_relu_(self._active.extend(len(window.rows)).copy_(window.rows), self._slope)
        self._active.extend(reach if last else 0).zero_()
        active = self._active.rows
        rows = max(0, len(active) - 2 * reach)
        self._kept = active[rows:].clone()
        seen = window.after(self._late)
        window.shift(len(self._late), rows)
        self._late = seen[rows:].clone()
        out = window.rows.add_(self._bias)
        for tap, matrix in enumerate(self._taps):
            out.addmm_(active[tap * reach : tap * reach + rows], matrix)


def _bias(conv: nn.Conv1d | nn.ConvTranspose1d) -> Tensor:
    assert conv.bias is not None
    return conv.bias.detach()
