"""Read and write WAV headers on pipes, where libsndfile cannot seek.

    RIFF size WAVE  [ds64 ...]  fmt size ...  [other chunks]  data size samples

RF64 (EBU Tech 3306) is the same for more than 4 GiB, with the sizes in a ``ds64`` chunk.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from codectool.audio.samples import MAX_CHANNELS
from codectool.errors import AudioError

MAX_CHUNK = 1 << 20  # bytes of a chunk before the samples
MAX_RIFF = 0xFFFF_FFFF
# Programs that do not know the size write zero, or this value or more.
UNKNOWN_SIZES = 0x7FFF_0000
PCM, FLOAT, ALAW, ULAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE

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
_READABLE = {form: name for name, form in SUBTYPES.items() if form[0] in (PCM, FLOAT)}
RAW_FORMATS = {"s16le": "PCM_16", "s24le": "PCM_24", "s32le": "PCM_32", "f32le": "FLOAT"}


def read_wav_header(file: BinaryIO, head: bytes, name: str) -> tuple[str, int, int, int | None]:
    """Read a WAV header up to the first sample.

    Args:
        file: file object positioned after ``head``.
        head: the first twelve bytes.
        name: name in error messages.

    Returns:
        Subtype, sampling rate in Hz, number of channels, and size of the samples in bytes
        (None if the header does not state it).

    Raises:
        AudioError: not WAV, or a sample format that is only read from files.
    """
    form: tuple[str, int, int] | None = None
    large: int | None = None
    while True:
        kind, size = struct.unpack("<4sI", _read_exactly(file, 8, name))
        if kind == b"data":
            break
        if size > MAX_CHUNK:
            raise AudioError(f"{name}: a chunk of {size} bytes precedes the samples")
        content = _read_exactly(file, size + size % 2, name)
        if kind == b"fmt ":
            form = _parse_format(content, name)
        elif kind == b"ds64" and size >= 16 and head[:4] == b"RF64":
            large = int.from_bytes(content[8:16], "little")
    if form is None:
        raise AudioError(f"{name}: not WAV: no format chunk before the samples")
    if size == MAX_RIFF and large:
        return (*form, large)
    return (*form, None if size == 0 or size >= UNKNOWN_SIZES else size)


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


def _parse_format(content: bytes, name: str) -> tuple[str, int, int]:
    if len(content) < 16:
        raise AudioError(f"{name}: not WAV: the format chunk is too short")
    tag, channels, rate, _, frame_bytes, bits = struct.unpack("<HHIIHH", content[:16])
    if tag == EXTENSIBLE and len(content) >= 26:
        tag = int.from_bytes(content[24:26], "little")
    sample_bytes = -(-bits // 8)
    if (tag, sample_bytes) not in _READABLE:
        raise AudioError(
            f"{name}: WAV format {tag} with {bits} bits cannot be read from a pipe; "
            "pass the file by name"
        )
    if not 1 <= channels <= MAX_CHANNELS or frame_bytes != channels * sample_bytes or not rate:
        raise AudioError(f"{name}: not WAV: the format chunk contradicts itself")
    return _READABLE[tag, sample_bytes], rate, channels


def _read_exactly(file: BinaryIO, size: int, name: str) -> bytes:
    data = b""
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    if len(data) < size:
        raise AudioError(f"{name}: ends within its WAV header")
    return data
