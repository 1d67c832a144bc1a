"""Two ways to run an encoder or decoder over a signal piece by piece, with carried state.

`BlockRunner` calls the blocks themselves: any device, any batch, both kinds of HAC. `StepRunner`
is for one signal of the wave kind on a CPU. Their states are interchangeable.

Letters used in shapes: B batch, T frames, C channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
from codectool.codecs.hac.network import Shift
from codectool.codecs.hac.rings import Scratch, as_buffer
from codectool.codecs.hac.steps import (
    DownStep,
    EntryStep,
    FramingStep,
    HeadStep,
    ShiftStep,
    Step,
    UnitStep,
    UpStep,
)

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

Prepared = list[tuple[Block, Step]]


@torch.no_grad()
def prepare(stack: Stack) -> Prepared:
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

    def __init__(self, prepared: Prepared, frames: int, channels: int) -> None:
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
