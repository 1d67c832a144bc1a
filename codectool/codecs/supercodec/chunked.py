"""SuperCodec on one signal of any length, in chunks that fit a processor's cache.

The fusion weights of a block depend on the mean over the whole signal, so each block takes a pass
of its own: the pass computes, chunk by chunk, the two signals that the block fuses, and their
mean. The next pass continues from there. The fused signals are either kept, in memory that grows
with the signal, or computed again from the start by every later pass.

All signals here are rows ``(T, C)``, so that products need no transposition. A chunk must be used
before the next one is asked for: its memory may be reused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.chunking import Chunker
from codectool.codecs.supercodec.blocks import (
    SLOPE,
    BackProjectionBlock,
    CausalConv,
    DownBlock,
    MaskedSequential,
    Resampler,
    ResidualStack,
    SelectiveFusion,
)
from codectool.errors import AudioError

CHUNK_ELEMENTS = 1 << 19  # 2 MB; a handful of such chunks are in use at a time
MIN_CHUNK_ROWS = 64  # more than any layer holds back
HEADROOM = 32  # rows before a chunk, for the past that a layer needs
MAX_UNFOLDED_WIDTH = 16  # columns; so narrow a convolution is faster as one product

Read = Callable[[], Iterable[Tensor]]  # starts to read a signal: chunks (T, C) of any lengths


class FusionInput(NamedTuple):
    """A chunk of the two signals that a block fuses; ``a`` in two parts."""

    a: tuple[Tensor, Tensor]
    b: Tensor
    last: bool


def run_chunked(layers: MaskedSequential, read: Read, keep: bool) -> Iterator[Tensor]:
    """Run the encoder or the decoder over a whole signal.

    Args:
        layers: the encoder or the decoder.
        read: the signal; called once if ``keep``, otherwise once per block and once more.
        keep: whether memory may grow with the signal.

    Yields:
        Chunks ``(T, C)`` of the output.

    Raises:
        AudioError: The signal is too short to be mirrored at its start.
    """
    first, *blocks, last = layers
    outputs: Read = partial(_convolve, cast(CausalConv, first), read)
    for layer in blocks:
        block = cast(BackProjectionBlock, layer)
        inputs: Callable[[], Iterable[FusionInput]] = partial(_fusion_inputs, block, outputs)
        kept: list[FusionInput] | None = [] if keep else None
        weights = _fusion_weights(block.fuse, inputs(), kept)
        if kept is not None:
            inputs = partial(iter, kept)
        outputs = partial(_fuse, block.res_four, weights, inputs)
    yield from _convolve(cast(CausalConv, last), outputs)


def _convolve(layer: CausalConv, read: Read) -> Iterator[Tensor]:
    conv = StreamingConv1d(layer.conv)
    width = max(layer.conv.in_channels, layer.conv.out_channels)
    for buffer, _ in _rechunk(read(), _chunk_rows(width)):
        yield conv.push(buffer).rows
    if not conv.started:
        raise AudioError("the signal is too short for SuperCodec, which mirrors its start")


def _fusion_inputs(block: BackProjectionBlock, read: Read) -> Iterator[FusionInput]:
    """Run a block up to its fusion."""
    resample, project_back, resample_difference = map(_streaming, block.resamplers)
    refine = _streaming_stack(block.res_one)
    waiting: Tensor | None = None  # rows of `a` whose rows of `b` are not known yet
    for buffer, last in _rechunk(read(), _block_chunk_rows(block)):
        resampled = resample.push(buffer)
        project_back.subtract(resampled, buffer.rows)
        for layer in refine:
            layer.push(buffer, last)
        b = resample_difference.push(buffer).rows
        a = resampled.rows
        waiting = a[:0] if waiting is None else waiting
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
    stack: ResidualStack,
    weights: tuple[Tensor, Tensor],
    inputs: Callable[[], Iterable[FusionInput]],
) -> Iterator[Tensor]:
    """Run a block from its fusion to its end."""
    weight_a, weight_b = weights
    buffer: RowBuffer | None = None
    residual = _streaming_stack(stack)
    for a, b, last in inputs():
        buffer = buffer or RowBuffer(len(b), like=b)
        buffer.clear()
        for part in a:
            torch.mul(part, weight_a, out=buffer.append(len(part)))
        buffer.rows.addcmul_(b, weight_b)
        for layer in residual:
            layer.push(buffer, last)
        yield buffer.rows


def _rechunk(parts: Iterable[Tensor], rows: int) -> Iterator[tuple[RowBuffer, bool]]:
    """Cut a signal into chunks of ``rows`` rows; the last one holds the rest, 0 rows or more.

    Yields:
        The chunk, always in the same buffer, and whether it is the last one.
    """
    chunker: Chunker[Tensor] = Chunker(rows, axis=0, concatenate=torch.cat)
    buffer: RowBuffer | None = None
    for part in parts:
        buffer = buffer or RowBuffer(rows, like=part)
        for chunk in chunker.push(part):
            yield buffer.fill(chunk), False
    if buffer is not None:
        yield buffer.fill(cast(Tensor, chunker.flush())), True


def _chunk_rows(width: int) -> int:
    return max(MIN_CHUNK_ROWS, CHUNK_ELEMENTS // width)


def _block_chunk_rows(block: BackProjectionBlock) -> int:
    """Return the number of input rows per chunk, for the wider side of a block."""
    stride = block.ups_one.stride
    if isinstance(block, DownBlock):
        rows = _chunk_rows(block.downs_one.conv.in_channels)
        return -(-rows // stride) * stride
    return _chunk_rows(block.ups_one.conv.out_channels * stride)


class RowBuffer:
    """Rows ``(T, C)`` with free memory before them; ``capacity`` grows where necessary."""

    def __init__(self, capacity: int, like: Tensor) -> None:
        self._memory = like.new_empty(HEADROOM + capacity, like.shape[1])
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
        if self._stop > len(self._memory):
            more = self._memory.new_empty(self._stop, self._memory.shape[1])
            self._memory = torch.cat((self._memory, more))
        return self._memory[self._stop - count : self._stop]

    def fill(self, rows: Tensor) -> RowBuffer:
        """Hold a copy of ``rows`` in place of what was there; return the buffer."""
        self.clear()
        self.append(len(rows)).copy_(rows)
        return self

    def with_past(self, past: Tensor) -> Tensor:
        """Write ``past`` before the rows; return both as one view."""
        missing = len(past) - self._start
        if missing > 0:
            free = self._memory.new_empty(missing, past.shape[1])
            self._memory = torch.cat((free, self._memory))
            self._start, self._stop = self._start + missing, self._stop + missing
        first = self._start - len(past)
        self._memory[first : self._start] = past
        return self._memory[first : self._stop]

    def shift(self, back: int, count: int) -> None:
        """Hold ``count`` rows from ``back`` rows before the first one, written by `with_past`."""
        self._start -= back
        self._stop = self._start + count


class StreamingConv1d:
    """Strided convolution that mirrors the signal before its start.

    Args:
        conv: convolution whose kernel size is a multiple of its stride.

    Attributes:
        started: whether the signal was long enough to be mirrored; there is no output before.
    """

    def __init__(self, conv: nn.Conv1d) -> None:
        weight = _by_taps(conv.weight)
        c_out, kernel, c_in = weight.shape
        self._stride = conv.stride[0]
        self._past_rows = kernel - self._stride
        self._matrix = weight.view(c_out, kernel * c_in).T
        self._bias = _bias(conv)
        self._past = weight.new_empty(0, c_in)  # input that later output depends on
        self.started = False

    def push(self, buffer: RowBuffer) -> RowBuffer:
        """Return the next outputs; input rows that do not fill a stride wait."""
        groups = self._groups(buffer)
        count = max(0, len(groups) - self._past_rows // self._stride)
        out = RowBuffer(count, like=self._bias[None])
        self._multiply_add(groups, out.append(count).copy_(self._bias), 1)
        return out

    def subtract(self, buffer: RowBuffer, target: Tensor) -> None:
        """Subtract what `push` would return, of the same shape, from ``target``."""
        self._multiply_add(self._groups(buffer), target.sub_(self._bias), -1)

    def _groups(self, buffer: RowBuffer) -> Tensor:
        """Return the rows of each stride side by side, starting with the past."""
        seen = buffer.with_past(self._past)
        if not self.started and len(seen) > self._past_rows:
            mirrored = seen[1 : self._past_rows + 1].flip(0)
            seen = buffer.with_past(torch.cat((mirrored, self._past)))
            self.started = True
        groups = len(seen) // self._stride if self.started else 0
        used = max(0, groups * self._stride - self._past_rows)
        self._past = seen[used:].clone()
        return seen[: groups * self._stride].view(groups, self._stride * seen.shape[1])

    def _multiply_add(self, groups: Tensor, out: Tensor, sign: int) -> None:
        width = groups.shape[1]
        if width <= MAX_UNFOLDED_WIDTH and len(out):
            groups = groups.unfold(0, len(self._matrix) // width, 1).mT.flatten(1)
            width = len(self._matrix)
        for tap, matrix in enumerate(torch.split(self._matrix, width)):
            out.addmm_(groups[tap : tap + len(out)], matrix, alpha=sign)


class StreamingConvTranspose1d:
    """Upsampling by the stride, with a kernel of two strides; needs no future input."""

    def __init__(self, conv: nn.ConvTranspose1d) -> None:
        weight = _by_taps(conv.weight)
        c_in, kernel, width = weight.shape
        self._stride = conv.stride[0]
        self._now, self._before = weight.view(c_in, kernel * width).chunk(2, dim=1)
        self._bias = _bias(conv)
        self._past = weight.new_zeros(1, c_in)

    def push(self, buffer: RowBuffer) -> RowBuffer:
        """Return ``stride`` output rows for each row."""
        count = len(buffer.rows) * self._stride
        out = RowBuffer(count, like=self._bias[None])
        self._multiply_add(buffer.rows, out.append(count).copy_(self._bias), 1)
        return out

    def subtract(self, buffer: RowBuffer, target: Tensor) -> None:
        """Subtract what `push` would return from ``target``."""
        self._multiply_add(buffer.rows, target.sub_(self._bias), -1)

    def _multiply_add(self, x: Tensor, out: Tensor, sign: int) -> None:
        if len(x):
            groups = out.view(len(x), -1)
            groups.addmm_(x, self._now, alpha=sign)
            groups[:1].addmm_(self._past, self._before, alpha=sign)
            groups[1:].addmm_(x[:-1], self._before, alpha=sign)
            self._past = x[-1:].clone()


def _streaming(layer: Resampler) -> StreamingConv1d | StreamingConvTranspose1d:
    conv = layer.conv
    return StreamingConv1d(conv) if isinstance(conv, nn.Conv1d) else StreamingConvTranspose1d(conv)


def _streaming_stack(stack: ResidualStack) -> list[StreamingResidualConv1d]:
    convs = [cast(nn.Conv1d, conv) for conv in stack.convs]
    workspace = RowBuffer(0, like=convs[0].weight.detach()[..., 0])
    return [StreamingResidualConv1d(conv, workspace) for conv in convs]


class StreamingResidualConv1d:
    """Leaky ReLU and dilated convolution of width 3, added to the input; zero beyond both ends.

    It works in place. ``workspace`` may be used by others between two pushes.
    """

    def __init__(self, conv: nn.Conv1d, workspace: RowBuffer) -> None:
        weight = _by_taps(conv.weight)
        self._taps = [weight[:, tap].T for tap in range(3)]
        self._bias, self._workspace = _bias(conv), workspace
        self._dilation = conv.dilation[0]
        self._past = weight.new_zeros(self._dilation, weight.shape[2])  # input of the convolution
        self._delayed = weight.new_empty(0, weight.shape[2])  # input without its output yet

    def push(self, buffer: RowBuffer, last: bool) -> None:
        """Replace the rows by the outputs that are known, a dilation behind the input."""
        work, dilation = self._workspace, self._dilation
        work.fill(self._past)
        F.leaky_relu_(work.append(len(buffer.rows)).copy_(buffer.rows), SLOPE)
        work.append(dilation if last else 0).zero_()
        active = work.rows
        count = max(0, len(active) - 2 * dilation)
        self._past = active[count:].clone()
        seen = buffer.with_past(self._delayed)
        buffer.shift(len(self._delayed), count)
        self._delayed = seen[count:].clone()
        out = buffer.rows.add_(self._bias)
        for tap, matrix in enumerate(self._taps):
            out.addmm_(active[tap * dilation : tap * dilation + count], matrix)


def store_weights_by_tap(model: nn.Module) -> None:
    """Store the frozen convolution kernels below ``model`` tap by tap, in place.

    Their values stay the same. The matrices of the streaming layers are then views, not copies.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and not module.weight.requires_grad:
            weight = _by_taps(module.weight).transpose(1, 2)
            module.weight = nn.Parameter(weight, requires_grad=False)


def _by_taps(weight: Tensor) -> Tensor:
    """``(C1, C2, taps)`` -> ``(C1, taps, C2)``; a view after `store_weights_by_tap`."""
    return weight.detach().transpose(1, 2).contiguous()


def _bias(conv: nn.Conv1d | nn.ConvTranspose1d) -> Tensor:
    assert conv.bias is not None
    return conv.bias.detach()
