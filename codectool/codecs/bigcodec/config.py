"""Hyper-parameters of BigCodec, in the layout of the published configs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta
from torch import Tensor

from codectool.errors import ConfigError
from codectool.nn.weight_norm import to_old_name
from codectool.schema import Config, from_json
from codectool.tokens import MAX_CODEBOOKS, MAX_SAMPLE_RATE

# Limits on untrusted configs. The published models have 1536 channels, 5 ratios, 2 LSTM layers.
MAX_LENGTH = 16
Size = Annotated[int, Meta(ge=1, le=1 << 24)]
Sizes = Annotated[tuple[Size, ...], Meta(min_length=1, max_length=MAX_LENGTH)]
RnnLayers = Annotated[int, Meta(ge=1, le=16)]
# Keys that the reference implementation accepts and that do not affect a trained model.
IGNORED_KEYS = ("pad_multiple",)
IGNORED_DECODER_KEYS = ("ngf", "vq_commit_weight", "vq_weight_init", "vq_full_commit_loss")


class EncoderConfig(Config, frozen=True):
    """Section ``codec_encoder``.

    Attributes:
        ngf: channels of the first layer.
        up_ratios: strides, first to last.
        dilations: of the residual units in each block.
        use_rnn: whether there is an LSTM at the frame rate.
        rnn_bidirectional: whether the LSTM is bidirectional.
        rnn_num_layers: layers of the LSTM.
        out_channels: channels of the latent.
    """

    ngf: Size
    up_ratios: Sizes
    dilations: Sizes
    use_rnn: bool
    rnn_bidirectional: bool
    rnn_num_layers: RnnLayers
    out_channels: Size


class DecoderConfig(Config, frozen=True):
    """Section ``codec_decoder``, with the quantizer; see `EncoderConfig` for other keys.

    Attributes:
        upsample_initial_channel: channels of the first layer.
        in_channels: channels of the latent.
        vq_dim: channels of the latent.
        vq_num_quantizers: number of codebooks.
        codebook_size: codewords in each codebook.
        codebook_dim: channels of a codeword.
    """

    upsample_initial_channel: Size
    up_ratios: Sizes
    dilations: Sizes
    use_rnn: bool
    rnn_bidirectional: bool
    rnn_num_layers: RnnLayers
    in_channels: Size
    vq_dim: Size
    vq_num_quantizers: Annotated[int, Meta(ge=1, le=MAX_CODEBOOKS)]
    codebook_size: Size
    codebook_dim: Size

    def __post_init__(self) -> None:
        if self.upsample_initial_channel % 2 ** len(self.up_ratios):
            raise ConfigError(
                f"upsample_initial_channel {self.upsample_initial_channel} cannot be halved "
                f"{len(self.up_ratios)} times"
            )


class BigCodecConfig(Config, frozen=True):
    """Hyper-parameters of a BigCodec model."""

    sample_rate: Annotated[int, Meta(ge=1, le=MAX_SAMPLE_RATE)]
    codec_encoder: EncoderConfig
    codec_decoder: DecoderConfig

    def __post_init__(self) -> None:
        encoder, decoder = self.codec_encoder, self.codec_decoder
        for key in ("in_channels", "vq_dim"):
            if getattr(decoder, key) != encoder.out_channels:
                raise ConfigError(
                    f"codec_decoder.{key} {getattr(decoder, key)} differs from "
                    f"codec_encoder.out_channels {encoder.out_channels}"
                )
        if math.prod(encoder.up_ratios) != math.prod(decoder.up_ratios):
            raise ConfigError(
                f"up_ratios of the encoder {encoder.up_ratios} and of the decoder "
                f"{decoder.up_ratios} have different products; both must be the hop length"
            )

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.codec_encoder.up_ratios)

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> BigCodecConfig:
        """Read a config in the layout that the authors publish.

        Raises:
            ConfigError: A key is missing, unknown, of the wrong type or out of range.
        """
        config = {key: value for key, value in config.items() if key not in IGNORED_KEYS}
        decoder = config.get("codec_decoder")
        if isinstance(decoder, Mapping):
            config["codec_decoder"] = {
                key: value for key, value in decoder.items() if key not in IGNORED_DECODER_KEYS
            }
        return from_json(cls, config)

    @classmethod
    def from_shapes(cls, state: Mapping[str, Tensor]) -> BigCodecConfig:
        """Infer the config from the shapes of tensors.

        A sampling rate of 16 kHz and dilations of 1, 3, 9, ..., as in all published models, are
        assumed: no shape depends on them.

        Raises:
            ConfigError: The tensors are not a BigCodec model.
        """
        shapes = {to_old_name(name): tuple(tensor.shape) for name, tensor in state.items()}
        try:
            codebook_size, codebook_dim = shapes["quantizer.layers.0.codebook.weight"]
            width, latent_channels, _ = shapes["decoder.model.0.weight_v"]
            config = {
                "sample_rate": 16000,
                "codec_encoder": {
                    "ngf": shapes["encoder.block.0.weight_v"][0],
                    **_layers_from_shapes(shapes, "encoder.block"),
                    "out_channels": latent_channels,
                },
                "codec_decoder": {
                    "upsample_initial_channel": width,
                    **_layers_from_shapes(shapes, "decoder.model"),
                    "in_channels": latent_channels,
                    "vq_dim": latent_channels,
                    "vq_num_quantizers": sum(name.endswith("codebook.weight") for name in shapes),
                    "codebook_size": codebook_size,
                    "codebook_dim": codebook_dim,
                },
            }
        except (KeyError, ValueError, IndexError) as error:
            raise ConfigError(f"the tensors are not a BigCodec model (no {error})") from error
        return from_json(cls, config)


def _layers_from_shapes(shapes: Mapping[str, tuple[int, ...]], stem: str) -> dict[str, Any]:
    def find(pattern: str) -> list[re.Match[str]]:
        matches = (re.fullmatch(re.escape(stem) + pattern, name) for name in shapes)
        return [match for match in matches if match]

    units = find(r"\.(\d+)\.block\.(\d+)\.block\.1\.weight_v")  # one per residual unit
    blocks = sorted({int(match[1]) for match in units})
    units_per_block = len({match[2] for match in units})
    # The strided convolution is the last layer of an encoder block and the second of a decoder
    # block. Its kernel is twice the stride.
    strided = units_per_block + 1 if stem.startswith("encoder") else 1
    layers = {match[1] for match in find(r"\.\d+\.lstm\.weight_ih_(.+)")}
    return {
        "up_ratios": [shapes[f"{stem}.{i}.block.{strided}.weight_v"][2] // 2 for i in blocks],
        "dilations": [3**i for i in range(min(units_per_block, MAX_LENGTH + 1))],
        "use_rnn": bool(layers),
        "rnn_bidirectional": any(layer.endswith("_reverse") for layer in layers),
        "rnn_num_layers": max(1, sum(not layer.endswith("_reverse") for layer in layers)),
    }
