"""Decoders of the HAC presets at 1.35 kbps, with or without a source for the upper band."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from typing_extensions import override

from codectool.codecs.hac.blocks import Block, Stack, TokenMixer
from codectool.codecs.hac.config import HacConfig
from codectool.codecs.hac.source import (
    BINS_PER_OCTAVE,
    LOWEST_PITCH,
    RESTART_TOKENS,
    HarmonicNoise,
    LowPass,
    PitchTracker,
    vary,
)
from codectool.codecs.hac.waveform import Head, OutputBlock, Stem, Upsample, residual_units
from codectool.codecs.trainable import SourcePrediction


def wave_decoder(config: HacConfig) -> Stack:
    """Build the decoder: signs ``(B, T, num_bits)`` to normalised samples ``(B, T hop, 1)``."""
    widths, hidden = config.decoder_channels, config.decoder_hidden
    strides = config.strides[::-1]
    blocks: dict[str, Block] = {
        "first": TokenMixer(config.num_bits, widths[0], config.token_kernel)
    }
    stages = []  # number of blocks at the end of each stage
    for stage, dilations in enumerate(config.decoder_dilations):
        if stage > 0:
            blocks[f"up{stage}"] = Upsample(widths[stage - 1], widths[stage], strides[stage - 1])
        blocks |= residual_units(stage, widths[stage], hidden[stage], config.kernel, dilations)
        stages.append(len(blocks))
    head = Head(widths[-1], strides[-1], config.taps)
    if config.source is None:
        return Stack({**blocks, "head": head})
    items = list(blocks.items())
    split, rate = stages[config.source.stage], len(items) - len(config.decoder_dilations[-1])
    middle, last = Stack(dict(items[split:rate])), Stack(dict(items[rate:]))
    return Stack({**dict(items[:split]), "tail": VoiceTail(config, middle, last, head)})


class VoiceTail(OutputBlock):
    """Features ``(B, T, C)`` of a stage to samples ``(B, T frame, 1)``.

        features -> middle (up to the last rate) -> + stem(source) -> last -> head -> low-pass -> +
            +-> pitch -> source ------------------------------------------------------------------^

    The state is the states of all blocks, joined.

    Args:
        config: hyper-parameters with a source.
        middle: blocks from the stage to the rate of the head.
        last: residual units before the head.
        head: the head.
    """

    def __init__(self, config: HacConfig, middle: Stack, last: Stack, head: Head) -> None:
        super().__init__()
        source, rate = config.source, config.sample_rate
        assert source is not None
        channels, frame = config.decoder_channels[source.stage], config.source_frame
        self.up, self.in_channels = frame, channels
        self.source_loaded = True  # False if the other weights are those of a decoder without one
        period = RESTART_TOKENS * config.hop_length // frame
        self.pitch = PitchTracker(source, channels, frame, rate, period)
        self.source = HarmonicNoise(source, channels, frame, rate, period)
        self.middle = middle
        self.stem = Stem(config.decoder_channels[-1], config.strides[0], config.taps)
        nn.init.zeros_(self.stem.transform.weight)
        self.last = last
        self.head = head
        self.low_pass = LowPass(source.cutoff, rate)
        self.state_shape = (sum(math.prod(block.state_shape) for block in self.parts()),)
        inner = Stack({**middle.blocks, **last.blocks, "head": head})
        beside = self.pitch.macs + self.source.macs
        self.macs = round(inner.macs_per_second(1)) + beside
        self.macs += frame * (self.low_pass.macs + self.stem.macs // self.stem.down)

    def parts(self) -> Iterator[Block]:
        """Yield all blocks, in the order of their states."""
        yield self.pitch
        yield self.source
        yield from self.middle.blocks.values()
        yield self.stem
        yield from self.last.blocks.values()
        yield self.head
        yield self.low_pass

    def split_state(self, state: Tensor) -> dict[Block, Tensor]:
        """Return the states of the blocks, views of the joint state ``(B, S)``."""
        blocks = list(self.parts())
        parts = torch.split(state, [math.prod(block.state_shape) for block in blocks], 1)
        return {
            block: part.reshape(len(state), *block.state_shape)
            for block, part in zip(blocks, parts, strict=True)
        }

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        states = self.split_state(state)

        def run(block: Block, value: Tensor) -> Tensor:
            y: Tensor
            y, states[block] = block(value, states[block])
            return y

        pitch = run(self.pitch, x)
        upper = run(self.source, torch.cat([x.float(), pitch], -1))
        for block in self.middle.blocks.values():
            x = run(block, x)
        x = x + run(self.stem, upper)
        for block in self.last.blocks.values():
            x = run(block, x)
        y = run(self.low_pass, run(self.head, x)) + upper
        return y, torch.cat([part.flatten(1) for part in states.values()], 1)

    def draw(self, x: Tensor, state: Tensor) -> tuple[Tensor, SourcePrediction]:
        """Run crops and return what losses compare.

        In training there are two outputs, with other noise, another phase of the harmonics and a
        slightly different pitch.

        Args:
            x: features ``(B, T, C)``.
            state: state before them.

        Returns:
            Samples ``(B, T frame, outputs)`` and the predictions.
        """
        states, source = self.split_state(state), self.source
        count = 2 if self.training else 1
        with torch.autocast(x.device.type, enabled=False):
            features = x.float()
            past, locked = torch.split(states[self.pitch], self.pitch.sizes, 1)
            out, _ = self.pitch.predict(features, past)
            track, _ = self.pitch.lock(self.pitch.values(out), locked)
            counter, *before, past = torch.split(states[source], source.sizes, 1)
            gains, _ = source.predict_gains(features, past)
            if self.training:
                noises = torch.randn(count, len(x), self.up * x.shape[1], device=x.device)
                uppers = [
                    source.render(gains, vary(track, self.up), noise, *before)[0]
                    for noise in noises
                ]
            else:
                noise = source.noise(counter, x.shape[1])
                uppers = [source.render(source.sharpen(gains, track), track, noise, *before)[0]]
        upper = torch.cat(uppers)[..., None]

        def run(blocks: Mapping[str, Block], x: Tensor) -> Tensor:
            parts = [states[block].repeat(len(x) // len(state), 1, 1) for block in blocks.values()]
            y: Tensor = Stack(blocks)(x, parts)[0]
            return y

        hidden = run(self.middle.blocks, x).repeat(count, 1, 1) + run({"stem": self.stem}, upper)
        lower = run({**self.last.blocks, "head": self.head, "low_pass": self.low_pass}, hidden)
        samples = torch.cat((lower + upper).chunk(count), -1)
        weights = source.filter.matrix
        prediction = SourcePrediction(
            frame=self.up,
            pitch=out[..., : self.pitch.bins],
            lowest_pitch=LOWEST_PITCH,
            bins_per_octave=BINS_PER_OCTAVE,
            voicing=out[..., -3],
            phase=out[..., -2:],
            phase_offset=source.delay - source.advance,
            levels=source.levels(gains, track)[..., source.first_band :],
            level_hop=source.hop,
            level_offset=source.delay,
            bands=(weights / weights.sum(1, keepdim=True)).T[:, source.first_band :],
        )
        return samples, prediction

    @override
    def first_input(self, frame: int) -> int:
        """Return the earliest input that the network depends on.

        The phase of the harmonics depends on earlier ones, too; see `source`.
        """
        last = frame // self.up
        first = frame - self.low_pass.state_shape[0]
        for block in (self.head, *reversed(self.last.blocks.values())):
            first = block.first_input(first)
        for block in reversed(self.middle.blocks.values()):
            first = block.first_input(first)
        context = self.source.context
        reach = max(2 * self.pitch.reach, 0 if context is None else context.reach)
        return min(first, last - reach - 2)

    @override
    def scale_output_(self, factor: Tensor) -> None:
        self.head.scale_output_(factor)
        self.source.scale_output_(factor)
        self.stem.transform.weight.div_(factor)
