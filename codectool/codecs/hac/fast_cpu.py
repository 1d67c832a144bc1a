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

import numpy as np
import torch

from codectool.codecs.hac.blocks import Down, Head, Project, Stem, TokenMixer, Unit, Up
from codectool.codecs.hac.network import Shift
from codectool.codecs.hac.rings import Array, Buffer, Ring, Scratch
from codectool.codecs.hac.step_layers import (
    Entry,
    affine,
    after_snake,
    bend,
    half_period,
    sweep,
    taps_of,
)


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
