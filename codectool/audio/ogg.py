"""Find the streams of Ogg files: chained ones, and audio among video.

libsndfile reads the first stream only. Each stream gets a `View` with its own pages.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import BinaryIO, cast

from codectool.audio import flac
from codectool.audio.layout import Layout, Part
from codectool.audio.view import Span, View, read_at
from codectool.errors import AudioError

READ_BYTES = 1 << 20
HEADER_BYTES = 27
MAX_LACING = HEADER_BYTES + 255
MAX_PAGE = HEADER_BYTES + 255 + 255 * 255
FLAC_PREFIX = 9  # bytes before the FLAC stream on the first page
MAX_CHECKS = 8  # times that the bytes of a damaged file are checked
CONTINUED, FIRST, LAST = 1, 2, 4  # flags of a page
UNKNOWN_POSITION = 0xFFFF_FFFF_FFFF_FFFF  # of a page on which no packet ends
AUDIO = {
    b"\x01vorbis": "Vorbis",
    b"OpusHead": "Opus",
    b"\x7fFLAC": "FLAC",
    b"Speex   ": "Speex",
}
PREROLL = {"Vorbis": 1 << 14, "Opus": 48_000, "Speex": 48_000}  # samples
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)  # a file may have very many
class Page:
    """A page of a stream.

    Attributes:
        start: position in the file.
        payload: position of the data after the header.
        stop: end of the page.
        serial: number of its stream.
        sequence: number of the page in its stream.
        flags: CONTINUED, FIRST and LAST.
        position: samples up to the last packet that ends on the page, or UNKNOWN_POSITION.
    """

    start: int
    payload: int
    stop: int
    serial: int
    sequence: int
    flags: int
    position: int


@dataclass
class Stream:
    """A stream and its pages; ``codec`` is None unless it is audio."""

    codec: str | None
    pages: list[Page] = field(default_factory=list)


def plan(file: BinaryIO, start: int, end: int, name: str) -> Layout:
    """Return how to read all audio between two positions of a file.

    Raises:
        AudioError: there is no audio stream, or several play at the same time.
    """
    warnings: list[str] = []
    links: list[dict[int, Stream]] = []
    in_header = False
    for page in _pages(file, start, end, name, warnings):
        if page.flags & FIRST:
            if not in_header:
                links.append({})
            in_header = True
            head = read_at(file, page.start, HEADER_BYTES + 255 + 8)
            packet = head[HEADER_BYTES + head[HEADER_BYTES - 1] :]
            codec = next((kind for magic, kind in AUDIO.items() if packet.startswith(magic)), None)
            links[-1][page.serial] = Stream(codec, [page])
        else:
            in_header = False
            stream = links[-1].get(page.serial) if links else None
            if stream is not None:
                stream.pages.append(page)
    parts: list[Part] = []
    for link in links:
        audio = [stream for stream in link.values() if stream.codec is not None]
        if len(audio) > 1:
            raise AudioError(
                f"{name}: holds {len(audio)} audio streams that play at the same time; extract "
                "one with ffmpeg"
            )
        for stream in audio:
            if stream.codec == "FLAC":
                layout = _flac_layout(file, stream, name)
                parts += layout.parts
                warnings += layout.warnings
            else:
                parts.append(_part(stream))
            warnings += _page_warnings(stream)
    if not parts:
        raise AudioError(f"{name}: is an Ogg file without audio")
    return Layout(parts, warnings)


def _part(stream: Stream) -> Part:
    spans: list[Span] = [(page.start, page.stop) for page in stream.pages]
    ends = [page.position for page in stream.pages if page.position != UNKNOWN_POSITION]
    # libsndfile 1.2.2 seeks up to about 500 samples too far in the last page of Vorbis.
    last_seek = max(0, ends[-3]) if len(ends) > 2 else 0
    assert stream.codec is not None
    return Part(
        spans,
        preroll=PREROLL.get(stream.codec, 0),
        last_seek=last_seek if stream.codec == "Vorbis" else None,
    )


def _flac_layout(file: BinaryIO, stream: Stream, name: str) -> Layout:
    """Return how to read FLAC in Ogg as FLAC, because libsndfile 1.2.2 refuses most of it."""
    first, *others = stream.pages
    spans = [(first.payload + FLAC_PREFIX, first.stop)]
    spans += [(page.payload, page.stop) for page in others]
    view = View(file, spans)
    layout = flac.plan(cast(BinaryIO, view), 0, view.size, name)
    parts = []
    for part in layout.parts:
        content: list[Span] = []
        for span in part.spans:
            content += [span] if isinstance(span, bytes) else view.part(*span)
        parts.append(replace(part, spans=content))
    return replace(layout, parts=parts)


def _page_warnings(stream: Stream) -> Iterator[str]:
    pages = stream.pages
    lost = sum(
        later.sequence - page.sequence - 1
        for page, later in pairwise(pages)
        if later.sequence > page.sequence
    )
    if lost:
        yield f"damaged or missing pages: {lost}; the audio in them is lost"
    if not pages[-1].flags & LAST:
        yield "ends without the last page of its stream: it is cut off"


def _pages(file: BinaryIO, start: int, end: int, name: str, warnings: list[str]) -> Iterator[Page]:
    """Yield all intact pages.

    Raises:
        AudioError: so much looks like pages but is damaged that it would take long to check.
    """
    data, base, position, damaged, checked = b"", start, start, 0, 0
    while position < end:
        at = position - base
        if at + MAX_PAGE > len(data) and base + len(data) < end:
            data, base, at = read_at(file, position, min(READ_BYTES, end - position)), position, 0
        page = _parse_page(data, at, position)
        if page is not None:
            yield page
            position = page.stop
            continue
        found = data.find(b"OggS", at + 1)
        following = base + found if found >= 0 else max(position + 1, base + len(data) - 3)
        if data[at : at + 4] == b"OggS" or any(data[at : following - base]):
            damaged += 1
            checked += sum(data[at : at + MAX_LACING])  # at least what the checksum covered
        if checked > MAX_CHECKS * (end - start) + (1 << 20):
            raise AudioError(f"{name}: is damaged in too many places to be read")
        position = following if found >= 0 or base + len(data) < end else end
    if damaged:
        warnings.append(f"is damaged (places: {damaged})")


def _parse_page(data: bytes, at: int, position: int) -> Page | None:
    """Return the page at a place in the data; None if there is none or its checksum is wrong."""
    head = data[at : at + HEADER_BYTES]
    if len(head) < HEADER_BYTES or head[:5] != b"OggS\0":
        return None
    segments = head[HEADER_BYTES - 1]
    lacing = data[at + HEADER_BYTES : at + HEADER_BYTES + segments]
    size = HEADER_BYTES + segments + sum(lacing)
    page = data[at : at + size]
    if len(lacing) < segments or len(page) < size:
        return None
    if checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
        return None
    flags, granule, serial, sequence = struct.unpack_from("<BQII", head, 5)
    payload = position + HEADER_BYTES + segments
    return Page(position, payload, position + size, serial, sequence, flags, granule)


def checksum(page: bytes) -> int:
    """Return the checksum of a page whose checksum field is zero.

    It is the CRC-32 of zlib with the bits of all bytes reversed, and other constants.
    """
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
