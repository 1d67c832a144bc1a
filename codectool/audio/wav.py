"""Read and write WAV headers on pipes, where libsndfile cannot seek.

    RIFF size WAVE  [ds64 ...]  fmt size ...  [other chunks]  data size samples

RF64 (EBU Tech 3306) is the same for more than 4 GiB, with the sizes in a ``ds64`` chunk.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from codectool.audio.samples import MAX_CHANNELS
from codectool.errors import AudioError

MAX_CHUNK = 1 << 20  # bytes of a chunk before the samples
MAX_RIFF = 0xFFFF_FFFF
# Programs that do not know the size write zero or a value from here on.
UNKNOWN_SIZES = 0x7FFF_0000
PCM, FLOAT, ALAW, ULAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE


@dataclass(frozen=True)
class PcmFormat:
    """Format of one sample.

    Attributes:
        tag: format number in a WAV header.
        num_bytes: size of a sample.
    """

    tag: int
    num_bytes: int

    def decode(self, data: bytes) -> npt.NDArray[np.float32]:
        """Convert whole little-endian samples to float32 with full scale 1."""
        numbers: npt.NDArray[np.number]
        if self.tag == FLOAT:
            return np.frombuffer(data, f"<f{self.num_bytes}").astype(np.float32)
        if self.num_bytes == 1:  # unsigned; becomes the high byte of 16 bits
            numbers = (np.frombuffer(data, np.uint8).astype(np.int16) - 128) * 256
        elif self.num_bytes == 3:
            wide = np.zeros((len(data) // 3, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            numbers = wide.view("<i4")[:, 0] >> 8
        else:
            numbers = np.frombuffer(data, f"<i{self.num_bytes}")
        return (numbers / 2.0 ** (8 * max(2, self.num_bytes) - 1)).astype(np.float32)


RAW_FORMATS = {
    "s16le": PcmFormat(PCM, 2),
    "s24le": PcmFormat(PCM, 3),
    "s32le": PcmFormat(PCM, 4),
    "f32le": PcmFormat(FLOAT, 4),
}
_READABLE = {(PCM, 1), (PCM, 2), (PCM, 3), (PCM, 4), (FLOAT, 4), (FLOAT, 8)}
# By libsndfile's names.
SUBTYPES = {
    "PCM_U8": PcmFormat(PCM, 1),
    "PCM_16": PcmFormat(PCM, 2),
    "PCM_24": PcmFormat(PCM, 3),
    "PCM_32": PcmFormat(PCM, 4),
    "FLOAT": PcmFormat(FLOAT, 4),
    "DOUBLE": PcmFormat(FLOAT, 8),
    "ALAW": PcmFormat(ALAW, 1),
    "ULAW": PcmFormat(ULAW, 1),
}


def read_wav_header(
    file: BinaryIO, head: bytes, name: str
) -> tuple[PcmFormat, int, int, int | None]:
    """Read a WAV header up to the first sample.

    Args:
        file: file object that stands after ``head``.
        head: the first twelve bytes.
        name: name in error messages.

    Returns:
        Sample format, sampling rate in Hz, number of channels, and size of the samples in bytes
        (None if the header does not state it).

    Raises:
        AudioError: not WAV, or a sample format that is only read from files.
    """
    form: tuple[PcmFormat, int, int] | None = None
    large: int | None = None
    while True:
        kind, size = struct.unpack("<4sI", _read_exactly(file, 8, name))
        if kind == b"data":
            break
        if size > MAX_CHUNK:
            raise AudioError(f"{name}: a chunk of {size} bytes stands before the samples")
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


def wav_header(form: PcmFormat, rate: int, channels: int, num_samples: int | None) -> bytes:
    """Return all bytes before the first sample; RF64 if the file exceeds 4 GiB.

    Args:
        form: sample format.
        rate: sampling rate in Hz.
        channels: number of channels.
        num_samples: per channel; None if it is not known yet, on a pipe.
    """
    frame = form.num_bytes * channels
    fields = (form.tag, channels, rate, rate * frame, frame, 8 * form.num_bytes)
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


def _parse_format(content: bytes, name: str) -> tuple[PcmFormat, int, int]:
    if len(content) < 16:
        raise AudioError(f"{name}: not WAV: the format chunk is too short")
    tag, channels, rate, _, frame_bytes, bits = struct.unpack("<HHIIHH", content[:16])
    if tag == EXTENSIBLE and len(content) >= 26:
        tag = int.from_bytes(content[24:26], "little")
    form = PcmFormat(tag, -(-bits // 8))
    if (tag, form.num_bytes) not in _READABLE:
        raise AudioError(
            f"{name}: WAV format {tag} with {bits} bits cannot be read from a pipe; "
            "pass the file by name"
        )
    if not 1 <= channels <= MAX_CHANNELS or frame_bytes != channels * form.num_bytes or not rate:
        raise AudioError(f"{name}: not WAV: the format chunk contradicts itself")
    return form, rate, channels


def _read_exactly(file: BinaryIO, size: int, name: str) -> bytes:
    data = b""
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    if len(data) < size:
        raise AudioError(f"{name}: ends within its WAV header")
    return data
