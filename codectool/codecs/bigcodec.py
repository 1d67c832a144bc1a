"""BigCodec: 16 kHz speech at 1.04 kbps with one codebook of 8192 entries (arXiv 2409.05377).

Encoder (CNN and LSTM) -> factorized vector quantizer -> decoder (LSTM and CNN). The convolutions
look 0.7 s around, the LSTMs run forward over the whole file. Letters used in shapes: B batch,
C channels, D latent width, F frames, K quantizers, N samples, T time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from codectool.codecs.base import CodecModel, Context, Latency, StreamDecoder, StreamEncoder
from codectool.codecs.bigcodec_config import BigCodecConfig, HalfConfig
from codectool.codecs.segments import SegmentDecoder, SegmentEncoder
from codectool.nn.alias_free import REACH, AliasFreeSnake
from codectool.nn.blank import BlankModel
from codectool.nn.loading import load_tensors
from codectool.nn.quantize import FactorizedQuantizer, ResidualQuantizer
from codectool.nn.weight_norm import fold_weight_norm, weight_normed

# The decoder's LSTM remembers without limit. A stretch decoded on its own starts this much earlier,
# so that the state it lacks has faded.
LSTM_WARM_UP_SECONDS = 8


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
        with BlankModel(state):
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

    def encode(self, wave: Tensor) -> Tensor:
        """``(B, 1, N)`` -> codes ``(B, K, F)``."""
        latent = self.latent(wave)
        with torch.autocast(latent.device.type, enabled=False):
            codes, _ = self.quantizer(latent)
        return cast(Tensor, codes)

    def decode(self, codes: Tensor) -> Tensor:
        """``(B, K', F)`` -> ``(B, 1, N)``."""
        return cast(Tensor, self.decoder(self.quantizer.lookup(codes))).float()

    @property
    def latency(self) -> Latency:
        """Interim: as of a model that looks at everything."""
        return Latency(encoder=None, decoder=None)

    def stream_encoder(self, block_frames: int | None = None) -> StreamEncoder:
        """Interim: one whole."""
        return SegmentEncoder(self, 1 << 40)

    def stream_decoder(self, block_frames: int | None = None) -> StreamDecoder:
        """Interim: one whole."""
        return SegmentDecoder(self, 1 << 40)

    def num_frames(self, num_samples: int) -> int:
        """As upstream frames them: the padding there loses nothing."""
        return self.upstream_frames(num_samples) if num_samples else 0

    def upstream_frames(self, num_samples: int) -> int:
        """The script always pads, by a whole frame where the length is already whole."""
        return num_samples // self.hop_length + 1
