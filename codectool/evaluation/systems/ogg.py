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
    try:
        valid = KBPS_MIN <= float(kbps) <= KBPS_MAX
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"opus@{kbps}: write opus@KBPS, from {KBPS_MIN} to {KBPS_MAX} kbit/s")
    return ExternalCodec(
        "opus-tools",
        # without `--padding 0` a file has 512 bytes reserved for tags
        f"opusenc --quiet --padding 0 --bitrate {kbps} in.wav coded.opus",
        "opusdec --quiet --no-dither --rate {rate} coded.opus out.wav",
        "coded.opus",
        payload_bits,
    )


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
    )


def payload_bits(file: bytes) -> float:
    """Return the bits of all audio packets of an Opus or Speex file."""
    return 8 * sum(packet_sizes(file)[HEADER_PACKETS:])


def packet_sizes(file: bytes) -> list[int]:
    """Return the sizes in bytes of the packets of an Ogg file with one logical stream.

    RFC 3533, section 6: a page has a header of 27 bytes, whose last byte is the number of segments;
    then their sizes, one byte each; then the segments. A segment of less than 255 bytes ends a
    packet, which may have begun on an earlier page.

    Raises:
        CodectoolError: the file is not Ogg.
    """
    sizes, packet, at = [], 0, 0
    while at < len(file):
        if file[at : at + 4] != b"OggS" or len(file) < at + PAGE_HEADER_BYTES:
            raise CodectoolError(f"no Ogg page at byte {at}")
        count = file[at + PAGE_HEADER_BYTES - 1]
        segments = file[at + PAGE_HEADER_BYTES : at + PAGE_HEADER_BYTES + count]
        at += PAGE_HEADER_BYTES + count + sum(segments)
        for segment in segments:
            packet += segment
            if segment < 255:
                sizes.append(packet)
                packet = 0
    return sizes
