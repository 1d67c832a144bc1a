"""Causal building blocks of HAC on features ``(batch, time, channels)``.

Every block takes its input and the end of what came before, and returns its output and the new
end, so one piece of code serves training (one call per crop), files and streams. A start state of
zeros stands for silence before the beginning.

Blocks come as trained, with running scales and gains; `Stack.fold_` moves both into the weights for
inference, `codectool.codecs.hac.unfold` back out of them.

Letters used in shapes: B batch, T time, C channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from codectool.codecs.hac.activations import Smu, Snake
from codectool.codecs.hac.layers import (
    ActivatedPointwise,
    Branch,
    Foldable,
    Pointwise,
    RunningScale,
    depthwise,
    sigma_of,
    take_sigma,
)

State = list[Tensor]


class Block(Foldable, ABC):
    """A causal layer that carries the end of its input from call to call.

    Attributes:
        state_shape: what is carried for one item: ``(frames, ...)``; ``(0,)`` for nothing.
        macs: multiplications with a weight per input frame.
        down: input frames per output frame.
        up: output frames per input frame.
    """

    state_shape: tuple[int, ...] = (0,)
    macs: int
    down: int = 1
    up: int = 1

    @abstractmethod
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the frames of ``x``, which follow those of ``state``; return the new state."""

    def first_input(self, frame: int) -> int:
        """Number of the earliest input frame that output frame ``frame`` depends on."""
        return frame * self.down // self.up


class Stack(nn.Module):
    """Named blocks, one after the other."""

    def __init__(self, blocks: Sequence[tuple[str, Block]]) -> None:
        super().__init__()
        for name, block in blocks:
            self.add_module(name, block)

    def named_blocks(self) -> Iterator[tuple[str, Block]]:
        """Names and blocks in the order of computation."""
        for name, block in self.named_children():
            assert isinstance(block, Block)
            yield name, block

    def start(self, batch: int, device: torch.device) -> State:
        """State before the first frame."""
        return [
            torch.zeros(batch, *block.state_shape, device=device)
            for _, block in self.named_blocks()
        ]

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """As `Block.forward`, through all blocks."""
        after: State = []
        for (_, block), before in zip(self.named_blocks(), state, strict=True):
            x, end = block(x, before)
            after.append(end)
        return x, after

    def first_input(self, frame: int) -> int:
        """As `Block.first_input`, through all blocks."""
        for _, block in reversed(list(self.named_blocks())):
            frame = block.first_input(frame)
        return frame

    def fold_(self) -> None:
        """Fold everything inside."""
        for module in list(self.modules()):
            if isinstance(module, Foldable):
                module.fold_()


class Unit(Block):
    """Residual unit: depthwise over time, then two matrices with an activation between them.

        y = x + g * PW2( act( PW1( DW( S(x) ) ) ) )

    Args:
        channels: of input and output.
        activation: of the wide side.
        hidden: width of the wide side.
        kernel: frames that the depthwise convolution sees.
        dilation: distance between them.
    """

    def __init__(
        self, channels: int, activation: nn.Module, hidden: int, kernel: int, dilation: int = 1
    ) -> None:
        super().__init__()
        self.dilation = dilation
        self.state_shape = ((kernel - 1) * dilation, channels)
        self.macs = channels * (kernel + 2 * hidden)
        self.scale: nn.Module = RunningScale()
        self.depthwise = nn.Parameter(torch.randn(channels, kernel) * kernel**-0.5)
        self.branch = Branch(channels, activation, hidden)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, C)`` -> ``(B, T, C)``."""
        seen = torch.cat([state, self.scale(x)], dim=1)
        swept = depthwise(seen, self.depthwise, dilation=self.dilation)
        return x + self.branch(swept), seen[:, x.shape[1] :]

    def first_input(self, frame: int) -> int:
        """The reach of the depthwise convolution."""
        return frame - self.state_shape[0]

    @torch.no_grad()
    def fold_(self) -> None:
        """Fold the scale into the depthwise convolution."""
        self.depthwise.div_(take_sigma(self))

    @torch.no_grad()
    def unfold_(self) -> None:
        """Undo `fold_`."""
        self.depthwise.mul_(sigma_of(self))


class Down(Block):
    """Fewer frames: ``DWs( PW( act( S(x) ) ) )``, the depthwise kernel being twice the stride.

    With frames taken in groups of ``stride``, output frame t weighs group t and group t - 1.
    """

    def __init__(self, channels: int, activation: Snake | Smu, out: int, stride: int) -> None:
        super().__init__()
        self.down = stride
        self.state_shape = (stride, out)
        self.macs = out * (channels + 2)
        self.entry = ActivatedPointwise(activation, channels, out)
        self.depthwise = nn.Parameter(torch.randn(out, 2 * stride) * (2 * stride) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T stride, C)`` -> ``(B, T, out)``."""
        seen = torch.cat([state, self.entry(x)], dim=1)
        y = depthwise(seen, self.depthwise, self.bias, stride=self.down)
        return y, seen[:, -self.down :]

    def first_input(self, frame: int) -> int:
        """Two strides before the end of the output frame."""
        return (frame - 1) * self.down


class Up(Block):
    """More frames: ``DWTs( PW( act( S(x) ) ) )``, the matrix at the low rate where it is cheap.

    The transposed depthwise kernel is twice the stride, so every output frame weighs two input
    frames: ``z[t s + j] = w0[j] x[t] + w1[j] x[t - 1] + b``.
    """

    def __init__(self, channels: int, activation: Snake | Smu, out: int, stride: int) -> None:
        super().__init__()
        self.up = stride
        self.state_shape = (1, out)
        self.macs = out * (channels + 2 * stride)
        self.entry = ActivatedPointwise(activation, channels, out)
        self.depthwise = nn.Parameter(torch.randn(2, stride, out) * 2**-0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, C)`` -> ``(B, T stride, out)``."""
        seen = torch.cat([state, self.entry(x)], dim=1)
        now, before = seen[:, 1:, None, :], seen[:, :-1, None, :]
        y = torch.addcmul(now * self.depthwise[0] + self.bias, before, self.depthwise[1])
        return y.flatten(1, 2), seen[:, -1:]

    def first_input(self, frame: int) -> int:
        """The frame before the one it lies in."""
        return frame // self.up - 1


class Stem(Block):
    """Samples ``(B, T stride, 1)`` to features ``(B, T, C)``: a learned lapped transform.

    Each frame sees ``taps`` strides of samples, the last of which is its own.
    """

    def __init__(self, out: int, stride: int, taps: int) -> None:
        super().__init__()
        self.down = stride
        self.kernel = stride * taps
        self.state_shape = (self.kernel - stride, 1)
        self.macs = out * taps
        self.transform = Pointwise(self.kernel, out)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T stride, 1)`` -> ``(B, T, out)``."""
        seen = torch.cat([state, x], dim=1)
        frames = seen.squeeze(2).unfold(1, self.kernel, self.down)
        return self.transform(frames), seen[:, seen.shape[1] - self.state_shape[0] :]

    def first_input(self, frame: int) -> int:
        """All taps."""
        return frame * self.down - self.state_shape[0]


class Head(Block):
    """Features ``(B, T, C)`` to samples ``(B, T stride, 1)``: the transposed lapped transform.

    In float32 under autocast too: the rounding of its output would be a noise over all frequencies.

    Each frame makes ``taps`` strides of samples, from its own onward; each sample is the sum of
    what ``taps`` frames made.
    """

    def __init__(self, channels: int, activation: Snake | Smu, stride: int, taps: int) -> None:
        super().__init__()
        self.up = stride
        self.taps = taps
        self.state_shape = (taps - 1, taps * stride)
        self.macs = channels * taps * stride
        self.entry = ActivatedPointwise(activation, channels, taps * stride)
        with torch.no_grad():
            self.entry.pointwise.weight.div_(taps**0.5)  # unit variance of a sum of `taps` frames

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, C)`` -> ``(B, T stride, 1)``."""
        with torch.autocast(x.device.type, enabled=False):
            made = torch.cat([state, self.entry(x.float())], dim=1)
        frames = x.shape[1]
        late = [
            made[:, self.taps - 1 - tap :][:, :frames, tap * self.up : (tap + 1) * self.up]
            for tap in range(self.taps)
        ]
        wave = torch.stack(late).sum(0)
        return wave.flatten(1).unsqueeze(2), made[:, frames:]

    def first_input(self, frame: int) -> int:
        """All taps."""
        return frame // self.up - (self.taps - 1)


class Project(Block):
    """The last layer before the bits: ``PW( act( S(x) ) )``, in float32 under autocast too."""

    def __init__(self, channels: int, activation: Snake | Smu, out: int) -> None:
        super().__init__()
        self.macs = channels * out
        self.entry = ActivatedPointwise(activation, channels, out, bias=True)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, C)`` -> ``(B, T, out)``."""
        with torch.autocast(x.device.type, enabled=False):
            return self.entry(x.float()), state


class TokenMixer(Block):
    """Full causal convolution over the few channels of the tokens: the decoder's first layer."""

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.state_shape = (kernel - 1, channels)
        self.macs = kernel * channels * out
        self.pointwise = Pointwise(kernel * channels, out)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, C)`` -> ``(B, T, out)``."""
        seen = torch.cat([state, x], dim=1)
        shifted = [seen[:, tap : tap + x.shape[1]] for tap in range(self.kernel)]
        return self.pointwise(torch.cat(shifted, dim=-1)), seen[:, x.shape[1] :]

    def first_input(self, frame: int) -> int:
        """The whole kernel."""
        return frame - (self.kernel - 1)
