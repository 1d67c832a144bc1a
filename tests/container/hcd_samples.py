"""Small `.hcd` files of every kind for the tests of the container."""

import binascii
import io
from dataclasses import dataclass, field

import numpy as np

from codectool.container import Header, Writer
from codectool.container.layout import PROFILES
from codectool.tokens import TokenLayout

HAC, BIGCODEC, SUPERCODEC, SUPERCODEC_24K = (PROFILES[number].layout for number in (1, 2, 3, 4))
ONE_CODEBOOK = TokenLayout("supercodec", 16_000, 320, (10,))
ODD = TokenLayout("my-codec", 14_700, 294, (3, 24, 1))


def random_codes(layout, channels, frames, seed=0):
    random = np.random.default_rng(seed)
    codes = [random.integers(0, 1 << bits, (channels, frames)) for bits in layout.bits_per_codebook]
    return np.stack(codes, axis=1).astype(np.int32)


def write(
    header, codes, tags=None, num_samples=None, extra_frames=0, chunk_frames=None, gain_db=0.0
):
    """Return the bytes of a file whose codes are written in chunks of ``chunk_frames`` frames."""
    file = io.BytesIO()
    writer = Writer(file, header, tags, gain_db)
    chunk_frames = chunk_frames or max(1, codes.shape[2])
    for start in range(0, codes.shape[2], chunk_frames):
        writer.write(codes[:, :, start : start + chunk_frames])
    writer.close(num_samples, extra_frames)
    return file.getvalue()


@dataclass
class Sample:
    """A file and its content."""

    header: Header
    num_samples: int
    extra_frames: int = 0
    tags: dict = field(default_factory=dict)
    gain_db: float = 0.0

    def __post_init__(self):
        frames = self.header.frames_for(self.num_samples, self.extra_frames)
        self.codes = random_codes(self.header.layout, self.header.channels, frames)
        if self.header.num_samples is None:
            end = (self.num_samples, self.extra_frames)
        else:
            end = (None, 0)
        self.data = write(self.header, self.codes, self.tags, *end, gain_db=self.gain_db)


def known(layout, rate, num_samples, tags=None, gain_db=0.0, **fields):
    header = Header(layout, "0123abcd", rate, num_samples=num_samples, **fields)
    return Sample(header, num_samples, header.extra_frames, tags or {}, gain_db)


def stream(layout, rate, num_samples, extra_frames=0, tags=None, **fields):
    header = Header(layout, "fedcba98", rate, **fields)
    return Sample(header, num_samples, extra_frames, tags or {})


TAGS = {"title": "Grüße", "speaker": "p253", "empty": ""}
SAMPLES = {
    "hac": known(HAC, 24_000, 3_000),
    "bigcodec": known(BIGCODEC, 16_000, 3_333, block_frames=4),
    "supercodec": known(SUPERCODEC, 44_100, 9_000, segment_frames=300, block_frames=3),
    "supercodec-24k": known(SUPERCODEC_24K, 48_000, 5_000, block_frames=8),
    "custom": known(ONE_CODEBOOK, 16_000, 6_400, block_frames=7, extra_frames=1),
    "odd": known(ODD, 12_345, 3_000, tags=TAGS, block_frames=5, channels=2, extra_frames=5),
    "gain": known(HAC, 24_000, 2_000, gain_db=27.34),
    "tags and gain": known(ODD, 12_345, 3_000, tags=TAGS, gain_db=-6.5),
    "tags": known(BIGCODEC, 16_000, 2_000, tags=TAGS, block_frames=4),
    "many channels": known(SUPERCODEC, 8_000, 500, channels=17, block_frames=3),
    "one sample": known(BIGCODEC, 192_000, 1),
    "empty": known(HAC, 16_000, 0),
    "empty but extra": known(BIGCODEC, 16_000, 0, extra_frames=2),
    "stream": stream(HAC, 24_000, 2_000, block_frames=2),
    "stream of full blocks": stream(BIGCODEC, 16_000, 1_600, block_frames=4),
    "stream with extra frames": stream(BIGCODEC, 22_050, 2_111, 2, block_frames=3, channels=2),
    "stream with tags": stream(ONE_CODEBOOK, 16_000, 6_400, tags=TAGS, block_frames=6),
    "short stream": stream(BIGCODEC, 16_000, 1_500, 3),
}


class Pipe(io.RawIOBase):
    """Bytes that can be read once, a few at a time."""

    def __init__(self, data, chunk_bytes=7):
        self._file = io.BytesIO(data)
        self._chunk_bytes = chunk_bytes
        self.taken = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self._file.read(min(len(buffer), self._chunk_bytes))
        buffer[: len(data)] = data
        self.taken += len(data)
        return len(data)


def with_header_check(fields_and_first_check):
    """Append the correct CRC-16 to modified header bytes."""
    check = binascii.crc_hqx(fields_and_first_check, 0xFFFF)
    return fields_and_first_check + check.to_bytes(2, "little")
