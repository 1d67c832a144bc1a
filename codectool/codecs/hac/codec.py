"""HAC for inference: folded weights, chunks of one length, streams.

A token is 18 signs. Rounding can flip a sign, and rounding depends on the sizes of the multiplied
matrices. So signals are encoded in chunks of `CHUNK_FRAMES` tokens with carried state, the last one
padded: every product has the same shape however long the signal is, and a stream with this chunk
length gives the same tokens and samples bit for bit.

On a CPU, the waveform kind uses the executors of `fast_cpu`, one signal at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import override

from codectool.codecs.base import CodecModel, Context, Latency
from codectool.codecs.hac.blocks import Stack, State
from codectool.codecs.hac.config import AnyHacConfig, HacConfig, parse_config
from codectool.codecs.hac.fast_cpu import Executor, Op, compile_stack
from codectool.codecs.hac.network import HacNetwork
from codectool.codecs.hac.quantizer import index_to_signs, signs_to_index
from codectool.codecs.stream import Stream
from codectool.errors import ConfigError
from codectool.nn.loading import load_tensors, skip_init
from codectool.schema import to_json

CHUNK_FRAMES = 75  # one second of the 1.35 kbps preset
MAX_BATCH = 64  # signals that are run side by side; more cost memory and gain little

Run = Callable[[Tensor, Any], tuple[Tensor, Any]]


class HacCodec(CodecModel):
    """HAC of either kind as two folded stacks, encoder and decoder.

    Attributes:
        config: hyper-parameters.
        delay_frames: frames by which the decoder stack is late; `decode` compensates for it.
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
        self._compiled: dict[str, list[Op]] = {}
        self.requires_grad_(False).eval()

    @classmethod
    @override
    def from_state(
        cls, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> HacCodec:
        if config is None:
            raise ConfigError("HAC weights need hyper-parameters; pass --config FILE")
        parsed = parse_config(config)
        with skip_init(state):
            codec = fold(HacNetwork(parsed))
        load_tensors(codec, state)
        return codec

    @override
    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._compiled.clear()
        return super().load_state_dict(*args, **kwargs)

    @property
    @override
    def hyper_parameters(self) -> dict[str, Any]:
        values: dict[str, Any] = to_json(self.config)
        return values

    @override
    def num_frames(self, num_samples: int) -> int:
        return super().num_frames(num_samples) + (self.config.extra_frames if num_samples else 0)

    @override
    def reference_frames(self, num_samples: int) -> int:
        return self.num_frames(num_samples)

    @property
    @override
    def latency(self) -> Latency:
        return Latency(encoder=0, decoder=self.delay_frames * self.hop_length)

    @override
    @torch.no_grad()
    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        if self.device.type != "cpu":
            return self.encode_batched(waves)
        return [_run_stream(self.stream_encoder(), wave) for wave in waves]

    @override
    @torch.no_grad()
    def decode(self, codes: Sequence[Tensor]) -> list[Tensor]:
        if self.device.type != "cpu":
            return self.decode_batched(codes)
        return [_run_stream(self.stream_decoder(), item) for item in codes]

    @override
    def stream_encoder(self, chunk_frames: int | None = None) -> Stream[Any]:
        frames = chunk_frames or CHUNK_FRAMES
        size = frames * self.hop_length
        run = self._executors("encoder")(size)

        def step(wave: Tensor, state: Any, last: bool) -> tuple[Tensor, Any]:
            length = wave.shape[-1]
            if not length:
                return empty, state
            values, state = run(F.pad(wave, (0, size - length)).mT, state)
            return signs_to_index(values)[:, None, : -(-length // self.hop_length)], state

        empty = torch.zeros(1, 1, 0, dtype=torch.int64, device=self.device)
        return Stream(step, None, size, empty)

    @override
    def stream_decoder(self, chunk_frames: int | None = None) -> Stream[Any]:
        frames = chunk_frames or CHUNK_FRAMES
        executor = self._executors("decoder")
        executor(frames)  # allocate the buffers now, not during the first chunk

        def step(codes: Tensor, state: tuple[Any, int], last: bool) -> tuple[Tensor, Any]:
            inner, skip = state  # skip: samples of the delay that are still to be dropped
            signs = index_to_signs(codes[:, 0], self.config.num_bits)
            if last:
                signs = F.pad(signs, (0, 0, 0, self.delay_frames))
            waves = [empty]
            for start in range(0, signs.shape[1], frames):
                chunk = signs[:, start : start + frames]
                # The last chunk is not padded: unlike tokens, samples may be rounded differently.
                y, inner = executor(chunk.shape[1])(chunk, inner)
                waves.append(y.mT.float()[..., skip:])
                skip = max(0, skip - y.shape[1])
            return torch.cat(waves, dim=-1), (inner, skip)

        empty = torch.zeros(1, 1, 0, device=self.device)
        return Stream(step, (None, self.delay_frames * self.hop_length), frames, empty)

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
    def use_cpu_fast_path(self) -> bool:
        """Whether streams use executors instead of modules now: the waveform kind on a CPU."""
        on_cpu = self.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        return self.cpu_fast_path and on_cpu and isinstance(self.config, HacConfig)

    def _executors(self, part: Literal["encoder", "decoder"]) -> Callable[[int], Run]:
        """Return a function that maps a number of input frames to an executor for such chunks.

        All of them have the form that is chosen now, fast or plain, because they share a state.
        """
        stack, out_channels = self.decoder, 1
        if part == "encoder":
            stack, out_channels = self.encoder, self.config.num_bits
        if not self.use_cpu_fast_path:
            return lambda frames: partial(run_chunk, stack)
        if part not in self._compiled:
            self._compiled[part] = compile_stack(stack)
        ops = self._compiled[part]
        return cache(lambda frames: Executor(ops, frames, out_channels))


def fold(network: HacNetwork) -> HacCodec:
    """Build the inference model of a trained network; the network stays as it is."""
    return HacCodec(network.config, *network.fold())


def _run_stream(stream: Stream[Any], x: Tensor) -> Tensor:
    return torch.cat([stream.push(x[None]), stream.flush()], dim=-1)[0]


def run_chunk(stack: Stack, x: Tensor, state: State | None) -> tuple[Tensor, State]:
    """Run one chunk; the new state is copied, for views would keep all activations in memory."""
    y, new_state = stack(x, state)
    return y, [part.clone() for part in new_state]


def run_batched(stack: Stack, signals: Sequence[Tensor], chunk: int) -> list[Tensor]:
    """Run signals of any lengths from their start, chunk by chunk, as a variable-length batch.

    The last chunk of each signal is padded with zeros. The stack is causal, so the padding does not
    affect the output before it.

    Args:
        stack: folded.
        signals: ``(T_i, C)``, none of them empty.
        chunk: input frames per chunk.

    Returns:
        ``(T_i * rate, C')`` for each, ``rate`` being output frames per input frame.
    """
    order = sorted(range(len(signals)), key=lambda index: -len(signals[index]))
    outputs: dict[int, Tensor] = {}
    for first in range(0, len(order), MAX_BATCH):
        group = order[first : first + MAX_BATCH]
        outputs |= zip(group, _run_sorted(stack, [signals[i] for i in group], chunk), strict=True)
    return [outputs[index] for index in range(len(signals))]


def _run_sorted(stack: Stack, signals: list[Tensor], chunk: int) -> list[Tensor]:
    """Run signals that are sorted by length, so that the active ones are the first of the batch."""
    padded = pad_sequence(signals, batch_first=True)
    padded = F.pad(padded, (0, 0, 0, -padded.shape[1] % chunk))
    state: State | None = None
    parts: list[list[Tensor]] = [[] for _ in signals]
    for start in range(0, padded.shape[1], chunk):
        active = sum(len(signal) > start for signal in signals)
        state = state and [part[:active] for part in state]
        y, state = run_chunk(stack, padded[:active, start : start + chunk], state)
        for part, new in zip(parts[:active], y, strict=True):
            part.append(new)
    return [
        torch.cat(part)[: len(signal) * len(part[0]) // chunk]
        for part, signal in zip(parts, signals, strict=True)
    ]
