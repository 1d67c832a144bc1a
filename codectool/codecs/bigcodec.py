"""BigCodec: 16 kHz speech at 1.04 kbps with one codebook of 8192 entries (arXiv 2409.05377).

Encoder (CNN and LSTM) -> factorized vector quantizer -> decoder (LSTM and CNN). The convolutions
look 0.7 s around, the LSTMs run forward over the whole file. Letters used in shapes: B batch,
C channels, D latent width, F frames, K quantizers, N samples, T time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from codectool.codecs.base import CodecModel, Context
from codectool.codecs.hyper import Fields
from codectool.errors import ConfigError
from codectool.nn.alias_free import AliasFreeSnake
from codectool.nn.loading import load_tensors
from codectool.nn.quantize import FactorizedQuantizer, ResidualQuantizer
from codectool.nn.weight_norm import fold_weight_norm, to_old_name, weight_normed

# The decoder's LSTM remembers without limit. A stretch decoded on its own starts this much earlier,
# so that the state it lacks has faded.
LSTM_WARM_UP_SECONDS = 8


@dataclass(frozen=True)
class HalfConfig:
    """Shape of the encoder or of the decoder.

    Attributes:
        width: channels at the waveform's end (encoder) or at the latent's end (decoder).
        ratios: strides in order.
        dilations: of the residual units in every block.
        use_rnn: whether an LSTM stands at the latent's end.
        rnn_bidirectional: whether it runs both ways.
        rnn_num_layers: its depth.
    """

    width: int
    ratios: tuple[int, ...]
    dilations: tuple[int, ...]
    use_rnn: bool
    rnn_bidirectional: bool
    rnn_num_layers: int

    def __post_init__(self) -> None:
        if self.width < 1 or not self.ratios or min(*self.ratios, *self.dilations, 1) < 1:
            raise ConfigError("widths, ratios and dilations must be positive")
        if self.use_rnn and self.rnn_num_layers < 1:
            raise ConfigError("rnn_num_layers must be positive")


@dataclass(frozen=True)
class BigCodecConfig:
    """Hyper-parameters of a BigCodec model."""

    sample_rate: int
    latent_width: int
    encoder: HalfConfig
    decoder: HalfConfig
    num_quantizers: int
    codebook_size: int
    codebook_width: int

    def __post_init__(self) -> None:
        if math.prod(self.encoder.ratios) != math.prod(self.decoder.ratios):
            raise ConfigError(
                f"up_ratios of encoder {self.encoder.ratios} and decoder {self.decoder.ratios} "
                "do not multiply to the same hop"
            )
        if self.decoder.width % 2 ** len(self.decoder.ratios):
            raise ConfigError(
                f"upsample_initial_channel {self.decoder.width} cannot be halved "
                f"{len(self.decoder.ratios)} times"
            )

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.encoder.ratios)

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> BigCodecConfig:
        """Read the sections ``codec_encoder`` and ``codec_decoder`` of the authors' configs.

        Raises:
            ConfigError: a key is missing, unknown or of the wrong type.
        """
        top = Fields(config, "config", ignored={"pad_multiple"})
        encoder = Fields(top.section("codec_encoder"), "codec_encoder")
        decoder = Fields(
            top.section("codec_decoder"),
            "codec_decoder",
            # Accepted by the authors' code and of no effect on a trained model.
            ignored={"ngf", "vq_commit_weight", "vq_weight_init", "vq_full_commit_loss"},
        )
        latent_width = encoder.integer("out_channels")
        for key in ("in_channels", "vq_dim"):
            if decoder.integer(key) != latent_width:
                raise ConfigError(f"codec_decoder.{key} differs from codec_encoder.out_channels")
        parsed = cls(
            sample_rate=top.integer("sample_rate"),
            latent_width=latent_width,
            encoder=_half(encoder, "ngf"),
            decoder=_half(decoder, "upsample_initial_channel"),
            num_quantizers=decoder.integer("vq_num_quantizers"),
            codebook_size=decoder.integer("codebook_size"),
            codebook_width=decoder.integer("codebook_dim"),
        )
        for fields in (top, encoder, decoder):
            fields.finish()
        return parsed

    def to_published(self) -> dict[str, Any]:
        """The inverse of `from_published`, as JSON values."""

        def half(config: HalfConfig, width_key: str) -> dict[str, Any]:
            fields = asdict(config)
            return {
                width_key: fields["width"],
                "up_ratios": list(config.ratios),
                "dilations": list(config.dilations),
                **{key: fields[key] for key in ("use_rnn", "rnn_bidirectional", "rnn_num_layers")},
            }

        return {
            "sample_rate": self.sample_rate,
            "codec_encoder": {**half(self.encoder, "ngf"), "out_channels": self.latent_width},
            "codec_decoder": {
                **half(self.decoder, "upsample_initial_channel"),
                "in_channels": self.latent_width,
                "vq_dim": self.latent_width,
                "vq_num_quantizers": self.num_quantizers,
                "codebook_size": self.codebook_size,
                "codebook_dim": self.codebook_width,
            },
        }

    @classmethod
    def from_shapes(cls, state: Mapping[str, Tensor]) -> BigCodecConfig:
        """Read what can be read off tensor shapes; the rest is as in every published model.

        The sampling rate is 16 kHz and the dilations are powers of three: no shape tells them.

        Raises:
            ConfigError: the tensors do not look like BigCodec.
        """
        shapes = {to_old_name(name): tuple(tensor.shape) for name, tensor in state.items()}
        try:
            codebook_size, codebook_width = shapes["quantizer.layers.0.codebook.weight"]
            return cls(
                sample_rate=16000,
                latent_width=shapes["decoder.model.0.weight_v"][1],
                encoder=_half_from_shapes(shapes, "encoder.block"),
                decoder=_half_from_shapes(shapes, "decoder.model"),
                num_quantizers=sum(name.endswith("codebook.weight") for name in shapes),
                codebook_size=codebook_size,
                codebook_width=codebook_width,
            )
        except (KeyError, ValueError, IndexError) as error:
            raise ConfigError(f"these tensors are not a BigCodec model (no {error})") from error


def _half(fields: Fields, width_key: str) -> HalfConfig:
    return HalfConfig(
        width=fields.integer(width_key),
        ratios=fields.integers("up_ratios"),
        dilations=fields.integers("dilations"),
        use_rnn=fields.boolean("use_rnn"),
        rnn_bidirectional=fields.boolean("rnn_bidirectional"),
        rnn_num_layers=fields.integer("rnn_num_layers"),
    )


def _half_from_shapes(shapes: Mapping[str, tuple[int, ...]], stem: str) -> HalfConfig:
    def found(pattern: str) -> list[re.Match[str]]:
        matches = (re.fullmatch(re.escape(stem) + pattern, name) for name in shapes)
        return [match for match in matches if match]

    units = found(r"\.(\d+)\.block\.(\d+)\.block\.1\.weight_v")  # one per residual unit
    blocks = sorted({int(match[1]) for match in units})
    units_per_block = len({match[2] for match in units})
    # The strided convolution closes an encoder block and opens a decoder block, after an
    # activation each. Its kernel is twice the stride.
    strided = units_per_block + 1 if stem.startswith("encoder") else 1
    layers = {match[1] for match in found(r"\.\d+\.lstm\.weight_ih_(.+)")}
    return HalfConfig(
        width=shapes[f"{stem}.0.weight_v"][0],
        ratios=tuple(shapes[f"{stem}.{i}.block.{strided}.weight_v"][2] // 2 for i in blocks),
        dilations=tuple(3**i for i in range(units_per_block)),
        use_rnn=bool(layers),
        rnn_bidirectional=any(layer.endswith("_reverse") for layer in layers),
        rnn_num_layers=max(1, sum(not layer.endswith("_reverse") for layer in layers)),
    )


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
        with torch.device("meta"):
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
        convolutions = 32  # 30 frames for the published strides, 31 for the deepest small ones
        warm_up = math.ceil(LSTM_WARM_UP_SECONDS * self.sample_rate / self.hop_length)
        return Context(
            before=convolutions + (warm_up if self.config.decoder.use_rnn else 0),
            after=convolutions,
        )

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

    def num_frames(self, num_samples: int) -> int:
        """As upstream frames them: the padding there loses nothing."""
        return self.upstream_frames(num_samples) if num_samples else 0

    def upstream_frames(self, num_samples: int) -> int:
        """The script always pads, by a whole frame where the length is already whole."""
        return num_samples // self.hop_length + 1
