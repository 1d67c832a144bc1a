"""Find the frames of MPEG audio, so that libsndfile reads all of them.

libsndfile estimates the length of a stream from its first frame or believes a Xing header, and
reads no further. Streams from pipes, cut, joined and edited ones are therefore read through a
`View` with only their frames and a Xing header that is right.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import BinaryIO

from codectool.audio.layout import Layout, Part
from codectool.audio.view import Span, read_at
from codectool.errors import AudioError

READ_BYTES = 1 << 20
FIRST_READ_BYTES = 1 << 12  # after damage, of which there may be much
HEADER_BYTES = 4
MAX_FRAME = 2881
MAX_LEADING_JUNK = 1 << 16
MIN_FRAMES_AFTER_JUNK = 4
# Sync word, version, layer and sampling rate are the same in all frames of a stream.
SAME = 0xFFFE0C00
MONO = 3
PREROLL_FRAMES = 32  # more than the bit reservoir and the filters reach back
# Samples after which the filters of libmpg123 are where they were, so that it rounds the same.
SILENT_SAMPLES = 4608
XING_BYTES = 80  # with the fields of LAME
DECODER_DELAY = 529  # samples; counted by LAME in neither delay nor padding

_BITRATES = {  # kbit/s by MPEG-1?, layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)


@dataclass(frozen=True)
class FrameHeader:
    """The first four bytes of a frame.

    Attributes:
        word: the bytes as a number.
        size: bytes of the frame, with the header.
        samples: samples per channel.
        sample_rate: in Hz.
        layer: 1, 2 or 3.
        channels: 1 or 2.
        side_bytes: bytes of side information after header and checksum; 0 unless layer 3.
    """

    word: int
    size: int
    samples: int
    sample_rate: int
    layer: int
    channels: int
    side_bytes: int

    @property
    def side_offset(self) -> int:
        """Return the position of the side information in the frame."""
        return HEADER_BYTES if self.word >> 16 & 1 else HEADER_BYTES + 2


def parse_header(word: int) -> FrameHeader | None:
    """Return the fields of a frame header, or None if the number is not one."""
    version, layer = word >> 19 & 3, 4 - (word >> 17 & 3)
    bitrate, rate = word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    mpeg1 = version == 3
    hertz = _RATES[rate] >> (0 if mpeg1 else 1 if version == 2 else 2)
    bits = 1000 * _BITRATES[mpeg1, layer][bitrate - 1]
    padding = word >> 9 & 1
    samples = 384 if layer == 1 else 1152 if layer == 2 or mpeg1 else 576
    if layer == 1:
        size = (12 * bits // hertz + padding) * 4
    else:
        size = samples // 8 * bits // hertz + padding
    mono = word >> 6 & 3 == MONO
    side = 0
    if layer == 3:
        side = (17 if mono else 32) if mpeg1 else (9 if mono else 17)
    return FrameHeader(word, size, samples, hertz, layer, 1 if mono else 2, side)


@cache
def frame_sizes() -> list[int]:
    """Return sizes of frames by bits 9 to 20 of their header, where all fields that matter lie."""
    headers = (parse_header(0xFFE00000 | bits << 9) for bits in range(4096))
    return [0 if header is None else header.size for header in headers]


@dataclass
class Stream:
    """The frames of a file.

    Attributes:
        header: header of the first frame.
        frames: number of frames with audio.
        offsets: position of each frame in the file.
        ranges: first and last + 1 byte of all frames that follow each other, in order.
        gaps: position and size of bytes between frames that are neither frames nor tags.
        cut: whether the file ends within a frame.
        tag: the Xing, Info or VBRI header in the first frame; None if there is none.
    """

    header: FrameHeader
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    ranges: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    cut: bool = False
    tag: Tag | None = None

    @property
    def frames(self) -> int:
        """Return the number of frames with audio."""
        return len(self.offsets)


@dataclass(frozen=True)
class Tag:
    """A Xing, Info or VBRI header: a frame without audio at the start of a stream.

    Attributes:
        start: position of its frame.
        stop: end of its frame.
        frames: number of frames after it; 0 if unknown.
        bytes: size of all frames; 0 if unknown.
        delay: samples that the encoder put before the audio; None if unknown.
        padding: samples that the encoder put after the audio.
    """

    start: int
    stop: int
    frames: int
    bytes: int
    delay: int | None = None
    padding: int = 0


def find_frames(file: BinaryIO, start: int, end: int) -> Stream | None:
    """Find all frames between two positions of a file; return None if it is not MPEG audio.

    Tags of ID3, APE and Lyrics3 are skipped wherever they are.
    """
    end = _before_end_tags(file, start, end)
    first = _find_first(file, start, end)
    if first is None:
        return None
    position, header = first
    stream = Stream(header)
    stream.tag = _read_tag(file, position, header)
    if stream.tag is not None:
        position = stream.tag.stop
    for begin, stop in _runs(file, position, end, stream):
        stream.ranges.append((begin, stop))
    return stream


def _runs(file: BinaryIO, position: int, end: int, stream: Stream) -> Iterator[tuple[int, int]]:
    """Yield the ranges of frames that follow each other; complete the other fields."""
    same, mono = stream.header.word & SAME, stream.header.channels == 1
    pattern = _pattern(stream.header.word)
    sizes = frame_sizes()
    append = stream.offsets.append
    data, base, begin = b"", position, position
    while True:
        at = position - base
        if at + HEADER_BYTES > len(data):
            data, base, at = read_at(file, position, min(READ_BYTES, end - position)), position, 0
        word = int.from_bytes(data[at : at + HEADER_BYTES], "big")
        if word & SAME == same and (word & 0xC0 == 0xC0) == mono:
            size = sizes[word >> 9 & 0xFFF]
            if size and position + size <= end:
                append(position)
                position += size
                continue
            if size:
                stream.cut = True
        if begin < position:
            yield begin, position
        if position >= end or stream.cut:
            return
        tag = _tag_size(file, position, end)
        following = position + tag if tag else _resync(file, position, end, pattern, stream)
        if not tag:
            stream.gaps.append((position, following - position))
        position = begin = following


def _find_first(file: BinaryIO, start: int, end: int) -> tuple[int, FrameHeader] | None:
    """Return position and header of the first frame that others follow."""
    data = read_at(file, start, min(MAX_LEADING_JUNK, end - start))
    for match in re.finditer(rb"(?=\xff[\xe2-\xff])", data):
        position = start + match.start()
        header = parse_header(int.from_bytes(data[match.start() :][:HEADER_BYTES], "big"))
        if header is None:
            continue
        frames, reached = _chain(file, position, end, header)
        if not match.start():
            needed = 1 if reached == end else 2
        else:  # in a file that begins within a frame, or after something else
            needed = 2 if reached == end and match.start() < MAX_FRAME else MIN_FRAMES_AFTER_JUNK
        if frames >= needed:
            return position, header
    return None


def _chain(file: BinaryIO, position: int, end: int, header: FrameHeader) -> tuple[int, int]:
    """Return how many frames of one kind follow each other, at most a few, and where they end."""
    frames = 0
    while frames < MIN_FRAMES_AFTER_JUNK:
        word = int.from_bytes(read_at(file, position, HEADER_BYTES), "big")
        size = frame_sizes()[word >> 9 & 0xFFF] if word & SAME == header.word & SAME else 0
        if not size or (word >> 6 & 3 == MONO) != (header.channels == 1) or position + size > end:
            break
        frames += 1
        position += size
    return frames, position


def _resync(
    file: BinaryIO, position: int, end: int, pattern: re.Pattern[bytes], stream: Stream
) -> int:
    """Return the position of the next frame, or the end of the file."""
    overlap = HEADER_BYTES - 1
    base = position + 1
    size = FIRST_READ_BYTES
    while base + overlap < end:
        data = read_at(file, base, min(size, end - base))
        size = READ_BYTES
        for match in pattern.finditer(data):
            found = base + match.start()
            frames, reached = _chain(file, found, end, stream.header)
            if frames > 1 or (frames and (reached == end or _tag_size(file, reached, end))):
                return found
        base += max(1, len(data) - overlap)
    return end


def _pattern(word: int) -> re.Pattern[bytes]:
    """Return a pattern of the first three bytes of frames of the same kind, which may overlap."""
    second = {word >> 16 & 0xFE, word >> 16 & 0xFE | 1}
    third = [byte for byte in range(256) if byte & 0x0C == word >> 8 & 0x0C and 0 < byte >> 4 < 15]
    classes = (b"".join(b"\\x%02x" % (byte & 0xFF) for byte in kind) for kind in (second, third))
    return re.compile(b"(?=\\xff[%s][%s])" % tuple(classes))


def _tag_size(file: BinaryIO, position: int, end: int) -> int:
    """Return the size of a tag with metadata at a position; 0 if there is none."""
    head = read_at(file, position, 32)
    if head.startswith(b"ID3"):
        return min(id3_size(head), end - position)
    if head.startswith(b"TAG"):
        return min(128, end - position)
    if head.startswith(b"APETAGEX") and len(head) == 32:
        return min(32 + int.from_bytes(head[12:16], "little"), end - position)
    if head.startswith(b"LYRICSBEGIN"):
        text = read_at(file, position, min(1 << 16, end - position))
        found = max(text.find(b"LYRICS200"), text.find(b"LYRICSEND"))
        return found + 9 if found >= 0 else 0
    return 0


def _before_end_tags(file: BinaryIO, start: int, end: int) -> int:
    """Return where the tags at the end of a file begin."""
    while True:
        tail = read_at(file, max(start, end - 128), 128)
        size = 0
        if tail.startswith(b"TAG"):
            size = 128
        elif tail[-32:].startswith(b"APETAGEX"):
            size, _, flags = struct.unpack("<III", tail[-20:-8])
            size += 32 if flags >> 31 else 0
        elif tail.endswith(b"LYRICS200") and tail[-15:-9].isdigit():
            size = 15 + int(tail[-15:-9])
        elif tail[-10:].startswith(b"3DI"):
            size = id3_size(tail[-10:])
        if not 0 < size <= end - start:
            return end
        end -= size


def id3_size(head: bytes) -> int:
    """Return the size of an ID3v2 tag from its first ten bytes."""
    size = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(reversed(head[6:10])))
    return size + (20 if len(head) > 5 and head[5] & 0x10 else 10)


def _read_tag(file: BinaryIO, position: int, header: FrameHeader) -> Tag | None:
    frame = read_at(file, position, header.size)
    stop = position + header.size
    for offset in {header.side_offset, HEADER_BYTES}:
        fields = frame[offset + header.side_bytes :]
        if header.layer == 3 and fields[:4] in (b"Xing", b"Info"):
            return _read_xing(fields, position, stop)
    fields = frame[HEADER_BYTES + 32 :]
    if header.layer == 3 and fields[:4] == b"VBRI" and len(fields) >= 18:
        size, frames = struct.unpack_from(">II", fields, 10)
        return Tag(position, stop, frames, size)
    return None


def _read_xing(fields: bytes, start: int, stop: int) -> Tag:
    flags = int.from_bytes(fields[4:8], "big")
    at = 8
    values = []
    for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)):
        present = flags & bit
        values.append(int.from_bytes(fields[at : at + size], "big") if present else 0)
        at += size if present else 0
    encoder = fields[at : at + 24]
    delay, padding = None, 0
    if len(encoder) == 24 and encoder[0]:
        both = int.from_bytes(encoder[21:24], "big")
        delay, padding = both >> 12, both & 0xFFF
    return Tag(start, stop, values[0], values[1], delay, padding)


def plan(file: BinaryIO, stream: Stream, name: str) -> Layout:
    """Return how to read a stream.

    Raises:
        AudioError: the sampling rate or the number of channels changes within the stream.
    """
    header, tag = stream.header, stream.tag
    damaged = _damaged_gaps(file, stream, name)
    warnings = []
    if damaged:
        size = sum(size for _, size in damaged)
        warnings.append(
            f"{size} bytes from byte {damaged[0][0]} on are damaged: the audio in them is lost"
        )
    if stream.cut:
        warnings.append("ends within a frame: it is cut off")
    total = stream.frames * header.samples
    skipped = trimmed = 0
    if tag is not None and tag.delay is not None:
        skipped = tag.delay + DECODER_DELAY
        # As in FFmpeg: the end of another stream that was joined is not padding.
        trimmed = max(0, tag.padding - DECODER_DELAY) if tag.frames == stream.frames else 0
    promised = None
    if tag is not None and tag.frames > stream.frames:
        end = max(0, tag.padding - DECODER_DELAY) if tag.delay is not None else 0
        promised = tag.frames * header.samples - skipped - end
    if _is_right(stream):
        assert tag is not None
        spans: list[Span] = [(tag.start, tag.stop), *stream.ranges]
    elif header.layer == 3:
        spans = _with_xing(file, stream, 0, skipped, trimmed)
    else:
        spans = [*stream.ranges]
    part = Part(
        spans,
        num_samples=max(0, total - skipped - trimmed),
        preroll=PREROLL_FRAMES * header.samples,
        begin_at=partial(_begin_at, file, stream, skipped) if header.layer == 3 else None,
        may_be_mpeg=True,
    )
    return Layout([part], warnings, promised)


def _begin_at(file: BinaryIO, stream: Stream, skipped: int, sample: int) -> tuple[list[Span], int]:
    """Return the frames from a little before a sample on, and the sample that they begin with.

    libsndfile decodes frames after a seek without the data of the frames before them.
    """
    first = max(0, (sample + skipped) // stream.header.samples - PREROLL_FRAMES)
    first -= first % _silent_frames(stream)
    spans = _with_xing(file, stream, first, 0, 0)
    return spans, first * stream.header.samples - skipped


def _with_xing(
    file: BinaryIO, stream: Stream, first: int, skipped: int, trimmed: int
) -> list[Span]:
    """Return the frames from number ``first`` on after a Xing header that is right.

    Args:
        file: the file.
        stream: its frames.
        first: first frame.
        skipped: samples to leave out at the start.
        trimmed: samples to leave out at the end.
    """
    header = stream.header
    begin = stream.offsets[first] if first < stream.frames else sys.maxsize
    ranges = [(max(start, begin), stop) for start, stop in stream.ranges if stop > begin]
    size = sum(stop - start for start, stop in ranges)
    frames, delay, padding = stream.frames - first, skipped - DECODER_DELAY, trimmed + DECODER_DELAY
    silence = b""
    if not skipped:  # mpg123 leaves out its own delay at least: let it leave out silence
        delay = SILENT_SAMPLES - DECODER_DELAY
        silence = _frame(header, 0) * _silent_frames(stream)
        frames, size = frames + _silent_frames(stream), size + len(silence)
    spans: list[Span] = [_xing_frame(header, frames, size, delay, padding) + silence]
    for start, stop in ranges:
        spans += _audible(file, stream, start, stop)
    return spans


def _is_right(stream: Stream) -> bool:
    """Return whether the first frame states the right length."""
    tag, ranges = stream.tag, stream.ranges
    if tag is None or tag.delay is None or tag.frames != stream.frames:
        return False
    if [tag.stop] != [begin for begin, _ in ranges]:
        return False
    size = ranges[0][1] - tag.start
    return tag.bytes == 0 or abs(tag.bytes - size) <= size // 100  # else mpg123 prints a warning


def _damaged_gaps(file: BinaryIO, stream: Stream, name: str) -> list[tuple[int, int]]:
    """Return position and size of the bytes between frames that are not zero.

    Raises:
        AudioError: frames of another kind are among them.
    """
    damaged = []
    for position, size in stream.gaps:
        other = _find_first(file, position, position + size)
        if other is not None:
            frames = sum(offset < position for offset in stream.offsets)
            seconds = frames * stream.header.samples / stream.header.sample_rate
            raise AudioError(
                f"{name}: the sampling rate or the number of channels changes after "
                f"{seconds:.2f} s; split the file there"
            )
        if any(read_at(file, position, min(size, READ_BYTES))):
            damaged.append((position, size))
    return damaged


def _silent_frames(stream: Stream) -> int:
    return SILENT_SAMPLES // stream.header.samples


def _xing_frame(header: FrameHeader, frames: int, size: int, delay: int, padding: int) -> bytes:
    """Return a frame without audio that states the length of the stream after it."""
    frame = _frame(header, XING_BYTES)
    fields = struct.pack(">4sIII", b"Xing", 3, frames, size + len(frame))
    fields += b"LAME3.100".ljust(21, b"\0") + (delay << 12 | padding).to_bytes(3, "big")
    at = HEADER_BYTES + header.side_bytes
    return frame[:at] + fields + frame[at + len(fields) :]


def _frame(header: FrameHeader, size: int) -> bytes:
    """Return a silent frame that can hold ``size`` bytes of data."""
    word = header.word & ~0xF200 | 0x10000  # without checksum and padding
    kinds = (parse_header(word | bitrate << 12) for bitrate in range(1, 15))
    needed = HEADER_BYTES + header.side_bytes + size
    kind = next(kind for kind in kinds if kind is not None and kind.size >= needed)
    return kind.word.to_bytes(4, "big").ljust(kind.size, b"\0")


def _audible(file: BinaryIO, stream: Stream, begin: int, stop: int) -> Iterator[Span]:
    """Yield frames that follow each other; those that lack the data of lost ones become silent.

    A frame may begin in the data of up to 511 bytes of earlier frames, the bit reservoir.
    """
    begin_bits = 9 if stream.header.samples == 1152 else 8
    reservoir, position = 0, begin
    while reservoir < 1 << begin_bits and position < stop:
        word = int.from_bytes(read_at(file, position, HEADER_BYTES), "big")
        header = parse_header(word)
        assert header is not None
        side = position + header.side_offset
        main_data_begin = int.from_bytes(read_at(file, side, 2), "big") >> (16 - begin_bits)
        if main_data_begin > reservoir:
            yield (position, side)
            # Silent, but it hands the reservoir on to the next frame.
            kept = min(reservoir, (1 << begin_bits) - 1) << (16 - begin_bits)
            yield kept.to_bytes(2, "big").ljust(header.side_bytes, b"\0")
            yield (side + header.side_bytes, position + header.size)
        else:
            yield (position, position + header.size)
        reservoir += header.size - header.side_offset - header.side_bytes
        position += header.size
    yield (position, stop)
