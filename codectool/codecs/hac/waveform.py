"""Blocks of the HAC presets at 1.35 kbps on samples ``(B, N, 1)``.

samples -> normalise -> encoder -> signs
signs -> decoder -> undo normalisation -> samples
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from typing_extensions import override

from codectool.codecs.hac.activations import Snake
from codectool.codecs.hac.blocks import (
    Block,
    OutputProjection,
    ResidualUnit,
    Stack,
    append,
    overlap_add,
)
from codectool.codecs.hac.config import HacConfig
from codectool.codecs.hac.layers import ActivatedPointwise, Pointwise, RunningNorm, depthwise_conv
from codectool.nn.distributed import all_reduce_mean


def wave_encoder(config: HacConfig) -> Stack:
    """Build the encoder: normalised samples ``(B, N, 1)`` to ``(B, N / hop, num_bits)``.

    The stem takes the signal to a low rate at once: operations at the rate of the samples are the
    most expensive.
    """
    widths, hidden = config.encoder_channels, config.encoder_hidden
    blocks: dict[str, Block] = {"stem": Stem(widths[0], config.strides[0], config.taps)}
    for stage, dilations in enumerate(config.encoder_dilations):
        if stage > 0:
            blocks[f"down{stage}"] = Downsample(
                widths[stage - 1], widths[stage], config.strides[stage]
            )
        blocks |= residual_units(stage, widths[stage], hidden[stage], config.kernel, dilations)
    blocks["project"] = OutputProjection(Snake, widths[-1], config.num_bits)
    return Stack(blocks)


def residual_units(
    stage: int, width: int, hidden: int, kernel: int, dilations: tuple[int, ...]
) -> dict[str, Block]:
    """Build the residual units of a stage by name."""
    return {
        f"unit{stage}_{number}": ResidualUnit(width, Snake(hidden), hidden, kernel, dilation)
        for number, dilation in enumerate(dilations)
    }


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

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        extended, state = append(state, x)
        frames = extended.squeeze(2).unfold(1, self.kernel, self.down)
        return self.transform(frames), state


class Downsample(Block):
    """``(B, T stride, C)`` -> ``(B, T, out)``: ``DW( PW( Snake( S(x) ) ) )``.

    The kernel of the depthwise convolution DW is two strides long.
    """

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.down = stride
        self.state_shape = (stride, out)
        self.macs = out * (channels + 2)
        self.entry = ActivatedPointwise(Snake, channels, out)
        self.depthwise = nn.Parameter(torch.randn(out, 2 * stride) * (2 * stride) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        extended, state = append(state, self.entry(x))
        return depthwise_conv(extended, self.depthwise, self.bias, stride=self.down), state


class Upsample(Block):
    """``(B, T, C)`` -> ``(B, T stride, out)``: ``DWT( PW( Snake( S(x) ) ) )``.

    The matrix is applied at the low rate, where it is cheap. The kernel of the transposed depthwise
    convolution DWT is two strides long, so every output frame weighs two input frames:
    ``y[t s + j] = w0[j] x[t] + w1[j] x[t - 1] + b``.
    """

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.up = stride
        self.state_shape = (1, out)
        self.macs = out * (channels + 2 * stride)
        self.entry = ActivatedPointwise(Snake, channels, out)
        self.depthwise = nn.Parameter(torch.randn(2, stride, out) * 2**-0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        extended, state = append(state, self.entry(x))
        now, before = extended[:, 1:, None, :], extended[:, :-1, None, :]
        y = torch.addcmul(now * self.depthwise[0] + self.bias, before, self.depthwise[1])
        return y.flatten(1, 2), state


class OutputBlock(Block):
    """Base of the last blocks of a decoder."""

    @abstractmethod
    def scale_output_(self, factor: Tensor) -> None:
        """Multiply all samples by a factor, by way of the weights."""


class Head(OutputBlock):
    """Features ``(B, T, C)`` to samples ``(B, T stride, 1)``: the transposed lapped transform.

    Each frame contributes to ``taps`` strides of samples, from its own onward. Computed in float32
    under autocast too: rounding the output would add broadband noise.
    """

    def __init__(self, channels: int, stride: int, taps: int) -> None:
        super().__init__()
        self.up = stride
        self.taps = taps
        self.state_shape = (taps - 1, taps * stride)
        self.macs = channels * taps * stride
        self.entry = ActivatedPointwise(Snake, channels, taps * stride)
        with torch.no_grad():
            self.entry.pointwise.weight.div_(taps**0.5)  # unit variance of a sum of `taps` frames

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            extended, state = append(state, self.entry(x.float()))
        return overlap_add(extended.reshape(*extended.shape[:2], self.taps, self.up)), state

    @override
    def scale_output_(self, factor: Tensor) -> None:
        self.entry.pointwise.weight.mul_(factor)


class WaveNorm(RunningNorm):
    """Input normalisation by running mean and variance of all training audio: two scalars.

    The tokens still carry the level of a signal, since all signals share these two numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(1))
        self.variance = nn.Buffer(torch.ones(1))

    @override
    def update_(self, x: Tensor, weight: Tensor) -> None:
        self.mean.lerp_(all_reduce_mean(x.mean()), weight)
        self.variance.lerp_(all_reduce_mean((x - self.mean).square().mean()), weight)

    @override
    def normalise(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation()

    def restore(self, x: Tensor) -> Tensor:
        """Undo the normalisation."""
        return x * self.deviation() + self.mean

    def deviation(self) -> Tensor:
        """Return the divisor."""
        return torch.sqrt(self.variance + 1e-8)

    @torch.no_grad()
    def fold_input_(self, first: Block) -> Block:
        """Scale the weights of the stem; return the remaining shift.

        The shift cannot go into the stem's bias: the zeros before the start of the signal are zeros
        of the *normalised* signal.
        """
        assert isinstance(first, Stem)
        first.transform.weight.div_(self.deviation())
        return Shift(-self.mean)

    @torch.no_grad()
    def fold_output_(self, last: Block) -> Block:
        """Scale the weights of the head; return the remaining shift."""
        assert isinstance(last, OutputBlock)
        last.scale_output_(self.deviation())
        return Shift(self.mean)


class Shift(Block):
    """Addition of a constant: a folded `WaveNorm`."""

    def __init__(self, offset: Tensor) -> None:
        super().__init__()
        self.offset = nn.Buffer(offset.clone())

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return x + self.offset, state
