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

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from codectool.codecs.supercodec_blocks import (
    SLOPE,
    CausalConv,
    DownBlock,
    Half,
    ResidualStack,
    SelectiveFusion,
    UpBlock,
)
from codectool.errors import AudioError
from codectool.nn.lines import (
    CausalLine,
    Queue,
    ResidualLine,
    TransposedLine,
    Window,
    marked,
    windows,
)

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
