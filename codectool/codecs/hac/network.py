"""HAC as it is trained: encoder, binary bottleneck, decoder.

    wave -> normalise -> encoder -> whiten, sign -> decoder -> undo normalisation -> wave

An own design after the public description of the codec, for which neither code nor weights were
published. Related codecs: HILCodec (arXiv 2405.04752), MaskBit (arXiv 2409.16211) and EnCodec
(arXiv 2210.13438).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from codectool.codecs.hac.activations import Snake
from codectool.codecs.hac.blocks import (
    Block,
    Downsample,
    Head,
    OutputProjection,
    ResidualUnit,
    Stack,
    Stem,
    TokenMixer,
    Upsample,
)
from codectool.codecs.hac.config import AnyHacConfig, HacConfig, SpectralHacConfig
from codectool.codecs.hac.layers import RunningNorm
from codectool.codecs.hac.quantizer import BinaryBottleneck, BinaryOutput
from codectool.codecs.hac.spectral import (
    STFT,
    BinNorm,
    InverseSTFT,
    spectral_decoder,
    spectral_encoder,
)
from codectool.nn.distributed import all_reduce_mean


@dataclass(frozen=True)
class HacOutput:
    """Result of a training step.

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
    """Trainable network of either kind, initialised from torch's global random numbers.

    Attributes:
        config: hyper-parameters.
    """

    def __init__(self, config: AnyHacConfig) -> None:
        super().__init__()
        self.config = config
        self.norm: WaveNorm | BinNorm
        if isinstance(config, SpectralHacConfig):
            window, hop = config.window, config.hop_length
            self.analysis = Stack({"spectrum": STFT(window, hop)})
            self.norm = BinNorm(config.num_bins)
            self.encoder, self.decoder = spectral_encoder(config), spectral_decoder(config)
            self.synthesis = Stack({"synthesis": InverseSTFT(window, hop)})
        else:
            self.analysis, self.synthesis = Stack({}), Stack({})
            self.norm = WaveNorm()
            self.encoder, self.decoder = wave_encoder(config), wave_decoder(config)
        self.bottleneck = BinaryBottleneck(config.num_bits)

    @override
    def forward(self, wave: Tensor) -> HacOutput:
        """Encode and decode a crop.

        The decoder runs `delay_frames` tokens late: its output frame t needs token t + delay. So
        the first frames of its output stand for the time before the crop and are dropped, and the
        last frames of the input have no output yet.

        Args:
            wave: ``(B, 1, N)``, N a multiple of the hop and longer than the delay.
        """
        delay = self.config.delay_frames * self.config.hop_length
        bottleneck = self.bottleneck(self.encoder(self.norm(self.analysis(wave.mT)[0]))[0])
        decoded = self.norm.restore(self.decoder(bottleneck.signs)[0])
        audio = self.synthesis(decoded)[0].mT
        target = wave[..., : wave.shape[-1] - delay]
        return HacOutput(audio[..., delay:], target, bottleneck)

    def track(self, scales: bool, bottleneck: bool) -> None:
        """Select the running statistics that the next training steps update.

        Args:
            scales: input normalisation and feature scales.
            bottleneck: mean and whitening of the bits.
        """
        for module in self.modules():
            if isinstance(module, RunningNorm):
                module.updating = scales
        self.bottleneck.updating = bottleneck

    def fold(self) -> tuple[Stack, Stack]:
        """Return encoder and decoder for inference: copies with everything folded into weights.

        Scales and gains go into the neighbouring weights, the whitening into the projection
        (``A P`` and ``A (c - mu)``). The encoder then maps ``(B, N, 1)`` to the values whose signs
        are the bits, the decoder maps signs to samples.
        """
        network = copy.deepcopy(self)
        network.encoder.fold_()
        network.decoder.fold_()
        first, *_, project = network.encoder.blocks.values()
        *_, last = network.decoder.blocks.values()
        assert isinstance(project, OutputProjection)
        network.bottleneck.whiten_projection_(project.entry.pointwise)
        normalise, restore = network.norm.fold(first, last)
        analysis, encoder = network.analysis.blocks, network.encoder.blocks
        decoder, synthesis = network.decoder.blocks, network.synthesis.blocks
        return (
            Stack({**analysis, "normalise": normalise, **encoder}),
            Stack({**decoder, "restore": restore, **synthesis}),
        )


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
        blocks |= _residual_units(stage, widths[stage], hidden[stage], config.kernel, dilations)
    blocks["project"] = OutputProjection(Snake, widths[-1], config.num_bits)
    return Stack(blocks)


def wave_decoder(config: HacConfig) -> Stack:
    """Build the decoder: signs ``(B, T, num_bits)`` to normalised samples ``(B, T hop, 1)``."""
    widths, hidden = config.decoder_channels, config.decoder_hidden
    strides = config.strides[::-1]
    blocks: dict[str, Block] = {
        "first": TokenMixer(config.num_bits, widths[0], config.token_kernel)
    }
    for stage, dilations in enumerate(config.decoder_dilations):
        if stage > 0:
            blocks[f"up{stage}"] = Upsample(widths[stage - 1], widths[stage], strides[stage - 1])
        blocks |= _residual_units(stage, widths[stage], hidden[stage], config.kernel, dilations)
    blocks["head"] = Head(widths[-1], strides[-1], config.taps)
    return Stack(blocks)


def _residual_units(
    stage: int, width: int, hidden: int, kernel: int, dilations: tuple[int, ...]
) -> dict[str, Block]:
    return {
        f"unit{stage}_{number}": ResidualUnit(width, Snake(hidden), hidden, kernel, dilation)
        for number, dilation in enumerate(dilations)
    }


class WaveNorm(RunningNorm):
    """Input normalisation by running mean and variance of all training audio: two scalars.

    The tokens still carry the level of a signal, since all signals share these two numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("variance", torch.ones(1))

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
    def fold(self, first: Block, last: Block) -> tuple[Block, Block]:
        """Scale the weights of stem and head; return the remaining shifts.

        The shift cannot go into the stem's bias: the zeros before the start of the signal are zeros
        of the *normalised* signal.
        """
        assert isinstance(first, Stem)
        assert isinstance(last, Head)
        first.transform.weight.div_(self.deviation())
        last.entry.pointwise.weight.mul_(self.deviation())
        return Shift(-self.mean), Shift(self.mean)


class Shift(Block):
    """Addition of a constant: a folded `WaveNorm`."""

    macs = 0

    def __init__(self, offset: Tensor) -> None:
        super().__init__()
        self.offset: Tensor
        self.register_buffer("offset", offset.clone())

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return x + self.offset, state
