"""Blocks of the HAC presets at 3.6 kbps (v1.2, v1.3) on spectra ``(B, T, F, C)``.

    samples -> STFT -> normalise bins -> encoder -> signs
    signs -> decoder -> undo normalisation -> inverse STFT -> samples

Convolutions are causal over time; over frequency they are padded on both sides.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.codecs.hac.activations import Smu
from codectool.codecs.hac.blocks import (
    Block,
    OutputProjection,
    ResidualUnit,
    Stack,
    TokenMixer,
    append,
    overlap_add,
)
from codectool.codecs.hac.config import SpectralHacConfig
from codectool.codecs.hac.layers import (
    ActivatedPointwise,
    Pointwise,
    PointwiseMLP,
    RunningNorm,
    RunningScale,
    ScaledLayer,
    depthwise_conv,
)
from codectool.nn.distributed import all_reduce_mean


def spectral_encoder(config: SpectralHacConfig) -> Stack:
    """Build the encoder: normalised spectra ``(B, T, F, 2)`` to ``(B, T, num_bits)``."""
    bins, channels = config.stage_bins, config.channels
    blocks: dict[str, Block] = {"first": SpectrumConv(2, channels[0], bins[0])}
    for stage, units in enumerate(config.encoder_units):
        if stage > 0:
            blocks[f"down{stage}"] = FrequencyDownsample(
                channels[stage - 1], channels[stage], config.strides[stage - 1], bins[stage - 1]
            )
        blocks |= _units(config, stage, units, bins[stage])
    blocks["merge"] = FrameLinear(bins[-1] * channels[-1], (config.depth_channels,))
    blocks |= _depth_units(config, config.encoder_depth)
    blocks["project"] = OutputProjection(Smu, config.depth_channels, config.num_bits)
    return Stack(blocks)


def spectral_decoder(config: SpectralHacConfig) -> Stack:
    """Build the decoder: signs ``(B, T, num_bits)`` to normalised spectra ``(B, T, F, 2)``."""
    bins, channels = config.stage_bins, config.channels
    blocks: dict[str, Block] = {
        "first": TokenMixer(config.num_bits, config.depth_channels, kernel=1)
    }
    blocks |= _depth_units(config, config.decoder_depth)
    blocks["split"] = FrameLinear(config.depth_channels, (bins[-1], channels[-1]))
    for stage in reversed(range(len(channels))):
        blocks |= _units(config, stage, config.decoder_units[stage], bins[stage])
        if stage > 0:
            blocks[f"up{stage}"] = FrequencyUpsample(
                channels[stage], channels[stage - 1], config.strides[stage - 1], bins[stage]
            )
    blocks["last"] = LastSpectrumConv(channels[0], 2, bins[0])
    return Stack(blocks)


def _units(config: SpectralHacConfig, stage: int, count: int, num_bins: int) -> dict[str, Block]:
    return {f"unit{stage}_{i}": SpectrumUnit(config, stage, num_bins) for i in range(count)}


def _depth_units(config: SpectralHacConfig, count: int) -> dict[str, Block]:
    """Build the units of the stage next to the tokens, which has no frequency axis."""
    width, hidden, kernel = config.depth_channels, config.depth_hidden, config.depth_kernel
    return {
        f"depth_{i}": ResidualUnit(
            width, unit_activation(config, hidden, over_frequency=False), hidden, kernel
        )
        for i in range(count)
    }


def unit_activation(config: SpectralHacConfig, hidden: int, over_frequency: bool) -> nn.Module:
    """Build the activation on the wide side of a unit."""
    if not config.response_norm:
        return Smu(hidden)
    return nn.Sequential(Smu(hidden), ResponseNorm(hidden, over_frequency))


class STFT(Block):
    """Samples ``(B, T hop, 1)`` to spectra ``(B, T, F, 2)``, real and imaginary parts.

    Frame t sees the ``window`` samples that end with the last sample of hop t.
    """

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        self.window = window
        self.down = hop
        self.state_shape = (window - hop, 1)

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        extended, state = append(state, x)
        frames = extended.squeeze(2).unfold(1, self.window, self.down)
        bins = torch.fft.rfft(frames * square_root_hann(self.window, x.device))[..., :-1]
        return torch.view_as_real(bins), state


class InverseSTFT(Block):
    """Spectra ``(B, T, F, 2)`` to samples ``(B, T hop, 1)``, ``window - hop`` samples late.

    A hop is returned once no later frame can contribute to it. The Nyquist bin is zero.
    """

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        self.window = window
        self.up = hop
        self.overlap = window // hop
        self.state_shape = (self.overlap - 1, self.overlap, hop)

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        bins = F.pad(torch.view_as_complex(x.float().contiguous()), (0, 1))
        window = square_root_hann(self.window, x.device) * (2 / self.overlap)
        hops = (torch.fft.irfft(bins) * window).reshape(*x.shape[:2], self.overlap, self.up)
        extended, state = append(state, hops)
        return overlap_add(extended), state


def square_root_hann(length: int, device: torch.device) -> Tensor:
    """Return the window of analysis and synthesis; with hop ``length / 4`` its squares sum to 2."""
    window = torch.hann_window(length, dtype=torch.float64, device="cpu")
    return window.sqrt().float().to(device)


class BinNorm(RunningNorm):
    """Division of each bin by its running root mean square, which removes the tilt of speech.

    Real and imaginary part of a bin share one number, the deviation of the complex value.
    """

    def __init__(self, num_bins: int) -> None:
        super().__init__()
        self.mean_square = nn.Buffer(torch.ones(num_bins))

    @override
    def update_(self, x: Tensor, weight: Tensor) -> None:
        power = x.float().square().sum(-1).mean((0, 1))
        self.mean_square.lerp_(all_reduce_mean(power), weight)

    @override
    def normalise(self, x: Tensor) -> Tensor:
        return x / self.deviation()

    def restore(self, x: Tensor) -> Tensor:
        """Undo the normalisation."""
        return x * self.deviation()

    def deviation(self) -> Tensor:
        """Return the divisor, ``(F, 1)``."""
        return torch.sqrt(self.mean_square + 1e-8)[:, None]

    @torch.no_grad()
    def fold_input_(self, first: Block) -> Block:
        """Return a block that normalises.

        Unlike the scale of a waveform, the gains cannot go into the next layer, which applies the
        same weights to all bins.
        """
        return BinGain(1 / self.deviation())

    @torch.no_grad()
    def fold_output_(self, last: Block) -> Block:
        """Return a block that restores."""
        return BinGain(self.deviation())


class BinGain(Block):
    """Multiplication of each bin by a constant: a folded `BinNorm`."""

    def __init__(self, gain: Tensor) -> None:
        super().__init__()
        self.gain = nn.Buffer(gain.clone())

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.gain, state


class SpectrumConv(Block):
    """3 x 3 convolution over time and frequency, ``(B, T, F, C)`` -> ``(B, T, F, out)``."""

    def __init__(self, channels: int, out: int, num_bins: int) -> None:
        super().__init__()
        self.state_shape = (2, num_bins, channels)
        self.macs = num_bins * 9 * channels * out
        fan_in = 9 * channels
        self.weight = nn.Parameter(torch.randn(out, channels, 3, 3) * fan_in**-0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        extended, state = append(state, x)
        y = F.conv2d(extended.permute(0, 3, 1, 2), self.weight, self.bias, padding=(0, 1))
        return y.permute(0, 2, 3, 1), state


class LastSpectrumConv(ScaledLayer, SpectrumConv):
    """``Conv( act( S(x) ) )``, the decoder's last layer."""

    def __init__(self, channels: int, out: int, num_bins: int) -> None:
        super().__init__(channels, out, num_bins)
        self.scale = RunningScale()
        self.activation = Smu(channels)

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(self.activation(self.scale(x)), state)

    @override
    def absorb_division_(self, divisor: Tensor) -> None:
        self.activation.absorb_division_(divisor)
        self.weight.div_(divisor)


class ResponseNorm(nn.Module):
    """Global response normalization (ConvNeXt V2, arXiv 2301.00808) made causal.

    The response of a channel is its norm over the frequencies of one frame, never over time;
    without a frequency axis it is the channel's magnitude.
    """

    def __init__(self, channels: int, over_frequency: bool) -> None:
        super().__init__()
        self.over_frequency = over_frequency
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    @override
    def forward(self, x: Tensor) -> Tensor:
        response = torch.linalg.vector_norm(x, dim=-2, keepdim=True) if self.over_frequency else x
        response = response.abs()
        relative = response / (response.mean(-1, keepdim=True) + 1e-6)
        y: Tensor = x + self.gamma * (x * relative) + self.beta
        return y


class SpectrumUnit(ScaledLayer, Block):
    """``x + MLP( DWf( [PW]( DWt( S(x) ) ) ) )`` on ``(B, T, F, C)``.

    DWt and DWf are depthwise convolutions over time and over frequency. v1.2 has a matrix PW
    between them, v1.3 has not.
    """

    def __init__(self, config: SpectralHacConfig, stage: int, num_bins: int) -> None:
        super().__init__()
        channels, hidden = config.channels[stage], config.hidden[stage]
        time, frequency = config.time_kernel, config.frequency_kernel
        self.state_shape = (time - 1, num_bins, channels)
        mixed = channels if config.mixing else 0
        self.macs = num_bins * channels * (time + mixed + frequency + 2 * hidden)
        self.scale = RunningScale()
        self.over_time = nn.Parameter(torch.randn(channels, time) * time**-0.5)
        self.mix = Pointwise(channels, channels, bias=False) if config.mixing else nn.Identity()
        self.over_frequency = nn.Parameter(torch.randn(channels, frequency) * frequency**-0.5)
        activation = unit_activation(config, hidden, over_frequency=True)
        self.branch = PointwiseMLP(channels, activation, hidden)

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        extended, state = append(state, self.scale(x))
        image = extended.permute(0, 3, 1, 2)
        image = F.conv2d(image, self.over_time[:, None, :, None], groups=len(self.over_time))
        convolved = self.mix(image.permute(0, 2, 3, 1))
        margin = self.over_frequency.shape[1] // 2
        convolved = frequency_conv(F.pad(convolved, (0, 0, margin, margin)), self.over_frequency)
        return x + self.branch(convolved), state

    @override
    def absorb_division_(self, divisor: Tensor) -> None:
        self.over_time.div_(divisor)


def frequency_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1
) -> Tensor:
    """Convolve each channel of ``(B, T, F, C)`` over frequency with its own row of ``weight``."""
    y = depthwise_conv(x.flatten(0, 1), weight, bias, stride=stride)
    return y.reshape(*x.shape[:2], *y.shape[1:])


class FrequencyDownsample(Block):
    """``DW( PW( act( S(x) ) ) )``, ``(B, T, F, C)`` -> ``(B, T, F / stride, out)``.

    The kernel of the depthwise convolution over frequency is two strides long.
    """

    def __init__(self, channels: int, out: int, stride: int, num_bins: int) -> None:
        super().__init__()
        self.stride = stride
        self.macs = num_bins * out * (channels + 2)
        self.entry = ActivatedPointwise(Smu, channels, out)
        self.depthwise = nn.Parameter(torch.randn(out, 2 * stride) * (2 * stride) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        below = self.stride // 2
        y = F.pad(self.entry(x), (0, 0, below, self.stride - below))
        return frequency_conv(y, self.depthwise, self.bias, stride=self.stride), state


class FrequencyUpsample(Block):
    """Transpose of `FrequencyDownsample`, ``(B, T, F, C)`` -> ``(B, T, F stride, out)``.

    The matrix is applied where there are few frequencies.
    """

    def __init__(self, channels: int, out: int, stride: int, num_bins: int) -> None:
        super().__init__()
        self.stride = stride
        self.macs = num_bins * out * (channels + 2 * stride)
        self.entry = ActivatedPointwise(Smu, channels, out)
        self.depthwise = nn.Parameter(torch.randn(2, stride, out) * 2**-0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y = F.pad(self.entry(x), (0, 0, 1, 1)).unsqueeze(3)
        # bin f spreads over two strides; the outermost halves are cut off on both sides
        spread = y[:, :, 1:] * self.depthwise[0] + y[:, :, :-1] * self.depthwise[1]
        below = self.stride // 2
        size = x.shape[2] * self.stride
        return spread.flatten(2, 3)[:, :, below : below + size] + self.bias, state


class FrameLinear(Block):
    """Linear layer from all values of a frame to a frame of another shape.

    It maps spectra ``(B, T, F, C)`` to vectors ``(B, T, out)`` and back.
    """

    def __init__(self, fan_in: int, out_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.out_shape = out_shape
        self.macs = fan_in * math.prod(out_shape)
        self.pointwise = Pointwise(fan_in, math.prod(out_shape))

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.pointwise(x.flatten(2)).unflatten(2, self.out_shape), state
