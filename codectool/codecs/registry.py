"""The codec families, by name. A new codec is one module and one line here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from codectool.errors import UsageError
from codectool.tokens import TokenLayout

if TYPE_CHECKING:
    from codectool.codecs.base import CodecModel

# Dotted paths, not classes: listing the families must not import torch.
FAMILIES = {
    "hac": "codectool.codecs.hac.codec:HacCodec",
    "bigcodec": "codectool.codecs.bigcodec.model:BigCodec",
    "supercodec": "codectool.codecs.supercodec.model:SuperCodec",
}


def model_class(family: str) -> type[CodecModel]:
    """The class of a codec family.

    Raises:
        UsageError: there is no family of this name.
    """
    if family not in FAMILIES:
        raise UsageError(f"no codec is called `{family}`; there are {', '.join(FAMILIES)}")
    module, _, name = FAMILIES[family].partition(":")
    return cast("type[CodecModel]", getattr(import_module(module), name))


@dataclass(frozen=True)
class ModelMetadata:
    """A model of the published size.

    Attributes:
        layout: rates and tokens.
        paper: where it comes from.
        parameters: numbers it has learned.
        encoder_lookahead: samples at the model's rate after the end of a frame that its token
            depends on; None where it depends on all of the segment.
        decoder_lookahead: samples' worth of tokens after a frame that its samples depend on.
        segment_seconds: longest input that is encoded as one whole, for models that look at all
            of it at once.
    """

    layout: TokenLayout
    paper: str
    parameters: int
    encoder_lookahead: int | None
    decoder_lookahead: int | None
    segment_seconds: int | None = None

    @property
    def latency_ms(self) -> float | None:
        """Algorithmic latency: a frame, and what has to follow it on either side.

        From the arrival of a frame's first sample to its decoded first sample, if computing and
        sending took no time. None where a segment has to be complete.
        """
        if self.encoder_lookahead is None or self.decoder_lookahead is None:
            return None
        samples = self.layout.hop_length + self.encoder_lookahead + self.decoder_lookahead
        return 1000 * samples / self.layout.sample_rate


MODELS = {
    "hac": ModelMetadata(
        layout=TokenLayout("hac", 24000, 320, (18,)),
        paper="our own design, docs/models/hac.md",
        parameters=4_054_706,
        encoder_lookahead=0,
        decoder_lookahead=640,
    ),
    "bigcodec": ModelMetadata(
        layout=TokenLayout("bigcodec", 16000, 200, (13,)),
        paper="arXiv 2409.05377",
        parameters=159_436_290,
        encoder_lookahead=5376,
        decoder_lookahead=6000,
    ),
    "supercodec": ModelMetadata(
        layout=TokenLayout("supercodec", 16000, 320, (10, 10)),
        paper="arXiv 2407.20530",
        parameters=21_708_513,
        encoder_lookahead=None,
        decoder_lookahead=None,
        segment_seconds=60,
    ),
}
