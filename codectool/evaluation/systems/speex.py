"""Speex: `speexenc` and `speexdec`, narrow-band at 8 kHz or wide-band at 16 kHz."""

from __future__ import annotations

from typing import ClassVar

from codectool.errors import UsageError
from codectool.evaluation.systems.external import Programs
from codectool.evaluation.systems.ogg import packet_sizes

HEADS = 2  # header and comment come before the audio
QUALITIES = [str(quality) for quality in range(11)]


class Speex(Programs):
    """Speex at one quality.

    Args:
        quality: ``0`` to ``10``, as `speexenc --quality` has it; ``wb`` behind it is wide-band.
    """

    needs: ClassVar[dict[str, str]] = {"speexenc": "speex", "speexdec": "speex"}
    packed: ClassVar[str] = "coded.spx"

    def __init__(self, quality: str) -> None:
        number = quality.removesuffix("wb")
        if number not in QUALITIES:
            raise UsageError(f"speex@{quality}: write speex@QUALITY, 0 to 10, wide-band speex@5wb")
        super().__init__()
        self.quality = number
        self.model_rate = 16000 if quality.endswith("wb") else 8000

    def encoder(self, rate: int) -> list[str]:
        """The file's rate chooses the band; said all the same."""
        band = "--wideband" if rate == 16000 else "--narrowband"
        return ["speexenc", band, "--quality", self.quality, self.source, self.packed]

    def decoder(self, rate: int) -> list[str]:
        """``speexdec IN OUT``."""
        return ["speexdec", self.packed, self.back]

    def payload_bits(self, packed: bytes) -> float:
        """Packets of audio, without pages."""
        return 8 * sum(packet_sizes(packed)[HEADS:])
