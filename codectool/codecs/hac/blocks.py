"""Causal blocks with explicit state, and those that both kinds of HAC use.

Every block maps its input and a state, the end of the input so far, to its output and the new
state. The same code therefore serves training (one call per crop), files and streams. A state of
zeros stands for silence before the beginning.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from codectool.codecs.hac.activations import Activation
from codectool.codecs.hac.layers import (
    ActivatedPointwise,
    Pointwise,
    PointwiseMLP,
    RunningScale,
    ScaledLayer,
    depthwise_conv,
)

State = list[Tensor]


def append(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Append new frames to a state; return all frames, and the last of them as the new state."""
    extended = torch.cat([state, x], dim=1)
    return extended, extended[:, x.shape[1] :]


class Block(nn.Module, ABC):
    """Causal layer whose memory of the past is an argument and a result.

    Attributes:
        state_shape: shape of the state of one item, input frames first; ``(0,)`` for no state.
        macs: multiply-accumulate operations with weights per input frame.
        down: input frames per output frame.
        up: output frames per input frame.
    """

    state_shape: tuple[int, ...] = (0,)
    macs: int = 0
    down: int = 1
    up: int = 1

    @abstractmethod
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the output of new frames ``x``, which follow the frames in ``state``.

        Returns:
            The output, and the new state: a view of a tensor as long as ``state`` and ``x``.
        """

    def initial_state(self, x: Tensor) -> Tensor:
        """Return the state before the start of the signals ``x`` ``(B, ...)``."""
        return torch.zeros(len(x), *self.state_shape, dtype=torch.float32, device=x.device)

    def first_input(self, frame: int) -> int:
        """Return the index of the earliest input frame that output frame ``frame`` depends on."""
        return frame * self.down // self.up - self.state_shape[0]


class Stack(nn.Sequential):
    """Named blocks in sequence; the state is the list of their states."""

    def __init__(self, blocks: Mapping[str, Block]) -> None:
        super().__init__(OrderedDict(blocks))

    @property
    def blocks(self) -> dict[str, Block]:
        """Blocks by name, in the order of computation."""
        return cast("dict[str, Block]", dict(self.named_children()))

    @override
    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run all blocks; ``state`` None stands for the start of the signal."""
        blocks = self.blocks.values()
        if state is None:
            state = [block.initial_state(x) for block in blocks]
        new_state: State = []
        for block, before in zip(blocks, state, strict=True):
            x, after = block(x, before)
            new_state.append(after)
        return x, new_state

    def first_input(self, frame: int) -> int:
        """Return the index of the earliest input frame that output frame ``frame`` depends on."""
        for block in reversed(self.blocks.values()):
            frame = block.first_input(frame)
        return frame

    def macs_per_second(self, frame_rate: float) -> float:
        """Return the multiply-accumulate operations at this number of input frames per second."""
        total = 0.0
        for block in self.blocks.values():
            total += block.macs * frame_rate
            frame_rate *= block.up / block.down
        return total

    def fold_(self) -> None:
        """Fold all scales and gains into the weights."""
        for module in list(self.modules()):
            if isinstance(module, ScaledLayer | PointwiseMLP):
                module.fold_()


class ResidualUnit(ScaledLayer, Block):
    """``x + MLP( DW( S(x) ) )`` on ``(B, T, C)``, DW being a depthwise convolution over time."""

    def __init__(
        self, channels: int, activation: nn.Module, hidden: int, kernel: int, dilation: int = 1
    ) -> None:
        super().__init__()
        self.dilation = dilation
        self.state_shape = ((kernel - 1) * dilation, channels)
        self.macs = channels * (kernel + 2 * hidden)
        self.scale = RunningScale()
        self.depthwise = nn.Parameter(torch.randn(channels, kernel) * kernel**-0.5)
        self.branch = PointwiseMLP(channels, activation, hidden)

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        extended, state = append(state, self.scale(x))
        convolved = depthwise_conv(extended, self.depthwise, dilation=self.dilation)
        return x + self.branch(convolved), state

    @override
    def absorb_division_(self, divisor: Tensor) -> None:
        self.depthwise.div_(divisor)


class OutputProjection(Block):
    """``PW( act( S(x) ) )``, the encoder's last layer; computed in float32 under autocast too."""

    def __init__(self, activation: Callable[[int], Activation], channels: int, out: int) -> None:
        super().__init__()
        self.macs = channels * out
        self.entry = ActivatedPointwise(activation, channels, out, bias=True)

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            return self.entry(x.float()), state


class TokenMixer(Block):
    """Causal convolution over the few channels of the tokens: the decoder's first layer."""

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.state_shape = (kernel - 1, channels)
        self.macs = kernel * channels * out
        self.pointwise = Pointwise(kernel * channels, out)

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        extended, state = append(state, x)
        shifted = [extended[:, tap : tap + x.shape[1]] for tap in range(self.kernel)]
        return self.pointwise(torch.cat(shifted, dim=-1)), state


def overlap_add(rows: Tensor) -> Tensor:
    """Add up overlapping rows of samples, each of ``taps`` hops: row t starts at hop t.

    Of the rows ``(B, taps - 1 + T, taps, hop)`` the first ``taps - 1`` are from the past. The
    result is ``(B, T hop, 1)``.
    """
    taps = rows.shape[2]
    frames = rows.shape[1] - (taps - 1)
    parts = [rows[:, taps - 1 - tap :][:, :frames, tap] for tap in range(taps)]
    return torch.stack(parts).sum(0).flatten(1).unsqueeze(2)
