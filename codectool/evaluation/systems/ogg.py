"""Sizes of the packets in an Ogg file."""

from __future__ import annotations

from codectool.errors import CodectoolError

PAGE_HEAD_BYTES = 27


def packet_sizes(file: bytes) -> list[int]:
    """Sizes in bytes of the packets of an Ogg file with one stream (RFC 3533, section 6).

    A page has a head of 27 bytes, the last of which counts the segments; then their sizes, a byte
    each; then the segments. A segment of less than 255 bytes ends a packet, on whatever page.

    Raises:
        CodectoolError: it is none.
    """
    sizes, begun, at = [], 0, 0
    while at < len(file):
        if file[at : at + 4] != b"OggS" or len(file) < at + PAGE_HEAD_BYTES:
            raise CodectoolError(f"no Ogg page at byte {at}")
        count = file[at + PAGE_HEAD_BYTES - 1]
        segments = file[at + PAGE_HEAD_BYTES : at + PAGE_HEAD_BYTES + count]
        at += PAGE_HEAD_BYTES + count + sum(segments)
        for segment in segments:
            begun += segment
            if segment < 255:
                sizes.append(begun)
                begun = 0
    return sizes
