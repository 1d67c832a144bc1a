"""BigCodec: 16 kHz speech at 1.04 kbps with one codebook of 8192 entries (arXiv 2409.05377).

Encoder (CNN and LSTM) -> factorized vector quantizer -> decoder (LSTM and CNN). The convolutions
look 0.7 s around, the LSTMs run forward over the whole file. Letters used in shapes: B batch,
C channels, D latent width, F frames, K codebooks, N samples, T time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from codectool.codecs.base import CodecModel, Context, Latency
from codectool.codecs.bigcodec.alias_free import REACH, AliasFreeSnake, alias_free
from codectool.codecs.bigcodec.config import BigCodecConfig, HalfConfig
from codectool.codecs.bigcodec.packed import PackedLSTM
from codectool.codecs.bigcodec.quantizer import FactorizedQuantizer
from codectool.codecs.bigcodec.streaming import (
    Chain,
    Conv,
    Cut,
    Flow,
    Layer,
    RecurrentStack,
    Skip,
    StackState,
    Tanh,
    UpConv,
)
from codectool.codecs.segments import segment_decoder, segment_encoder
from codectool.codecs.stream import Stream
from codectool.nn.loading import load_tensors, skip_init
from codectool.nn.quantize import ResidualQuantizer
from codectool.nn.weight_norm import fold_weight_norm, weight_normed

# The decoder's LSTM remembers without limit. A stretch decoded on its own starts this much earlier,
# so that the state it lacks has faded.
LSTM_WARM_UP_SECONDS = 8

# Frames worked on at once: on a CPU so few that what lies between the layers stays in the cache.
CPU_WINDOW = 80
DEVICE_WINDOW = 800
WHOLE = 1 << 40  # more frames than any signal has
# Columns that a block works on at once on a CPU: their numbers fit into the caches, but
# are enough for the weights to be worth reading.
COLUMNS_TIMES_WIDTH = 192_000
MIN_COLUMNS = 400


class ResidualUnit(nn.Module):
    """Activation, dilated convolution, activation, 1x1 convolution, plus the input."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.block = nn.Sequential(
            AliasFreeSnake(channels),
            weight_normed(
                nn.Conv1d(channels, channels, 7, padding=3 * dilation, dilation=dilation)
            ),
            AliasFreeSnake(channels),
            weight_normed(nn.Conv1d(channels, channels, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, C, T)``."""
        return x + cast(Tensor, self.block(x))


class ResidualLSTM(nn.Module):
    """LSTM over time, plus its input."""

    def __init__(self, channels: int, num_layers: int, bidirectional: bool):
        super().__init__()
        hidden = channels // 2 if bidirectional else channels
        self.lstm = nn.LSTM(
            channels, hidden, num_layers, batch_first=True, bidirectional=bidirectional
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, C, T)``."""
        output, _ = self.lstm(x.transpose(1, 2))
        return x + cast(Tensor, output).transpose(1, 2)


class DownBlock(nn.Module):
    """Residual units, activation, strided convolution that doubles the width."""

    def __init__(self, channels: int, stride: int, dilations: tuple[int, ...]):
        super().__init__()
        self.narrow_width = channels
        self.block = nn.Sequential(
            *(ResidualUnit(channels, dilation) for dilation in dilations),
            AliasFreeSnake(channels),
            weight_normed(
                nn.Conv1d(
                    channels, 2 * channels, 2 * stride, stride, padding=stride // 2 + stride % 2
                )
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, 2C, T / stride)``."""
        return cast(Tensor, self.block(x))


class UpBlock(nn.Module):
    """Activation, transposed convolution that halves the width, residual units."""

    def __init__(self, channels: int, stride: int, dilations: tuple[int, ...]):
        super().__init__()
        self.narrow_width = channels // 2
        self.block = nn.Sequential(
            AliasFreeSnake(channels),
            weight_normed(
                nn.ConvTranspose1d(
                    channels,
                    channels // 2,
                    2 * stride,
                    stride,
                    padding=stride // 2 + stride % 2,
                    output_padding=stride % 2,
                )
            ),
            *(ResidualUnit(channels // 2, dilation) for dilation in dilations),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, C / 2, T * stride)``."""
        return cast(Tensor, self.block(x))


class Encoder(nn.Module):
    """Waveform ``(B, 1, N)`` -> latent ``(B, D, F)``."""

    def __init__(self, config: HalfConfig, latent_width: int):
        super().__init__()
        width = config.width
        layers: list[nn.Module] = [weight_normed(nn.Conv1d(1, width, 7, padding=3))]
        for stride in config.ratios:
            layers.append(DownBlock(width, stride, config.dilations))
            width *= 2
        layers += _rnn(config, width)
        layers += [
            AliasFreeSnake(width),
            weight_normed(nn.Conv1d(width, latent_width, 3, padding=1)),
        ]
        self.block = nn.Sequential(*layers)

    def forward(self, wave: Tensor) -> Tensor:
        """Encode whole frames."""
        return cast(Tensor, self.block(wave))


class Decoder(nn.Module):
    """Latent ``(B, D, F)`` -> waveform ``(B, 1, N)`` in (-1, 1)."""

    def __init__(self, config: HalfConfig, latent_width: int):
        super().__init__()
        width = config.width
        layers: list[nn.Module] = [weight_normed(nn.Conv1d(latent_width, width, 7, padding=3))]
        layers += _rnn(config, width)
        for stride in config.ratios:
            layers.append(UpBlock(width, stride, config.dilations))
            width //= 2
        layers += [
            AliasFreeSnake(width),
            weight_normed(nn.Conv1d(width, 1, 7, padding=3)),
            nn.Tanh(),
        ]
        self.model = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> Tensor:
        """Decode whole frames."""
        return cast(Tensor, self.model(latent))


def _rnn(config: HalfConfig, width: int) -> list[nn.Module]:
    if not config.use_rnn:
        return []
    return [ResidualLSTM(width, config.rnn_num_layers, config.rnn_bidirectional)]


def in_pieces(modules: Iterable[nn.Module], rate: int) -> Chain:
    """The same layers for a signal in pieces.

    Args:
        modules: any of the above but the LSTM.
        rate: columns per frame that go into the first.
    """
    layers: list[Layer] = []
    for module in modules:
        layers.append(_in_pieces(module, rate))
        rate = _rate_after(module, rate)
    return Chain(layers)


def _in_pieces(module: nn.Module, rate: int) -> Layer:
    match module:
        case AliasFreeSnake():
            return alias_free(module, rate)
        case nn.Conv1d():
            return Conv(module, rate)
        case nn.ConvTranspose1d():
            return UpConv(module, rate)
        case ResidualUnit():
            return Skip(in_pieces(module.block, rate))
        case DownBlock() | UpBlock():
            # for the cache the end that has more columns counts
            columns = max(MIN_COLUMNS, COLUMNS_TIMES_WIDTH // module.narrow_width)
            grown = max(1, _rate_after(module, rate) // rate)
            return Cut(in_pieces(module.block, rate), max(1, columns // grown))
        case _:
            return Tanh()


def _rate_after(module: nn.Module, rate: int) -> int:
    match module:
        case nn.Conv1d():
            return rate // module.stride[0]
        case nn.ConvTranspose1d():
            return rate * module.stride[0]
        case DownBlock() | UpBlock():
            for inner in module.block:
                rate = _rate_after(inner, rate)
    return rate


def _stack(modules: nn.Sequential, rate: int) -> RecurrentStack:
    """An encoder or decoder, split at its LSTM."""
    layers = list(modules)
    found = [i for i, layer in enumerate(layers) if isinstance(layer, ResidualLSTM)]
    if not found:
        return RecurrentStack(in_pieces(layers, rate), None, Chain([]), rate)
    front, back = layers[: found[0]], layers[found[0] + 1 :]
    lstm = cast(ResidualLSTM, layers[found[0]]).lstm
    return RecurrentStack(in_pieces(front, rate), PackedLSTM(lstm), in_pieces(back, 1), rate)


class BigCodec(CodecModel):
    """The whole codec."""

    family: ClassVar[str] = "bigcodec"

    def __init__(self, config: BigCodecConfig):
        super().__init__()
        self.config = config
        self.sample_rate = config.sample_rate
        self.hop_length = config.hop_length
        self.codebook_sizes = (config.codebook_size,) * config.num_quantizers
        self.decode_context = self._context()
        self._stacks: tuple[RecurrentStack, RecurrentStack] | None = None
        self._stacks_device = torch.device("cpu")
        self.encoder = Encoder(config.encoder, config.latent_width)
        self.quantizer = ResidualQuantizer(
            FactorizedQuantizer(config.latent_width, config.codebook_width, config.codebook_size)
            for _ in range(config.num_quantizers)
        )
        self.decoder = Decoder(config.decoder, config.latent_width)

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> BigCodec:
        """Build from tensors; ``config`` in the authors' style, or None to read the shapes."""
        parsed = (
            BigCodecConfig.from_shapes(state)
            if config is None
            else BigCodecConfig.from_published(config)
        )
        with skip_init(state):
            model = cls(parsed)
        load_tensors(model, state)
        fold_weight_norm(model)
        return model.eval()

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """The config in the authors' style, less what has no effect on a trained model."""
        return self.config.to_published()

    def _context(self) -> Context:
        if self.config.decoder.use_rnn and self.config.decoder.rnn_bidirectional:
            return Context(before=None, after=None)
        convolutions = self._decoder_reach()
        warm_up = math.ceil(LSTM_WARM_UP_SECONDS * self.sample_rate / self.hop_length)
        return Context(
            before=convolutions + (warm_up if self.config.decoder.use_rnn else 0),
            after=convolutions,
        )

    def _decoder_reach(self) -> int:
        """Frames on either side that the decoder's convolutions see, rounded up at each stride."""
        activation = 2 * REACH  # up- and downsampling filter
        units = sum(2 * activation + 3 * d for d in self.config.decoder.dilations)
        reach = 3 + activation  # last convolution, at the rate of the samples
        for stride in reversed(self.config.decoder.ratios):
            # one sample less or more on either side of a transposed kernel of two strides
            reach = -(-(reach + units) // stride) + 2 + activation
        return reach + 3

    def latent(self, wave: Tensor) -> Tensor:
        """Encoder output ``(B, D, F)`` before quantization, float32."""
        return cast(Tensor, self.encoder(wave)).float()

    @torch.no_grad()
    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """The LSTM runs over all signals at once."""
        if not self._streams:
            return [self.quantize(self.latent(wave[None]).mT)[0] for wave in waves]
        if len(waves) == 1:
            stream = self.stream_encoder()
            return [torch.cat([stream.push(waves[0][None]), stream.flush()], -1)[0]]
        return self.encode_many(waves, together=self.device.type != "cpu")

    @torch.no_grad()
    def decode(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """The LSTM runs over all signals at once."""
        if not self._streams:
            return [self.decoder(self.look_up(item[None]).mT)[0].float() for item in codes]
        if len(codes) == 1:
            stream = self.stream_decoder()
            return [torch.cat([stream.push(codes[0][None]), stream.flush()], -1)[0]]
        return self.decode_many(codes, together=self.device.type != "cpu")

    def quantize(self, latent: Tensor) -> Tensor:
        """Codes ``(B, K, F)`` of ``(B, F, D)``, in float32 whatever autocast says."""
        with torch.autocast(latent.device.type, enabled=False):
            codes, _ = self.quantizer(latent.mT.float())
        return cast(Tensor, codes)

    def look_up(self, codes: Tensor) -> Tensor:
        """Latent ``(B, F, D)`` of codes ``(B, K', F)``."""
        return self.quantizer.lookup(codes).mT

    @property
    def _streams(self) -> bool:
        """Whether no LSTM waits for the end of the signal."""
        halves = (self.config.encoder, self.config.decoder)
        return not any(half.use_rnn and half.rnn_bidirectional for half in halves)

    @property
    def window(self) -> int:
        """Frames worked on at once."""
        return CPU_WINDOW if self.device.type == "cpu" else DEVICE_WINDOW

    @property
    def stacks(self) -> tuple[RecurrentStack, RecurrentStack]:
        """Encoder and decoder for signals in pieces, of the weights that are there now."""
        if self._stacks is None or self._stacks_device != self.device:
            self._stacks = self._make_stacks()
            self._stacks_device = self.device
        return self._stacks

    def _make_stacks(self) -> tuple[RecurrentStack, RecurrentStack]:
        return _stack(self.encoder.block, self.hop_length), _stack(self.decoder.model, 1)

    def __getstate__(self) -> dict[str, Any]:
        # packed weights cannot be copied
        return {**self.__dict__, "_stacks": None}

    def train(self, mode: bool = True) -> BigCodec:
        """Weights that are trained again are prepared again."""
        self._stacks = None
        return super().train(mode)

    @property
    def latency(self) -> Latency:
        """From what the layers look ahead; the LSTM looks back."""
        if not self._streams:
            return Latency(encoder=None, decoder=None)
        encoder, decoder = self._make_stacks()
        ahead = decoder.needs(self.hop_length) - 1
        return Latency(encoder.needs(1) - self.hop_length, ahead * self.hop_length)

    @torch.no_grad()
    def encode_many(self, waves: Sequence[Tensor], together: bool) -> list[Tensor]:
        """As `encode_ragged`; ``together`` says whether convolutions run over all at once, too."""
        signals = [wave.mT for wave in waves]
        latents = self.stacks[0].side_by_side(signals, self.window, together)
        return [self.quantize(latent[None])[0] for latent in latents]

    @torch.no_grad()
    def decode_many(self, codes: Sequence[Tensor], together: bool) -> list[Tensor]:
        """As `decode_ragged`; ``together`` as in `encode_many`."""
        latents = [self.look_up(signal[None])[0] for signal in codes]
        waves = self.stacks[1].side_by_side(latents, self.window, together)
        return [wave.mT.float() for wave in waves]

    def stream_encoder(self, chunk_frames: int | None = None) -> Stream[Any]:
        """Window after window; a bidirectional LSTM has to wait for the end of the signal."""
        if not self._streams:
            return segment_encoder(self, WHOLE)
        stack, none = self.stacks[0], self._no_codes()

        def step(wave: Tensor, state: StackState, last: bool) -> tuple[Tensor, StackState]:
            latent, state = stack.step(wave.mT, state, last)
            return self.quantize(latent) if latent.shape[1] else none, state

        frames = chunk_frames or self.window
        return Stream(step, (Flow(), None), frames * self.hop_length, none)

    def stream_decoder(self, chunk_frames: int | None = None) -> Stream[Any]:
        """Window after window; a bidirectional LSTM has to wait for the end of the codes."""
        if not self._streams:
            return segment_decoder(self, WHOLE)
        stack = self.stacks[1]

        def step(codes: Tensor, state: StackState, last: bool) -> tuple[Tensor, StackState]:
            wave, state = stack.step(self.look_up(codes), state, last)
            return wave.mT.float(), state

        none = torch.zeros(1, 1, 0, device=self.device)
        return Stream(step, (Flow(), None), chunk_frames or self.window, none)

    def _no_codes(self) -> Tensor:
        codebooks = len(self.codebook_sizes)
        return torch.zeros(1, codebooks, 0, dtype=torch.int64, device=self.device)

    def num_frames(self, num_samples: int) -> int:
        """As upstream frames them: the padding there loses nothing."""
        return self.reference_frames(num_samples) if num_samples else 0

    def reference_frames(self, num_samples: int) -> int:
        """The script always pads, by a whole frame where the length is already whole."""
        return num_samples // self.hop_length + 1
