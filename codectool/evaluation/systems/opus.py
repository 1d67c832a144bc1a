"""Opus: `opusenc` and `opusdec` with default settings (variable bit rate, frames of 20 ms)."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from codectool.errors import UsageError
from codectool.evaluation.systems.external import ExternalCodec
from codectool.evaluation.systems.ogg import payload_bits

KBPS_MIN, KBPS_MAX = 6, 256  # range of `opusenc` for one channel


class Opus(ExternalCodec):
    """Opus at one bit rate.

    Args:
        kbps: value of `opusenc --bitrate`, in kbit/s.
    """

    programs: ClassVar[dict[str, str]] = {"opusenc": "opus-tools", "opusdec": "opus-tools"}
    packed = "coded.opus"

    def __init__(self, kbps: str) -> None:
        try:
            valid = KBPS_MIN <= float(kbps) <= KBPS_MAX
        except ValueError:
            valid = False
        if not valid:
            raise UsageError(f"opus@{kbps}: write opus@KBPS, from {KBPS_MIN} to {KBPS_MAX} kbit/s")
        super().__init__()
        self.kbps = kbps

    @override
    def encoder(self, rate: int) -> list[str]:
        # without `--padding 0` a file has 512 bytes reserved for tags
        options = ["--quiet", "--padding", "0", "--bitrate", self.kbps]
        return ["opusenc", *options, self.source, self.packed]

    @override
    def decoder(self, rate: int) -> list[str]:
        options = ["--quiet", "--no-dither", "--rate", str(rate)]
        return ["opusdec", *options, self.packed, self.decoded]

    @override
    def payload_bits(self, packed: bytes) -> float:
        return payload_bits(packed)
