"""Correct the sizes in headers of AIFF, AU, CAF, W64 and NIST files.

Programs that write to a pipe or crash leave a size of 0, -1 or a little below 2 GiB; a truncated
file states more than there is. libsndfile refuses some of these files and reads nothing of others.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

from codectool.audio.layout import Layout, Part
from codectool.audio.view import Span, read_at
from codectool.audio.wav import is_bound

MAX_SIZE = 0xFFFF_FFFF
W64_GUID = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # the last 12 of 16 bytes of most chunks
W64_START = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")
AIFF_CHUNKS = {
    *(b"COMM", b"MARK", b"INST", b"APPL", b"NAME", b"ANNO", b"AUTH", b"(c) ", b"COMT", b"ID3 "),
    *(b"AESD", b"MIDI", b"FLLR", b"PEAK", b"SAXL", b"basc", b"trns", b"cate", b"CHAN", b"FVER"),
}
CAF_CHUNKS = {
    *(b"chan", b"free", b"info", b"kuki", b"mark", b"midi", b"ovvw", b"pakt", b"peak", b"regn"),
    *(b"strg", b"umid", b"uuid", b"inst", b"edct"),
}
NIST_FIELD = re.compile(rb"(sample_count|sample_n_bytes|channel_count) -i (\d{1,15})")
NIST_CODING = re.compile(rb"sample_coding -s\d+ (\S+)")


def plan_au(file: BinaryIO, start: int, end: int) -> Layout:
    """Return how to read an AU file; nothing can follow its samples."""
    order = "<" if read_at(file, start, 4) == b"dns." else ">"
    head = read_at(file, start + 4, 8)
    if len(head) < 8:
        return Layout([Part([(start, end)])])
    offset, size = struct.unpack(order + "II", head)
    there = max(0, end - start - offset)
    corrected = struct.pack(order + "I", min(there, MAX_SIZE))
    spans: list[Span] = [(start, start + 8), corrected, (start + 12, end)]
    return Layout([Part(spans)], promised_bytes=_promised(size, there))


def plan_aiff(file: BinaryIO, start: int, end: int) -> Layout:
    """Return how to read an AIFF or AIFF-C file."""
    position = start + 12
    common: tuple[int, bytes] | None = None
    while len(head := read_at(file, position, 8)) == 8:
        kind, size = struct.unpack(">4sI", head)
        there = max(0, end - position - 8)
        if kind == b"COMM":
            common = position + 8, read_at(file, position + 8, min(size, 64))
        elif kind == b"SSND":
            following = read_at(file, position + 16, 4)
            if size <= there and not (size <= 8 < there and following not in AIFF_CHUNKS):
                break  # right
            samples = max(0, there - 8)
            form = struct.pack(">I", min(end - start - 8, MAX_SIZE))
            spans: list[Span] = [(start, start + 4), form, (start + 8, position + 4)]
            spans += [struct.pack(">I", min(there, MAX_SIZE)), (position + 8, end)]
            if common is not None:
                spans = _with_frames(spans, *common, samples)
            return Layout([Part(spans)], promised_bytes=_promised(max(0, size - 8), samples))
        position += 8 + size + size % 2
    return Layout([Part([(start, end)])])


def plan_caf(file: BinaryIO, start: int, end: int) -> Layout:
    """Return how to read a CAF file, whose samples follow an edit count of four bytes."""
    position = start + 8
    while len(head := read_at(file, position, 12)) == 12:
        kind, size = struct.unpack(">4sq", head)
        there = max(0, end - position - 12)
        if kind == b"data":
            following = read_at(file, position + 16, 4)
            unknown = size <= 4 < there and following not in CAF_CHUNKS
            if 0 <= size <= there and not unknown:
                break  # right
            spans: list[Span] = [(start, position + 4), struct.pack(">q", there)]
            spans.append((position + 12, end))
            return Layout([Part(spans)], promised_bytes=_promised(max(0, size - 4), there - 4))
        if size < 0:
            break
        position += 12 + size
    return Layout([Part([(start, end)])])


def plan_w64(file: BinaryIO, start: int, end: int) -> Layout:
    """Return how to read a Sony Wave64 file; sizes include the 24 bytes of the chunk header."""
    position = start + 40
    while len(head := read_at(file, position, 24)) == 24:
        size = int.from_bytes(head[16:], "little", signed=True)
        there = end - position
        if head[:4] == b"data":
            following = read_at(file, position + 24, 16)
            unknown = size <= 24 < there and following[4:] != W64_GUID
            if 24 <= size <= there and not unknown:
                break  # right
            spans: list[Span] = [(start, start + 16), struct.pack("<q", end - start)]
            spans += [(start + 24, position + 16), struct.pack("<q", there), (position + 24, end)]
            promised = _promised(max(0, size - 24), there - 24)
            return Layout([Part(spans)], promised_bytes=promised)
        if size < 24:
            break
        position += size + -size % 8
    return Layout([Part([(start, end)])])


def plan_nist(file: BinaryIO, start: int, end: int) -> Layout:
    """Return how to read a NIST SPHERE file."""
    text = read_at(file, start, 1 << 16)
    size = int(text[8:16]) if text[8:16].strip().isdigit() else 1024
    values = {key: int(value) for key, value in NIST_FIELD.findall(text[:size])}
    coding = NIST_CODING.search(text[:size])
    promised = None
    if coding is None or coding[1] in (b"pcm", b"ulaw", b"mu-law", b"alaw"):
        frame = values.get(b"sample_n_bytes", 0) * values.get(b"channel_count", 1)
        promised = _promised(values.get(b"sample_count", 0) * frame, end - start - size)
    return Layout([Part([(start, end)])], promised_bytes=promised)


def _promised(stated: int, there: int) -> tuple[int, int] | None:
    """Return both sizes if the header states more than there is, and is meant."""
    certain = is_bound(stated) and is_bound(stated + 8) and stated < 1 << 62
    return (stated, there) if stated > there > 0 and certain else None


def _with_frames(spans: list[Span], start: int, common: bytes, samples: int) -> list[Span]:
    """Return an AIFF file with the right number of frames in its COMM chunk."""
    if len(common) < 8:
        return spans
    channels, _, bits = struct.unpack(">hIh", common[:8])
    frame = channels * -(-bits // 8)
    if frame <= 0 or common[18:22] not in (b"", b"NONE", b"twos", b"sowt", b"fl32", b"FL32"):
        return spans
    result: list[Span] = []
    for span in spans:
        if isinstance(span, tuple) and span[0] <= start + 2 and start + 6 <= span[1]:
            count = struct.pack(">I", min(samples // frame, MAX_SIZE))
            result += [(span[0], start + 2), count, (start + 6, span[1])]
        else:
            result.append(span)
    return result
