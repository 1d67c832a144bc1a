"""Hyper-parameters of SuperCodec, by the keys of the published ``config.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from codectool.errors import ConfigError
from codectool.schema import Config, from_json
from codectool.tokens import MAX_CODEBOOKS, MAX_SAMPLE_RATE

Size = Annotated[int, Meta(ge=1, le=1 << 24)]
Sizes = Annotated[tuple[Size, ...], Meta(min_length=1, max_length=16)]


class SuperCodecConfig(Config, frozen=True):
    """Hyper-parameters of a SuperCodec model.

    Attributes:
        sampling_rate: in Hz.
        strides: of the blocks of the encoder.
        channel_mults: output channels of the blocks, in multiples of the base width.
        codebook_size: codewords in each codebook.
        codebook_dim: channels of the latent and of a codeword.
        rq_num_quantizers: number of codebooks.
    """

    sampling_rate: Annotated[int, Meta(ge=1, le=MAX_SAMPLE_RATE)]
    strides: Sizes
    channel_mults: Sizes
    codebook_size: Size
    codebook_dim: Size
    rq_num_quantizers: Annotated[int, Meta(ge=1, le=MAX_CODEBOOKS)]

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.channel_mults):
            raise ConfigError(
                f"strides {list(self.strides)} and channel_mults {list(self.channel_mults)} "
                "must have the same length"
            )

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.strides)

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> SuperCodecConfig:
        """Read a published config; the training keys in it are ignored.

        Raises:
            ConfigError: A key is missing, of the wrong type or out of range.
        """
        return from_json(cls, {key: config[key] for key in cls.__struct_fields__ if key in config})
