"""Read and write WAV headers.

    RIFF size WAVE  [ds64 ...]  fmt size ...  [other chunks]  data size samples  [other chunks]

RIFX is the same with big-endian numbers. RF64 and BW64 (EBU Tech 3306) are for more than 4 GiB,
with the sizes in a ``ds64`` chunk. Programs that write to a pipe or crash leave a size of 0, -1 or
a little below 2 GiB; then the samples end where the file does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO, TypeAlias

from codectool.audio import mp3
from codectool.audio.layout import Layout, Part
from codectool.audio.samples import MAX_CHANNELS
from codectool.audio.view import Span, read_at
from codectool.errors import AudioError

MAX_FORMAT_CHUNK = 1 << 16
MAX_RIFF = 0xFFFF_FFFF
# Programs that do not know the size write zero, or a value a little below 2 or 4 GiB.
UNKNOWN_SIZES = range(0x7F00_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000)
PCM, FLOAT, ALAW, ULAW, GSM610, EXTENSIBLE = 1, 3, 6, 7, 0x31, 0xFFFE
MPEG_LAYER_3 = 0x55
GSM_SAMPLES = 320  # per block
# Chunks that may follow the samples; they distinguish an empty file from one of unknown size.
TRAILING_CHUNKS = {
    *(b"LIST", b"list", b"INFO", b"id3 ", b"ID3 ", b"fact", b"cue ", b"smpl", b"inst", b"JUNK"),
    *(b"junk", b"bext", b"PEAK", b"iXML", b"_PMX", b"afsp", b"acid", b"FLLR", b"PAD ", b"plst"),
    *(b"adtl", b"note", b"ltxt", b"labl", b"axml", b"chna", b"minf", b"elm1", b"regn", b"umid"),
    *(b"DISP", b"cart", b"levl", b"LGWV", b"qlty", b"mext", b"link", b"ResU", b"SAUR", b"strc"),
    *(b"wavl", b"slnt", b"AFAn", b"DGDA", b"Cr8r", b"tlst", b"clm ", b"data", b"fmt ", b"r64m"),
}

# Format tag in a WAV header and bytes per sample, by libsndfile's name of the sample format.
SUBTYPES = {
    "PCM_U8": (PCM, 1),
    "PCM_16": (PCM, 2),
    "PCM_24": (PCM, 3),
    "PCM_32": (PCM, 4),
    "FLOAT": (FLOAT, 4),
    "DOUBLE": (FLOAT, 8),
    "ALAW": (ALAW, 1),
    "ULAW": (ULAW, 1),
}
_READABLE = {form: name for name, form in SUBTYPES.items()}
RAW_FORMATS = {"s16le": "PCM_16", "s24le": "PCM_24", "s32le": "PCM_32", "f32le": "FLOAT"}


# Returns bytes at a position of a file or pipe; fewer at the end.
Reader: TypeAlias = Callable[[int, int], bytes]


@dataclass(frozen=True)
class WavHeader:
    """What precedes the samples.

    Attributes:
        order: byte order of all numbers, for `struct`.
        form: content of the format chunk.
        fact: content of the fact chunk; empty if there is none.
        num_bytes: size of the samples in bytes; None if the header does not state it.
        is_bound: whether the size is certain; otherwise samples may follow after it.
        start: position of the first sample.
    """

    order: str
    form: bytes
    fact: bytes
    num_bytes: int | None
    is_bound: bool
    start: int

    def pcm(self) -> tuple[str, int, int] | None:
        """Return subtype, sampling rate and channels of samples that can be streamed, or None."""
        if self.order != "<" or len(self.form) < 16:
            return None
        tag, channels, rate, _, frame_bytes, bits = struct.unpack("<HHIIHH", self.form[:16])
        if tag == EXTENSIBLE and len(self.form) >= 26:
            tag = int.from_bytes(self.form[24:26], "little")
        sample_bytes = -(-bits // 8)
        subtype = _READABLE.get((tag, sample_bytes))
        if not 1 <= channels <= MAX_CHANNELS or frame_bytes != channels * sample_bytes:
            return None
        if subtype is None or not 0 < rate < 1 << 31:  # libsndfile has signed rates
            return None
        return subtype, rate, channels


def is_wav(head: bytes) -> bool:
    """Return whether twelve bytes start a WAV file."""
    return head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE"


def parse_wav(read: Reader, name: str, start: int = 0) -> WavHeader:
    """Read a header up to the first sample.

    Args:
        read: returns bytes at a position.
        name: name in error messages.
        start: position of the header.

    Raises:
        AudioError: there are no samples, or no format chunk before them.
    """
    order = ">" if read(start, 4) == b"RIFX" else "<"
    form = fact = b""
    large: int | None = None
    position = start + 12
    while True:
        head = read(position, 8)
        if len(head) < 8:
            raise AudioError(f"{name}: ends within its WAV header; the file is cut off")
        kind, size = struct.unpack(order + "4sI", head)
        position += 8
        if kind == b"data":
            break
        if kind in (b"fmt ", b"ds64", b"fact"):
            content = read(position, min(size, MAX_FORMAT_CHUNK))
            if kind == b"fmt ":
                form = content
            elif kind == b"fact":
                fact = content
            elif len(content) >= 16:
                large = int.from_bytes(content[8:16], "little")
        position += size
        # Some programs do not pad a chunk of odd size.
        if size % 2 and not _is_chunk(read(position, 4)):
            position += 1
    if not form:
        raise AudioError(f"{name}: not WAV: no format chunk before the samples")
    if size == MAX_RIFF and large is not None:
        size = large if 0 < large < 1 << 63 else 0
        return WavHeader(order, form, fact, size or None, True, position)
    known = 0 < size < MAX_RIFF
    return WavHeader(order, form, fact, size if known else None, is_bound(size), position)


def plan_wav(file: BinaryIO, start: int, end: int, name: str) -> Layout:
    """Return how to read the WAV file between two positions of a file.

    Raises:
        AudioError: there are no samples, or no format chunk before them.
    """
    header = parse_wav(lambda position, size: read_at(file, position, size), name, start)
    there = max(0, end - header.start)
    stored, promised = there, None
    warnings = []
    if header.num_bytes is None:
        if is_trailing_chunk(read_at(file, header.start, 4)):
            stored = 0
    elif header.num_bytes > there:
        promised = (header.num_bytes, there) if header.is_bound and there else None
        if header.is_bound and not there:
            warnings.append("ends before its first sample: it is cut off")
    else:
        following = read_at(file, header.start + header.num_bytes, 9)
        if header.is_bound or is_trailing_chunk(following[:4]):
            stored = header.num_bytes
        rest = there - stored
        is_other_chunk = _is_chunk(following) or _is_chunk(following[1:])
        if rest > 8 and any(following) and (not is_other_chunk or b"data" in following[:5]):
            warnings.append(
                f"{rest} bytes after the samples are left out: its header does not include them"
            )
    if header.form[:2] == struct.pack(header.order + "H", MPEG_LAYER_3):
        stream = mp3.find_frames(file, header.start, header.start + stored)
        if stream is not None:
            layout = mp3.plan(file, stream, name)
            warnings += layout.warnings
            return replace(layout, warnings=warnings, promised_bytes=promised)
    spans = _canonical(header, stored)
    return Layout([Part(spans, _gsm_samples(header, stored))], warnings, promised_bytes=promised)


def is_bound(size: int) -> bool:
    """Return whether a size in a header is meant, and not written for want of a better one."""
    return not any(size in sizes for sizes in UNKNOWN_SIZES)


def is_trailing_chunk(kind: bytes) -> bool:
    """Return whether four bytes at the start of samples are in fact another chunk."""
    return kind in TRAILING_CHUNKS


def _is_chunk(head: bytes) -> bool:
    return len(head) >= 4 and all(0x20 <= byte < 0x7F for byte in head[:4])


def _gsm_samples(header: WavHeader, size: int) -> int | None:
    """Return the number of samples of GSM 6.10, as libsndfile counts padding as a block."""
    tag, channels, block = struct.unpack(header.order + "HH8xH", header.form[:14].ljust(14, b"\0"))
    return size // block * GSM_SAMPLES if tag == GSM610 and channels == 1 and block else None


def _canonical(header: WavHeader, size: int) -> list[Span]:
    """Return a WAV file with samples of this size and no unnecessary chunks."""
    order = header.order
    chunks = b""
    for kind, content in ((b"fmt ", header.form), (b"fact", header.fact)):
        if content:
            chunks += kind + struct.pack(order + "I", len(content))
            chunks += content + bytes(len(content) % 2)
    total = 4 + len(chunks) + 8 + size
    if total <= MAX_RIFF:
        riff = (b"RIFX" if order == ">" else b"RIFF") + struct.pack(order + "I", total)
        data = b"data" + struct.pack(order + "I", size)
        return [riff + b"WAVE" + chunks + data, (header.start, header.start + size)]
    sizes = b"ds64" + struct.pack("<IQQQI", 28, total + 36, size, 0, 0)
    riff = b"RF64" + struct.pack("<I", MAX_RIFF) + b"WAVE"
    data = b"data" + struct.pack("<I", MAX_RIFF)
    return [riff + sizes + chunks + data, (header.start, header.start + size)]


def wav_header(subtype: str, rate: int, channels: int, num_samples: int | None) -> bytes:
    """Return all bytes before the first sample; RF64 if the file exceeds 4 GiB.

    Args:
        subtype: libsndfile's name of the sample format, one of `SUBTYPES`.
        rate: sampling rate in Hz.
        channels: number of channels.
        num_samples: per channel; None if it is not known yet, on a pipe.
    """
    tag, sample_bytes = SUBTYPES[subtype]
    frame = sample_bytes * channels
    fields = (tag, channels, rate, rate * frame, frame, 8 * sample_bytes)
    chunk = b"fmt " + struct.pack("<IHHIIHH", 16, *fields)
    size = MAX_RIFF if num_samples is None else num_samples * frame
    total = 4 + len(chunk) + 8 + size + size % 2
    if num_samples is None or total <= MAX_RIFF:
        riff = b"RIFF" + struct.pack("<I", min(total, MAX_RIFF)) + b"WAVE"
        return riff + chunk + b"data" + struct.pack("<I", size)
    sizes = struct.pack("<QQQI", total + 36, size, num_samples, 0)
    riff = b"RF64" + struct.pack("<I", MAX_RIFF) + b"WAVE"
    riff += b"ds64" + struct.pack("<I", len(sizes)) + sizes
    return riff + chunk + b"data" + struct.pack("<I", MAX_RIFF)
