"""Hyper-parameters of BigCodec: from the authors' configs, or read off the shapes of tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from codectool.codecs.hyper import Fields
from codectool.errors import ConfigError
from codectool.nn.weight_norm import to_old_name
from codectool.tokens import MAX_CODEBOOKS, MAX_SAMPLE_RATE

MAX_RNN_LAYERS = 16  # the published models have one or two


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
        if not 1 <= self.rnn_num_layers <= MAX_RNN_LAYERS:
            raise ConfigError(f"rnn_num_layers {self.rnn_num_layers} is not in 1..{MAX_RNN_LAYERS}")


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
        if not 1 <= self.num_quantizers <= MAX_CODEBOOKS:
            raise ConfigError(f"{self.num_quantizers} quantizers are not in 1..{MAX_CODEBOOKS}")
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
            sample_rate=top.integer("sample_rate", MAX_SAMPLE_RATE),
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
