"""HAC as it is trained: encoder, binary bottleneck, decoder.

    wave -> normalise -> encoder -> whiten, sign -> decoder -> undo normalisation -> wave

An own design after the public description of the codec, for which neither code nor weights were
published. Related codecs: HILCodec (arXiv 2405.04752), MaskBit (arXiv 2409.16211) and EnCodec
(arXiv 2210.13438).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from typing_extensions import override

from codectool.codecs.hac.blocks import OutputProjection, Stack, State
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

DecoderState = tuple[State, State]  # of decoder and synthesis


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
        audio, source = self.decode(bottleneck.signs)
        target = wave[..., : wave.shape[-1] - delay]
        return HacOutput(audio, target, bottleneck, source)

    def decode(
        self, signs: Tensor, state: DecoderState | None = None
    ) -> tuple[Tensor, SourcePrediction | None]:
        """Decode signs ``(B, T, K)`` that follow a state.

        Returns:
            Samples ``(B, outputs, T hop - delay)``, without the first ones, which stand for the
            time before the signs, and the predictions of a decoder with a source.
        """
        first, second = state or (None, None)
        blocks, source = self.decoder.blocks, None
        _, tail = blocks.popitem()
        if isinstance(tail, VoiceTail):
            features = Stack(blocks)(signs, None if first is None else first[:-1])[0]
            start = tail.initial_state(features) if first is None else first[-1]
            decoded, source = tail.draw(features, start)
        else:
            decoded = self.decoder(signs, first)[0]
        audio = self.synthesis(self.norm.restore(decoded), second)[0].mT
        delay = self.config.delay_frames * self.config.hop_length
        if source is not None:
            source = self._align(source, delay)
        return audio[..., delay:], source

    @torch.no_grad()
    def state_after(self, signs: Tensor, starts: Tensor) -> DecoderState:
        """Return the state of the decoder after signs ``(B, T, K)``.

        Rows in ``starts`` ``(B,)`` get the state before a signal.
        """
        training = self.decoder.training
        self.decoder.eval()  # scales are measured on crops
        decoded, after = self.decoder(signs)
        end = self.synthesis(self.norm.restore(decoded))[1]
        self.decoder.train(training)
        # autocast would give the crops the weights that it converted here, without a gradient
        torch.clear_autocast_cache()
        blocks = [*self.decoder.blocks.values(), *self.synthesis.blocks.values()]
        state = []
        for block, part in zip(blocks, [*after, *end], strict=True):
            rows = starts.reshape(-1, *[1] * (part.ndim - 1))
            state.append(torch.where(rows, block.initial_state(signs).to(part), part))
        return state[: len(after)], state[len(after) :]

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

    def first_input(self) -> int:
        """Return the earliest token that the decoder's frame 0 depends on; it is not positive."""
        return Stack({**self.decoder.blocks, **self.synthesis.blocks}).first_input(0)

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
        return copy.deepcopy(self).fold_()

    def fold_(self) -> tuple[Stack, Stack]:
        """Return what `fold` does, made of the weights of this network, which is of no more use."""
        return self.fold_encoder_(), self.fold_decoder_()

    def fold_encoder_(self) -> Stack:
        """Return the encoder for inference; see `fold_`."""
        self.encoder.fold_()
        first, *_, project = self.encoder.blocks.values()
        assert isinstance(project, OutputProjection)
        self.bottleneck.whiten_projection_(project.entry.pointwise)
        normalise = self.norm.fold_input_(first)
        return Stack({**self.analysis.blocks, "normalise": normalise, **self.encoder.blocks})

    def fold_decoder_(self) -> Stack:
        """Return the decoder for inference; see `fold_`."""
        self.decoder.fold_()
        *_, last = self.decoder.blocks.values()
        restore = self.norm.fold_output_(last)
        return Stack({**self.decoder.blocks, "restore": restore, **self.synthesis.blocks})
