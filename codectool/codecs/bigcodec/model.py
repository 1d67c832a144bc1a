"""BigCodec for training and inference (arXiv 2409.05377).

Encoder (CNN and LSTM) -> factorized vector quantizer -> decoder (LSTM and CNN). The convolutions
see 0.7 s on either side; the LSTMs of the published model are unidirectional.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from codectool.codecs.base import CodecModel, Step, Stream
from codectool.codecs.bigcodec.alias_free import REACH, AliasFreeSnake, streaming_snake
from codectool.codecs.bigcodec.config import BigCodecConfig, DecoderConfig, EncoderConfig
from codectool.codecs.bigcodec.quantizer import FactorizedQuantizer
from codectool.codecs.bigcodec.streaming import (
    Pointwise,
    Residual,
    Sequential,
    StreamingLSTM,
    StreamingModule,
    StreamState,
    Tiled,
    run_batch,
    streaming_conv,
    streaming_transposed_conv,
)
from codectool.codecs.properties import Context, Latency
from codectool.codecs.segments import segment_decoder, segment_encoder
from codectool.nn.derived import Derived
from codectool.nn.loading import load_tensors, skip_init
from codectool.nn.quantize import ResidualQuantizer
from codectool.nn.weight_norm import fold_weight_norm, weight_normed

LSTM_WARM_UP_SECONDS = 8  # context before a range, in which the LSTM state converges
CPU_CHUNK_FRAMES = 80  # few enough for the activations to stay in the cache
DEVICE_CHUNK_FRAMES = 800
UNLIMITED_FRAMES = 1 << 40


def _conv(c_in: int, c_out: int, kernel: int, dilation: int = 1) -> nn.Conv1d:
    """Return a convolution that keeps the length of its input."""
    padding = (kernel - 1) // 2 * dilation
    return weight_normed(nn.Conv1d(c_in, c_out, kernel, padding=padding, dilation=dilation))


class _Layers(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*layers)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.block(x))


class ResidualUnit(_Layers):
    """Activation, dilated convolution, activation, 1x1 convolution, plus the input."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__(
            AliasFreeSnake(channels),
            _conv(channels, channels, 7, dilation),
            AliasFreeSnake(channels),
            _conv(channels, channels, 1),
        )

    @override
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class ResidualLSTM(nn.Module):
    """LSTM over time, plus its input ``(B, C, T)``."""

    def __init__(self, channels: int, num_layers: int, bidirectional: bool) -> None:
        super().__init__()
        hidden = channels // 2 if bidirectional else channels
        self.lstm = nn.LSTM(
            channels, hidden, num_layers, batch_first=True, bidirectional=bidirectional
        )

    @override
    def forward(self, x: Tensor) -> Tensor:
        output, _ = self.lstm(x.transpose(1, 2))
        return x + cast(Tensor, output).transpose(1, 2)


class DownBlock(_Layers):
    """Residual units, activation, strided convolution that doubles the channels."""

    def __init__(self, channels: int, stride: int, dilations: tuple[int, ...]) -> None:
        padding = (stride + 1) // 2
        super().__init__(
            *(ResidualUnit(channels, dilation) for dilation in dilations),
            AliasFreeSnake(channels),
            weight_normed(nn.Conv1d(channels, 2 * channels, 2 * stride, stride, padding)),
        )
        self.tile_columns = _tile_columns(channels)


class UpBlock(_Layers):
    """Activation, transposed convolution that halves the channels, residual units."""

    def __init__(self, channels: int, stride: int, dilations: tuple[int, ...]) -> None:
        half, padding = channels // 2, (stride + 1) // 2
        super().__init__(
            AliasFreeSnake(channels),
            weight_normed(
                nn.ConvTranspose1d(channels, half, 2 * stride, stride, padding, stride % 2)
            ),
            *(ResidualUnit(half, dilation) for dilation in dilations),
        )
        self.tile_columns = max(1, _tile_columns(half) // stride)


def _tile_columns(channels: int) -> int:
    """Return the columns that fit the cache, but enough to be worth the calls and the weights."""
    return max(400, 384_000 // channels)


class Encoder(_Layers):
    """Waveform ``(B, 1, N)`` -> latent ``(B, D, F)``."""

    def __init__(self, config: EncoderConfig) -> None:
        width = config.ngf
        layers: list[nn.Module] = [_conv(1, width, 7)]
        for stride in config.up_ratios:
            layers.append(DownBlock(width, stride, config.dilations))
            width *= 2
        layers += _lstm_layers(config, width)
        super().__init__(*layers, AliasFreeSnake(width), _conv(width, config.out_channels, 3))


class Decoder(nn.Module):
    """Latent ``(B, D, F)`` -> waveform ``(B, 1, N)`` in (-1, 1)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.upsample_initial_channel
        layers: list[nn.Module] = [_conv(config.in_channels, width, 7)]
        layers += _lstm_layers(config, width)
        for stride in config.up_ratios:
            layers.append(UpBlock(width, stride, config.dilations))
            width //= 2
        self.model = nn.Sequential(*layers, AliasFreeSnake(width), _conv(width, 1, 7), nn.Tanh())

    @override
    def forward(self, latent: Tensor) -> Tensor:
        return cast(Tensor, self.model(latent))


def _lstm_layers(config: EncoderConfig | DecoderConfig, width: int) -> list[nn.Module]:
    if not config.use_rnn:
        return []
    return [ResidualLSTM(width, config.rnn_num_layers, config.rnn_bidirectional)]


def streaming_form(module: nn.Module, dtype: torch.dtype = torch.float32) -> StreamingModule:
    """Return a streaming module with the same weights, which may be converted on first use.

    Args:
        module: a layer.
        dtype: of the factors of its products.
    """
    convert = partial(streaming_form, dtype=dtype)
    match module:
        case nn.Conv1d():
            return streaming_conv(module, dtype)
        case nn.ConvTranspose1d():
            return streaming_transposed_conv(module, dtype)
        case nn.Tanh():
            return Pointwise(torch.tanh)
        case AliasFreeSnake():
            return streaming_snake(module)
        case ResidualUnit():
            return Residual(map(convert, module.block))
        case ResidualLSTM():
            return StreamingLSTM(module.lstm, dtype)
        case DownBlock() | UpBlock():
            return Tiled(map(convert, module.block), module.tile_columns)
    raise TypeError(f"{type(module).__name__} has no streaming form")


class BigCodec(CodecModel):
    """Encoder, quantizer and decoder.

    Signals are processed in chunks by the streaming forms of the layers, unless an LSTM is
    bidirectional. On a CPU, `cpu_fast_path` set to False runs the plain modules on whole signals; a
    stream then returns everything at its end.
    """

    family = "bigcodec"
    config: BigCodecConfig
    min_padding = 1  # as in the reference implementation
    faster_in_batches = True  # a step of the LSTM reads its weights once for all signals

    def __init__(self, config: BigCodecConfig) -> None:
        super().__init__()
        encoder, decoder = config.codec_encoder, config.codec_decoder
        self.config = config
        self.sample_rate = config.sample_rate
        self.hop_length = config.hop_length
        self.codebook_sizes = (decoder.codebook_size,) * decoder.vq_num_quantizers
        self.latent_channels = decoder.vq_dim
        self.decode_context = self._context()
        self.encoder = Encoder(encoder)
        self.quantizer = ResidualQuantizer(
            FactorizedQuantizer(decoder.vq_dim, decoder.codebook_dim, decoder.codebook_size)
            for _ in range(decoder.vq_num_quantizers)
        )
        self.decoder = Decoder(decoder)
        self._networks: Derived[tuple[Sequential, Sequential]] = Derived()
        self._bf16_decoder: Derived[Sequential] = Derived()
        self.latency = self._latency()

    @classmethod
    @override
    def from_state(
        cls, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> BigCodec:
        """Build the inference model; ``config`` has the published layout; None infers it."""
        if config is None:
            parsed = BigCodecConfig.from_shapes(state)
        else:
            parsed = BigCodecConfig.from_published(config)
        with skip_init(state):
            model = cls(parsed)
        load_tensors(model, state)
        fold_weight_norm(model)
        return model.eval()

    @override
    def reference_frames(self, num_samples: int) -> int:
        return num_samples // self.hop_length + 1

    @override
    @torch.no_grad()
    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        if not self._in_chunks:
            return [self.quantize(self.latent(wave[None]))[0] for wave in waves]
        if len(waves) == 1:
            return [self.stream_encoder().run(waves[0][None])[0]]
        chunk_size = self._chunk_frames * self.hop_length
        signals = [wave.mT for wave in waves]
        latents = run_batch(self.networks[0], signals, chunk_size, self.device.type != "cpu")
        return [self.quantize(latent[None])[0] for latent in latents]

    @override
    @torch.no_grad()
    def decode(self, codes: Sequence[Tensor]) -> list[Tensor]:
        if not self._in_chunks:
            return [self.decoder(self.dequantize(item[None]).mT)[0].float() for item in codes]
        if len(codes) == 1:
            return [self.stream_decoder().run(codes[0][None])[0]]
        chunk_size = self._chunk_frames
        latents = [self.dequantize(item[None])[0] for item in codes]
        waves = run_batch(self._decoder_network, latents, chunk_size, self.device.type != "cpu")
        return [wave.mT.float() for wave in waves]

    @override
    @torch.no_grad()
    def latents(self, waves: Sequence[Tensor]) -> list[Tensor]:
        if not self._in_chunks:
            return [self.latent(wave[None])[0].mT for wave in waves]
        return [self.stream_encoder(latents=True).run(wave[None])[0] for wave in waves]

    @override
    def stream_encoder(
        self, chunk_frames: int | None = None, *, latents: bool = False
    ) -> Stream[Any]:
        if not self._in_chunks:
            return segment_encoder(self, UNLIMITED_FRAMES, latents)
        chunk_size = (chunk_frames or self._chunk_frames) * self.hop_length
        empty = self.no_latents if latents else self.no_codes
        return Stream(partial(self._encoder_step, latents), None, chunk_size, empty)

    def _encoder_step(self, latents: bool) -> Step[StreamState | None]:
        network = self.networks[0]
        start = network.initial_state()

        def step(wave: Tensor, state: StreamState | None, last: bool) -> tuple[Tensor, StreamState]:
            latent, state = network.forward(wave.mT, state or start, last)
            if latents:
                return latent.mT.float(), state
            return self.quantize(latent) if latent.shape[1] else self.no_codes, state

        return step

    @override
    def stream_decoder(self, chunk_frames: int | None = None) -> Stream[Any]:
        if not self._in_chunks:
            return segment_decoder(self, UNLIMITED_FRAMES)
        chunk_size = chunk_frames or self._chunk_frames
        return Stream(self._decoder_step, None, chunk_size, self.no_samples)

    def _decoder_step(self) -> Step[StreamState | None]:
        network = self._decoder_network
        start = network.initial_state()

        def step(
            codes: Tensor, state: StreamState | None, last: bool
        ) -> tuple[Tensor, StreamState]:
            wave, state = network.forward(self.dequantize(codes), state or start, last)
            return wave.mT.float(), state

        return step

    def latent(self, wave: Tensor) -> Tensor:
        """Return the latent ``(B, F, D)`` of ``(B, 1, N)`` by the plain modules, float32."""
        return cast(Tensor, self.encoder(wave)).mT.float()

    @override
    def quantize(self, latent: Tensor) -> Tensor:
        with torch.autocast(latent.device.type, enabled=False):
            codes, _ = self.quantizer(latent.float())
        return cast(Tensor, codes)

    @override
    def dequantize(self, codes: Tensor) -> Tensor:
        return self.quantizer.lookup(codes)

    @property
    def networks(self) -> tuple[Sequential, Sequential]:
        """Streaming forms of encoder and decoder; they pack their weights when first used."""
        return self._networks.get(self, self._streaming_forms)

    def _streaming_forms(self) -> tuple[Sequential, Sequential]:
        # Layers at the sampling rate share the tiles of the block beside them.
        first, block, *layers = self.encoder.block
        start = map(streaming_form, (first, block))
        tiled = Tiled(start, cast(DownBlock, block).tile_columns)
        encoder = Sequential([tiled, *map(streaming_form, layers)])
        return encoder, self._decoder_form(torch.float32)

    def _decoder_form(self, dtype: torch.dtype) -> Sequential:
        *layers, block, snake, conv, tanh = self.decoder.model
        start = (streaming_form(layer, dtype) for layer in layers)
        # Rounding of the last products would add noise at all frequencies, also to silence.
        end = map(streaming_form, (snake, conv, tanh))
        tiled = Tiled([streaming_form(block, dtype), *end], cast(UpBlock, block).tile_columns)
        return Sequential([*start, tiled])

    @property
    @override
    def has_bf16_decoder(self) -> bool:
        return self._in_chunks

    @property
    def _decoder_network(self) -> Sequential:
        if self.decoder_dtype == torch.float32:
            return self.networks[1]
        return self._bf16_decoder.get(self.decoder, partial(self._decoder_form, torch.bfloat16))

    @property
    def _chunk_frames(self) -> int:
        return CPU_CHUNK_FRAMES if self.device.type == "cpu" else DEVICE_CHUNK_FRAMES

    @property
    def _bidirectional(self) -> bool:
        sections = (self.config.codec_encoder, self.config.codec_decoder)
        return any(section.use_rnn and section.rnn_bidirectional for section in sections)

    @property
    def _in_chunks(self) -> bool:
        on_cpu = self.device.type == "cpu"
        return not self._bidirectional and (self.cpu_fast_path or not on_cpu)

    def _latency(self) -> Latency:
        if self._bidirectional:
            return Latency(encoder=None, decoder=None)
        encoder, decoder = self.networks
        return Latency(
            encoder=encoder.required_input(1) - self.hop_length,
            decoder=(decoder.required_input(self.hop_length) - 1) * self.hop_length,
        )

    def _context(self) -> Context:
        if self._bidirectional:
            return Context(before=None, after=None)
        decoder = self.config.codec_decoder
        warm_up = math.ceil(LSTM_WARM_UP_SECONDS * self.sample_rate / self.hop_length)
        reach = self.decoder_reach
        return Context(before=reach + (warm_up if decoder.use_rnn else 0), after=reach)

    @property
    def decoder_reach(self) -> int:
        """Frames on either side of a frame that the convolutions of the decoder see."""
        decoder = self.config.codec_decoder
        activation = 2 * REACH  # up- and downsampling filter
        units = sum(2 * activation + 3 * dilation for dilation in decoder.dilations)
        reach = 3 + activation  # last convolution, in samples
        for stride in reversed(decoder.up_ratios):
            # Rounded up; a transposed kernel of two strides sees one column more on one side.
            reach = -(-(reach + units) // stride) + 2 + activation
        return reach + 3
