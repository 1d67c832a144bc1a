"""Speex: `speexenc` and `speexdec`, narrow-band at 8 kHz or wide-band at 16 kHz."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from codectool.errors import UsageError
from codectool.evaluation.systems.external import ExternalCodec
from codectool.evaluation.systems.ogg import payload_bits

QUALITIES = [str(quality) for quality in range(11)]


class Speex(ExternalCodec):
    """Speex at one quality.

    Args:
        quality: value of `speexenc --quality`, ``0`` to ``10``; a suffix ``wb`` selects wide-band.
    """

    programs: ClassVar[dict[str, str]] = {"speexenc": "speex", "speexdec": "speex"}
    packed = "coded.spx"

    def __init__(self, quality: str) -> None:
        number = quality.removesuffix("wb")
        if number not in QUALITIES:
            raise UsageError(f"speex@{quality}: write speex@QUALITY, 0 to 10, wide-band speex@5wb")
        super().__init__()
        self.quality = number
        self.model_rate = 16000 if quality.endswith("wb") else 8000

    @override
    def encoder(self, rate: int) -> list[str]:
        band = "--wideband" if rate == 16000 else "--narrowband"
        return ["speexenc", band, "--quality", self.quality, self.source, self.packed]

    @override
    def decoder(self, rate: int) -> list[str]:
        return ["speexdec", self.packed, self.decoded]

    @override
    def payload_bits(self, packed: bytes) -> float:
        return payload_bits(packed)
