"""The blocks of the wave kind once more, for one signal on a CPU: short pieces at little cost.

A token of one signal is a few hundred small products. Called as modules they cost more to begin
than to compute. Here every block has its memory laid out beforehand (see `rings`), its weights
turned to the order in which products are quickest, and as few operations as possible
(see `step_layers`). Results agree with the blocks within rounding.

Letters used in shapes: T frames of one piece, C channels.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from codectool.codecs.hac.activations import Snake
from codectool.codecs.hac.blocks import (
    Block,
    Down,
    Head,
    Project,
    Stack,
    State,
    Stem,
    TokenMixer,
    Unit,
    Up,
)
from codectool.codecs.hac.layers import ActivatedPointwise, Pointwise
from codectool.codecs.hac.network import Shift

Array = npt.NDArray[np.float32]


class Buffer(NamedTuple):
    """One piece of memory under two names: torch multiplies matrices, numpy does the rest.

    Attributes:
        tensor: ``(T, C)``.
        array: the same numbers.
    """

    tensor: Tensor
    array: Array


def as_buffer(tensor: Tensor) -> Buffer:
    """Name the memory of a CPU tensor twice."""
    return Buffer(tensor, tensor.numpy())


class Scratch:
    """Buffers that nobody needs any longer than one step: each name is the same memory for all."""

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def take(self, name: str, frames: int, channels: int) -> Buffer:
        """A buffer ``(T, C)`` of undefined content, shared with all others of the name."""
        size = frames * channels
        memory = self._memory.get(name)
        if memory is None or memory.numel() < size:
            memory = self._memory[name] = torch.empty(size)
        return as_buffer(memory[:size].view(frames, channels))


class Ring:
    """The end of a signal and the piece that follows it, rows of one buffer.

        | reach | piece | piece | ... | piece |

    Pieces are written one after the other, so that each finds the frames before it in place. Only
    after the last one the end of the signal is moved to the front.

    Args:
        reach: frames of the past that are needed.
        frames: frames of a piece.
        channels: of each frame.
    """

    def __init__(self, reach: int, frames: int, channels: int) -> None:
        self.reach = reach
        self.frames = frames
        self.turns = max(1, -(-reach // frames))
        self.turn = 0
        self.rows = torch.zeros(reach + self.turns * frames, channels)
        self.pieces = [
            as_buffer(self.rows[reach + turn * frames :][:frames]) for turn in range(self.turns)
        ]

    @property
    def piece(self) -> Buffer:
        """Where the next piece is written, ``(T, C)``."""
        return self.pieces[self.turn]

    def windows(self, taps: int, dilation: int = 1, stride: int = 1) -> list[Buffer]:
        """For each turn what each output frame sees: views ``(T / stride, K, C)``."""
        channels = self.rows.shape[1]
        size = (self.frames // stride, taps, channels)
        steps = (stride * channels, dilation * channels, 1)
        return [
            as_buffer(self.rows.as_strided(size, steps, turn * self.frames * channels))
            for turn in range(self.turns)
        ]

    def advance(self) -> None:
        """Let the piece be part of the past."""
        self.turn += 1
        if self.turn == self.turns:
            self.rows[: self.reach] = self.rows[self.turns * self.frames :]
            self.turn = 0

    def past(self) -> Tensor:
        """The frames before the next piece, ``(reach, C)``: a view."""
        return self.rows[self.turn * self.frames :][: self.reach]


LONG = 8192  # numbers in a piece from which one pass per tap is quicker than one for all taps
FEW = 2  # rows for which a matrix is multiplied without a library


class Affine:
    """A matrix and a bias, by one of two ways to multiply.

    For one or two rows a plain pass over the matrix is quicker than any library's product.

    Args:
        weight: ``(out, fan_in)``.
        bias: ``(out,)``.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight = as_buffer(weight.T.float().contiguous())
        self.bias = as_buffer(bias.float())

    def __call__(self, x: Buffer, out: Buffer) -> None:
        """Multiply rows ``(T, fan_in)`` and add the bias: ``(T, out)``."""
        if len(x.array) > FEW:
            torch.addmm(self.bias.tensor, x.tensor, self.weight.tensor, out=out.tensor)
            return
        np.einsum("tc,ch->th", x.array, self.weight.array, out=out.array)
        np.add(out.array, self.bias.array, out=out.array)


def affine(pointwise: Pointwise, scale: Tensor | None = None) -> Affine:
    """A layer, each of its outputs multiplied by ``scale`` if there is one."""
    assert pointwise.bias is not None
    weight, bias = pointwise.weight.double(), pointwise.bias.double()
    if scale is not None:
        weight, bias = weight * scale[:, None], bias * scale
    return Affine(weight, bias)


def after_snake(half_period: Tensor, pointwise: Pointwise) -> Affine:
    """A layer behind the activation, as applied to ``u - cos u``."""
    weight = pointwise.weight.double()
    bias = weight @ half_period
    if pointwise.bias is not None:
        bias = bias + pointwise.bias
    return Affine(weight * half_period, bias)


def half_period(activation: nn.Module) -> Tensor:
    """The h of an activation, float64 ``(H,)``."""
    assert isinstance(activation, Snake)
    return 0.5 * torch.exp(-activation.log_alpha.double())


def bend(angle: Array, cosine: Array) -> None:
    """Replace u by ``u - cos u``."""
    np.cos(angle, out=cosine)
    np.subtract(angle, cosine, out=angle)


def sweep(window: Buffer, taps: Buffer, out: Buffer) -> None:
    """Weigh the K frames ``(T, K, C)`` of each output frame by ``(K, C)`` and add them up."""
    if out.array.size < LONG:
        np.einsum("tkc,kc->tc", window.array, taps.array, out=out.array)
        return
    torch.mul(window.tensor[:, 0], taps.tensor[0], out=out.tensor)
    for tap in range(1, len(taps.tensor)):
        out.tensor.addcmul_(window.tensor[:, tap], taps.tensor[tap])


def taps_of(weight: Tensor) -> Buffer:
    """Depthwise weights ``(C, K)`` as ``(K, C)``."""
    return as_buffer(weight.T.clone(memory_format=torch.contiguous_format))


class Entry:
    """See `ActivatedPointwise`."""

    def __init__(self, layer: ActivatedPointwise) -> None:
        half = half_period(layer.activation)
        self.frequency = (1 / half).float()
        self.affine = after_snake(half, layer.pointwise)

    def allocate(self, frames: int, scratch: Scratch) -> Buffer:
        """Lay out the memory; return where the input goes."""
        width = len(self.frequency)
        self.angle = scratch.take("angle", frames, width)
        self.cosine = scratch.take("cosine", frames, width)
        return scratch.take("inlet", frames, width)

    def __call__(self, given: Buffer, out: Buffer) -> None:
        """Compute ``(T, C)`` -> ``(T, out)``."""
        torch.mul(given.tensor, self.frequency, out=self.angle.tensor)
        bend(self.angle.array, self.cosine.array)
        self.affine(self.angle, out)


class Step(ABC):
    """One block of an inference model, and from `begin` on its memory for one stream.

    Attributes:
        inlet: where the input of the next piece is to be written, ``(T, C)``.
        ring: what it remembers; None for nothing.
    """

    ring: Ring | None = None

    def begin(self, frames: int, scratch: Scratch) -> Step:
        """A copy of the same weights for a stream in pieces of ``frames`` input frames."""
        step = copy.copy(self)
        step.allocate(frames, scratch)
        return step

    @abstractmethod
    def allocate(self, frames: int, scratch: Scratch) -> None:
        """Lay out the memory."""

    @property
    @abstractmethod
    def inlet(self) -> Buffer:
        """Where the input goes."""

    @abstractmethod
    def run(self, out: Buffer) -> None:
        """Compute the output frames of what was written to `inlet`."""


class RingStep(Step):
    """A step whose input is what it remembers."""

    ring: Ring

    @property
    def inlet(self) -> Buffer:
        """The next rows of the ring."""
        return self.ring.piece


class FlatStep(Step):
    """A step that forgets its input.

    Attributes:
        given: the memory of `inlet`.
    """

    given: Buffer

    @property
    def inlet(self) -> Buffer:
        """Memory shared with the other steps."""
        return self.given


class ShiftStep(FlatStep):
    """See `Shift`."""

    def __init__(self, block: Shift) -> None:
        self.offset: Array = block.offset.numpy().copy()

    def allocate(self, frames: int, scratch: Scratch) -> None:
        """As `Step.allocate`."""
        self.given = scratch.take("inlet", frames, 1)

    def run(self, out: Buffer) -> None:
        """As `Step.run`."""
        np.add(self.given.array, self.offset, out=out.array)


class FramingStep(RingStep):
    """See `Stem` and `TokenMixer`: one matrix for all that a frame sees."""

    def __init__(self, block: Stem | TokenMixer) -> None:
        self.kernel, self.stride = block.kernel, block.down
        self.reach, self.channels = block.state_shape
        self.affine = affine(block.transform if isinstance(block, Stem) else block.pointwise)

    def allocate(self, frames: int, scratch: Scratch) -> None:
        """As `Step.allocate`."""
        self.ring = Ring(self.reach, frames, self.channels)
        self.windows = self.ring.windows(self.kernel, stride=self.stride)
        self.seen = scratch.take("seen", frames // self.stride, self.kernel * self.channels)
        self.frames_seen = self.seen.array.reshape(-1, self.kernel, self.channels)

    def run(self, out: Buffer) -> None:
        """As `Step.run`."""
        np.copyto(self.frames_seen, self.windows[self.ring.turn].array)
        self.affine(self.seen, out)


class UnitStep(RingStep):
    """See `Unit`."""

    def __init__(self, block: Unit) -> None:
        half = half_period(block.branch.activation)
        self.reach, self.channels = block.state_shape
        self.dilation = block.dilation
        self.taps = taps_of(block.depthwise)
        self.widen = affine(block.branch.widen, 1 / half)
        self.narrow = after_snake(half, block.branch.narrow)

    def allocate(self, frames: int, scratch: Scratch) -> None:
        """As `Step.allocate`."""
        self.ring = Ring(self.reach, frames, self.channels)
        self.windows = self.ring.windows(len(self.taps.array), self.dilation)
        self.swept = scratch.take("swept", frames, self.channels)
        self.angle = scratch.take("angle", frames, len(self.widen.bias.array))
        self.cosine = scratch.take("cosine", frames, len(self.widen.bias.array))

    def run(self, out: Buffer) -> None:
        """As `Step.run`."""
        sweep(self.windows[self.ring.turn], self.taps, self.swept)
        self.widen(self.swept, self.angle)
        bend(self.angle.array, self.cosine.array)
        self.narrow(self.angle, out)
        np.add(out.array, self.ring.piece.array, out=out.array)


class EntryStep(FlatStep):
    """A step that begins with an activation; see `Project`, which is nothing else."""

    def __init__(self, block: Project | Down | Up | Head) -> None:
        self.entry = Entry(block.entry)

    def allocate(self, frames: int, scratch: Scratch) -> None:
        """As `Step.allocate`."""
        self.entry = copy.copy(self.entry)
        self.given = self.entry.allocate(frames, scratch)

    def run(self, out: Buffer) -> None:
        """As `Step.run`."""
        self.entry(self.given, out)


class DownStep(EntryStep):
    """See `Down`."""

    ring: Ring

    def __init__(self, block: Down) -> None:
        super().__init__(block)
        self.stride = block.down
        self.taps = taps_of(block.depthwise)
        self.bias: Array = block.bias.numpy().copy()

    def allocate(self, frames: int, scratch: Scratch) -> None:
        """As `Step.allocate`."""
        super().allocate(frames, scratch)
        self.ring = Ring(self.stride, frames, len(self.bias))
        self.windows = self.ring.windows(2 * self.stride, stride=self.stride)

    def run(self, out: Buffer) -> None:
        """As `Step.run`."""
        self.entry(self.given, self.ring.piece)
        window = self.windows[self.ring.turn].array
        np.einsum("tkc,kc->tc", window, self.taps.array, out=out.array)
        np.add(out.array, self.bias, out=out.array)


class UpStep(EntryStep):
    """See `Up`."""

    ring: Ring

    def __init__(self, block: Up) -> None:
        super().__init__(block)
        self.now, self.before = block.depthwise.clone().unbind(0)
        self.bias = block.bias.clone()

    def allocate(self, frames: int, scratch: Scratch) -> None:
        """As `Step.allocate`."""
        super().allocate(frames, scratch)
        self.ring = Ring(1, frames, len(self.bias))
        self.windows = self.ring.windows(2)

    def run(self, out: Buffer) -> None:
        """As `Step.run`."""
        self.entry(self.given, self.ring.piece)
        window = self.windows[self.ring.turn].tensor[:, :, None]
        spread = out.tensor.view(len(window), *self.now.shape)
        torch.addcmul(self.bias, window[:, 1], self.now, out=spread)
        spread.addcmul_(window[:, 0], self.before)


class HeadStep(EntryStep):
    """See `Head`."""

    ring: Ring

    def __init__(self, block: Head) -> None:
        super().__init__(block)
        self.stride, self.taps = block.up, block.taps

    def allocate(self, frames: int, scratch: Scratch) -> None:
        """As `Step.allocate`."""
        super().allocate(frames, scratch)
        width = self.taps * self.stride
        self.ring = Ring(self.taps - 1, frames, width)
        # k frames after the earliest that counts, its part is k strides before the last one
        size = (frames, self.taps, self.stride)
        self.parts: list[Array] = [
            self.ring.rows.as_strided(
                size, (width, width - self.stride, 1), turn * frames * width + width - self.stride
            ).numpy()
            for turn in range(self.ring.turns)
        ]

    def run(self, out: Buffer) -> None:
        """As `Step.run`."""
        self.entry(self.given, self.ring.piece)
        parts = self.parts[self.ring.turn]
        np.einsum("tkj->tj", parts, out=out.array.reshape(len(parts), self.stride))


STEPS: dict[type[Block], Callable[[Any], Step]] = {
    Shift: ShiftStep,
    Stem: FramingStep,
    TokenMixer: FramingStep,
    Unit: UnitStep,
    Down: DownStep,
    Up: UpStep,
    Head: HeadStep,
    Project: EntryStep,
}

Compiled = list[tuple[Block, Step]]


@torch.no_grad()
def prepare(stack: Stack) -> Compiled:
    """Copy the weights of a folded stack of the wave kind into steps."""
    return [(block, STEPS[type(block)](block)) for _, block in stack.named_blocks()]


class Runner(ABC):
    """A stack and what it remembers of the pieces so far."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Compute the next piece ``(B, T, C)``."""

    @abstractmethod
    def state(self) -> State:
        """A copy of what is remembered, as `Stack.start` lays it out."""

    @abstractmethod
    def load(self, state: State) -> None:
        """Go on from a state instead, which stays as it is."""


class BlockRunner(Runner):
    """The blocks, one call each."""

    def __init__(self, stack: Stack, batch: int, device: torch.device) -> None:
        self.stack = stack
        self._state = stack.start(batch, device)

    def __call__(self, x: Tensor) -> Tensor:
        """As `Runner.__call__`."""
        y: Tensor
        y, after = self.stack(x, self._state)
        # copies, so that the state does not keep the whole piece in memory
        self._state = [end.clone() for end in after]
        return y

    def state(self) -> State:
        """As `Runner.state`."""
        return list(self._state)

    def load(self, state: State) -> None:
        """As `Runner.load`."""
        self._state = state


class StepRunner(Runner):
    """Steps in memory of their own, for pieces of one length.

    Args:
        prepared: from `prepare`.
        frames: input frames of each piece.
        channels: of the output.
    """

    def __init__(self, prepared: Compiled, frames: int, channels: int) -> None:
        scratch = Scratch()
        self.shapes = [block.state_shape for block, _ in prepared]
        self.steps = []
        for block, step in prepared:
            self.steps.append(step.begin(frames, scratch))
            frames = frames // block.down * block.up
        self.shape = (1, frames, channels)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """As `Runner.__call__`, one signal only."""
        made = torch.empty(self.shape)
        self.steps[0].inlet.tensor.copy_(x[0])
        outlets = [step.inlet for step in self.steps[1:]]
        # infinities pass through without a word, as they do in torch
        with np.errstate(all="ignore"):
            for step, outlet in zip(self.steps, [*outlets, as_buffer(made[0])], strict=True):
                step.run(outlet)
        for step in self.steps:
            if step.ring is not None:
                step.ring.advance()
        return made

    def state(self) -> State:
        """As `Runner.state`."""
        return [
            torch.zeros(1, *shape) if step.ring is None else step.ring.past()[None].clone()
            for step, shape in zip(self.steps, self.shapes, strict=True)
        ]

    @torch.no_grad()
    def load(self, state: State) -> None:
        """As `Runner.load`."""
        for step, end in zip(self.steps, state, strict=True):
            if step.ring is not None:
                step.ring.past().copy_(end[0])
