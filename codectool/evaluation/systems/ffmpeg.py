"""AMR and GSM through `ffmpeg`, if it was built with their encoders."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from codectool.errors import CodectoolError, UsageError
from codectool.evaluation.systems.external import ExternalCodec

FFMPEG = "ffmpeg -hide_banner -loglevel error -nostdin -y"


@dataclass(frozen=True)
class FfmpegCodec:
    """Properties of a codec in `ffmpeg`.

    Attributes:
        encoder: name of its encoder.
        suffix: suffix of its files.
        rate: sampling rate in Hz.
        magic: first bytes of its files.
        mode_bits: for AMR, bits per frame of 20 ms by mode, not padded; the last mode is silence.
    """

    encoder: str
    suffix: str
    rate: int
    magic: bytes = b""
    mode_bits: tuple[int, ...] = ()

    @property
    def kbps(self) -> list[str]:
        """Available bit rates in kbit/s; one empty string if there is only one."""
        return [f"{bits / 20:g}" for bits in self.mode_bits[:-1]] or [""]

    def payload_bits(self, file: bytes) -> float:
        """Return the number of bits in all frames of a file.

        An AMR file (RFC 4867, section 5) is a magic number and frames. Each frame begins with a
        byte that contains its mode.

        Raises:
            CodectoolError: the file does not begin with the magic number.
        """
        if not file.startswith(self.magic):
            raise CodectoolError(f"not an AMR file: it does not begin with {self.magic!r}")
        if not self.mode_bits:
            return 8 * len(file)
        bits, at = 0, len(self.magic)
        while at < len(file):
            mode = file[at] >> 3 & 15
            if mode < len(self.mode_bits):  # frames of other modes are empty
                bits += self.mode_bits[mode]
                at += -(-self.mode_bits[mode] // 8)
            at += 1
        return bits


NB_BITS = (95, 103, 118, 134, 148, 159, 204, 244, 39)
WB_BITS = (132, 177, 253, 285, 317, 365, 397, 461, 477, 40)
FFMPEG_CODECS = {
    "amrnb": FfmpegCodec("libopencore_amrnb", "amr", 8000, b"#!AMR\n", NB_BITS),
    "amrwb": FfmpegCodec("libvo_amrwbenc", "awb", 16000, b"#!AMR-WB\n", WB_BITS),
    "gsm": FfmpegCodec("libgsm", "gsm", 8000),
}


def ffmpeg_codec(name: str, kbps: str) -> ExternalCodec:
    """Return one of `FFMPEG_CODECS` at one bit rate in kbit/s."""
    codec = FFMPEG_CODECS[name]
    if kbps not in codec.kbps:
        rates = ", ".join(codec.kbps)
        usage = f"{name}@KBPS with one of {rates}" if rates else f"{name} without a bit rate"
        raise UsageError(f"{name}@{kbps}: write {usage}")
    coded = f"coded.{codec.suffix}"
    bit_rate = f"-b:a {kbps}k" if kbps else ""
    system = ExternalCodec(
        "ffmpeg",
        f"{FFMPEG} -i in.wav -c:a {codec.encoder} {bit_rate} {coded}",
        f"{FFMPEG} -i {coded} out.wav",
        coded,
        codec.payload_bits,
        codec.rate,
        version=("ffmpeg -version", r"ffmpeg version \S+"),
    )
    if codec.encoder not in _encoders():
        raise UsageError(
            f"{name}: the installed `ffmpeg` was built without the encoder {codec.encoder}; "
            "install one that has it"
        )
    return system


def _encoders() -> set[str]:
    """Return the names of the encoders that `ffmpeg` was built with."""
    command = ["ffmpeg", "-hide_banner", "-encoders"]
    lines = subprocess.run(command, capture_output=True, text=True, errors="replace").stdout
    return {words[1] for line in lines.splitlines() if len(words := line.split()) > 1}
