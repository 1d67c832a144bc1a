"""Payload of Ogg files."""

from __future__ import annotations

from codectool.errors import CodectoolError

PAGE_HEADER_BYTES = 27
HEADER_PACKETS = 2  # of Opus and of Speex: header and comments


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
