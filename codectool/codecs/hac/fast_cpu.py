"""CPU form of the waveform HAC for one signal, with little overhead per chunk.

A token takes a few hundred small operations, which as PyTorch modules spend more time on dispatch
than on arithmetic. Here the weights are copied once into the layout with the fastest products, the
buffers are allocated once per stream, and small operations use NumPy, whose calls cost less.
Results agree with `Stack` within rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from codectool.codecs.hac.blocks import Block, OutputProjection, ResidualUnit, Stack, TokenMixer
from codectool.codecs.hac.cpu_operations import (
    Array,
    Bind,
    Buffer,
    DepthwiseConv,
    History,
    JoinedMemory,
    Operation,
    Workspace,
    affine,
    half_period,
    residual_unit,
    snake_,
)
from codectool.codecs.hac.fast_source import harmonic_noise, low_pass, pitch_tracker
from codectool.codecs.hac.source import LowPass
from codectool.codecs.hac.voice import VoiceTail
from codectool.codecs.hac.waveform import Downsample, Head, Shift, Stem, Upsample

State = list[Array]


class Executor:
    """Compiled blocks for chunks of one length; it has the interface of `Stack`.

    Args:
        stack: blocks and buffers, which several executors may share.
        frames: input frames per chunk; the last chunk may be shorter.
        out_channels: channels of the output.
    """

    def __init__(self, stack: CompiledStack, frames: int, out_channels: int) -> None:
        self._stack = stack
        self._frames = frames
        self._out_channels = out_channels

    @torch.no_grad()
    def __call__(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Compute one chunk ``(1, T, C)``; ``state`` None stands for the start of the signal."""
        frames = x.shape[1]
        if state is None:
            state = [np.zeros(block.state_shape, np.float32) for block, _ in self._stack.blocks]
        operations, out_frames = allocation = self._stack.take(frames)
        y = torch.empty(1, out_frames, self._out_channels, dtype=torch.float32, device="cpu")
        operations[0].input_buffer.tensor.copy_(x[0])
        outputs = [operation.input_buffer for operation in operations[1:]] + [Buffer(y[0])]
        new_state = []
        # infinite values pass without a warning, as in torch
        with torch.autocast("cpu", enabled=False), np.errstate(all="ignore"):
            for (_, run, memory), before, out in zip(operations, state, outputs, strict=True):
                if memory:
                    memory.load(before)
                run(out)
                new_state.append(memory.save() if memory else before)
        if frames == self._frames:
            self._stack.give_back(frames, allocation)
        return y, new_state


class CompiledStack:
    """Weights of a folded stack in the layout of the executors, and buffers for reuse.

    Args:
        stack: the folded stack.
        kept_frames: longest chunk whose buffers are kept after a call.

    Attributes:
        blocks: blocks with their weights.
    """

    def __init__(self, stack: Stack, kept_frames: int) -> None:
        with torch.no_grad():
            self.blocks = compile_blocks(stack)
        self._kept_frames = kept_frames
        self._free: defaultdict[int, list[Allocation]] = defaultdict(list)

    def take(self, frames: int) -> Allocation:
        """Return operations that no other thread uses: new memory is slow, above all in threads."""
        try:
            return self._free[frames].pop()
        except IndexError:
            return allocate(self.blocks, frames)

    def give_back(self, frames: int, allocation: Allocation) -> None:
        """Keep operations for the next call of `take`, except those of long chunks."""
        if frames <= self._kept_frames:
            self._free[frames].append(allocation)


def compile_blocks(stack: Stack) -> list[CompiledBlock]:
    """Copy the weights of the blocks of a folded stack."""
    blocks = cast("Iterable[Block]", stack)
    return [(block, COMPILE[type(block)](block)) for block in blocks]


def allocate(blocks: Sequence[CompiledBlock], frames: int) -> Allocation:
    """Return operations for chunks of ``frames`` frames, and the number of output frames."""
    workspace, operations = Workspace(), []
    for block, bind in blocks:
        operations.append(bind(frames, workspace))
        frames = frames // block.down * block.up
    return operations, frames


def _shift(block: Shift) -> Bind:
    offset: Array = block.offset.numpy().copy()

    def bind(frames: int, workspace: Workspace) -> Operation:
        x = workspace.take("input", frames, 1)
        return Operation(x, lambda out: np.add(x.array, offset, out=out.array))

    return bind


def _frames_product(block: Stem | TokenMixer) -> Bind:
    # one matrix for all that a frame sees
    product = affine(block.transform if isinstance(block, Stem) else block.pointwise)

    def bind(frames: int, workspace: Workspace) -> Operation:
        history = History(block.state_shape, frames)
        windows = history.windows(block.kernel, stride=block.down).array
        count, kernel, channels = windows.shape
        unfolded = workspace.take("unfolded", count, kernel * channels)

        def run(out: Buffer) -> None:
            np.copyto(unfolded.array.reshape(windows.shape), windows)
            product(unfolded, out)

        return Operation(history.chunk, run, history)

    return bind


def _residual_unit(block: ResidualUnit) -> Bind:
    branch = block.branch
    layers = branch.widen, branch.activation, branch.narrow
    return residual_unit(block.depthwise, *layers, block.dilation)


def _activated_pointwise(block: OutputProjection | Downsample | Upsample | Head) -> Bind:
    # a whole `OutputProjection`, but only the first part of the blocks that change the rate
    half = half_period(block.entry.activation)
    frequency = (1 / half).float()
    product = affine(block.entry.pointwise, before=half)

    def bind(frames: int, workspace: Workspace) -> Operation:
        x, angle, cosine = (
            workspace.take(name, frames, len(half)) for name in ("input", "angle", "cosine")
        )

        def run(out: Buffer) -> None:
            torch.mul(x.tensor, frequency, out=angle.tensor)
            snake_(angle.array, cosine.array)
            product(angle, out)

        return Operation(x, run)

    return bind


def _downsample(block: Downsample) -> Bind:
    bind_entry = _activated_pointwise(block)
    convolution = DepthwiseConv(block.depthwise, block.bias.clone(), block.down)

    def bind(frames: int, workspace: Workspace) -> Operation:
        entry = bind_entry(frames, workspace)
        history = History(block.state_shape, frames)
        convolve = convolution.bind(history)

        def run(out: Buffer) -> None:
            entry.run(history.chunk)
            if (y := convolve(out)) is not out:
                np.copyto(out.array, y.array)

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
    pitch, source = pitch_tracker(tail.pitch), harmonic_noise(tail.source)
    middle = compile_blocks(tail.middle)
    last = compile_blocks(Stack({**tail.last.blocks, "head": tail.head, "filter": tail.low_pass}))
    stem = _frames_product(tail.stem)

    def bind(frames: int, workspace: Workspace) -> Operation:
        # these outlive the operations inside
        x, track, upper = (
            Buffer(torch.empty(rows, width, dtype=torch.float32, device="cpu"))
            for rows, width in ((frames, tail.in_channels), (frames, 3), (frames * tail.up, 1))
        )
        pitch_operation = pitch(x, workspace)
        source_operation = source(x, track, workspace)
        first, rows = allocate(middle, frames)
        stem_operation = stem(frames * tail.up, workspace)
        second, _ = allocate(last, rows)
        hidden = second[0].input_buffer
        added = Buffer(torch.empty_like(hidden.tensor))
        # in the order of their states in the tail's
        operations = (pitch_operation, source_operation, *first, stem_operation, *second)
        memory = JoinedMemory(operation.memory for operation in operations)

        def run(out: Buffer) -> None:
            pitch_operation.run(track)
            source_operation.run(upper)
            np.copyto(stem_operation.input_buffer.array, upper.array)
            stem_operation.run(added)
            np.copyto(first[0].input_buffer.array, x.array)
            run_all(first, hidden)
            np.add(hidden.array, added.array, out=hidden.array)
            run_all(second, out)
            np.add(out.array, upper.array, out=out.array)

        return Operation(x, run, memory)

    return bind


def run_all(operations: Sequence[Operation], out: Buffer) -> None:
    """Run operations whose input and past are set, one after the other."""
    outputs = [*(operation.input_buffer for operation in operations[1:]), out]
    for operation, result in zip(operations, outputs, strict=True):
        operation.run(result)


CompiledBlock = tuple[Block, Bind]
Allocation = tuple[list[Operation], int]  # operations with buffers, and output frames

COMPILE: dict[type[Block], Callable[[Any], Bind]] = {
    Shift: _shift,
    Stem: _frames_product,
    TokenMixer: _frames_product,
    ResidualUnit: _residual_unit,
    Downsample: _downsample,
    OutputProjection: _activated_pointwise,
    Upsample: _upsample,
    Head: _head,
    LowPass: low_pass,
    VoiceTail: _voice_tail,
}
