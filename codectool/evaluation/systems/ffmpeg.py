"""AMR and GSM through `ffmpeg`, if it was built with their encoders."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from typing_extensions import override

from codectool.errors import CodectoolError, UsageError
from codectool.evaluation.systems.external import ExternalCodec

FFMPEG = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
NB_BITS = (95, 103, 118, 134, 148, 159, 204, 244, 39)
WB_BITS = (132, 177, 253, 285, 317, 365, 397, 461, 477, 40)
NB_KBPS = ("4.75", "5.15", "5.9", "6.7", "7.4", "7.95", "10.2", "12.2")
WB_KBPS = ("6.6", "8.85", "12.65", "14.25", "15.85", "18.25", "19.85", "23.05", "23.85")


@dataclass(frozen=True)
class FfmpegCodec:
    """Properties of a codec in `ffmpeg`.

    Attributes:
        encoder: name of its encoder.
        suffix: suffix of its files.
        rate: sampling rate in Hz.
        kbps: available bit rates; one empty string if there is only one.
        payload_bits: function from a file to the number of bits that carry audio.
    """

    encoder: str
    suffix: str
    rate: int
    kbps: tuple[str, ...]
    payload_bits: Callable[[bytes], float]


def _amr_payload_bits(magic: bytes, mode_bits: tuple[int, ...], file: bytes) -> float:
    """Return the number of bits in all frames of an AMR file (RFC 4867, section 5).

    A file is a magic number and frames. Each frame begins with a byte that contains its mode.

    Args:
        magic: first bytes of a file.
        mode_bits: bits of a frame by mode, without padding to whole bytes; the last is silence.
        file: the file.

    Raises:
        CodectoolError: the file does not begin with the magic number.
    """
    if not file.startswith(magic):
        raise CodectoolError(f"not an AMR file: it does not begin with {magic!r}")
    bits, at = 0, len(magic)
    while at < len(file):
        mode = file[at] >> 3 & 15
        if mode < len(mode_bits):  # frames of other modes are empty
            bits += mode_bits[mode]
            at += -(-mode_bits[mode] // 8)
        at += 1
    return float(bits)


FFMPEG_CODECS = {
    "amrnb": FfmpegCodec(
        "libopencore_amrnb", "amr", 8000, NB_KBPS, partial(_amr_payload_bits, b"#!AMR\n", NB_BITS)
    ),
    "amrwb": FfmpegCodec(
        "libvo_amrwbenc", "awb", 16000, WB_KBPS, partial(_amr_payload_bits, b"#!AMR-WB\n", WB_BITS)
    ),
    "gsm": FfmpegCodec("libgsm", "gsm", 8000, ("",), lambda file: 8.0 * len(file)),
}


class Ffmpeg(ExternalCodec):
    """One of `FFMPEG_CODECS` at one bit rate.

    Args:
        name: key in `FFMPEG_CODECS`.
        kbps: bit rate in kbit/s.
    """

    programs: ClassVar[dict[str, str]] = {"ffmpeg": "ffmpeg"}

    def __init__(self, name: str, kbps: str) -> None:
        self.codec = FFMPEG_CODECS[name]
        if kbps not in self.codec.kbps:
            rates = ", ".join(self.codec.kbps)
            usage = f"{name}@KBPS with one of {rates}" if rates else f"{name} without a bit rate"
            raise UsageError(f"{name}@{kbps}: write {usage}")
        super().__init__()
        if self.codec.encoder not in _encoders():
            raise UsageError(
                f"{name}: the installed `ffmpeg` was built without the encoder "
                f"{self.codec.encoder}; install one that has it"
            )
        self.kbps = kbps
        self.model_rate = self.codec.rate
        self.packed = f"coded.{self.codec.suffix}"

    @override
    def encoder(self, rate: int) -> list[str]:
        bit_rate = ["-b:a", f"{self.kbps}k"] if self.kbps else []
        return [*FFMPEG, "-i", self.source, "-c:a", self.codec.encoder, *bit_rate, self.packed]

    @override
    def decoder(self, rate: int) -> list[str]:
        return [*FFMPEG, "-i", self.packed, self.decoded]

    @override
    def payload_bits(self, packed: bytes) -> float:
        return self.codec.payload_bits(packed)


def _encoders() -> set[str]:
    """Return the names of the encoders that `ffmpeg` was built with."""
    command = ["ffmpeg", "-hide_banner", "-encoders"]
    lines = subprocess.run(command, capture_output=True, text=True, errors="replace").stdout
    return {words[1] for line in lines.splitlines() if len(words := line.split()) > 1}
