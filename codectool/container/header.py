"""`Header`: the validated description of the tokens in a file, and its bytes."""

from __future__ import annotations

import struct
import zlib
from binascii import crc_hqx
from dataclasses import dataclass
from typing import Any, cast

from construct import ConstructError, StreamError

from codectool.container.bitpack import packed_bytes
from codectool.container.layout import (
    BLOCK_SECONDS,
    CHECK16,
    CHECK32,
    CRC16_START,
    FAMILY_CODES,
    FAMILY_NAMES,
    FIELDS,
    MAGIC,
    MAX_BLOCK_TOKENS,
    MAX_FRAME_SAMPLES,
    PROFILE_NUMBERS,
    PROFILES,
    RATE_CODES,
    SAMPLE_RATES,
    VERSION,
)
from codectool.container.source import ByteSource, RecordingReader
from codectool.errors import DamagedError, NotHcdError, TruncatedError, UnsupportedError
from codectool.filetypes import START_BYTES, describe_foreign
from codectool.tokens import (
    MAX_CHANNELS,
    MAX_LENGTH,
    MAX_SAMPLE_RATE,
    TokenLayout,
    check_fingerprint,
    check_integer,
)


@dataclass(frozen=True)
class Header:
    """Description of the tokens in a `.hcd` file.

    Attributes:
        layout: shape and meaning of the tokens.
        fingerprint: eight hexadecimal digits that identify the weights that made them.
        sample_rate: sampling rate of the encoded audio, in Hz.
        channels: number of channels, 1..1024.
        num_samples: samples per channel at ``sample_rate``; None in a stream, which stores its
            length at the end.
        extra_frames: frames beyond those that ``num_samples`` needs.
        segment_frames: frames per independently coded segment; None if there is one segment.
        block_frames: frames per block; 0 is replaced by the default, about 24 s.
    """

    layout: TokenLayout
    fingerprint: str
    sample_rate: int
    channels: int = 1
    num_samples: int | None = None
    extra_frames: int = 0
    segment_frames: int | None = None
    block_frames: int = 0

    def __post_init__(self) -> None:
        check_fingerprint(self.fingerprint)
        check_integer("sampling rate in Hz", self.sample_rate, 1, MAX_SAMPLE_RATE)
        check_integer("number of channels", self.channels, 1, MAX_CHANNELS)
        # A frame may be one bit, so this bounds the audio that a byte can make a decoder write.
        hop, rate = self.layout.hop_length, self.layout.sample_rate
        if hop > MAX_FRAME_SAMPLES or hop * self.sample_rate > MAX_FRAME_SAMPLES * rate:
            raise ValueError(f"one frame stands for more than {MAX_FRAME_SAMPLES} samples")
        if self.num_samples is not None:
            check_integer("number of samples", self.num_samples, 0, MAX_LENGTH)
        check_integer("number of extra frames", self.extra_frames, 0, MAX_LENGTH)
        if self.num_samples is None and self.extra_frames:
            raise ValueError("extra frames are not known before the number of samples is")
        if self.segment_frames is not None:
            check_integer("segment length", self.segment_frames, 1, MAX_LENGTH)
        if self.block_frames == 0:
            object.__setattr__(self, "block_frames", self.default_block_frames)
        most = MAX_BLOCK_TOKENS // (self.channels * self.layout.num_codebooks)
        check_integer("block length", self.block_frames, 1, most)

    @property
    def default_block_frames(self) -> int:
        """Default frames per block: 24 s, or fewer if the limit requires it."""
        frames = -(-BLOCK_SECONDS * self.layout.sample_rate // self.layout.hop_length)
        return min(frames, MAX_BLOCK_TOKENS // (self.channels * self.layout.num_codebooks))

    @property
    def profile_name(self) -> str:
        """Name of the standard profile with this layout, or ``"custom"``."""
        number = PROFILE_NUMBERS.get(self.layout)
        return PROFILES[number].name if number else "custom"

    @property
    def num_frames(self) -> int | None:
        """Frames per channel; None in a stream."""
        if self.num_samples is None:
            return None
        return self.frames_for(self.num_samples, self.extra_frames)

    def frames_for(self, num_samples: int, extra_frames: int = 0) -> int:
        """Return ``ceil(ceil(n * model_rate / rate) / hop) + extra``, the frames per channel."""
        samples = self.layout.model_samples(num_samples, self.sample_rate)
        return -(-samples // self.layout.hop_length) + extra_frames

    def payload_bytes(self, frames: int) -> int:
        """Return the size of the packed tokens of ``frames`` frames."""
        return packed_bytes(self.channels, self.layout.bits_per_codebook, frames)


def build_fields(header: Header, sections: bool) -> bytes:
    """Return the header bytes before the first-block check, with the flag ``sections``."""
    layout = header.layout
    same_bits = len(set(layout.bits_per_codebook)) == 1
    explicit = {
        **vars(layout),  # `Struct.build` takes what it needs
        "codes": {
            "family": FAMILY_CODES.get(layout.family, 0),
            "sample_rate": RATE_CODES.get(layout.sample_rate, 0),
        },
        "num_codebooks": layout.num_codebooks,
        "bits": layout.bits_per_codebook[0] if same_bits else 0,
        "bits_per_codebook": bytes(layout.bits_per_codebook),
    }
    fields = {
        **vars(header),
        "flags": {
            "reserved": 0,
            "extra_frames": min(header.extra_frames, 3),
            "block_length": header.block_frames != header.default_block_frames,
            "segmented": header.segment_frames is not None,
            "sections": sections,
            "length_known": header.num_samples is not None,
        },
        "profile": PROFILE_NUMBERS.get(layout, 0),
        "fingerprint": bytes.fromhex(header.fingerprint),
        "format": {
            "sample_rate": RATE_CODES.get(header.sample_rate, 0),
            "channels": header.channels if header.channels < 16 else 0,
        },
        "explicit": explicit,
    }
    return MAGIC + bytes([VERSION]) + cast(bytes, FIELDS.build(fields))


def block_check(fields: bytes, first_check: int, index: int, payload: bytes) -> int:
    """Return the CRC-32 of the packed tokens of a block, or of the final record of a stream.

    The check includes the header and the block number, so that it fails for a block of another
    file or from another position. The first-block check, of block 0, is stored in the header.
    """
    prefix = fields + (struct.pack("<I", first_check) if index else b"") + struct.pack("<Q", index)
    return zlib.crc32(payload, zlib.crc32(prefix))


def parse_header(source: ByteSource, name: str) -> tuple[Header, bool, bytes, int]:
    """Read a header, and no byte more.

    Args:
        source: source positioned at the start of the file.
        name: name of the file in error messages.

    Returns:
        The header, whether sections follow, all bytes before the first-block check, and that check.

    Raises:
        NotHcdError, UnsupportedError, DamagedError, TruncatedError: see `codectool.errors`.
    """
    recorder = RecordingReader(source)
    start = recorder.read(len(MAGIC) + 1)
    if not MAGIC.startswith(start[: len(MAGIC)]):
        what = describe_foreign(start + source.read(START_BYTES - len(start)), "the tokens")
        reason = f"is {what}" if what else f"begins with {start[:3].hex(' ')}, not {MAGIC.hex(' ')}"
        raise NotHcdError(f"{name}: not a .hcd file: it {reason}")
    if len(start) <= len(MAGIC):
        raise TruncatedError(f"{name}: ends after {len(start)} bytes, inside the header")
    version = start[-1]
    if version > VERSION:
        raise UnsupportedError(
            f"{name}: made by a later version of the format ({version}); "
            f"this codectool reads version {VERSION}: update codectool"
        )
    if version < VERSION:
        raise DamagedError(f"{name}: version 0 of the format does not exist")
    try:
        raw = FIELDS.parse_stream(recorder)
        fields = bytes(recorder.data)
        first_check = cast(int, CHECK32.parse_stream(recorder))
        computed = crc_hqx(recorder.data, CRC16_START)
        stored = cast(int, CHECK16.parse_stream(recorder))
    except StreamError as error:
        raise TruncatedError(
            f"{name}: ends after {len(recorder.data)} bytes, inside the header"
        ) from error
    except (ConstructError, ValueError) as error:
        reason = str(error).splitlines()[-1]
        raise DamagedError(f"{name}: the header cannot be read: {reason}") from error
    if computed != stored:
        raise DamagedError(
            f"{name}: the header is damaged: CRC-16 is {computed:04x}, expected {stored:04x}"
        )
    # The check has passed, so unknown values come from a later version and not from damage.
    if unknown := _unknown_feature(raw):
        raise UnsupportedError(f"{name}: {unknown}, which this codectool does not know: update it")
    try:
        return _header_from(raw), bool(raw.flags.sections), fields, first_check
    except ValueError as error:
        raise DamagedError(f"{name}: the header contradicts itself: {error}") from error


def _unknown_feature(raw: Any) -> str | None:
    """Return a feature that version 1 reserves, in words; None if there is none."""
    if raw.flags.reserved:
        return f"uses the reserved flag bits {raw.flags.reserved:02b}"
    if raw.profile and raw.profile not in PROFILES:
        return f"uses profile {raw.profile}"
    if raw.format.sample_rate and raw.format.sample_rate not in SAMPLE_RATES:
        return f"uses sampling-rate code {raw.format.sample_rate}"
    if raw.explicit:
        codes = raw.explicit.codes
        if codes.family and codes.family not in FAMILY_NAMES:
            return f"uses codec family {codes.family}"
        if codes.sample_rate and codes.sample_rate not in SAMPLE_RATES:
            return f"uses sampling-rate code {codes.sample_rate} for the model"
    return None


def _layout_from(explicit: Any) -> TokenLayout:
    """Return the layout of an explicit profile; raise a ValueError if a field is invalid."""
    bits = explicit.bits_per_codebook or bytes([explicit.bits]) * explicit.num_codebooks
    if explicit.bits_per_codebook and len(set(bits)) == 1:
        raise ValueError("equal widths are listed one by one")
    return TokenLayout(
        family=FAMILY_NAMES.get(explicit.codes.family) or explicit.family,
        sample_rate=SAMPLE_RATES.get(explicit.codes.sample_rate) or explicit.sample_rate,
        hop_length=explicit.hop_length,
        bits_per_codebook=tuple(bits),
    )


def _header_from(raw: Any) -> Header:
    """Return the header; raise a ValueError if fields contradict each other."""
    layout = PROFILES[raw.profile].layout if raw.profile else _layout_from(raw.explicit)
    if raw.channels is not None and raw.channels < 16:
        raise ValueError(f"{raw.channels} channels are not written in the short form")
    if raw.flags.extra_frames and not raw.flags.length_known:
        raise ValueError("extra frames without a known length")
    if raw.extra_frames is not None and raw.extra_frames < 3:
        raise ValueError(f"{raw.extra_frames} extra frames are not written in the short form")
    if raw.segment_frames == 0:
        raise ValueError("segments of 0 frames")
    header = Header(
        layout=layout,
        fingerprint=raw.fingerprint.hex(),
        sample_rate=SAMPLE_RATES.get(raw.format.sample_rate) or raw.sample_rate,
        channels=raw.format.channels or raw.channels,
        num_samples=raw.num_samples,
        extra_frames=raw.flags.extra_frames if raw.extra_frames is None else raw.extra_frames,
        segment_frames=raw.segment_frames,
        block_frames=0 if raw.block_frames is None else raw.block_frames,
    )
    if raw.block_frames is not None and raw.block_frames in (0, header.default_block_frames):
        raise ValueError(f"block length {raw.block_frames} must not be stored")
    return header
