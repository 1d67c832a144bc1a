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
    SelectiveFusion,
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
        self.fuse = block.fuse

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
        kept: list[FusionInput] | None = [] if keep else None
        weights = _fusion_weights(block.fuse, inputs(), kept)
        if kept is not None:
            inputs = partial(iter, kept)
        outputs = partial(_fuse, block, weights, inputs)
    last = StreamingResampler(stack.last)
    for buffer, _ in outputs():
        yield last.push(buffer)
    if not last.started:
        raise AudioError("the signal is too short for SuperCodec, which mirrors its start")


def _first_layer(layer: PackedResampler, read: Read) -> Chunks:
    conv = StreamingResampler(layer)
    rows = _chunk_rows(max(layer.in_channels, layer.out_channels))
    out = RowBuffer(rows, like=layer.bias[None])
    for buffer, last in _rechunk(read(), rows):
        out.clear()
        conv.append_to(out, buffer)
        yield out, last


def _fusion_inputs(block: PackedBlock, read: Callable[[], Chunks]) -> Iterator[FusionInput]:
    """Run a block up to its fusion."""
    layer = block.resample
    resample = StreamingResampler(layer)
    project_back = StreamingResampler(block.project_back)
    resample_difference = StreamingResampler(block.resample_difference)
    refine = _streaming_stack(block.res_one, block.input_rows)
    waiting = layer.bias.new_empty(0, layer.out_channels)  # rows of `a` without their rows of `b`
    for buffer, last in _cut(read(), block.input_rows, layer.rows_in):
        rows = len(buffer.rows) // layer.rows_in * layer.rows_out
        resampled = RowBuffer(rows, like=layer.bias[None])
        resample.append_to(resampled, buffer)
        project_back.add_to(buffer, resampled)
        for residual in refine:
            residual.push(buffer, last)
        b = resample_difference.push(buffer)
        a = resampled.rows
        count = len(b) - len(waiting)  # at least 0: a chunk is longer than what layers hold back
        yield FusionInput((waiting, a[:count]), b, last)
        waiting = a[count:]


def _fusion_weights(
    fuse: SelectiveFusion, inputs: Iterable[FusionInput], kept: list[FusionInput] | None
) -> tuple[Tensor, Tensor]:
    """Return the weights of the two signals, ``(C,)`` each; append the inputs to ``kept``."""
    rows = 0
    total = torch.zeros((), dtype=torch.float64, device=fuse.squeeze.weight.device)
    for chunk in inputs:
        rows += len(chunk.b)
        for part in (*chunk.a, chunk.b):
            total = total + part.sum(0).double()
        if kept is not None:
            kept.append(chunk)
    return fuse.weights((total / rows).float())


def _fuse(
    block: PackedBlock,
    weights: tuple[Tensor, Tensor],
    inputs: Callable[[], Iterable[FusionInput]],
) -> Chunks:
    """Run a block from its fusion to its end."""
    weight_a, _ = weights  # they add up to one
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
    """Round up to one of 16 sizes per octave.

    oneDNN generates code for each length of a signal, which takes longer than to compute a few
    columns more, and keeps it for 1024 layers and lengths.
    """
    step = 1 << max(0, count.bit_length() - 5)
    return -(-count // step) * step


class RowBuffer:
    """Rows ``(T, C)`` with free memory on both sides; ``capacity`` grows where necessary."""

    def __init__(self, capacity: int, like: Tensor) -> None:
        self._memory = like.new_empty(capacity + capacity // 4 + 2 * HEADROOM, like.shape[1])
        self._start = self._stop = HEADROOM

    @property
    def rows(self) -> Tensor:
        """A view of the rows."""
        return self._memory[self._start : self._stop]

    def clear(self) -> None:
        """Remove all rows."""
        self._start = self._stop = HEADROOM

    def append(self, count: int) -> Tensor:
        """Add rows at the end; return a view of them, to be written to."""
        self._stop += count
        self._reserve(self._stop)
        return self._memory[self._stop - count : self._stop]

    def fill(self, rows: Tensor) -> RowBuffer:
        """Hold a copy of ``rows`` in place of what was there; return the buffer."""
        self.clear()
        self.append(len(rows)).copy_(rows)
        return self

    def prepend(self, rows: Tensor) -> None:
        """Add a copy of ``rows`` at the start."""
        missing = len(rows) - self._start
        if missing > 0:
            free = self._memory.new_empty(missing, rows.shape[1])
            self._memory = torch.cat((free, self._memory))
            self._start, self._stop = self._start + missing, self._stop + missing
        self._memory[self._start - len(rows) : self._start] = rows
        self._start -= len(rows)

    def keep(self, first: int, count: int) -> None:
        """Hold only ``count`` rows."""
        self._start += first
        self._stop = self._start + count

    def extended(self, count: int) -> Tensor:
        """Return a view of ``count`` rows; those after the rows of the buffer are undefined."""
        self._reserve(self._start + count)
        return self._memory[self._start : self._start + count]

    def _reserve(self, stop: int) -> None:
        if stop > len(self._memory):
            more = self._memory.new_empty(stop, self._memory.shape[1])
            self._memory = torch.cat((self._memory, more))


class StreamingResampler:
    """A causal layer on one signal; input rows that do not fill a group wait.

    Attributes:
        started: whether the signal was long enough to be mirrored; there is no output before.
    """

    def __init__(self, layer: PackedResampler) -> None:
        self._layer = layer
        self._past = layer.bias.new_empty(0, layer.in_channels)  # input that later output needs
        self.started = False

    def push(self, buffer: RowBuffer) -> Tensor:
        """Return the next output rows."""
        groups, count = self._groups(buffer)
        if not count:
            return groups.new_empty(0, self._layer.out_channels)
        return self._layer(groups)[:count]

    def append_to(self, out: RowBuffer, buffer: RowBuffer) -> None:
        """Write the next output rows to an empty buffer."""
        groups, count = self._groups(buffer)
        out.append(count).zero_()
        self._add(groups, out)

    def add_to(self, target: RowBuffer, buffer: RowBuffer) -> None:
        """Add the next output rows to as many rows."""
        groups, _ = self._groups(buffer)
        self._add(groups, target)

    def _add(self, groups: Tensor, target: RowBuffer) -> None:
        layer = self._layer
        count = len(groups) - layer.past_rows // layer.rows_in
        if count > 0:
            layer.add_to(target.extended(count * layer.rows_out), groups)

    def _groups(self, buffer: RowBuffer) -> tuple[Tensor, int]:
        """Return the rows of each group side by side, starting with the past.

        There may be more groups than the output rows, whose number is returned as well, depend on.
        """
        layer, new = self._layer, len(buffer.rows)
        buffer.prepend(self._past)
        seen = buffer.rows
        if not self.started and len(seen) > layer.mirrored_rows:
            mirrored = seen[1 : layer.mirrored_rows + 1].flip(0)
            zeros = seen.new_zeros(layer.past_rows - len(mirrored), layer.in_channels)
            buffer.prepend(torch.cat((zeros, mirrored)))
            seen = buffer.rows
            self.started = True
        groups = len(seen) // layer.rows_in if self.started else 0
        past_groups = layer.past_rows // layer.rows_in
        count = max(0, groups - past_groups)
        self._past = seen[count * layer.rows_in :].clone()
        if count:
            groups = _round_up(count) + past_groups
        rows = buffer.extended(groups * layer.rows_in)
        buffer.keep(len(seen) - new, new)
        shape = groups, layer.rows_in * layer.in_channels
        return rows.view(shape), count * layer.rows_out


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
            inputs = work.extended(padded + 2 * dilation)
            self._layer.conv.add_to(buffer.extended(padded)[None], inputs[None])
