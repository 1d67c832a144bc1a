"""HAC as it is trained: encoder, binary bottleneck, decoder.

    wave -> normalise -> encoder -> whiten, sign -> decoder -> undo normalisation -> wave

An own design after the public description of the codec, for which neither code nor weights were
published. Related codecs: HILCodec (arXiv 2405.04752), MaskBit (arXiv 2409.16211) and EnCodec
(arXiv 2210.13438).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

from torch import Tensor, nn
from typing_extensions import override

from codectool.codecs.hac.blocks import OutputProjection, Stack
from codectool.codecs.hac.config import AnyHacConfig, SpectralHacConfig
from codectool.codecs.hac.layers import RunningNorm
from codectool.codecs.hac.quantizer import BinaryBottleneck, BinaryOutput
from codectool.codecs.hac.spectral import (
    STFT,
    BinNorm,
    InverseSTFT,
    spectral_decoder,
    spectral_encoder,
)
from codectool.codecs.hac.voice import VoiceTail, wave_decoder
from codectool.codecs.hac.waveform import WaveNorm, wave_encoder
from codectool.codecs.trainable import SourcePrediction


@dataclass(frozen=True)
class HacOutput:
    """Result of a training step.

    Attributes:
        audio: ``(B, outputs, N')``, the decoder's samples after its delay; two outputs if the
            decoder has a source.
        target: ``(B, 1, N')``, the input without the last samples, whose look-ahead would lie
            beyond the crop.
        bottleneck: bits and the quantities for their loss.
        source: predictions of a decoder with a source.
    """

    audio: Tensor
    target: Tensor
    bottleneck: BinaryOutput
    source: SourcePrediction | None = None


class HacNetwork(nn.Module):
    """Trainable network of either kind, initialised from torch's global random numbers."""

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
        """Encode and decode crops ``(B, 1, N)``, N a multiple of the hop and longer than the delay.

        The decoder's samples are late: the first ones stand for the time before the crop and are
        dropped, and the last samples of the input have no output yet.
        """
        delay = self.config.delay_frames * self.config.hop_length
        bottleneck = self.bottleneck(self.encoder(self.norm(self.analysis(wave.mT)[0]))[0])
        decoded, source = self.decode(bottleneck.signs)
        audio = self.synthesis(self.norm.restore(decoded))[0].mT
        target = wave[..., : wave.shape[-1] - delay]
        if source is not None:
            source = self._align(source, delay)
        return HacOutput(audio[..., delay:], target, bottleneck, source)

    def decode(self, signs: Tensor) -> tuple[Tensor, SourcePrediction | None]:
        """Return normalised samples or spectra, and the predictions of a decoder with a source."""
        blocks = self.decoder.blocks
        _, tail = blocks.popitem()
        if not isinstance(tail, VoiceTail):
            return self.decoder(signs)[0], None
        features = Stack(blocks)(signs)[0]
        return tail.draw(features, tail.initial_state(features))

    def _align(self, source: SourcePrediction, delay: int) -> SourcePrediction:
        """Drop the frames before the crop; convert levels to those of samples."""
        assert isinstance(self.norm, WaveNorm)
        first, level = delay // source.frame, self.norm.deviation().log()
        return replace(
            source,
            pitch=source.pitch[:, first:],
            voicing=source.voicing[:, first:],
            phase=source.phase[:, first:],
            levels=source.levels[:, delay // source.level_hop :] + level,
        )

    def track_scales(self, updating: bool) -> None:
        """Select whether training steps update the norm of the input and the feature scales."""
        for module in self.modules():
            if isinstance(module, RunningNorm) and module is not self.bottleneck:
                module.updating = updating

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
