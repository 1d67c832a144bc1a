"""SuperCodec on one signal of any length, in chunks that fit a processor's cache.

The fusion weights of a block depend on the mean over the whole signal, so each block takes a pass
of its own: the pass computes, chunk by chunk, the two signals that the block fuses, and their
mean. The next pass continues from there. The fused signals are either kept, in memory that grows
with the signal, or computed again from the start by every later pass.

All signals here are rows ``(T, C)``, the layout of oneDNN's convolutions. A chunk must be used
before the next one is asked for: its memory is used again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from codectool.chunking import Chunker
from codectool.codecs.supercodec.blocks import (
    SLOPE,
    BackProjectionBlock,
    CausalConv,
    MaskedSequential,
    Resampler,
    ResidualStack,
    fusion_weights,
)
from codectool.errors import AudioError
from codectool.nn.packed import PackedConv, pack

CHUNK_ELEMENTS = 1 << 19  # 2 MB; a handful of such chunks are in use at a time
MIN_CHUNK_ROWS = 64  # more than any layer holds back
HEADROOM = 32  # rows before a chunk, for the past that a layer needs
GROUPED_ROWS = 8  # a convolution to one channel is fastest if it computes so many rows as channels

Read = Callable[[], Iterable[Tensor]]  # starts to read a signal: parts (T, C) of any lengths
Chunks = Iterator[tuple["RowBuffer", bool]]  # chunks of a signal, and whether it is the last one


class FusionInput(NamedTuple):
    """A chunk of the two signals that a block fuses; ``a`` in two parts."""

    a: tuple[Tensor, Tensor]
    b: Tensor
    last: bool


class PackedStack:
    """The encoder or the decoder with packed weights.

    Args:
        layers: the layers.
        dtype: of the factors of products, except those of the last layer: their rounding would add
            noise at all frequencies, also to silence.
    """

    def __init__(self, layers: MaskedSequential, dtype: torch.dtype = torch.float32) -> None:
        first, *middle, last = layers
        blocks = [cast(BackProjectionBlock, block) for block in middle]
        hop = math.prod(block.ups_one.stride for block in blocks)
        self.first = PackedResampler(cast(CausalConv, first), dtype=dtype)
        self.blocks = [PackedBlock(block, dtype) for block in blocks]
        self.last = PackedResampler(cast(CausalConv, last), math.gcd(hop, GROUPED_ROWS))


class PackedBlock:
    """A `BackProjectionBlock` with packed weights; ``project_back`` computes the negative."""

    def __init__(self, block: BackProjectionBlock, dtype: torch.dtype) -> None:
        resample, project_back, resample_difference = block.resamplers
        self.resample = PackedResampler(resample, dtype=dtype)
        self.project_back = PackedResampler(project_back, sign=-1, dtype=dtype)
        self.resample_difference = PackedResampler(resample_difference, dtype=dtype)
        self.res_one = _pack_stack(block.res_one, dtype)
        self.res_four = _pack_stack(block.res_four, dtype)
        self.fusion = tuple((w.detach().contiguous(), b.detach()) for w, b in block.fuse.matrices())

    @property
    def input_rows(self) -> int:
        """Input rows per chunk."""
        layer = self.resample
        expansion = layer.out_channels * layer.rows_out // layer.rows_in
        return _chunk_rows(max(layer.in_channels, expansion))


class PackedResampler:
    """A causal layer as a convolution of groups of rows, which lie side by side as channels.

    A convolution of stride s and width 2s, for example, has a width of two groups of s rows.

    Args:
        layer: the layer.
        group: output rows that a convolution to one channel computes as channels.
        sign: -1 packs the negative weights.
        dtype: of the factors of products.

    Attributes:
        in_channels: channels of an input row.
        out_channels: channels of an output row.
        rows_in: input rows of a group.
        rows_out: output rows of a group.
        past_rows: rows before a group that its output depends on.
        mirrored_rows: rows mirrored at the start of the signal; zeros before them.
    """

    def __init__(
        self,
        layer: Resampler,
        group: int = 1,
        sign: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        conv = layer.conv
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        weight, bias = sign * conv.weight.detach(), sign * cast(Tensor, conv.bias).detach()
        if isinstance(layer, CausalConv):
            self.rows_out = group if conv.out_channels == 1 else 1
            self.rows_in = self.rows_out * conv.stride[0]
            self.mirrored_rows = layer.past
            weight = _group_rows(weight, conv.stride[0], self.rows_out)
        else:
            self.rows_in, self.rows_out, self.mirrored_rows = 1, conv.stride[0], 0
            taps = weight.view(*weight.shape[:2], 2, -1).flip(2)  # (C, C', 2, s)
            weight = taps.permute(3, 1, 0, 2).flatten(0, 1)
        self.past_rows = (weight.shape[2] - 1) * self.rows_in
        self.bias = bias
        self._conv = pack(PackedConv, dtype, weight, bias.repeat(self.rows_out))

    def __call__(self, groups: Tensor) -> Tensor:
        """Return the output rows of ``(G, rows_in * C)``, which starts with the past."""
        return self._conv(groups[None]).view(-1, self.out_channels)

    def add_to(self, target: Tensor, groups: Tensor) -> None:
        """Add the output rows to ``target``."""
        self._conv.add_to(target.view(1, -1, self.rows_out * self.out_channels), groups[None])


def _group_rows(weight: Tensor, stride: int, group: int) -> Tensor:
    """Return the weights ``(C', C, width)`` of a causal convolution for groups of rows.

    Args:
        weight: ``(C', C, width)``.
        stride: rows between two output rows.
        group: output rows of a group.

    Returns:
        ``(group * C', group * stride * C, width')``, width' groups.
    """
    c_out, c_in, kernel = weight.shape
    rows = group * stride
    past_groups = -(-(kernel - stride) // rows)
    first = past_groups * rows - (kernel - stride)
    grouped = weight.new_zeros(group, c_out, (past_groups + 1) * rows, c_in)
    for row in range(group):
        start = first + row * stride
        grouped[row, :, start : start + kernel] = weight.mT
    return grouped.view(group * c_out, past_groups + 1, rows * c_in).mT


class PackedResidual:
    """A dilated convolution of a `ResidualStack` with packed weights."""

    def __init__(self, conv: nn.Conv1d, dtype: torch.dtype) -> None:
        self.dilation = conv.dilation[0]
        self.bias = cast(Tensor, conv.bias).detach()
        self.conv = pack(PackedConv, dtype, conv.weight, self.bias, 1, self.dilation)


def _pack_stack(stack: ResidualStack, dtype: torch.dtype) -> list[PackedResidual]:
    return [PackedResidual(cast(nn.Conv1d, conv), dtype) for conv in stack.convs]


def run_chunked(stack: PackedStack, read: Read, keep: bool) -> Iterator[Tensor]:
    """Run the encoder or the decoder over a whole signal.

    Args:
        stack: the encoder or the decoder.
        read: the signal; called once if ``keep``, otherwise once per block and once more.
        keep: whether memory may grow with the signal.

    Yields:
        Chunks ``(T, C)`` of the output.

    Raises:
        AudioError: The signal is too short to be mirrored at its start.
    """
    outputs: Callable[[], Chunks] = partial(_first_layer, stack.first, read)
    for block in stack.blocks:
        inputs: Callable[[], Iterable[FusionInput]] = partial(_fusion_inputs, block, outputs)
        kept: deque[FusionInput] | None = deque() if keep else None
        weight_a = _fusion_weight(block, inputs(), kept)
        if kept is not None:
            inputs = partial(_drain, kept)
        outputs = partial(_fuse, block, weight_a, inputs)
    last = StreamingResampler(stack.last)
    for buffer, _ in outputs():
        yield last.push(buffer).rows
    if not last.started:
        raise AudioError("the signal is too short for SuperCodec, which mirrors its start")


def _first_layer(layer: PackedResampler, read: Read) -> Chunks:
    conv = StreamingResampler(layer, HEADROOM // 2)
    for buffer, last in _rechunk(read(), _chunk_rows(max(layer.in_channels, layer.out_channels))):
        yield conv.push(buffer), last


def _fusion_inputs(block: PackedBlock, read: Callable[[], Chunks]) -> Iterator[FusionInput]:
    """Run a block up to its fusion."""
    layer = block.resample
    resample = StreamingResampler(layer, 1)  # group, which is what `project_back` needs
    project_back = StreamingResampler(block.project_back)
    resample_difference = StreamingResampler(block.resample_difference)
    refine = _streaming_stack(block.res_one, block.input_rows)
    waiting = layer.bias.new_empty(0, layer.out_channels)  # rows of `a` without their rows of `b`
    for buffer, last in _cut(read(), block.input_rows, layer.rows_in):
        resampled = resample.push(buffer)
        project_back.add_to(buffer, resampled)
        for residual in refine:
            residual.push(buffer, last)
        b = resample_difference.push(buffer).rows
        a = resampled.rows
        count = len(b) - len(waiting)  # at least 0: a chunk is longer than what layers hold back
        yield FusionInput((waiting, a[:count]), b, last)
        waiting = a[count:]


def _fusion_weight(
    block: PackedBlock, inputs: Iterable[FusionInput], kept: deque[FusionInput] | None
) -> Tensor:
    """Return the weight of the first signal, ``(C,)``; append the inputs to ``kept``."""
    rows = 0
    total = block.resample.bias.new_zeros((), dtype=torch.float64)
    for chunk in inputs:
        rows += len(chunk.b)
        for part in (*chunk.a, chunk.b):
            total = total + part.sum(0).double()
        if kept is not None:
            kept.append(chunk)
    return fusion_weights((total / rows).float(), *block.fusion)[0]


def _drain(kept: deque[FusionInput]) -> Iterator[FusionInput]:
    """Yield chunks whose memory is free as soon as the next one is asked for."""
    while kept:
        yield kept.popleft()


def _fuse(
    block: PackedBlock, weight_a: Tensor, inputs: Callable[[], Iterable[FusionInput]]
) -> Chunks:
    """Run a block from its fusion to its end; the weights of the two signals add up to one."""
    rows = _chunk_rows(block.resample.out_channels)
    buffer = RowBuffer(rows, like=block.resample.bias[None])
    residual = _streaming_stack(block.res_four, rows)
    for (waiting, a), b, last in inputs():
        first = len(waiting)
        torch.lerp(b[:first], waiting, weight_a, out=buffer.append(first))
        torch.lerp(b[first:], a, weight_a, out=buffer.append(len(a)))
        if last or len(buffer.rows) + len(b) > rows:
            for layer in residual:
                layer.push(buffer, last)
            yield buffer, last
            buffer.clear()


def _rechunk(parts: Iterable[Tensor], rows: int) -> Chunks:
    """Cut a signal into copies of equal length; the last one may be shorter or empty."""
    chunker: Chunker[Tensor] = Chunker(rows, 0, torch.cat)
    buffer: RowBuffer | None = None
    for part in parts:
        buffer = buffer or RowBuffer(rows, like=part)
        for chunk in chunker.push(part):
            yield buffer.fill(chunk), False
    if buffer is not None:
        yield buffer.fill(cast(Tensor, chunker.flush())), True


def _cut(chunks: Chunks, rows: int, stride: int) -> Chunks:
    """Cut chunks into pieces of at most about ``rows`` rows, multiples of ``stride``."""
    rest: Tensor | None = None
    piece: RowBuffer | None = None
    for buffer, last in chunks:
        if rest is not None:
            buffer.prepend(rest)
        groups = len(buffer.rows) // stride
        rest = buffer.rows[groups * stride :].clone()
        pieces = -(-groups * stride // (rows + rows // 4)) or 1
        if pieces == 1:
            buffer.keep(0, groups * stride)
            yield buffer, last
            continue
        stops = [groups * number // pieces * stride for number in range(pieces + 1)]
        piece = piece or RowBuffer(stops[1], like=rest)
        for start, stop in pairwise(stops):
            yield piece.fill(buffer.rows[start:stop]), last and stop == stops[-1]


def _chunk_rows(width: int) -> int:
    return max(MIN_CHUNK_ROWS, CHUNK_ELEMENTS // width)


def _round_up(count: int) -> int:
    """Round up to one of 8 sizes per octave.

    oneDNN generates code for each length of a signal, which takes longer than to compute a few
    rows more, and keeps it for a limited number of combinations of layer and length.
    """
    step = 1 << max(0, count.bit_length() - 4)
    return -(-count // step) * step


class RowBuffer:
    """Rows ``(T, C)`` with free memory on both sides; ``capacity`` grows where necessary."""

    def __init__(self, capacity: int, like: Tensor) -> None:
        self._memory = like.new_empty(capacity + capacity // 4 + 2 * HEADROOM, like.shape[1])
        self._start = self._stop = HEADROOM

    @classmethod
    def on(cls, memory: Tensor, start: int, stop: int) -> RowBuffer:
        """Return some of the rows of ``memory`` as a buffer; the others are free."""
        buffer = cls.__new__(cls)
        buffer._memory, buffer._start, buffer._stop = memory, start, stop
        return buffer

    @property
    def rows(self) -> Tensor:
        """A view of the rows."""
        return self._memory[self._start : self._stop]

    def clear(self) -> None:
        """Remove all rows."""
        self._start = self._stop = HEADROOM

    def append(self, count: int) -> Tensor:
        """Add rows at the end; return a view of them, to be written to."""
        self._reserve(0, count)
        self._stop += count
        return self._memory[self._stop - count : self._stop]

    def fill(self, rows: Tensor) -> RowBuffer:
        """Hold a copy of ``rows`` in place of what was there; return the buffer."""
        self.clear()
        self.append(len(rows)).copy_(rows)
        return self

    def prepend(self, rows: Tensor) -> None:
        """Add a copy of ``rows`` at the start."""
        if len(rows):
            self._reserve(len(rows), 0)
            self._memory[self._start - len(rows) : self._start] = rows
            self._start -= len(rows)

    def keep(self, first: int, count: int) -> None:
        """Hold only ``count`` rows."""
        self._start += first
        self._stop = self._start + count

    def extended(self, before: int, count: int) -> Tensor:
        """Return a view of the first ``count`` rows and some before; others are undefined."""
        self._reserve(before, count - (self._stop - self._start))
        return self._memory[self._start - before : self._start + count]

    def _reserve(self, before: int, after: int) -> None:
        missing = max(0, before - self._start), max(0, self._stop + after - len(self._memory))
        if any(missing):
            free = (self._memory.new_empty(count, self._memory.shape[1]) for count in missing)
            self._memory = torch.cat((next(free), self._memory, next(free)))
            self._start, self._stop = self._start + missing[0], self._stop + missing[0]


class StreamingResampler:
    """A causal layer on one signal; input rows that do not fill a group wait.

    Args:
        layer: the layer.
        headroom: groups of free memory before the rows of the output.

    Attributes:
        started: whether the signal was long enough to be mirrored; there is no output before.
    """

    def __init__(self, layer: PackedResampler, headroom: int = 0) -> None:
        self._layer, self._headroom = layer, headroom
        self._past = layer.bias.new_empty(0, layer.in_channels)  # input that later output needs
        self.started = False

    def push(self, buffer: RowBuffer) -> RowBuffer:
        """Return the next output rows."""
        layer, headroom = self._layer, self._headroom
        groups, count = self._groups(buffer, headroom)
        start = headroom * layer.rows_out
        if not count:
            return RowBuffer.on(groups.new_empty(start, layer.out_channels), start, start)
        return RowBuffer.on(layer(groups), start, start + count * layer.rows_out)

    def add_to(self, target: RowBuffer, buffer: RowBuffer) -> None:
        """Add the next output rows to as many rows."""
        groups, count = self._groups(buffer)
        if count:
            rows = _round_up(count) * self._layer.rows_out
            self._layer.add_to(target.extended(0, rows), groups)

    def _groups(self, buffer: RowBuffer, before: int = 0) -> tuple[Tensor, int]:
        """Return the rows of each group side by side, and the number of groups of the output.

        There are undefined groups before and after those that the output depends on.
        """
        layer, new = self._layer, len(buffer.rows)
        buffer.prepend(self._past)
        if not self.started and len(buffer.rows) > layer.mirrored_rows:
            mirrored = buffer.rows[1 : layer.mirrored_rows + 1].flip(0)
            zeros = mirrored.new_zeros(layer.past_rows - len(mirrored), layer.in_channels)
            buffer.prepend(torch.cat((zeros, mirrored)))
            self.started = True
        seen = buffer.rows
        past_groups = layer.past_rows // layer.rows_in
        count = max(0, len(seen) // layer.rows_in - past_groups) if self.started else 0
        self._past = seen[count * layer.rows_in :].clone()
        groups = past_groups + _round_up(count)
        rows = buffer.extended(before * layer.rows_in, groups * layer.rows_in)
        buffer.keep(len(seen) - new, new)
        return rows.view(before + groups, layer.rows_in * layer.in_channels), count


def _streaming_stack(layers: list[PackedResidual], rows: int) -> list[StreamingResidual]:
    workspace = RowBuffer(rows, like=layers[0].bias[None])
    return [StreamingResidual(layer, workspace) for layer in layers]


class StreamingResidual:
    """Leaky ReLU and dilated convolution of width 3, added to the input; zero beyond both ends.

    It works in place. ``workspace`` may be used by others between two pushes.
    """

    def __init__(self, layer: PackedResidual, workspace: RowBuffer) -> None:
        self._layer, self._workspace = layer, workspace
        self._past = layer.bias.new_zeros(layer.dilation, len(layer.bias))  # of the convolution
        self._delayed = layer.bias.new_empty(0, len(layer.bias))  # input without its output yet

    def push(self, buffer: RowBuffer, last: bool) -> None:
        """Replace the rows by the outputs that are known, a dilation behind the input."""
        work, dilation = self._workspace, self._layer.dilation
        work.fill(self._past)
        new = buffer.rows
        torch.ops.aten.leaky_relu.out(new, SLOPE, out=work.append(len(new)))
        work.append(dilation if last else 0).zero_()
        active = work.rows
        count = max(0, len(active) - 2 * dilation)
        self._past = active[count:].clone()
        buffer.prepend(self._delayed)
        self._delayed = buffer.rows[count:].clone()
        buffer.keep(0, count)
        if count:
            padded = _round_up(count)
            inputs = work.extended(0, padded + 2 * dilation)
            self._layer.conv.add_to(buffer.extended(0, padded)[None], inputs[None])
