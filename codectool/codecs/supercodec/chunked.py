"""SuperCodec over one signal in windows that fit a processor's cache, whatever its length.

Every block pools over all of time, so there is one pass over the signal for each: the pass works
out what the block mixes, piece after piece, and its mean. With that the block's gate is known, and
the next pass goes through it. What a pass has made is either kept, in memory that grows with the
signal, or made again from the start by each pass that needs it.

Letters used in shapes: T time, C channels. The layers are those of `supercodec_blocks`, for
inference; see `nn.lines`. A piece is used up before the next one is asked for: it may lie in a
buffer that is used again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.codecs.supercodec.blocks import (
    SLOPE,
    CausalConv,
    DownBlock,
    Half,
    ResidualStack,
    SelectiveFusion,
    UpBlock,
)
from codectool.errors import AudioError

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


Block = DownBlock | UpBlock
Read = Callable[[], Iterable[Tensor]]  # begins to read a signal, (T, C) in pieces
Pair = tuple[list[Tensor], Tensor]  # what a block mixes, (T, C) each; the first in parts
Pairs = Callable[[], Iterable[Pair]]

WINDOW = 1 << 19  # numbers in a piece: 2 MB, of which a handful are in use
SHORTEST = 64  # rows of a piece, more than any layer holds back


def run(half: Half, read: Read, keep: bool) -> Iterator[Tensor]:
    """Encoder or decoder over a whole signal.

    Args:
        half: the layers.
        read: the signal; called once if ``keep``, else once more than there are blocks.
        keep: whether memory may grow with the signal.

    Yields:
        Pieces of what comes out.

    Raises:
        AudioError: the signal is too short to be mirrored at its start.
    """
    first, *blocks, last = half
    pieces: Read = partial(_convolved, cast(CausalConv, first), read)
    for layer in blocks:
        block = cast(Block, layer)
        pairs: Pairs = partial(_pairs, block, pieces)
        kept: list[Pair] | None = [] if keep else None
        gate = _gate(block.fuse, pairs, kept)
        if kept is not None:
            pairs = partial(iter, kept)
        pieces = partial(_mixed, block.res_four, gate, pairs)
    yield from _convolved(cast(CausalConv, last), pieces)


def _gate(fuse: SelectiveFusion, pairs: Pairs, kept: list[Pair] | None) -> tuple[Tensor, Tensor]:
    """The weights of what a block mixes, ``(C,)`` each; ``kept`` gets all that it mixes."""
    rows = 0
    total = torch.zeros((), dtype=torch.float64, device=fuse.squeeze.weight.device)
    for parts, b in pairs():
        rows += len(b)
        for part in (*parts, b):
            total = total + part.sum(0).double()
        if kept is not None:
            kept.append((parts, b))
    return fuse.weights((total / rows).float())


def _convolved(layer: CausalConv, read: Read) -> Iterator[Tensor]:
    line = CausalLine(layer.conv)
    for window, _ in windows(read(), _rows(max(layer.conv.in_channels, layer.conv.out_channels))):
        yield line.push(window)
    if not line.begun:
        raise AudioError("the signal is too short for SuperCodec, which mirrors its start")


def _pairs(block: Block, read: Read) -> Iterator[Pair]:
    """What a block mixes, from its input."""
    front = _DownFront(block) if isinstance(block, DownBlock) else _UpFront(block)
    for window, last in windows(read(), front.rows):
        yield front.push(window, last)


def _mixed(stack: ResidualStack, gate: tuple[Tensor, Tensor], pairs: Pairs) -> Iterator[Tensor]:
    """The output of a block, from what it mixes."""
    window: Window | None = None
    lines = _Stack(stack)
    for (parts, b), last in marked(pairs()):
        window = window or Window(len(b), b.shape[1], b)
        window.clear()
        for part in parts:
            torch.mul(part, gate[0], out=window.extend(len(part)))
        window.rows.addcmul_(b, gate[1])
        lines.push(window, last)
        yield window.rows


def _rows(width: int) -> int:
    return max(SHORTEST, WINDOW // width)


class _Stack:
    """A residual stack, piece by piece."""

    def __init__(self, stack: ResidualStack) -> None:
        convs = [cast(nn.Conv1d, conv) for conv in stack.convs]
        active = Window(0, convs[0].in_channels, convs[0].weight.detach())
        self._lines = [ResidualLine(conv, SLOPE, active) for conv in convs]

    def push(self, window: Window, last: bool) -> None:
        for line in self._lines:
            line.push(window, last)


class _DownFront:
    """What a down-sampling block mixes, piece by piece.

    Attributes:
        rows: length of a piece, a multiple of the stride.
    """

    def __init__(self, block: DownBlock) -> None:
        stride = block.ups_one.stride
        self.rows = -(-_rows(block.downs_one.conv.in_channels) // stride) * stride
        self._downs_one = CausalLine(block.downs_one.conv)
        self._ups_one = TransposedLine(block.ups_one.conv)
        self._res_one = _Stack(block.res_one)
        self._downs_two = CausalLine(block.downs_two.conv)
        self._waiting = Queue()

    def push(self, window: Window, last: bool) -> Pair:
        a = self._downs_one.push(window)
        self._ups_one.subtract(a, window.rows)
        self._res_one.push(window, last)
        b = self._downs_two.push(window)
        self._waiting.put(a)
        return self._waiting.take(len(b)), b


class _UpFront:
    """What an up-sampling block mixes, piece by piece.

    Attributes:
        rows: length of a piece.
    """

    def __init__(self, block: UpBlock) -> None:
        self._ups_one = TransposedLine(block.ups_one.conv)
        self._downs_one = CausalLine(block.downs_one.conv)
        self._res_one = _Stack(block.res_one)
        self._ups_two = TransposedLine(block.ups_two.conv)
        self._width = block.downs_one.conv.in_channels
        self.rows = _rows(self._width * block.ups_one.stride)
        self._waiting = Queue()

    def push(self, window: Window, last: bool) -> Pair:
        x = window.rows
        a = Window(self._ups_one.output(len(x)), self._width, x)
        self._ups_one.push(x, a.extend(self._ups_one.output(len(x))))
        self._downs_one.subtract(a, x)
        self._res_one.push(window, last)
        lost = window.rows
        b = lost.new_empty(self._ups_two.output(len(lost)), self._width)
        self._ups_two.push(lost, b)
        self._waiting.put(a.rows)
        return self._waiting.take(len(b)), b
