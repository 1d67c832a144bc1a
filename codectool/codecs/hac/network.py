"""HAC as it is trained: encoder, binary bottleneck, decoder.

Our own design after the public description of the codec, which has neither code nor weights; its
neighbours are HILCodec (arXiv 2405.04752), MaskBit (arXiv 2409.16211) and EnCodec
(arXiv 2210.13438).

    wave -> normalise -> encoder -> whiten, sign -> decoder -> undo normalise -> wave

Letters used in shapes: B batch, N samples, T frames or tokens, C channels, K bits per token.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codectool.codecs.hac.activations import Snake
from codectool.codecs.hac.blocks import (
    Block,
    Down,
    Head,
    Project,
    Stack,
    Stem,
    TokenMixer,
    Unit,
    Up,
)
from codectool.codecs.hac.config import AnyHacConfig, HacConfig, SpectralHacConfig
from codectool.codecs.hac.layers import RunningScale, running_weight
from codectool.codecs.hac.quantizer import BinaryBottleneck, BinaryOutput
from codectool.codecs.hac.spectral import (
    BinNorm,
    Spectrum,
    Synthesis,
    spectral_decoder,
    spectral_encoder,
)
from codectool.nn.distributed import all_reduce_mean


def wave_encoder(config: HacConfig) -> Stack:
    """Normalised samples ``(B, N, 1)`` to ``(B, N / hop, K)``.

    The first stride is a learned lapped transform and takes the signal straight to a low rate:
    multiplications at the rate of the samples are the most expensive ones.
    """
    widths, hidden = config.encoder_channels, config.encoder_hidden
    blocks: list[tuple[str, Block]] = [("stem", Stem(widths[0], config.strides[0], config.taps))]
    for stage, dilations in enumerate(config.encoder_dilations):
        if stage > 0:
            before = widths[stage - 1]
            down = Down(before, Snake(before), widths[stage], config.strides[stage])
            blocks.append((f"down{stage}", down))
        for number, dilation in enumerate(dilations):
            activation = Snake(hidden[stage])
            unit = Unit(widths[stage], activation, hidden[stage], config.kernel, dilation)
            blocks.append((f"unit{stage}_{number}", unit))
    blocks.append(("project", Project(widths[-1], Snake(widths[-1]), config.num_bits)))
    return Stack(blocks)


def wave_decoder(config: HacConfig) -> Stack:
    """Signs ``(B, T, K)`` to normalised samples ``(B, T hop, 1)``, late by the look-ahead."""
    widths, hidden = config.decoder_channels, config.decoder_hidden
    strides = config.strides[::-1]
    blocks: list[tuple[str, Block]] = [
        ("first", TokenMixer(config.num_bits, widths[0], config.token_kernel))
    ]
    for stage, dilations in enumerate(config.decoder_dilations):
        if stage > 0:
            before = widths[stage - 1]
            up = Up(before, Snake(before), widths[stage], strides[stage - 1])
            blocks.append((f"up{stage}", up))
        for number, dilation in enumerate(dilations):
            activation = Snake(hidden[stage])
            unit = Unit(widths[stage], activation, hidden[stage], config.kernel, dilation)
            blocks.append((f"unit{stage}_{number}", unit))
    blocks.append(("head", Head(widths[-1], Snake(widths[-1]), strides[-1], config.taps)))
    return Stack(blocks)


class WaveNorm(nn.Module):
    """Input z-norm: running mean and variance of the training waveforms, two scalars in all.

    Levels stay part of what the tokens say, since the same two numbers serve every signal.

    Attributes:
        updating: whether training steps update the averages; they never move in evaluation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.updating = True
        self.mean: Tensor
        self.variance: Tensor
        self.count: Tensor
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("variance", torch.ones(1))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise samples of any shape."""
        if self.training and self.updating:
            self._update(x.detach())
        return (x - self.mean) / self.deviation()

    def restore(self, x: Tensor) -> Tensor:
        """Undo the normalisation."""
        return x * self.deviation() + self.mean

    @torch.no_grad()
    def fold(self, first: Block, last: Block) -> tuple[Block, Block]:
        """Scale the stem's and the head's weights; return the shifts that are left.

        The shift is not hidden in the stem's bias: zeros of the **normalised** signal stand before
        the start, and they would not be zeros before the shift.
        """
        assert isinstance(first, Stem)
        assert isinstance(last, Head)
        first.transform.weight.div_(self.deviation())
        last.entry.pointwise.weight.mul_(self.deviation())
        return Shift(-self.mean), Shift(self.mean)

    @torch.no_grad()
    def _update(self, x: Tensor) -> None:
        self.count += 1
        weight = running_weight(self.count)
        self.mean.lerp_(all_reduce_mean(x.mean()), weight)
        self.variance.lerp_(all_reduce_mean((x - self.mean).square().mean()), weight)

    def deviation(self) -> Tensor:
        """The divisor."""
        return torch.sqrt(self.variance + 1e-8)


class Shift(Block):
    """Add a constant: what folding leaves of `WaveNorm`."""

    macs = 0

    def __init__(self, offset: Tensor) -> None:
        super().__init__()
        self.offset: Tensor
        self.register_buffer("offset", offset.clone())

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, N, 1)`` -> ``(B, N, 1)``."""
        return x + self.offset, state


@dataclass(frozen=True)
class HacOutput:
    """What one training step looks at.

    Attributes:
        audio: ``(B, 1, N')``, the decoder's samples without those of its delay.
        target: ``(B, 1, N')``, the input that `audio` should equal: all but the last samples,
            whose look-ahead would lie beyond the crop.
        bottleneck: bits and the quantities for their loss.
    """

    audio: Tensor
    target: Tensor
    bottleneck: BinaryOutput


class HacNetwork(nn.Module):
    """The trainable network of either kind, initialised from torch's global random numbers.

    Attributes:
        config: the hyper-parameters.
    """

    def __init__(self, config: AnyHacConfig) -> None:
        super().__init__()
        self.config = config
        self.norm: WaveNorm | BinNorm
        if isinstance(config, SpectralHacConfig):
            window, hop = config.window, config.hop_length
            self.analysis = Stack([("spectrum", Spectrum(window, hop))])
            self.norm = BinNorm(config.num_bins)
            self.encoder, self.decoder = spectral_encoder(config), spectral_decoder(config)
            self.synthesis = Stack([("synthesis", Synthesis(window, hop))])
        else:
            self.analysis, self.synthesis = Stack([]), Stack([])
            self.norm = WaveNorm()
            self.encoder, self.decoder = wave_encoder(config), wave_decoder(config)
        self.bottleneck = BinaryBottleneck(config.num_bits)

    def forward(self, wave: Tensor) -> HacOutput:
        """Code a crop and decode it again.

        The decoder runs `delay_frames` tokens late: output frame t is made when token
        t + delay has arrived. So the first delay frames of its output stand for the time before
        the crop and are dropped, and the last delay frames of the input have no output yet.

        Args:
            wave: ``(B, 1, N)``, N a multiple of the hop and longer than the delay.
        """
        delay = self.config.delay_frames * self.config.hop_length
        projected = _from_start(self.encoder, self.norm(_from_start(self.analysis, wave.mT)))
        bottleneck = self.bottleneck(projected)
        decoded = self.norm.restore(_from_start(self.decoder, bottleneck.signs))
        audio = _from_start(self.synthesis, decoded).mT
        target = wave[..., : wave.shape[-1] - delay]
        return HacOutput(audio[..., delay:], target, bottleneck)

    def track(self, scales: bool, bottleneck: bool) -> None:
        """Say which running statistics the next training steps update.

        Args:
            scales: input normalisation and feature scales.
            bottleneck: mean and whitening of the bits.
        """
        for module in self.modules():
            if isinstance(module, (WaveNorm, BinNorm, RunningScale)):
                module.updating = scales
        self.bottleneck.updating = bottleneck

    def fold(self) -> tuple[Stack, Stack]:
        """Copies of encoder and decoder with everything folded that can be: what inference needs.

        Scales and gains go into the neighbouring weights, the whitening into the projection
        (``A P`` and ``A (c - mu)``). The encoder then maps ``(B, N, 1)`` to the values whose signs
        are the bits, the decoder signs to samples.
        """
        network = copy.deepcopy(self)
        network.encoder.fold_()
        network.decoder.fold_()
        encoder = list(network.encoder.named_blocks())
        decoder = list(network.decoder.named_blocks())
        project = encoder[-1][1]
        assert isinstance(project, Project)
        projection = project.entry.pointwise
        assert projection.bias is not None
        network.bottleneck.whiten_projection_(projection.weight, projection.bias)
        normalise, restore = network.norm.fold(encoder[0][1], decoder[-1][1])
        return (
            Stack([*network.analysis.named_blocks(), ("normalise", normalise), *encoder]),
            Stack([*decoder, ("restore", restore), *network.synthesis.named_blocks()]),
        )


def _from_start(stack: Stack, x: Tensor) -> Tensor:
    y: Tensor = stack(x, stack.start(len(x), x.device))[0]
    return y
