"""HAC as modules for export: whole signals, and steps with their states as arguments."""

from __future__ import annotations

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
from codectool.codecs.hac.spectral import STFT, InverseSTFT, square_root_hann


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


def _angles(window: int) -> Tensor:
    """Return the phase of each sample ``(window, F)`` of each bin but the last, in float64."""
    samples = torch.arange(window, dtype=torch.float64, device="cpu")
    return 2 * math.pi / window * (samples[:, None] * samples[: window // 2] % window)
