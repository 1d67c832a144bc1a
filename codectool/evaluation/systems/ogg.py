"""Opus and Speex, whose programs write Ogg files."""

from __future__ import annotations

from codectool.errors import CodectoolError, UsageError
from codectool.evaluation.systems.external import ExternalCodec

KBPS_MIN, KBPS_MAX = 6, 256  # range of `opusenc` for one channel
QUALITIES = [str(quality) for quality in range(11)]
PAGE_HEADER_BYTES = 27
HEADER_PACKETS = 2  # of Opus and of Speex: header and comments


def opus(kbps: str) -> ExternalCodec:
    """Return Opus with variable bit rate and frames of 20 ms, the defaults of `opusenc`.

    Args:
        kbps: value of `opusenc --bitrate`, in kbit/s.
    """
    check_kbps("opus", kbps)
    return ExternalCodec(
        "opus-tools",
        # without `--padding 0` a file has 512 bytes reserved for tags
        f"opusenc --quiet --padding 0 --bitrate {kbps} in.wav coded.opus",
        "opusdec --quiet --no-dither --rate {rate} coded.opus out.wav",
        "coded.opus",
        payload_bits,
        version=("opusdec --version", r"libopus [\w.-]+"),
    )


def check_kbps(codec: str, kbps: str) -> None:
    """Raise a `UsageError` if a bit rate in kbit/s is not one of `opusenc`."""
    try:
        valid = KBPS_MIN <= float(kbps) <= KBPS_MAX
    except ValueError:
        valid = False
    if not valid:
        usage = f"write {codec}@KBPS, from {KBPS_MIN} to {KBPS_MAX} kbit/s"
        raise UsageError(f"{codec}@{kbps}: {usage}")


def speex(quality: str) -> ExternalCodec:
    """Return Speex, narrow-band at 8 kHz or wide-band at 16 kHz.

    Args:
        quality: value of `speexenc --quality`, ``0`` to ``10``; a suffix ``wb`` selects wide-band.
    """
    number = quality.removesuffix("wb")
    if number not in QUALITIES:
        raise UsageError(f"speex@{quality}: write speex@QUALITY, 0 to 10, wide-band speex@5wb")
    band, rate = ("narrowband", 8000) if quality == number else ("wideband", 16000)
    return ExternalCodec(
        "speex",
        f"speexenc --{band} --quality {number} in.wav coded.spx",
        "speexdec coded.spx out.wav",
        "coded.spx",
        payload_bits,
        rate,
        version=("speexdec --version", r"version [\w.-]+"),
    )


def payload_bits(file: bytes) -> float:
    """Return the bits of all audio packets of an Opus or Speex file."""
    return 8 * sum(map(len, packets(file)[HEADER_PACKETS:]))


def packets(file: bytes) -> list[bytes]:
    """Return the packets of an Ogg file with one logical stream.

    RFC 3533, section 6: a page has a header of 27 bytes, whose last byte is the number of segments;
    then their sizes, one byte each; then the segments. A segment of less than 255 bytes ends a
    packet, which may have begun on an earlier page.

    Raises:
        CodectoolError: the file is not Ogg.
    """
    found, packet, at = [], bytearray(), 0
    while at < len(file):
        if file[at : at + 4] != b"OggS" or len(file) < at + PAGE_HEADER_BYTES:
            raise CodectoolError(f"no Ogg page at byte {at}")
        count = file[at + PAGE_HEADER_BYTES - 1]
        segments = file[at + PAGE_HEADER_BYTES : at + PAGE_HEADER_BYTES + count]
        at += PAGE_HEADER_BYTES + count
        for segment in segments:
            packet += file[at : at + segment]
            at += segment
            if segment < 255:
                found.append(bytes(packet))
                packet.clear()
    return found
