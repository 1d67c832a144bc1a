"""HAC for use: folded weights, canonical blocks, streams.

Tokens are 18 signs. Rounding can flip a sign, and rounding depends on the sizes of the matrices
that are multiplied. So files are coded in blocks of `BLOCK_FRAMES` tokens with carried state, the
last one filled up: every product has the same shape, however long the signal is, and a stream in
blocks of that size gives the very same tokens and samples.

Letters used in shapes: B batch, N samples, F frames (= tokens), K bits per token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from codectool.codecs.base import CodecModel, Context, Latency, StreamDecoder, StreamEncoder
from codectool.codecs.hac.blocks import Stack, State
from codectool.codecs.hac.config import AnyHacConfig, parse_config
from codectool.codecs.hac.network import HacNetwork
from codectool.errors import ConfigError
from codectool.nn.binary import index_to_signs, signs_to_index
from codectool.nn.blank import BlankModel
from codectool.nn.loading import load_tensors

BLOCK_FRAMES = 75  # one second of the 1.35 kbps preset


class HacCodec(CodecModel):
    """HAC of either kind as two folded stacks, encoder and decoder.

    Attributes:
        config: the hyper-parameters.
        delay_frames: frames by which `decode_block` is late; `decode` makes up for it.
    """

    family = "hac"
    cpu_threads = 1

    def __init__(self, config: AnyHacConfig, encoder: Stack, decoder: Stack) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.decoder = decoder
        self.sample_rate = config.sample_rate
        self.hop_length = config.hop_length
        self.codebook_sizes = (2**config.num_bits,)
        self.delay_frames = config.delay_frames
        history = -decoder.first_input(0)
        self.decode_context = Context(max(0, history - self.delay_frames), self.delay_frames)
        self.requires_grad_(False).eval()

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> HacCodec:
        """Build from folded tensors; ``config`` is needed, the tensors do not say everything."""
        if config is None:
            raise ConfigError("HAC weights come with hyper-parameters, and these have none")
        parsed = parse_config(config)
        with BlankModel(state):
            codec = fold(HacNetwork(parsed))
        load_tensors(codec, state)
        return codec

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """All fields of the config, and which kind it is."""
        return self.config.to_dict()

    def num_frames(self, num_samples: int) -> int:
        """Frames that the samples fill, and for the spectral kind those that end the overlap."""
        return super().num_frames(num_samples) + (self.config.extra_frames if num_samples else 0)

    def upstream_frames(self, num_samples: int) -> int:
        """As `num_frames`: there is no published script."""
        return self.num_frames(num_samples)

    @property
    def latency(self) -> Latency:
        """The encoder is causal, the decoder waits for a few tokens."""
        return Latency(encoder=0, decoder=self.delay_frames * self.hop_length)

    def stream_encoder(self, block_frames: int | None = None) -> HacStreamEncoder:
        """Block after block with carried state."""
        return HacStreamEncoder(self, block_frames=block_frames or BLOCK_FRAMES)

    def stream_decoder(self, block_frames: int | None = None) -> HacStreamDecoder:
        """Block after block with carried state."""
        return HacStreamDecoder(self, block_frames=block_frames or BLOCK_FRAMES)

    @torch.no_grad()
    def encode(self, wave: Tensor) -> Tensor:
        """Encode whole frames ``(B, 1, N)`` in canonical blocks: int64 ``(B, 1, N / hop)``."""
        stream = HacStreamEncoder(self, len(wave))
        return torch.cat([stream.push(wave), stream.flush()], dim=-1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Decode ``(B, 1, F)`` in canonical blocks: float32 ``(B, 1, F * hop)``."""
        stream = HacStreamDecoder(self, len(codes))
        return torch.cat([stream.push(codes), stream.flush()], dim=-1)

    def start_encoder(self, batch: int = 1) -> State:
        """State of the encoder before the first sample."""
        return self.encoder.start(batch, self.device)

    def start_decoder(self, batch: int = 1) -> State:
        """State of the decoder before the first token."""
        return self.decoder.start(batch, self.device)

    def encode_values(self, wave: Tensor, state: State) -> tuple[Tensor, State]:
        """Values whose signs are the bits.

        Args:
            wave: ``(B, 1, F * hop_length)``, following what ``state`` has seen.
            state: from `start_encoder` or the call before.

        Returns:
            ``(B, F, K)`` and the new state.
        """
        values, after = self.encoder(wave.mT, state)
        # a copy, so that the state does not keep the whole block in memory
        return values, [end.clone() for end in after]

    def encode_block(self, wave: Tensor, state: State) -> tuple[Tensor, State]:
        """As `encode_values`, but tokens: int64 ``(B, 1, F)``."""
        values, after = self.encode_values(wave, state)
        return signs_to_index(values).unsqueeze(1), after

    def decode_signs(self, signs: Tensor, state: State) -> tuple[Tensor, State]:
        """Samples of the time `delay_frames` before the given tokens.

        Args:
            signs: ``(B, F, K)`` of -1 and +1, or 0 after the end of the signal.
            state: from `start_decoder` or the call before.

        Returns:
            float32 ``(B, 1, F * hop_length)`` and the new state.
        """
        wave, after = self.decoder(signs, state)
        return wave.mT.float(), [end.clone() for end in after]

    def decode_block(self, codes: Tensor, state: State) -> tuple[Tensor, State]:
        """As `decode_signs`, from tokens ``(B, 1, F)``."""
        return self.decode_signs(index_to_signs(codes[:, 0], self.config.num_bits), state)


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
        self.state = codec.start_encoder(batch)
        self.pending = torch.zeros(batch, 1, 0, device=codec.device)

    @torch.no_grad()
    def push(self, wave: Tensor) -> Tensor:
        """Take samples ``(B, 1, N)``, any number; return the tokens ``(B, 1, F)`` now complete."""
        wave = torch.cat([self.pending, wave], dim=-1)
        whole = wave.shape[-1] // self.block * self.block
        codes = [torch.zeros(len(wave), 1, 0, dtype=torch.int64, device=wave.device)]
        for start in range(0, whole, self.block):
            block = wave[..., start : start + self.block]
            new, self.state = self.codec.encode_block(block, self.state)
            codes.append(new)
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
        self.state = codec.start_decoder(batch)
        self.pending = torch.zeros(batch, 0, codec.config.num_bits, device=codec.device)
        self.early = codec.delay_frames * codec.hop_length  # samples before time 0, still to come

    def push(self, codes: Tensor) -> Tensor:
        """Take tokens ``(B, 1, F)``, any number; return the samples ``(B, 1, N)`` now known."""
        return self._push_signs(index_to_signs(codes[:, 0], self.codec.config.num_bits))

    def flush(self) -> Tensor:
        """End the signal: return the samples that waited for later tokens."""
        steps = self.pending.shape[1] + self.codec.delay_frames
        filling = -steps % self.block
        zeros = (0, 0, 0, self.codec.delay_frames + filling)
        rest, self.pending = F.pad(self.pending, zeros), self.pending[:, :0]
        wave = self._push_signs(rest)
        return wave[..., : wave.shape[-1] - filling * self.codec.hop_length]

    @torch.no_grad()
    def _push_signs(self, signs: Tensor) -> Tensor:
        signs = torch.cat([self.pending, signs], dim=1)
        whole = signs.shape[1] // self.block * self.block
        parts = [torch.zeros(len(signs), 1, 0, device=signs.device)]
        for start in range(0, whole, self.block):
            block = signs[:, start : start + self.block]
            new, self.state = self.codec.decode_signs(block, self.state)
            parts.append(new)
        self.pending = signs[:, whole:].clone()
        wave = torch.cat(parts, dim=-1)
        cut = min(self.early, wave.shape[-1])
        self.early -= cut
        return wave[..., cut:]


def fold(network: HacNetwork) -> HacCodec:
    """Make the inference model of a trained network, which stays as it is."""
    return HacCodec(network.config, *network.fold())


def untrained(config: AnyHacConfig, seed: int = 0) -> HacCodec:
    """Make a model of random weights whose tokens are nevertheless diverse.

    Its running statistics are measured on noise of changing level, so that features have unit
    variance and bits are balanced. For tests and demonstrations.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = HacNetwork(config).train()
        for _ in range(4):
            level = 10 ** torch.empty(4, 1, 32).uniform_(-2, -0.5)
            noise = torch.randn(4, 1, 64 * config.hop_length)
            with torch.no_grad():
                network(noise * F.interpolate(level, noise.shape[-1]))
    return fold(network)


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs.

    Attributes:
        name: as in the names of its tensors.
        rate: frames per second that it puts out.
        parameters: numbers it has learned.
        macs: multiplications with a weight per second of audio.
        state: numbers it carries from block to block for one signal.
    """

    name: str
    rate: float
    parameters: int
    macs: float
    state: int


def layer_costs(stack: Stack, rate: float) -> list[LayerCost]:
    """Count each layer of an encoder or decoder that takes ``rate`` frames per second."""
    costs = []
    for name, block in stack.named_blocks():
        macs = block.macs * rate
        rate = rate * block.up / block.down
        parameters = sum(p.numel() for p in block.parameters())
        state = torch.Size(block.state_shape).numel()
        costs.append(LayerCost(name, rate, parameters, macs, state))
    return costs
