"""AMR and GSM through `ffmpeg`, where it was built with their encoders."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from codectool.errors import CodectoolError, UsageError
from codectool.evaluation.systems.external import Programs


@dataclass(frozen=True)
class Coder:
    """A codec as `ffmpeg` has it.

    Attributes:
        encoder: its name there.
        suffix: of its files.
        rate: in Hz.
        kbps: bit rates there are; the empty text where there is but one.
        payload_bits: of a file.
    """

    encoder: str
    suffix: str
    rate: int
    kbps: tuple[str, ...]
    payload_bits: Callable[[bytes], float]


@dataclass(frozen=True)
class AmrStorage:
    """An AMR file (RFC 4867, section 5): a head, then frames, each behind a byte with its mode.

    Attributes:
        head: how the file begins.
        mode_bits: bits of a frame by mode, which are filled up to whole bytes; the last is silence.
    """

    head: bytes
    mode_bits: tuple[int, ...]

    def __call__(self, file: bytes) -> float:
        """Bits of all frames, without what fills up bytes."""
        if not file.startswith(self.head):
            raise CodectoolError(f"no AMR file: it does not begin with {self.head!r}")
        bits, at = 0, len(self.head)
        while at < len(file):
            mode = file[at] >> 3 & 15
            if mode < len(self.mode_bits):  # others have no data
                bits += self.mode_bits[mode]
                at += -(-self.mode_bits[mode] // 8)
            at += 1
        return float(bits)


AMR_NB = AmrStorage(b"#!AMR\n", (95, 103, 118, 134, 148, 159, 204, 244, 39))
AMR_WB = AmrStorage(b"#!AMR-WB\n", (132, 177, 253, 285, 317, 365, 397, 461, 477, 40))
NB_KBPS = ("4.75", "5.15", "5.9", "6.7", "7.4", "7.95", "10.2", "12.2")
WB_KBPS = ("6.6", "8.85", "12.65", "14.25", "15.85", "18.25", "19.85", "23.05", "23.85")

CODERS = {
    "amrnb": Coder("libopencore_amrnb", "amr", 8000, NB_KBPS, AMR_NB),
    "amrwb": Coder("libvo_amrwbenc", "awb", 16000, WB_KBPS, AMR_WB),
    "gsm": Coder("libgsm", "gsm", 8000, ("",), lambda file: 8.0 * len(file)),
}


class Ffmpeg(Programs):
    """One of `CODERS` at one bit rate.

    Args:
        name: of the codec.
        kbps: in kbit/s.
    """

    needs: ClassVar[dict[str, str]] = {"ffmpeg": "ffmpeg"}

    def __init__(self, name: str, kbps: str) -> None:
        self.coder = CODERS[name]
        if kbps not in self.coder.kbps:
            rates = ", ".join(self.coder.kbps)
            wanted = f"{name}@KBPS with one of {rates}" if rates else f"{name} without a bit rate"
            raise UsageError(f"{name}@{kbps}: write {wanted}")
        super().__init__()
        if self.coder.encoder not in _encoders():
            raise UsageError(
                f"{name}: the `ffmpeg` here was built without the encoder {self.coder.encoder}"
            )
        self.kbps = kbps
        self.model_rate = self.coder.rate

    @property
    def packed(self) -> str:  # type: ignore[override]
        """Its suffix tells the format."""
        return f"coded.{self.coder.suffix}"

    def encoder(self, rate: int) -> list[str]:
        """To the codec's own file format."""
        bit_rate = ["-b:a", f"{self.kbps}k"] if self.kbps else []
        return [*_FFMPEG, "-i", self.source, "-c:a", self.coder.encoder, *bit_rate, self.packed]

    def decoder(self, rate: int) -> list[str]:
        """To wav."""
        return [*_FFMPEG, "-i", self.packed, self.back]

    def payload_bits(self, packed: bytes) -> float:
        """By the codec's own file format."""
        return self.coder.payload_bits(packed)


_FFMPEG = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]


def _encoders() -> set[str]:
    """Names of the encoders that `ffmpeg` was built with."""
    command = ["ffmpeg", "-hide_banner", "-encoders"]
    lines = subprocess.run(command, capture_output=True, text=True, errors="replace").stdout
    return {words[1] for line in lines.splitlines() if len(words := line.split()) > 1}
