"""Opus: `opusenc` and `opusdec` as they come, variable bit rate, frames of 20 ms."""

from __future__ import annotations

from typing import ClassVar

from codectool.errors import UsageError
from codectool.evaluation.systems.external import Programs
from codectool.evaluation.systems.ogg import packet_sizes

HEADS = 2  # OpusHead and OpusTags come before the audio
LEAST, MOST = 6, 256  # kbit/s that `opusenc` takes for one channel


class Opus(Programs):
    """Opus at one bit rate.

    Args:
        kbps: what `opusenc --bitrate` is told, in kbit/s.
    """

    needs: ClassVar[dict[str, str]] = {"opusenc": "opus-tools", "opusdec": "opus-tools"}
    packed: ClassVar[str] = "coded.opus"

    def __init__(self, kbps: str) -> None:
        try:
            right = LEAST <= float(kbps) <= MOST
        except ValueError:
            right = False
        if not right:
            raise UsageError(f"opus@{kbps}: write opus@KBPS, from {LEAST} to {MOST} kbit/s")
        super().__init__()
        self.kbps = kbps

    def encoder(self, rate: int) -> list[str]:
        """No room for later tags, which would be half a kilobyte per file."""
        options = ["--quiet", "--padding", "0", "--bitrate", self.kbps]
        return ["opusenc", *options, self.source, self.packed]

    def decoder(self, rate: int) -> list[str]:
        """Back at the rate that went in."""
        options = ["--quiet", "--no-dither", "--rate", str(rate)]
        return ["opusdec", *options, self.packed, self.back]

    def payload_bits(self, packed: bytes) -> float:
        """Packets of audio, without pages."""
        return 8 * sum(packet_sizes(packed)[HEADS:])
