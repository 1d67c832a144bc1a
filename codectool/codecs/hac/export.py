"""HAC as modules for export: whole signals, and steps with their states as arguments."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.codecs.exportable import ExportPart
from codectool.codecs.hac.blocks import Block, Stack, append, overlap_add
from codectool.codecs.hac.model import CHUNK_FRAMES, HacCodec
from codectool.codecs.hac.source import (
    GAIN_LIMITS,
    LOCK_GAIN,
    MAX_DETUNING,
    PHASE_STEPS,
    SILENT,
    PhaseLock,
    SegmentFilter,
    band_weights,
)
from codectool.codecs.hac.spectral import STFT, InverseSTFT, square_root_hann
from codectool.codecs.hac.voice import VoiceTail


def export_parts(model: HacCodec) -> list[ExportPart]:
    """Return encoder, decoder, and one step of each."""
    encoder, decoder = EncoderStep(model), DecoderStep(model)
    return [
        ExportPart("encoder", WholeEncoder(model)),
        ExportPart("decoder", WholeDecoder(model)),
        ExportPart("encoder_step", encoder, encoder.states, CHUNK_FRAMES),
        ExportPart("decoder_step", decoder, decoder.states, CHUNK_FRAMES, model.delay_frames),
    ]


class _Step(nn.Module):
    """A stack whose states are arguments and results; blocks without a state have none."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        blocks = stack.blocks
        self.states = {
            name: (1, *block.state_shape)
            for name, block in blocks.items()
            if math.prod(block.state_shape)
        }
        self._shapes = [(1, *block.state_shape) for block in blocks.values()]
        self._kept = [name in self.states for name in blocks]

    def run(self, stack: Stack, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the output and the new states."""
        given: Iterator[Tensor] = iter(states)
        before = [
            next(given) if kept else x.new_zeros(shape)
            for kept, shape in zip(self._kept, self._shapes, strict=True)
        ]
        y, after = stack(x, before)
        return y, *(state for state, kept in zip(after, self._kept, strict=True) if kept)


class EncoderStep(_Step):
    """The next samples ``(1, 1, N)`` to codes ``(1, 1, F)``."""

    def __init__(self, model: HacCodec) -> None:
        super().__init__(model.encoder)
        self.encoder = _with_matrices(model.encoder)
        num_bits = model.config.num_bits
        self.place_values = nn.Buffer(2 ** torch.arange(num_bits - 1, -1, -1))

    @override
    def forward(self, audio: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        values, *after = self.run(self.encoder, audio.mT, states)
        codes = ((values > 0).long() * self.place_values).sum(-1)
        return codes[:, None], *after


class DecoderStep(_Step):
    """The next codes ``(1, 1, F)`` to samples ``(1, 1, N)``, late by the delay of the decoder."""

    def __init__(self, model: HacCodec) -> None:
        super().__init__(model.decoder)
        self.decoder = _with_matrices(model.decoder)
        num_bits = model.config.num_bits
        self.place_values = nn.Buffer(2 ** torch.arange(num_bits - 1, -1, -1))

    @override
    def forward(self, codes: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        index = codes[:, 0, :, None]
        bits = index % (2 * self.place_values) >= self.place_values
        signs = torch.where(bits, 1.0, -1.0).where(index >= 0, 0.0)
        y, *after = self.run(self.decoder, signs, states)
        return y.mT, *after


class WholeEncoder(EncoderStep):
    """A whole signal ``(1, 1, N)`` to codes ``(1, 1, F)``."""

    @override
    def forward(self, audio: Tensor, *_: Tensor) -> Any:
        states = [audio.new_zeros(shape) for shape in self.states.values()]
        return super().forward(audio, *states)[0]


class WholeDecoder(DecoderStep):
    """Codes ``(1, 1, F)`` to a whole signal ``(1, 1, N)``, without the delay."""

    def __init__(self, model: HacCodec) -> None:
        super().__init__(model)
        self.delay_frames, self.hop_length = model.delay_frames, model.hop_length

    @override
    def forward(self, codes: Tensor, *_: Tensor) -> Any:
        options: Any = {"dtype": torch.float32, "device": codes.device}
        states = [torch.zeros(shape, **options) for shape in self.states.values()]
        wave = super().forward(F.pad(codes, (0, self.delay_frames), value=-1), *states)[0]
        return wave[..., self.delay_frames * self.hop_length :]


def _with_matrices(stack: Stack) -> Stack:
    """Return the stack with Fourier transforms as matrix products; it shares all other blocks."""
    return Stack({name: _with_matrix(block) for name, block in stack.blocks.items()})


def _with_matrix(block: Block) -> Block:
    match block:
        case STFT():
            return MatrixSTFT(block)
        case InverseSTFT():
            return MatrixInverseSTFT(block)
        case VoiceTail():
            tail = copy.deepcopy(block)
            tail.pitch.lock = ScanPhaseLock(tail.pitch.lock.frame, tail.pitch.lock.period)
            tail.source.filter = ConvFilter(tail.source.filter)
            return tail
    return block


class MatrixSTFT(Block):
    """`STFT` as a product with a matrix ``(window, 2 F)``."""

    def __init__(self, block: STFT) -> None:
        super().__init__()
        self.window, self.down, self.state_shape = block.window, block.down, block.state_shape
        angles = _angles(self.window)
        basis = torch.stack((angles.cos(), -angles.sin()), dim=-1).flatten(1)
        window = square_root_hann(self.window, torch.device("cpu")).double()[:, None]
        self.matrix = nn.Buffer((window * basis).float())

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        extended, state = append(state, x)
        frames = extended.squeeze(2).unfold(1, self.window, self.down)
        spectra = frames @ self.matrix
        return spectra.reshape(*spectra.shape[:2], self.window // 2, 2), state


class MatrixInverseSTFT(Block):
    """`InverseSTFT` as a product with a matrix ``(2 F, window)``."""

    def __init__(self, block: InverseSTFT) -> None:
        super().__init__()
        self.overlap, self.up, self.state_shape = block.overlap, block.up, block.state_shape
        angles = _angles(block.window)
        # All bins but the first, which has no counterpart at a negative frequency, count twice; the
        # inverse transform ignores its imaginary part.
        weight = torch.full((block.window // 2,), 2.0, dtype=torch.float64)
        weight[0] = 1.0
        basis = torch.stack((angles.cos() * weight, -angles.sin() * weight), dim=-1).flatten(1)
        window = square_root_hann(block.window, torch.device("cpu")).double()[:, None]
        scale = 2 / self.overlap / block.window
        self.matrix = nn.Buffer((scale * window * basis).T.float().contiguous())

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        hops = (x.flatten(2) @ self.matrix).reshape(*x.shape[:2], self.overlap, self.up)
        extended, state = append(state, hops)
        return overlap_add(extended), state


class ScanPhaseLock(PhaseLock):
    """`lock_phase` as a scan over the frames, in float32."""

    @override
    def forward(self, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        from torch._higher_order_ops.scan import scan

        frequency, logit, cosine, sine = values.unbind(-1)
        voicing = torch.sigmoid(logit)
        length = (cosine.square() + sine.square()).sqrt()
        strength = LOCK_GAIN / self.frame * voicing * length.clamp(max=1)
        aim = torch.atan2(sine, cosine) / (2 * math.pi)
        number = (state[:, 1:2] + torch.arange(values.shape[1])) % self.period
        # frames since the phase started from which on it starts again
        limit = torch.where(number == 0, self.period // 2, 2 * self.period)
        limit = torch.where(voicing < SILENT, 0, limit).float()

        def step(
            carry: tuple[Tensor, Tensor], frame: tuple[Tensor, ...]
        ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
            (phase, since), (target, pull, plain, limit) = carry, frame
            goes_on = (since < limit).float()
            phase, since = phase * goes_on, since * goes_on
            error = target - phase
            locked = plain + pull * (error - torch.floor(error + 0.5))
            locked = torch.minimum(
                torch.maximum(locked, (1 - MAX_DETUNING) * plain), (1 + MAX_DETUNING) * plain
            )
            after = phase + self.frame * locked
            after = torch.floor((after - torch.floor(after)) * PHASE_STEPS) / PHASE_STEPS
            return (after, (since + 1).clamp(max=self.period)), (phase.clone(), locked)

        start = _contiguous(state[:, 0]), _contiguous(state[:, 2])
        frames = tuple(_contiguous(item.mT) for item in (aim, strength, frequency, limit))
        (phase, since), (phases, frequencies) = scan(step, start, frames, dim=0)
        track = torch.stack([phases.mT, frequencies.mT, voicing], -1)
        after = (number[:, -1] + 1) % self.period
        return track, torch.stack([phase, after, since], 1)


def _contiguous(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


class ConvFilter(SegmentFilter):
    """`SegmentFilter` with Fourier transforms as convolutions.

    Their kernels are computed in the graph, from buffers that are small enough for bundled graphs;
    ONNX Runtime does so once, when it loads the graph.
    """

    def __init__(self, block: SegmentFilter) -> None:
        super().__init__(block.hop, block.fft, block.delay, block.bands, block.spacing)
        turns = torch.arange(self.fft, dtype=torch.float64, device="cpu") / self.fft
        self.cosine = nn.Buffer((2 * math.pi * turns).cos().float())
        self.sine = nn.Buffer((2 * math.pi * turns).sin().float())
        self.samples = nn.Buffer(torch.arange(self.fft, device="cpu")[:, None])
        self.bins = nn.Buffer(torch.arange(self.fft // 2 + 1, device="cpu"))
        self.position = nn.Buffer(self.positions())
        # All bins but the first and the last count twice, for the negative frequencies.
        counts = torch.full((self.fft // 2 + 1,), 2.0, device="cpu")
        counts[[0, -1]] = 1.0
        self.share = nn.Buffer(counts / self.fft)

    @override
    def forward(self, sources: Tensor, gains: Tensor, rest: Tensor) -> Tensor:
        kernel = self.window * torch.cat(self.waves(self.samples[: 2 * self.hop]))
        spectra = F.conv1d(sources.transpose(0, 1), kernel.unsqueeze(1), stride=self.hop)
        matrix = band_weights(self.bands, self.position)
        weights = torch.exp((gains[0] @ matrix).clamp(*GAIN_LIMITS))
        factors = weights.permute(1, 2, 0).unsqueeze(1)  # (2, 1, bins, S)
        parts = spectra.reshape(2, 2, -1, gains.shape[1])  # real and imaginary parts
        filtered = (parts * factors).sum(0).flatten(0, 1)
        cosine, sine = self.waves(self.samples + self.fft - self.delay)
        kernel = torch.cat([self.share[:, None] * cosine, self.share[:, None] * sine])
        kernel = F.pad(kernel, (0, -self.fft % self.hop))
        samples = F.conv_transpose1d(filtered[None], kernel.unsqueeze(1), stride=self.hop)[:, 0]
        return samples + F.pad(rest, (0, gains.shape[1] * self.hop))

    def waves(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return real and imaginary part of the transform of unit pulses, ``(bins, samples)``."""
        number = (samples * self.bins % self.fft).T
        parts = (self.cosine, -self.sine)
        cosine, sine = (part.index_select(0, number.flatten()).view_as(number) for part in parts)
        return cosine, sine


def _angles(window: int) -> Tensor:
    """Return the phase of each sample ``(window, F)`` of each bin but the last, in float64."""
    samples = torch.arange(window, dtype=torch.float64, device="cpu")
    return 2 * math.pi / window * (samples[:, None] * samples[: window // 2] % window)
