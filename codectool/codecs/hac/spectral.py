"""Blocks of the later HAC presets (v1.2, v1.3 at 3.6 kbps), which work on short-time spectra.

Time is causal; frequency has no arrow, so it is padded on both sides.

Letters used in shapes: B batch, T frames, F frequencies, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.codecs.hac.activations import Smu
from codectool.codecs.hac.blocks import Block, Project, Stack, TokenMixer, Unit
from codectool.codecs.hac.config import SpectralHacConfig
from codectool.codecs.hac.layers import (
    ActivatedPointwise,
    Branch,
    Pointwise,
    RunningScale,
    depthwise,
    running_weight,
    sigma_of,
    take_sigma,
)
from codectool.nn.distributed import all_reduce_mean


class ResponseNorm(nn.Module):
    """Global response normalization (ConvNeXt V2, arXiv 2301.00808) made causal.

    The response of a channel is its norm over the frequencies of one frame, never over time;
    without a frequency axis it is the channel's size.
    """

    def __init__(self, channels: int, over_frequency: bool) -> None:
        super().__init__()
        self.over_frequency = over_frequency
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``(B, T, F, C)``, or ``(B, T, C)`` without a frequency axis."""
        response = torch.linalg.vector_norm(x, dim=-2, keepdim=True) if self.over_frequency else x
        response = response.abs()
        relative = response / (response.mean(-1, keepdim=True) + 1e-6)
        y: Tensor = x + self.gamma * (x * relative) + self.beta
        return y


class SpectrumConv(Block):
    """Full 3 x 3 convolution over time (causal) and frequency: the first and the last layer."""

    def __init__(self, channels: int, out: int, num_bins: int) -> None:
        super().__init__()
        self.state_shape = (2, num_bins, channels)
        self.macs = num_bins * 9 * channels * out
        fan_in = 9 * channels
        self.weight = nn.Parameter(torch.randn(out, channels, 3, 3) * fan_in**-0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, F, C)`` -> ``(B, T, F, out)``."""
        seen = torch.cat([state, x], dim=1)
        y = F.conv2d(seen.permute(0, 3, 1, 2), self.weight, self.bias, padding=(0, 1))
        return y.permute(0, 2, 3, 1), seen[:, -2:]

    def first_input(self, frame: int) -> int:
        """The whole kernel."""
        return frame - 2


class LastSpectrumConv(SpectrumConv):
    """``Conv( act( S(x) ) )``: the decoder's last layer."""

    def __init__(self, channels: int, activation: Smu, out: int, num_bins: int) -> None:
        super().__init__(channels, out, num_bins)
        self.scale: nn.Module = RunningScale()
        self.activation = activation

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, F, C)`` -> ``(B, T, F, out)``."""
        return super().forward(self.activation(self.scale(x)), state)

    @torch.no_grad()
    def fold_(self) -> None:
        """Fold the scale into the activation and the convolution."""
        sigma = take_sigma(self)
        self.activation.absorb_(sigma)
        self.weight.div_(sigma)

    @torch.no_grad()
    def unfold_(self) -> None:
        """Undo `fold_`."""
        sigma = sigma_of(self)
        self.activation.absorb_(1 / sigma)
        self.weight.mul_(sigma)


class SpectrumUnit(Block):
    """Residual unit that sweeps once over time and once over frequency.

        y = x + g * PW2( act( PW1( DWf( [PW]( DWt( S(x) ) ) ) ) ) )

    v1.2 has the matrix PW between the two depthwise convolutions, v1.3 has not.
    """

    def __init__(self, config: SpectralHacConfig, stage: int, num_bins: int) -> None:
        super().__init__()
        channels, hidden = config.channels[stage], config.hidden[stage]
        time, frequency = config.time_kernel, config.frequency_kernel
        self.state_shape = (time - 1, num_bins, channels)
        mixed = channels if config.mixing else 0
        self.macs = num_bins * channels * (time + mixed + frequency + 2 * hidden)
        self.scale: nn.Module = RunningScale()
        self.over_time = nn.Parameter(torch.randn(channels, time) * time**-0.5)
        self.mix = Pointwise(channels, channels, bias=False) if config.mixing else nn.Identity()
        self.over_frequency = nn.Parameter(torch.randn(channels, frequency) * frequency**-0.5)
        self.branch = Branch(channels, unit_activation(config, hidden, over_frequency=True), hidden)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, F, C)`` -> ``(B, T, F, C)``."""
        seen = torch.cat([state, self.scale(x)], dim=1)
        image = seen.permute(0, 3, 1, 2)
        image = F.conv2d(image, self.over_time[:, None, :, None], groups=len(self.over_time))
        swept = self.mix(image.permute(0, 2, 3, 1))
        margin = self.over_frequency.shape[1] // 2
        swept = over_frequency(F.pad(swept, (0, 0, margin, margin)), self.over_frequency)
        return x + self.branch(swept), seen[:, x.shape[1] :]

    def first_input(self, frame: int) -> int:
        """The reach of the convolution over time."""
        return frame - self.state_shape[0]

    @torch.no_grad()
    def fold_(self) -> None:
        """Fold the scale into the convolution over time."""
        self.over_time.div_(take_sigma(self))

    @torch.no_grad()
    def unfold_(self) -> None:
        """Undo `fold_`."""
        self.over_time.mul_(sigma_of(self))


def over_frequency(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1
) -> Tensor:
    """Convolve ``(B, T, F, C)`` over frequency, each channel by its own row of ``weight``."""
    y = depthwise(x.flatten(0, 1), weight, bias, stride=stride)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def unit_activation(config: SpectralHacConfig, hidden: int, over_frequency: bool) -> nn.Module:
    """What stands on the wide side of a unit."""
    if not config.response_norm:
        return Smu(hidden)
    return nn.Sequential(Smu(hidden), ResponseNorm(hidden, over_frequency))


class FrequencyDown(Block):
    """Fewer frequencies: ``DW( PW( act( S(x) ) ) )``, kernel twice the stride, frame by frame."""

    def __init__(self, channels: int, out: int, stride: int, num_bins: int) -> None:
        super().__init__()
        self.stride = stride
        self.macs = num_bins * out * (channels + 2)
        self.entry = ActivatedPointwise(Smu(channels), channels, out)
        self.depthwise = nn.Parameter(torch.randn(out, 2 * stride) * (2 * stride) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, F, C)`` -> ``(B, T, F / stride, out)``."""
        below = self.stride // 2
        y = F.pad(self.entry(x), (0, 0, below, self.stride - below))
        return over_frequency(y, self.depthwise, self.bias, stride=self.stride), state


class FrequencyUp(Block):
    """More frequencies: the transpose of `FrequencyDown`, the matrix where frequencies are few."""

    def __init__(self, channels: int, out: int, stride: int, num_bins: int) -> None:
        super().__init__()
        self.stride = stride
        self.macs = num_bins * out * (channels + 2 * stride)
        self.entry = ActivatedPointwise(Smu(channels), channels, out)
        self.depthwise = nn.Parameter(torch.randn(2, stride, out) * 2**-0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, F, C)`` -> ``(B, T, F stride, out)``."""
        y = F.pad(self.entry(x), (0, 0, 1, 1)).unsqueeze(3)
        # bin f spreads over two strides; the outermost halves are cut on both sides
        spread = y[:, :, 1:] * self.depthwise[0] + y[:, :, :-1] * self.depthwise[1]
        below = self.stride // 2
        size = x.shape[2] * self.stride
        return spread.flatten(2, 3)[:, :, below : below + size] + self.bias, state


class Merge(Block):
    """All frequencies of a frame as one vector, ``(B, T, F, C)`` to ``(B, T, out)``."""

    def __init__(self, channels: int, num_bins: int, out: int) -> None:
        super().__init__()
        self.macs = num_bins * channels * out
        self.pointwise = Pointwise(num_bins * channels, out)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, F, C)`` -> ``(B, T, out)``."""
        return self.pointwise(x.flatten(2)), state


class Split(Block):
    """One vector to all frequencies of a frame, ``(B, T, C)`` to ``(B, T, F, out)``."""

    def __init__(self, channels: int, out: int, num_bins: int) -> None:
        super().__init__()
        self.num_bins = num_bins
        self.macs = num_bins * channels * out
        self.pointwise = Pointwise(channels, num_bins * out)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, C)`` -> ``(B, T, F, out)``."""
        return self.pointwise(x).reshape(*x.shape[:2], self.num_bins, -1), state


def depth_unit(config: SpectralHacConfig) -> Unit:
    """A unit of the stage without frequency axis."""
    activation = unit_activation(config, config.depth_hidden, over_frequency=False)
    return Unit(config.depth_channels, activation, config.depth_hidden, config.depth_kernel)


def bins_per_stage(config: SpectralHacConfig) -> list[int]:
    """Frequencies of each stage."""
    bins = [config.num_bins]
    for stride in config.strides:
        bins.append(bins[-1] // stride)
    return bins


def spectral_encoder(config: SpectralHacConfig) -> Stack:
    """Normalised spectra ``(B, T, F, 2)`` to ``(B, T, bits)``."""
    bins, channels = bins_per_stage(config), config.channels
    blocks: list[tuple[str, Block]] = [("first", SpectrumConv(2, channels[0], bins[0]))]
    for stage, units in enumerate(config.encoder_units):
        if stage > 0:
            down = FrequencyDown(
                channels[stage - 1], channels[stage], config.strides[stage - 1], bins[stage - 1]
            )
            blocks.append((f"down{stage}", down))
        for unit in range(units):
            blocks.append((f"unit{stage}_{unit}", SpectrumUnit(config, stage, bins[stage])))
    blocks.append(("merge", Merge(channels[-1], bins[-1], config.depth_channels)))
    blocks += [(f"depth_{unit}", depth_unit(config)) for unit in range(config.encoder_depth)]
    width = config.depth_channels
    blocks.append(("project", Project(width, Smu(width), config.num_bits)))
    return Stack(blocks)


def spectral_decoder(config: SpectralHacConfig) -> Stack:
    """Signs ``(B, T, bits)`` to normalised spectra ``(B, T, F, 2)``."""
    bins, channels = bins_per_stage(config), config.channels
    blocks: list[tuple[str, Block]] = [
        ("first", TokenMixer(config.num_bits, config.depth_channels, kernel=1))
    ]
    blocks += [(f"depth_{unit}", depth_unit(config)) for unit in range(config.decoder_depth)]
    blocks.append(("split", Split(config.depth_channels, channels[-1], bins[-1])))
    for stage in reversed(range(len(channels))):
        for unit in range(config.decoder_units[stage]):
            blocks.append((f"unit{stage}_{unit}", SpectrumUnit(config, stage, bins[stage])))
        if stage > 0:
            up = FrequencyUp(
                channels[stage], channels[stage - 1], config.strides[stage - 1], bins[stage]
            )
            blocks.append((f"up{stage}", up))
    blocks.append(("last", LastSpectrumConv(channels[0], Smu(channels[0]), 2, bins[0])))
    return Stack(blocks)


def square_root_hann(length: int, device: torch.device) -> Tensor:
    """The same window for analysis and synthesis: with hop ``length / 4`` its squares sum to 2."""
    return torch.hann_window(length, dtype=torch.float64).sqrt().float().to(device)


class Spectrum(Block):
    """Samples ``(B, T hop, 1)`` to spectra ``(B, T, F, 2)``, real and imaginary part.

    Frame t sees the ``window`` samples that end with the last sample of hop t.
    """

    macs = 0  # a fast Fourier transform has no weights

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        self.window = window
        self.down = hop
        self.state_shape = (window - hop, 1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T hop, 1)`` -> ``(B, T, F, 2)``."""
        seen = torch.cat([state, x], dim=1)
        frames = seen.squeeze(2).unfold(1, self.window, self.down)
        bins = torch.fft.rfft(frames * square_root_hann(self.window, x.device))[..., :-1]
        return torch.view_as_real(bins), seen[:, seen.shape[1] - self.state_shape[0] :]

    def first_input(self, frame: int) -> int:
        """The start of the window."""
        return frame * self.down - self.state_shape[0]


class Synthesis(Block):
    """Spectra ``(B, T, F, 2)`` to samples ``(B, T hop, 1)``, late by ``window - hop`` samples.

    Hop t is given out once no later frame can add to it. The Nyquist bin is zero.
    """

    macs = 0

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        self.window = window
        self.up = hop
        self.overlap = window // hop
        self.state_shape = (self.overlap - 1, self.overlap, hop)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, F, 2)`` -> ``(B, T hop, 1)``."""
        bins = F.pad(torch.view_as_complex(x.float().contiguous()), (0, 1))
        shape = square_root_hann(self.window, x.device) * (2 / self.overlap)
        hops = (torch.fft.irfft(bins) * shape).reshape(*x.shape[:2], self.overlap, self.up)
        made = torch.cat([state, hops], dim=1)
        parts = [made[:, start : start + x.shape[1], -1 - start] for start in range(self.overlap)]
        wave = torch.stack(parts).sum(0)
        return wave.flatten(1).unsqueeze(2), made[:, x.shape[1] :]

    def first_input(self, frame: int) -> int:
        """The first frame that adds to it."""
        return frame // self.up - (self.overlap - 1)


class BinNorm(nn.Module):
    """Divide each frequency by its running root mean square: takes out the tilt of speech.

    Real and imaginary part of a bin share one number, the deviation of the complex value.

    Attributes:
        updating: whether training steps update the averages; they never move in evaluation.
    """

    def __init__(self, num_bins: int) -> None:
        super().__init__()
        self.updating = True
        self.mean_square: Tensor
        self.count: Tensor
        self.register_buffer("mean_square", torch.ones(num_bins))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, T, F, 2)``."""
        if self.training and self.updating:
            self._update(x.detach())
        return x / self.deviation()

    def restore(self, x: Tensor) -> Tensor:
        """Undo the normalisation."""
        return x * self.deviation()

    @torch.no_grad()
    def fold(self, first: Block, last: Block) -> tuple[Block, Block]:
        """Return what divides and what multiplies the bins.

        Unlike the scale of a waveform they cannot go into ``first`` and ``last``, which mix
        neighbouring bins by the same weights everywhere.
        """
        return BinGain(1 / self.deviation()), BinGain(self.deviation())

    @torch.no_grad()
    def _update(self, x: Tensor) -> None:
        self.count += 1
        power = x.float().square().sum(-1).mean((0, 1))
        self.mean_square.lerp_(all_reduce_mean(power), running_weight(self.count))

    def deviation(self) -> Tensor:
        """The divisor, ``(F, 1)``."""
        return torch.sqrt(self.mean_square + 1e-8)[:, None]


class BinGain(Block):
    """Multiply each frequency by a constant: what folding leaves of `BinNorm`."""

    macs = 0

    def __init__(self, gain: Tensor) -> None:
        super().__init__()
        self.gain: Tensor
        self.register_buffer("gain", gain.clone())

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, F, 2)`` -> the same."""
        return x * self.gain, state
