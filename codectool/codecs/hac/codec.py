"""HAC for use: folded weights, canonical blocks, streams.

Tokens are 18 signs. Rounding can flip a sign, and rounding depends on the sizes of the matrices
that are multiplied. So files are coded in blocks of `BLOCK_FRAMES` tokens with carried state, the
last one filled up: every product has the same shape, however long the signal is, and a stream in
blocks of that size gives the very same tokens and samples.

The wave kind on a CPU goes through `steps`, one signal after the other; the spectral kind, other
devices and autocast go through the blocks.

Letters used in shapes: B batch, N samples, F frames (= tokens), K bits per token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from codectool.codecs.base import CodecModel, Context, Latency
from codectool.codecs.hac.blocks import Stack
from codectool.codecs.hac.config import AnyHacConfig, HacConfig, parse_config
from codectool.codecs.hac.fast_cpu import BlockRunner, Compiled, Runner, StepRunner, prepare
from codectool.codecs.hac.network import HacNetwork
from codectool.codecs.hac.quantizer import index_to_signs, signs_to_index
from codectool.codecs.stream import Stream
from codectool.errors import ConfigError
from codectool.nn.loading import load_tensors, skip_init

BATCH = 64  # signals side by side: more would cost memory and gain little


def run_ragged(stack: Stack, signals: Sequence[Tensor], block: int) -> list[Tensor]:
    """Run each signal from its start, block by block, the last block filled up with zeros.

    Nothing flows back from the filling, since the stack is causal, nor from one signal to another.
    The longest come first, so that in each block those that go on are the front of the batch.

    Args:
        stack: folded.
        signals: ``(T_i, C)``, none of them empty.
        block: input frames per block.

    Returns:
        ``(T_i * rate, C')`` for each, ``rate`` being output frames per input frame.
    """
    order = sorted(range(len(signals)), key=lambda index: -len(signals[index]))
    made: dict[int, Tensor] = {}
    for first in range(0, len(order), BATCH):
        group = order[first : first + BATCH]
        made |= zip(group, _run_group(stack, [signals[i] for i in group], block), strict=True)
    return [made[index] for index in range(len(signals))]


def _run_group(stack: Stack, signals: list[Tensor], block: int) -> list[Tensor]:
    """As `run_ragged`, for signals that are sorted, the longest first."""
    padded = pad_sequence(signals, batch_first=True)
    padded = F.pad(padded, (0, 0, 0, -padded.shape[1] % block))
    state = stack.start(len(signals), padded.device)
    parts: list[list[Tensor]] = [[] for _ in signals]
    for start in range(0, padded.shape[1], block):
        going = sum(len(signal) > start for signal in signals)
        piece = padded[:going, start : start + block]
        y, state = stack(piece, [end[:going].clone() for end in state])
        for part, new in zip(parts[:going], y, strict=True):
            part.append(new)
    return [
        torch.cat(part)[: len(signal) * len(part[0]) // block]
        for part, signal in zip(parts, signals, strict=True)
    ]


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
        self._prepared: dict[str, Compiled] = {}
        self.requires_grad_(False).eval()

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> HacCodec:
        """Build from folded tensors; ``config`` is needed, the tensors do not say everything."""
        if config is None:
            raise ConfigError("HAC weights come with hyper-parameters, and these have none")
        parsed = parse_config(config)
        with skip_init(state):
            codec = fold(HacNetwork(parsed))
        load_tensors(codec, state)
        return codec

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As `torch.nn.Module.load_state_dict`; the copies that the steps have are dropped."""
        self._prepared.clear()
        return super().load_state_dict(*args, **kwargs)

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """All fields of the config, and which kind it is."""
        return self.config.to_dict()

    def num_frames(self, num_samples: int) -> int:
        """Frames that the samples fill, and for the spectral kind those that end the overlap."""
        return super().num_frames(num_samples) + (self.config.extra_frames if num_samples else 0)

    def reference_frames(self, num_samples: int) -> int:
        """As `num_frames`: there is no published script."""
        return self.num_frames(num_samples)

    @property
    def latency(self) -> Latency:
        """The encoder is causal, the decoder waits for a few tokens."""
        return Latency(encoder=0, decoder=self.delay_frames * self.hop_length)

    def stream_encoder(self, chunk_frames: int | None = None) -> Stream[Any]:
        """Block after block with carried state; the last block is padded with zeros."""
        frames = chunk_frames or BLOCK_FRAMES
        size = self._hops(frames)

        def step(wave: Tensor, runner: Runner, last: bool) -> tuple[Tensor, Runner]:
            length = wave.shape[-1]
            if not length:
                return none, runner
            values = runner(F.pad(wave, (0, size - length)).mT)
            return signs_to_index(values)[:, None, : -(-length // self.hop_length)], runner

        none = torch.zeros(1, 1, 0, dtype=torch.int64, device=self.device)
        return Stream(step, self.encoder_runner(1, frames), size, none)

    def stream_decoder(self, chunk_frames: int | None = None) -> Stream[Any]:
        """Block after block with carried state; the last block is as long as what is left.

        Unlike a token a sample does not need the same rounding in signals of different lengths.
        """
        frames = chunk_frames or BLOCK_FRAMES

        def step(codes: Tensor, state: tuple[Runner, int], last: bool) -> tuple[Tensor, Any]:
            runner, early = state
            signs = index_to_signs(codes[:, 0], self.config.num_bits)
            if last:
                signs = F.pad(signs, (0, 0, 0, self.delay_frames))
            waves = []
            for block in torch.split(signs, frames, dim=1):
                if not block.shape[1]:
                    continue
                if block.shape[1] < frames:
                    rest = self.decoder_runner(1, block.shape[1])
                    rest.load(runner.state())
                    runner = rest
                wave = runner(block).mT.float()
                cut = min(early, wave.shape[-1])  # samples before time 0
                early -= cut
                waves.append(wave[..., cut:])
            return torch.cat([none, *waves], dim=-1), (runner, early)

        none = torch.zeros(1, 1, 0, device=self.device)
        start = self.decoder_runner(1, frames), self._hops(self.delay_frames)
        return Stream(step, start, frames, none)

    @torch.no_grad()
    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """In canonical blocks: one signal after the other on a CPU, else as one batch."""
        if self.device.type != "cpu":
            return self.encode_together(waves)
        codes = []
        for wave in waves:
            stream = self.stream_encoder()
            codes.append(torch.cat([stream.push(wave[None]), stream.flush()], dim=-1)[0])
        return codes

    @torch.no_grad()
    def decode(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """In canonical blocks: one signal after the other on a CPU, else as one batch."""
        if self.device.type != "cpu":
            return self.decode_together(codes)
        waves = []
        for item in codes:
            stream = self.stream_decoder()
            waves.append(torch.cat([stream.push(item[None]), stream.flush()], dim=-1)[0])
        return waves

    @torch.no_grad()
    def encode_together(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """As `encode`, side by side; a bit within rounding of zero may differ."""
        values = run_ragged(self.encoder, [wave.mT for wave in waves], self._hops(BLOCK_FRAMES))
        return [signs_to_index(item)[None] for item in values]

    @torch.no_grad()
    def decode_together(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """As `decode`, side by side: the samples agree within rounding."""
        delay = self.delay_frames
        signs = [index_to_signs(item[0], self.config.num_bits) for item in codes]
        late = [F.pad(item, (0, 0, 0, delay)) for item in signs]
        waves = run_ragged(self.decoder, late, BLOCK_FRAMES)
        return [wave.mT.float()[:, self._hops(delay) :] for wave in waves]

    @property
    def one_by_one(self) -> bool:
        """Whether signals are coded one at a time, through `steps`: the wave kind on a CPU."""
        wave_kind = isinstance(self.config, HacConfig)
        on_cpu = self.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        return wave_kind and on_cpu

    def encoder_runner(self, batch: int, block_frames: int) -> Runner:
        """Samples ``(B, N, 1)`` to values ``(B, F, K)``, ``block_frames`` tokens at a time."""
        return self._runner("encoder", batch, self._hops(block_frames), self.config.num_bits)

    def decoder_runner(self, batch: int, block_frames: int) -> Runner:
        """Signs ``(B, F, K)`` to late samples ``(B, N, 1)``, ``block_frames`` tokens at a time."""
        return self._runner("decoder", batch, block_frames, 1)

    def _hops(self, frames: int) -> int:
        return frames * self.hop_length

    def _runner(self, part: str, batch: int, frames: int, channels: int) -> Runner:
        stack = self.encoder if part == "encoder" else self.decoder
        if batch != 1 or not self.one_by_one:
            return BlockRunner(stack, batch, self.device)
        if part not in self._prepared:
            self._prepared[part] = prepare(stack)
        return StepRunner(self._prepared[part], frames, channels)


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
