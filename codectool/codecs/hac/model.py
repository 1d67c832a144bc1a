"""HAC for inference: folded weights, chunks of one length, streams.

A token is 18 signs. Rounding can flip a sign, and rounding depends on the sizes of the multiplied
matrices. So signals are encoded in chunks of `CHUNK_FRAMES` tokens with carried state, the last one
padded: every product has the same shape however long the signal is, and a stream with this chunk
length gives the same tokens and samples bit for bit.

On a CPU, the waveform kind uses the executors of `fast_cpu`, one signal at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import override

from codectool.codecs.base import CodecModel, Step, Stream
from codectool.codecs.hac.blocks import Stack, State
from codectool.codecs.hac.config import AnyHacConfig, HacConfig, parse_config
from codectool.codecs.hac.fast_cpu import CompiledStack, Executor
from codectool.codecs.hac.network import HacNetwork
from codectool.codecs.hac.quantizer import index_to_signs, signs_to_index
from codectool.codecs.hac.source import RESTART_TOKENS
from codectool.codecs.properties import Context, Latency
from codectool.errors import ConfigError
from codectool.nn.derived import Derived
from codectool.nn.loading import load_tensors, skip_init

CHUNK_FRAMES = 75  # one second of the 1.35 kbps preset
MAX_BATCH = 64  # signals that are run as one batch; more cost memory and gain little

Run = Callable[[Tensor, Any], tuple[Tensor, Any]]


class HacCodec(CodecModel):
    """HAC of either kind as two folded stacks, encoder and decoder.

    Attributes:
        delay_frames: frames by which the decoder stack is late; `decode` compensates for it.
    """

    family = "hac"
    config: AnyHacConfig
    cpu_threads = 1

    def __init__(self, config: AnyHacConfig, encoder: Stack, decoder: Stack) -> None:
        super().__init__()
        self.config = config
        self.sample_rate = config.sample_rate
        self.hop_length = config.hop_length
        self.codebook_sizes = (2**config.num_bits,)
        self.latent_channels = config.num_bits
        self.extra_frames = config.extra_frames
        self.delay_frames = config.delay_frames
        self.decode_context = self._context(decoder)
        self.latency = Latency(encoder=0, decoder=self.delay_frames * self.hop_length)
        self.encoder = encoder
        self.decoder = decoder
        self._compiled: dict[str, Derived[CompiledStack]] = {
            "encoder": Derived(),
            "decoder": Derived(),
        }
        self.requires_grad_(False).eval()

    def _context(self, decoder: Stack) -> Context:
        """Return the context with which the products of a range are those of the whole signal."""
        before = max(0, -decoder.first_input(0) - self.delay_frames)
        start_step = CHUNK_FRAMES
        if isinstance(self.config, HacConfig) and self.config.source is not None:
            before, start_step = max(before, RESTART_TOKENS), RESTART_TOKENS
        return Context(before, self.delay_frames, start_step, CHUNK_FRAMES)

    @classmethod
    @override
    def from_state(
        cls, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> HacCodec:
        if config is None:
            raise ConfigError("HAC weights need hyper-parameters; pass --config FILE")
        parsed = parse_config(config)
        with skip_init(state):
            codec = HacCodec(parsed, *HacNetwork(parsed).fold_())
        load_tensors(codec, state)
        return codec

    @override
    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        if self.device.type != "cpu":
            return self.encode_batched(waves)
        return [self.stream_encoder().run(wave[None])[0] for wave in waves]

    @override
    def decode(self, codes: Sequence[Tensor]) -> list[Tensor]:
        if self.device.type != "cpu":
            return self.decode_batched(codes)
        return [self.stream_decoder().run(item[None])[0] for item in codes]

    @override
    def latents(self, waves: Sequence[Tensor]) -> list[Tensor]:
        return [self.stream_encoder(latents=True).run(wave[None])[0] for wave in waves]

    @override
    def quantize(self, latent: Tensor) -> Tensor:
        return signs_to_index(latent)[:, None]

    @override
    def dequantize(self, codes: Tensor) -> Tensor:
        return index_to_signs(codes[:, 0], self.config.num_bits)

    @override
    def stream_encoder(
        self, chunk_frames: int | None = None, *, latents: bool = False
    ) -> Stream[Any]:
        chunk_size = (chunk_frames or CHUNK_FRAMES) * self.hop_length
        make_step = partial(self._encoder_step, chunk_size, latents)
        return Stream(make_step, None, chunk_size, self.no_latents if latents else self.no_codes)

    def _encoder_step(self, chunk_size: int, latents: bool) -> Step[Any]:
        run = self._runner("encoder", chunk_size)
        empty = self.no_latents if latents else self.no_codes

        def step(wave: Tensor, state: Any, last: bool) -> tuple[Tensor, Any]:
            length = wave.shape[-1]
            if not length:
                return empty, state
            values, state = run(F.pad(wave, (0, chunk_size - length)).mT, state)
            output = values.mT.float() if latents else self.quantize(values)
            return output[..., : -(-length // self.hop_length)], state

        return step

    @override
    def stream_decoder(self, chunk_frames: int | None = None) -> Stream[Any]:
        chunk_size = chunk_frames or CHUNK_FRAMES
        state = None, self.delay_frames * self.hop_length
        return Stream(partial(self._decoder_step, chunk_size), state, chunk_size, self.no_samples)

    def _decoder_step(self, chunk_size: int) -> Step[Any]:
        run = self._runner("decoder", chunk_size)

        def step(codes: Tensor, state: tuple[Any, int], last: bool) -> tuple[Tensor, Any]:
            inner, skip = state  # skip: samples of the delay that are still to be dropped
            signs = self.dequantize(codes)
            if last:
                signs = F.pad(signs, (0, 0, 0, self.delay_frames))
            waves = [self.no_samples]
            for start in range(0, signs.shape[1], chunk_size):
                # The last chunk is not padded: unlike tokens, samples may be rounded differently.
                y, inner = run(signs[:, start : start + chunk_size], inner)
                waves.append(y.mT.float()[..., skip:])
                skip = max(0, skip - y.shape[1])
            return torch.cat(waves, dim=-1), (inner, skip)

        return step

    @torch.no_grad()
    def encode_batched(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Encode signals side by side; bits whose value is within rounding of zero may differ."""
        size = CHUNK_FRAMES * self.hop_length
        values = run_batched(self.encoder, [wave.mT for wave in waves], size)
        return [signs_to_index(item)[None] for item in values]

    @torch.no_grad()
    def decode_batched(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """Decode signals side by side; samples differ from `decode` by rounding only."""
        delay = self.delay_frames
        signs = [index_to_signs(item[0], self.config.num_bits) for item in codes]
        padded = [F.pad(item, (0, 0, 0, delay)) for item in signs]
        waves = run_batched(self.decoder, padded, CHUNK_FRAMES)
        return [wave.mT.float()[:, delay * self.hop_length :] for wave in waves]

    @property
    @override
    def follows_autocast(self) -> bool:
        return not self.use_cpu_fast_path

    @property
    def use_cpu_fast_path(self) -> bool:
        """Whether streams use executors instead of modules: the waveform kind on a CPU.

        Executors compute in float32 under autocast, too, which takes less time than bfloat16.
        """
        on_cpu = self.device.type == "cpu"
        return self.cpu_fast_path and on_cpu and isinstance(self.config, HacConfig)

    def _runner(self, part: Literal["encoder", "decoder"], chunk_size: int) -> Run:
        """Return a function that runs chunks of ``chunk_size`` input frames, and shorter ones."""
        stack = self.encoder if part == "encoder" else self.decoder
        if not self.use_cpu_fast_path:
            return partial(run_chunk, stack)
        kept_frames, out_channels = CHUNK_FRAMES, 1
        if part == "encoder":
            kept_frames, out_channels = CHUNK_FRAMES * self.hop_length, self.config.num_bits
        compile_ = partial(CompiledStack, stack, kept_frames)
        return Executor(self._compiled[part].get(stack, compile_), chunk_size, out_channels)


def fold(network: HacNetwork) -> HacCodec:
    """Build the inference model of a trained network; the network stays as it is."""
    return HacCodec(network.config, *network.fold())


def run_chunk(stack: Stack, x: Tensor, state: State | None) -> tuple[Tensor, State]:
    """Run one chunk; the new state is copied, for views would keep all activations in memory."""
    y, new_state = stack(x, state)
    return y, [part.clone() for part in new_state]


def run_batched(stack: Stack, signals: Sequence[Tensor], chunk_size: int) -> list[Tensor]:
    """Run signals of any lengths from their start, chunk by chunk, as variable-length batches.

    The last chunk of each signal ``(T_i, C)``, T_i > 0, is padded with zeros. The stack is causal,
    so the padding does not affect the output before it.
    """
    outputs: list[list[Tensor]] = [[] for _ in signals]
    order = sorted(range(len(signals)), key=lambda i: len(signals[i]), reverse=True)
    for first in range(0, len(order), MAX_BATCH):
        active = order[first : first + MAX_BATCH]
        batch = pad_sequence([signals[i] for i in active], batch_first=True)
        state: State | None = None
        for start in range(0, batch.shape[1], chunk_size):
            # Signals are sorted by length, so those that have not ended are the first rows.
            active = [i for i in active if len(signals[i]) > start]
            x = batch[: len(active), start : start + chunk_size]
            x = F.pad(x, (0, 0, 0, chunk_size - x.shape[1]))
            y, state = run_chunk(stack, x, state and [part[: len(active)] for part in state])
            for i, row in zip(active, y, strict=True):
                outputs[i].append(row)
    return [
        torch.cat(rows)[: len(signal) * len(rows[0]) // chunk_size]
        for rows, signal in zip(outputs, signals, strict=True)
    ]
