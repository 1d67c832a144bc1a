"""CPU form of the waveform HAC for one signal, with little overhead per chunk.

A token takes a few hundred small operations, which as PyTorch modules spend more time on dispatch
than on arithmetic. Here the weights are copied once into the layout with the fastest products, the
buffers are allocated once per stream, and small operations use NumPy, whose calls cost less.
Results agree with `Stack` within rounding.

A block becomes an operation in two steps: a function such as `_residual_unit` copies its weights
and returns another function, which allocates buffers for one length of chunks (`Bind`).

The activation is cheaper, too. With h = 1 / (2 alpha) and u = x / h, Snake is
``x + h (1 - cos(x / h)) = h (u - cos u) + h``. The layer before it absorbs the division by h, the
layer after it the factor h and the constant; only ``u - cos u`` remains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import Module

from codectool.codecs.hac.activations import Snake
from codectool.codecs.hac.blocks import Block, OutputProjection, ResidualUnit, Stack, TokenMixer
from codectool.codecs.hac.layers import Pointwise
from codectool.codecs.hac.voice import VoiceTail
from codectool.codecs.hac.waveform import Downsample, Head, Shift, Stem, Upsample

Array = npt.NDArray[np.float32]
State = list[Array]

SMALL_ROWS = 2  # up to this number of rows, NumPy's loop is faster than a BLAS product
LARGE_SIZE = 8192  # from this number of values, one pass per tap is faster than one for all taps


class Executor:
    """Compiled blocks with buffers; it has the interface of `Stack`.

    Args:
        blocks: from `compile_stack`.
        frames: input frames per chunk; buffers for other lengths are allocated when necessary.
        out_channels: channels of the output.
    """

    def __init__(self, blocks: Sequence[CompiledBlock], frames: int, out_channels: int) -> None:
        self._blocks = blocks
        self._out_channels = out_channels
        self._allocated = cache(partial(allocate, blocks))
        self._allocated(frames)

    @torch.no_grad()
    def __call__(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Compute one chunk ``(1, T, C)``; ``state`` None stands for the start of the signal."""
        operations, out_frames = self._allocated(x.shape[1])
        y = torch.empty(1, out_frames, self._out_channels, dtype=torch.float32, device="cpu")
        operations[0].input_buffer.tensor.copy_(x[0])
        outputs = [operation.input_buffer for operation in operations[1:]] + [Buffer(y[0])]
        if state is None:
            state = [np.zeros(block.state_shape, np.float32) for block, _ in self._blocks]
        new_state = []
        with np.errstate(all="ignore"):  # infinite values pass without a warning, as in torch
            for (_, run, history), before, out in zip(operations, state, outputs, strict=True):
                if history:
                    history.load(before)
                run(out)
                new_state.append(history.save() if history else before)
        return y, new_state


class Operation(NamedTuple):
    """Operation of one block on chunks of one length.

    Attributes:
        input_buffer: where the input is written before `run`, ``(T, C)``.
        run: computes the output from `input_buffer` and the past in `history`.
        history: past of the input or of an intermediate result; None without memory.
    """

    input_buffer: Buffer
    run: Callable[[Buffer], object]
    history: History | JoinedHistory | None = None


def compile_stack(stack: Stack) -> list[CompiledBlock]:
    """Copy the weights of the blocks of a folded stack."""
    blocks = cast("Iterable[Block]", stack)
    with torch.no_grad():
        return [(block, COMPILE[type(block)](block)) for block in blocks]


def allocate(blocks: Sequence[CompiledBlock], frames: int) -> tuple[list[Operation], int]:
    """Return operations for chunks of ``frames`` frames, and the number of output frames."""
    workspace, operations = Workspace(), []
    for block, bind in blocks:
        operations.append(bind(frames, workspace))
        frames = frames // block.down * block.up
    return operations, frames


class Buffer:
    """The same memory as a torch tensor and as a NumPy array."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.array: Array = tensor.numpy()


class Workspace(dict[str, Tensor]):
    """Memory for the duration of one operation, which all operations share by name."""

    def take(self, name: str, frames: int, channels: int) -> Buffer:
        """Return a buffer ``(T, C)`` with undefined content."""
        size = frames * channels
        if name not in self or self[name].numel() < size:
            self[name] = torch.empty(size, dtype=torch.float32, device="cpu")
        return Buffer(self[name][:size].view(frames, channels))


class History:
    """Past frames and the current chunk in one buffer, so that a window can span both.

        |<- past: reach ->|<------ chunk: T ------>|
                                |<- end: reach --->|

    Attributes:
        past: frames before the chunk, ``(reach, C)``.
        chunk: the chunk, ``(T, C)``.
        end: the past of the next chunk, ``(reach, C)``.
    """

    def __init__(self, state_shape: tuple[int, ...], frames: int) -> None:
        reach, channels = state_shape
        self._frames = frames
        self._rows = torch.zeros(reach + frames, channels, dtype=torch.float32, device="cpu")
        self.past: Array = self._rows[:reach].numpy()
        self.chunk = Buffer(self._rows[reach:])
        self.end: Array = self._rows[frames:].numpy()

    def load(self, state: Array) -> None:
        """Set the past."""
        np.copyto(self.past, state)

    def save(self) -> Array:
        """Return the past of the next chunk."""
        end: Array = self.end.copy()
        return end

    def windows(self, taps: int, dilation: int = 1, stride: int = 1) -> Buffer:
        """Return a view ``(T / stride, taps, C)``: the frames that each output frame sees."""
        channels = self._rows.shape[1]
        size = (self._frames // stride, taps, channels)
        return Buffer(self._rows.as_strided(size, (stride * channels, dilation * channels, 1)))


class JoinedHistory:
    """Histories of the blocks of a `VoiceTail`, whose state is one vector.

    Attributes:
        kept: states of the blocks that run as modules, by block.
    """

    def __init__(self, tail: VoiceTail, histories: dict[Block, History | None]) -> None:
        self._tail, self._histories = tail, histories
        self.kept: dict[Block, Tensor] = {}

    def load(self, state: Array) -> None:
        """Set the past of all blocks."""
        parts = self._tail.split_state(torch.from_numpy(state)[None])
        for block, part in parts.items():
            history = self._histories.get(block)
            if history is not None:
                history.load(part[0].numpy())
            else:
                self.kept[block] = part

    def save(self) -> Array:
        """Return the past of the next chunk."""
        parts = []
        for block in self._tail.parts():
            history = self._histories.get(block)
            parts.append(
                self.kept[block].numpy().ravel() if history is None else history.end.ravel()
            )
        joined: Array = np.concatenate(parts)
        return joined


class Affine:
    """Matrix product and bias, which absorb the factors of adjacent Snakes.

    Args:
        layer: the matrix product.
        before: h of a Snake before it, ``(fan_in,)``, which is computed as ``u - cos u``.
        after: h of a Snake after it, ``(out,)``, which expects its input divided by h.
    """

    def __init__(
        self, layer: Pointwise, before: Tensor | None = None, after: Tensor | None = None
    ) -> None:
        weight = layer.weight.double()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.double()
        if before is not None:
            bias = bias + weight @ before
            weight = weight * before
        if after is not None:
            frequency = 1 / after
            weight, bias = weight * frequency[:, None], bias * frequency
        self.weight = Buffer(weight.T.float().contiguous())
        self.bias = Buffer(bias.float())

    def __call__(self, x: Buffer, out: Buffer) -> None:
        """Compute ``(T, fan_in)`` -> ``(T, out)``."""
        if len(x.array) > SMALL_ROWS:
            torch.addmm(self.bias.tensor, x.tensor, self.weight.tensor, out=out.tensor)
            return
        np.einsum("tc,ch->th", x.array, self.weight.array, out=out.array)
        np.add(out.array, self.bias.array, out=out.array)


def half_period(activation: Module) -> Tensor:
    """Return the h of a Snake in float64, ``(C,)``."""
    assert isinstance(activation, Snake)
    return 0.5 * torch.exp(-activation.log_alpha.double())


def snake_(angle: Array, cosine: Array) -> None:
    """Replace ``angle`` u by ``u - cos u``; ``cosine`` is overwritten."""
    np.cos(angle, out=cosine)
    np.subtract(angle, cosine, out=angle)


def _shift(block: Shift) -> Bind:
    offset: Array = block.offset.numpy().copy()

    def bind(frames: int, workspace: Workspace) -> Operation:
        x = workspace.take("input", frames, 1)
        return Operation(x, lambda out: np.add(x.array, offset, out=out.array))

    return bind


def _frames_product(block: Stem | TokenMixer) -> Bind:
    # one matrix for all that a frame sees
    affine = Affine(block.transform if isinstance(block, Stem) else block.pointwise)

    def bind(frames: int, workspace: Workspace) -> Operation:
        history = History(block.state_shape, frames)
        windows = history.windows(block.kernel, stride=block.down).array
        count, kernel, channels = windows.shape
        unfolded = workspace.take("unfolded", count, kernel * channels)

        def run(out: Buffer) -> None:
            np.copyto(unfolded.array.reshape(windows.shape), windows)
            affine(unfolded, out)

        return Operation(history.chunk, run, history)

    return bind


def _residual_unit(block: ResidualUnit) -> Bind:
    half = half_period(block.branch.activation)
    taps = Buffer(block.depthwise.T.contiguous())
    widen, narrow = Affine(block.branch.widen, after=half), Affine(block.branch.narrow, before=half)

    def bind(frames: int, workspace: Workspace) -> Operation:
        history = History(block.state_shape, frames)
        windows = history.windows(len(taps.array), block.dilation)
        convolved = workspace.take("convolved", frames, taps.array.shape[1])
        angle = workspace.take("angle", frames, len(half))
        cosine = workspace.take("cosine", frames, len(half))

        def run(out: Buffer) -> None:
            if convolved.array.size < LARGE_SIZE:
                np.einsum("tkc,kc->tc", windows.array, taps.array, out=convolved.array)
            else:
                torch.mul(windows.tensor[:, 0], taps.tensor[0], out=convolved.tensor)
                for tap in range(1, len(taps.tensor)):
                    convolved.tensor.addcmul_(windows.tensor[:, tap], taps.tensor[tap])
            widen(convolved, angle)
            snake_(angle.array, cosine.array)
            narrow(angle, out)
            np.add(out.array, history.chunk.array, out=out.array)

        return Operation(history.chunk, run, history)

    return bind


def _activated_pointwise(block: OutputProjection | Downsample | Upsample | Head) -> Bind:
    # a whole `OutputProjection`, but only the first part of the blocks that change the rate
    half = half_period(block.entry.activation)
    frequency = (1 / half).float()
    affine = Affine(block.entry.pointwise, before=half)

    def bind(frames: int, workspace: Workspace) -> Operation:
        x, angle, cosine = (
            workspace.take(name, frames, len(half)) for name in ("input", "angle", "cosine")
        )

        def run(out: Buffer) -> None:
            torch.mul(x.tensor, frequency, out=angle.tensor)
            snake_(angle.array, cosine.array)
            affine(angle, out)

        return Operation(x, run)

    return bind


def _downsample(block: Downsample) -> Bind:
    bind_entry = _activated_pointwise(block)
    taps: Array = block.depthwise.T.contiguous().numpy()
    bias: Array = block.bias.numpy().copy()

    def bind(frames: int, workspace: Workspace) -> Operation:
        entry = bind_entry(frames, workspace)
        history = History(block.state_shape, frames)
        windows = history.windows(len(taps), stride=block.down).array

        def run(out: Buffer) -> None:
            entry.run(history.chunk)
            np.einsum("tkc,kc->tc", windows, taps, out=out.array)
            np.add(out.array, bias, out=out.array)

        return Operation(entry.input_buffer, run, history)

    return bind


def _upsample(block: Upsample) -> Bind:
    bind_entry = _activated_pointwise(block)
    weight_now, weight_before = block.depthwise.clone().unbind(0)
    bias = block.bias.clone()

    def bind(frames: int, workspace: Workspace) -> Operation:
        entry = bind_entry(frames, workspace)
        history = History(block.state_shape, frames)
        before, now = history.windows(2).tensor[:, :, None].unbind(1)

        def run(out: Buffer) -> None:
            entry.run(history.chunk)
            y = out.tensor.view(frames, *weight_now.shape)
            torch.addcmul(bias, now, weight_now, out=y)
            y.addcmul_(before, weight_before)

        return Operation(entry.input_buffer, run, history)

    return bind


def _head(block: Head) -> Bind:
    bind_entry, taps, stride = _activated_pointwise(block), block.taps, block.up

    def bind(frames: int, workspace: Workspace) -> Operation:
        entry = bind_entry(frames, workspace)
        history = History(block.state_shape, frames)
        # The samples of a frame sum one stride of each of the last `taps` rows: the last stride of
        # the oldest row, ..., the first stride of the current row. `parts` is a view (T, taps, up).
        windows = history.windows(taps).array.reshape(frames, taps, taps, stride)
        parts = windows[:, :, ::-1].diagonal(axis1=1, axis2=2).transpose(0, 2, 1)

        def run(out: Buffer) -> None:
            entry.run(history.chunk)
            np.einsum("tkj->tj", parts, out=out.array.reshape(frames, stride))

        return Operation(entry.input_buffer, run, history)

    return bind


def _voice_tail(tail: VoiceTail) -> Bind:
    middle = compile_stack(tail.middle)
    last = compile_stack(Stack({**tail.last.blocks, "head": tail.head}))
    stem = _frames_product(tail.stem)

    def bind(frames: int, workspace: Workspace) -> Operation:
        # the features outlive the operations inside
        x = Buffer(torch.empty(frames, tail.in_channels, dtype=torch.float32, device="cpu"))
        first, rows = allocate(middle, frames)
        stem_operation = stem(frames * tail.up, workspace)
        second, _ = allocate(last, rows)
        hidden = Buffer(torch.empty_like(second[0].input_buffer.tensor))
        added = Buffer(torch.empty_like(hidden.tensor))
        blocks = (*tail.middle.blocks.values(), *tail.last.blocks.values(), tail.head)
        histories = {
            block: cast("History | None", operation.history)
            for block, operation in zip(blocks, (*first, *second), strict=True)
        }
        histories[tail.stem] = cast("History", stem_operation.history)
        joined = JoinedHistory(tail, histories)

        def module(block: Block, value: Tensor) -> Tensor:
            y: Tensor
            y, joined.kept[block] = block(value, joined.kept[block])
            return y

        def run(out: Buffer) -> None:
            features = x.tensor[None]
            upper = module(tail.source, torch.cat([features, module(tail.pitch, features)], -1))
            np.copyto(first[0].input_buffer.array, x.array)
            run_all(first, hidden)
            stem_operation.input_buffer.tensor.copy_(upper[0])
            stem_operation.run(added)
            np.add(hidden.array, added.array, out=second[0].input_buffer.array)
            run_all(second, out)
            filtered = module(tail.low_pass, out.tensor[None])
            torch.add(filtered[0], upper[0], out=out.tensor)

        return Operation(x, run, joined)

    return bind


def run_all(operations: Sequence[Operation], out: Buffer) -> None:
    """Run operations whose input and past are set, one after the other."""
    outputs = [*(operation.input_buffer for operation in operations[1:]), out]
    for operation, result in zip(operations, outputs, strict=True):
        operation.run(result)


Bind = Callable[[int, Workspace], Operation]
CompiledBlock = tuple[Block, Bind]

COMPILE: dict[type[Block], Callable[[Any], Bind]] = {
    Shift: _shift,
    Stem: _frames_product,
    TokenMixer: _frames_product,
    ResidualUnit: _residual_unit,
    Downsample: _downsample,
    OutputProjection: _activated_pointwise,
    Upsample: _upsample,
    Head: _head,
    VoiceTail: _voice_tail,
}
