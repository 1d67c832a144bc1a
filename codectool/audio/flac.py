"""Find the end of FLAC streams, because their headers may not state it or state it wrongly."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import BinaryIO

from codectool.audio.layout import Layout, Part
from codectool.audio.view import read_at
from codectool.errors import AudioError

SEARCH_BYTES = 1 << 16
MAX_ENDS = 4  # positions that a frame may end at: bytes may look like a header by chance
MAX_FRAME = 1 << 22  # bytes
MAX_HEADER = 16  # bytes of a frame header with its checksum
STREAMINFO_BYTES = 34
TOTAL_MASK = (1 << 36) - 1
_BLOCK_SIZES = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}}
_BLOCK_SIZES |= {code: 256 << code - 8 for code in range(8, 16)}


@dataclass(frozen=True)
class Frame:
    """A frame header.

    Attributes:
        start: position in the file.
        number: number of the frame, or of its first sample if block sizes vary.
        block_size: samples per channel.
        kind: the fields that are the same in all frames of a stream.
    """

    start: int
    number: int
    block_size: int
    kind: tuple[int, int]


def plan(file: BinaryIO, start: int, end: int, name: str) -> Layout:
    """Return how to read a stream between two positions of a file.

    Raises:
        AudioError: the file ends within its metadata.
    """
    audio = _end_of_metadata(file, start, end, name)
    info = start + 8
    fields = int.from_bytes(read_at(file, info + 10, 8), "big")
    stated = fields & TOTAL_MASK
    first = _parse_frame(read_at(file, audio, MAX_HEADER), audio)
    if read_at(file, max(audio, end - 128), 3) == b"TAG":  # ID3v1
        end = max(audio, end - 128)
    found, stop = (0, audio) if first is None else _find_end(file, first, end, stated)
    whole: list[bytes | tuple[int, int]] = [(start, end)]
    if found == stated and found:
        return Layout([Part(whole, stated)])
    corrected = (fields & ~TOTAL_MASK | found).to_bytes(8, "big")
    warnings = []
    if stop < end and not stated:
        warnings.append("ends within a frame: it is cut off")
    spans: list[bytes | tuple[int, int]] = [(start, info + 10), corrected, (info + 18, stop)]
    return Layout([Part(spans, found)], warnings, stated if stated > found else None)


def _end_of_metadata(file: BinaryIO, start: int, end: int, name: str) -> int:
    position = start + 4
    while True:
        head = read_at(file, position, 4)
        if len(head) < 4 or position + 4 + int.from_bytes(head[1:], "big") > end:
            raise AudioError(f"{name}: ends within its FLAC header; the file is cut off")
        position += 4 + int.from_bytes(head[1:], "big")
        if head[0] & 0x80:
            return position


def _find_end(file: BinaryIO, first: Frame, end: int, stated: int) -> tuple[int, int]:
    """Return the number of samples of all complete frames, and where the last of them ends."""
    ends = deque([end], maxlen=MAX_ENDS)
    stop = end
    while stop > first.start:
        begin = max(first.start, stop - SEARCH_BYTES)
        data = read_at(file, begin, min(stop + MAX_HEADER, end) - begin)
        at = stop - begin
        while (at := data.rfind(b"\xff", 0, at)) >= 0:
            frame = _parse_frame(data[at : at + MAX_HEADER], begin + at)
            if frame is None or frame.kind != first.kind:
                continue
            samples = _first_sample(frame, first) + frame.block_size
            if samples == stated and len(ends) == 1:
                return samples, end
            for frame_end in ends:
                small = frame_end - frame.start <= MAX_FRAME
                if small and _is_complete(file, frame.start, frame_end):
                    return samples, frame_end
            ends.appendleft(frame.start)
        stop = begin
    return 0, first.start


def _first_sample(frame: Frame, first: Frame) -> int:
    varies = frame.kind[0] & 1
    return frame.number if varies else frame.number * first.block_size


def _parse_frame(data: bytes, start: int) -> Frame | None:
    """Return the frame header at the start of the bytes, or None if there is none."""
    if len(data) < 6 or data[0] != 0xFF or data[1] & 0xFE != 0xF8 or data[3] & 1:
        return None
    block_code, rate_code = data[2] >> 4, data[2] & 15
    extra = max(0, 7 - (~data[4] & 0xFF).bit_length()) if data[4] >= 0xC0 else 0
    size = 5 + extra + {6: 1, 7: 2}.get(block_code, 0) + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if block_code == 0 or rate_code == 15 or 0x80 <= data[4] < 0xC0 or len(data) <= size:
        return None
    if _crc8(data[:size]) != data[size]:
        return None
    number = data[4] & (0x7F >> (extra + 1 if extra else 0))
    for byte in data[5 : 5 + extra]:
        number = number << 6 | byte & 0x3F
    at = 5 + extra
    if block_code == 6:
        block_size = data[at] + 1
    elif block_code == 7:
        block_size = int.from_bytes(data[at : at + 2], "big") + 1
    else:
        block_size = _BLOCK_SIZES[block_code]
    return Frame(start, number, block_size, (data[1], rate_code))


def _is_complete(file: BinaryIO, start: int, stop: int) -> bool:
    """Return whether the checksum of the frame at a position is right."""
    return _crc16(read_at(file, start, stop - start)) == 0


def _table(polynomial: int, bits: int) -> list[int]:
    mask = (1 << bits) - 1
    table = []
    for value in range(256):
        crc = value << bits - 8
        for _ in range(8):
            crc = (crc << 1 ^ (polynomial if crc >> bits - 1 else 0)) & mask
        table.append(crc)
    return table


_CRC8, _CRC16 = _table(0x07, 8), _table(0x8005, 16)


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc


def _crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFF00) ^ _CRC16[crc >> 8 ^ byte]
    return crc
