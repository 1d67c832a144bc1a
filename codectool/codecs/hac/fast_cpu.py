"""CPU form of the waveform HAC for one signal, with little overhead per chunk.

A token takes a few hundred small operations, which as PyTorch modules spend more time on dispatch
than on arithmetic. Here the weights are copied once into the layout with the fastest products, the
buffers are allocated once per stream, and small operations use NumPy, whose calls cost less.
Results agree with those of `Stack` within rounding.

The activation is cheaper, too. With h = 1 / (2 alpha) and u = x / h, Snake is
``x + h (1 - cos(x / h)) = h (u - cos u) + h``. The layer before it absorbs the division by h, the
layer after it the factor h and the constant; only ``u - cos u`` remains.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from typing_extensions import override

from codectool.codecs.hac.activations import Snake
from codectool.codecs.hac.blocks import (
    Block,
    Downsample,
    Head,
    OutputProjection,
    ResidualUnit,
    Stack,
    Stem,
    TokenMixer,
    Upsample,
)
from codectool.codecs.hac.layers import Pointwise
from codectool.codecs.hac.network import Shift

Array = npt.NDArray[np.float32]
State = list[Array]

SMALL_ROWS = 2  # up to this number of rows, NumPy's loop is faster than a BLAS product
LARGE_SIZE = 8192  # from this number of values, one pass per tap is faster than one for all taps


class Executor:
    """Compiled operations with buffers; it has the interface of `Stack`.

    Args:
        ops: operations from `compile_stack`.
        frames: input frames per chunk; buffers for other lengths are allocated when necessary.
        out_channels: channels of the output.
    """

    def __init__(self, ops: Sequence[Op], frames: int, out_channels: int) -> None:
        self._allocated = cache(partial(allocate_buffers, ops))
        self._allocated(frames)
        self._out_channels = out_channels

    @torch.no_grad()
    def __call__(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Compute one chunk ``(1, T, C)``; ``state`` None stands for the start of the signal."""
        ops, out_frames = self._allocated(x.shape[1])
        y = torch.empty(1, out_frames, self._out_channels)
        ops[0].input_buffer.tensor.copy_(x[0])
        outputs = [op.input_buffer for op in ops[1:]] + [Buffer(y[0])]
        if state is None:
            state = [np.zeros(op.state_shape, np.float32) for op in ops]
        new_state = []
        with np.errstate(all="ignore"):  # infinite values pass without a warning, as in torch
            for op, before, out in zip(ops, state, outputs, strict=True):
                if op.history:
                    np.copyto(op.history.past, before)
                op.run(out)
                new_state.append(op.history.end.copy() if op.history else before)
        return y, new_state


def compile_stack(stack: Stack) -> list[Op]:
    """Copy the weights of a folded stack into operations."""
    with torch.no_grad():
        return [OPS[type(block)](block) for block in stack.children()]


def allocate_buffers(ops: Sequence[Op], frames: int) -> tuple[list[Op], int]:
    """Copy operations for chunks of ``frames`` frames: the same weights, but buffers of their own.

    Returns:
        The copies, and the number of output frames.
    """
    workspace, allocated = Workspace(), []
    for op in map(copy.copy, ops):
        if len(op.state_shape) == 2:
            op.history = History(*op.state_shape, frames)
        op.allocate(frames, workspace)
        allocated.append(op)
        frames = frames // op.down * op.up
    return allocated, frames


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
            self[name] = torch.empty(size)
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

    def __init__(self, reach: int, channels: int, frames: int) -> None:
        self._frames = frames
        self._rows = torch.zeros(reach + frames, channels)
        self.past: Array = self._rows[:reach].numpy()
        self.chunk = Buffer(self._rows[reach:])
        self.end: Array = self._rows[frames:].numpy()

    def windows(self, taps: int, dilation: int = 1, stride: int = 1) -> Buffer:
        """Return a view ``(T / stride, taps, C)``: the frames that each output frame sees."""
        channels = self._rows.shape[1]
        size = (self._frames // stride, taps, channels)
        return Buffer(self._rows.as_strided(size, (stride * channels, dilation * channels, 1)))


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


def half_period(activation: nn.Module) -> Tensor:
    """Return the h of a Snake in float64, ``(C,)``."""
    assert isinstance(activation, Snake)
    return 0.5 * torch.exp(-activation.log_alpha.double())


def snake_(angle: Array, cosine: Array) -> None:
    """Replace ``angle`` u by ``u - cos u``; ``cosine`` is overwritten."""
    np.cos(angle, out=cosine)
    np.subtract(angle, cosine, out=angle)


class Op(ABC):
    """Operation of one block: weights, and buffers after `allocate`.

    Attributes:
        input_buffer: where the input is written before `run`, ``(T, C)``.
        history: past of the input or of an intermediate result; None without memory.
    """

    input_buffer: Buffer
    history: History | None = None

    def __init__(self, block: Block) -> None:
        self.state_shape = block.state_shape
        self.down, self.up = block.down, block.up

    @abstractmethod
    def allocate(self, frames: int, workspace: Workspace) -> None:
        """Set `input_buffer` and other buffers; `history` exists already."""

    @abstractmethod
    def run(self, out: Buffer) -> None:
        """Compute the output from `input_buffer` and `history`."""


class ShiftOp(Op):
    """Compiled `Shift`."""

    def __init__(self, block: Shift) -> None:
        super().__init__(block)
        self.offset: Array = block.offset.numpy().copy()

    @override
    def allocate(self, frames: int, workspace: Workspace) -> None:
        self.input_buffer = workspace.take("input", frames, 1)

    @override
    def run(self, out: Buffer) -> None:
        np.add(self.input_buffer.array, self.offset, out=out.array)


class FramesOp(Op):
    """Compiled `Stem` or `TokenMixer`: one matrix for all that a frame sees."""

    history: History

    def __init__(self, block: Stem | TokenMixer) -> None:
        super().__init__(block)
        self.kernel = block.kernel
        self.affine = Affine(block.transform if isinstance(block, Stem) else block.pointwise)

    @override
    def allocate(self, frames: int, workspace: Workspace) -> None:
        self.input_buffer = self.history.chunk
        self.windows = self.history.windows(self.kernel, stride=self.down).array
        count, kernel, channels = self.windows.shape
        self.unfolded = workspace.take("unfolded", count, kernel * channels)

    @override
    def run(self, out: Buffer) -> None:
        np.copyto(self.unfolded.array.reshape(self.windows.shape), self.windows)
        self.affine(self.unfolded, out)


class ResidualUnitOp(Op):
    """Compiled `ResidualUnit`."""

    history: History

    def __init__(self, block: ResidualUnit) -> None:
        super().__init__(block)
        half = half_period(block.branch.activation)
        self.dilation = block.dilation
        self.taps = Buffer(block.depthwise.T.contiguous())
        self.widen = Affine(block.branch.widen, after=half)
        self.narrow = Affine(block.branch.narrow, before=half)

    @override
    def allocate(self, frames: int, workspace: Workspace) -> None:
        self.input_buffer = self.history.chunk
        self.windows = self.history.windows(len(self.taps.array), self.dilation)
        hidden = len(self.widen.bias.array)
        self.convolved = workspace.take("convolved", frames, self.taps.array.shape[1])
        self.angle = workspace.take("angle", frames, hidden)
        self.cosine = workspace.take("cosine", frames, hidden)

    @override
    def run(self, out: Buffer) -> None:
        windows, taps, convolved = self.windows, self.taps, self.convolved
        if convolved.array.size < LARGE_SIZE:
            np.einsum("tkc,kc->tc", windows.array, taps.array, out=convolved.array)
        else:
            torch.mul(windows.tensor[:, 0], taps.tensor[0], out=convolved.tensor)
            for tap in range(1, len(taps.tensor)):
                convolved.tensor.addcmul_(windows.tensor[:, tap], taps.tensor[tap])
        self.widen(convolved, self.angle)
        snake_(self.angle.array, self.cosine.array)
        self.narrow(self.angle, out)
        np.add(out.array, self.input_buffer.array, out=out.array)


class ActivatedPointwiseOp(Op):
    """Compiled `OutputProjection`, and the first part of the blocks that change the rate."""

    def __init__(self, block: OutputProjection | Downsample | Upsample | Head) -> None:
        super().__init__(block)
        half = half_period(block.entry.activation)
        self.frequency = (1 / half).float()
        self.affine = Affine(block.entry.pointwise, before=half)

    @override
    def allocate(self, frames: int, workspace: Workspace) -> None:
        width = len(self.frequency)
        self.input_buffer = workspace.take("input", frames, width)
        self.angle = workspace.take("angle", frames, width)
        self.cosine = workspace.take("cosine", frames, width)

    @override
    def run(self, out: Buffer) -> None:
        torch.mul(self.input_buffer.tensor, self.frequency, out=self.angle.tensor)
        snake_(self.angle.array, self.cosine.array)
        self.affine(self.angle, out)


class DownsampleOp(ActivatedPointwiseOp):
    """Compiled `Downsample`."""

    history: History

    def __init__(self, block: Downsample) -> None:
        super().__init__(block)
        self.taps: Array = block.depthwise.T.contiguous().numpy()
        self.bias: Array = block.bias.numpy().copy()

    @override
    def allocate(self, frames: int, workspace: Workspace) -> None:
        super().allocate(frames, workspace)
        self.windows = self.history.windows(len(self.taps), stride=self.down).array

    @override
    def run(self, out: Buffer) -> None:
        super().run(self.history.chunk)
        np.einsum("tkc,kc->tc", self.windows, self.taps, out=out.array)
        np.add(out.array, self.bias, out=out.array)


class UpsampleOp(ActivatedPointwiseOp):
    """Compiled `Upsample`."""

    history: History

    def __init__(self, block: Upsample) -> None:
        super().__init__(block)
        self.now, self.before = block.depthwise.clone().unbind(0)
        self.bias = block.bias.clone()

    @override
    def allocate(self, frames: int, workspace: Workspace) -> None:
        super().allocate(frames, workspace)
        self.windows = self.history.windows(2).tensor[:, :, None]

    @override
    def run(self, out: Buffer) -> None:
        super().run(self.history.chunk)
        y = out.tensor.view(len(self.windows), *self.now.shape)
        torch.addcmul(self.bias, self.windows[:, 1], self.now, out=y)
        y.addcmul_(self.windows[:, 0], self.before)


class HeadOp(ActivatedPointwiseOp):
    """Compiled `Head`."""

    history: History

    def __init__(self, block: Head) -> None:
        super().__init__(block)
        self.taps = block.taps

    @override
    def allocate(self, frames: int, workspace: Workspace) -> None:
        super().allocate(frames, workspace)
        # The samples of a frame sum one stride of each of the last `taps` rows: the last stride of
        # the oldest row, ..., the first stride of the current row. `parts` is a view (T, taps, up).
        windows = self.history.windows(self.taps).array
        strides = windows.reshape(frames, self.taps, self.taps, self.up)[:, :, ::-1]
        self.parts: Array = strides.diagonal(axis1=1, axis2=2).transpose(0, 2, 1)

    @override
    def run(self, out: Buffer) -> None:
        super().run(self.history.chunk)
        np.einsum("tkj->tj", self.parts, out=out.array.reshape(len(self.parts), self.up))


OPS: dict[type[nn.Module], Callable[[Any], Op]] = {
    Shift: ShiftOp,
    Stem: FramesOp,
    TokenMixer: FramesOp,
    ResidualUnit: ResidualUnitOp,
    Downsample: DownsampleOp,
    OutputProjection: ActivatedPointwiseOp,
    Upsample: UpsampleOp,
    Head: HeadOp,
}
