"""HAC on a signal that comes in pieces: samples or tokens gather until there is a block of them.

Letters used in shapes: B batch, N samples, F frames (= tokens), K bits per token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codectool.codecs.base import StreamDecoder, StreamEncoder
from codectool.nn.binary import index_to_signs, signs_to_index

if TYPE_CHECKING:
    from codectool.codecs.hac.codec import HacCodec

BLOCK_FRAMES = 75  # one second of the 1.35 kbps preset


class HacStreamEncoder(StreamEncoder):
    """Samples in, tokens out, block by block.

    Args:
        codec: the model.
        batch: number of signals that are coded side by side.
        block_frames: tokens per block; with the default the tokens are those of `HacCodec.encode`,
            with fewer the delay is shorter and a bit whose value is within rounding of zero may
            differ.
    """

    def __init__(self, codec: HacCodec, batch: int = 1, block_frames: int = BLOCK_FRAMES) -> None:
        self.codec = codec
        self.block = block_frames * codec.hop_length
        self.runner = codec.encoder_runner(batch, block_frames)
        self.pending = torch.zeros(batch, 1, 0, device=codec.device)

    @torch.no_grad()
    def push(self, wave: Tensor) -> Tensor:
        """Take samples ``(B, 1, N)``, any number; return the tokens ``(B, 1, F)`` now complete."""
        wave = torch.cat([self.pending, wave], dim=-1)
        whole = wave.shape[-1] // self.block * self.block
        codes = [torch.zeros(len(wave), 1, 0, dtype=torch.int64, device=wave.device)]
        for start in range(0, whole, self.block):
            block = wave[..., start : start + self.block]
            codes.append(signs_to_index(self.runner(block.mT)).unsqueeze(1))
        self.pending = wave[..., whole:].clone()
        return torch.cat(codes, dim=-1)

    def flush(self) -> Tensor:
        """End the signal: return the tokens of the samples that are left, the last zero-padded."""
        rest = self.pending.shape[-1]
        if rest == 0:
            return self.push(self.pending)
        codes = self.push(self.pending.new_zeros(*self.pending.shape[:2], self.block - rest))
        return codes[..., : -(-rest // self.codec.hop_length)]


class HacStreamDecoder(StreamDecoder):
    """Tokens in, samples out, block by block.

    Args:
        codec: the model.
        batch: number of signals that are decoded side by side.
        block_frames: tokens per block; with the default the samples are those of
            `HacCodec.decode`, otherwise they agree within rounding.
    """

    def __init__(self, codec: HacCodec, batch: int = 1, block_frames: int = BLOCK_FRAMES) -> None:
        self.codec = codec
        self.block = block_frames
        self.runner = codec.decoder_runner(batch, block_frames)
        self.pending = torch.zeros(batch, 0, codec.config.num_bits, device=codec.device)
        self.early = codec.delay_frames * codec.hop_length  # samples before time 0, still to come

    def push(self, codes: Tensor) -> Tensor:
        """Take tokens ``(B, 1, F)``, any number; return the samples ``(B, 1, N)`` now known."""
        return self._push_signs(index_to_signs(codes[:, 0], self.codec.config.num_bits))

    @torch.no_grad()
    def flush(self) -> Tensor:
        """End the signal: return the samples that waited for later tokens.

        The last block is as long as what is left. Unlike a token a sample has no need of the same
        rounding in signals of different lengths.
        """
        batch, _, num_bits = self.pending.shape
        silence = self.pending.new_zeros(batch, self.codec.delay_frames, num_bits)
        wave = self._push_signs(silence)
        rest, self.pending = self.pending, self.pending[:, :0]
        if rest.shape[1] == 0:
            return wave
        last = self.codec.decoder_runner(*rest.shape[:2])
        last.load(self.runner.state())
        return torch.cat([wave, self._in_time(last(rest))], dim=-1)

    @torch.no_grad()
    def _push_signs(self, signs: Tensor) -> Tensor:
        signs = torch.cat([self.pending, signs], dim=1)
        whole = signs.shape[1] // self.block * self.block
        parts = [torch.zeros(len(signs), 1, 0, device=signs.device)]
        for start in range(0, whole, self.block):
            parts.append(self._in_time(self.runner(signs[:, start : start + self.block])))
        self.pending = signs[:, whole:].clone()
        return torch.cat(parts, dim=-1)

    def _in_time(self, late: Tensor) -> Tensor:
        """Samples ``(B, 1, N)`` of a block ``(B, N, 1)``, without those before time 0."""
        cut = min(self.early, late.shape[1])
        self.early -= cut
        return late[:, cut:].mT.float()
