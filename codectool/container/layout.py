"""The `.hcd` format as declarations: constants, tables, records and checks.

The specification is `docs/reference/file-format.md`. Tokens are packed in `bitpack`.
"""

from __future__ import annotations

from construct import (
    BitsInteger,
    BitStruct,
    Byte,
    Bytes,
    Check,
    ExprAdapter,
    Flag,
    If,
    Int8ub,
    Int16sl,
    Int16ul,
    Int32ul,
    Nibble,
    PascalString,
    RepeatUntil,
    Struct,
    VarInt,
    this,
)

from codectool.codecs.registry import all_families
from codectool.tokens import MAX_CODEBOOKS

MAGIC = b"HCD"
VERSION = 1

# Limits. Each is checked before memory is allocated.
MAX_VARINT_BYTES = 9  # nine groups of seven bits: every value below 2 ** 63
MAX_BLOCK_TOKENS = 1 << 20  # channels * codebooks * frames of a block: 3 MiB packed, 4 MiB as int32
MAX_SECTION_BYTES = 65_536  # payload of one section
MAX_SECTIONS_BYTES = 1 << 20  # all sections with their framing
MAX_SECTIONS = 256
MAX_FRAME_SAMPLES = 65_536  # samples of a frame, at the model's rate and at the input rate

# Sampling rates by code. 0: a varint follows; 14 and 15 are reserved.
SAMPLE_RATES = {
    1: 8_000,
    2: 11_025,
    3: 12_000,
    4: 16_000,
    5: 22_050,
    6: 24_000,
    7: 32_000,
    8: 44_100,
    9: 48_000,
    10: 88_200,
    11: 96_000,
    12: 176_400,
    13: 192_000,
}
RATE_CODES = {rate: code for code, rate in SAMPLE_RATES.items()}

# Families of an explicit profile by code. 0: the name follows; other codes are reserved.
FAMILY_CODES = {
    family.name: family.container_number
    for family in all_families()
    if family.container_number is not None
}
FAMILY_NAMES = {code: name for name, code in FAMILY_CODES.items()}
PROFILES = {profile.number: profile for family in all_families() for profile in family.profiles}
PROFILE_NUMBERS = {profile.layout: number for number, profile in PROFILES.items()}
BLOCK_SECONDS = 24  # default length of a block


def decode_varint(data: bytes) -> int:
    """Decode one unsigned LEB128: 7 bits per byte, lowest first, top bit set if more follow.

    Raises:
        ValueError: the varint is longer than allowed, or not in its shortest form.

    >>> decode_varint(bytes.fromhex("80 f7 02"))
    48000
    """
    if data[-1] & 0x80:
        raise ValueError(f"a varint is longer than {MAX_VARINT_BYTES} bytes")
    if len(data) > 1 and data[-1] == 0:
        raise ValueError("a varint is not in its shortest form")
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data))


VARINT = ExprAdapter(
    RepeatUntil(lambda byte, so_far, _: byte < 0x80 or len(so_far) == MAX_VARINT_BYTES, Byte),
    decoder=lambda groups, _: decode_varint(bytes(groups)),
    encoder=lambda value, _: list(VarInt.build(int(value))),
)

EXPLICIT_PROFILE = Struct(
    "codes" / BitStruct("family" / Nibble, "sample_rate" / Nibble),
    "family" / If(this.codes.family == 0, PascalString(Int8ub, "ascii")),
    "sample_rate" / If(this.codes.sample_rate == 0, VARINT),
    "hop_length" / VARINT,
    "num_codebooks" / VARINT,
    # Checked before `bits_per_codebook` is read.
    Check(lambda fields: 1 <= fields.num_codebooks <= MAX_CODEBOOKS),
    "bits" / Int8ub,
    "bits_per_codebook" / If(this.bits == 0, Bytes(this.num_codebooks)),
)

FIELDS = Struct(
    "flags"
    / BitStruct(
        "reserved" / BitsInteger(2),
        "extra_frames" / BitsInteger(2),
        "block_length" / Flag,
        "segmented" / Flag,
        "sections" / Flag,
        "length_known" / Flag,
    ),
    "profile" / Int8ub,
    "fingerprint" / Bytes(4),
    "format" / BitStruct("sample_rate" / Nibble, "channels" / Nibble),
    "sample_rate" / If(this.format.sample_rate == 0, VARINT),
    "channels" / If(this.format.channels == 0, VARINT),
    "explicit" / If(this.profile == 0, EXPLICIT_PROFILE),
    "num_samples" / If(this.flags.length_known, VARINT),
    "extra_frames" / If((this.flags.extra_frames == 3) & this.flags.length_known, VARINT),
    "segment_frames" / If(this.flags.segmented, VARINT),
    "block_frames" / If(this.flags.block_length, VARINT),
)

GAIN_VALUE = Int16sl  # in steps of 0.01 dB
CHECK32 = Int32ul
CHECK16 = Int16ul
CRC16_START = 0xFFFF  # of the CRC-16 (CCITT) of all header bytes before it

# Sections are stored between header and blocks.
SECTIONS_END = 0
TEXT_TAGS = 1
GAIN = 2
GAIN_STEPS = 100  # per dB
MUST_UNDERSTAND = 0x80
SECTION_START = Struct("type" / Int8ub, "length" / If(this.type != SECTIONS_END, VARINT))
TEXT_TAG = Struct("key" / PascalString(VARINT, "utf8"), "value" / PascalString(VARINT, "utf8"))

# Markers and the final record of a stream, whose header does not state the length.
FULL_BLOCK = b"\x01"
FINAL_RECORD = b"\x02"
FINAL_FIELDS = Struct("num_samples" / VARINT, "extra_frames" / VARINT)


def checksum_error(computed: int, stored: int) -> str | None:
    """Return the reason why a CRC-32 is wrong; None if it is right."""
    return None if computed == stored else f"CRC-32 is {computed:08x}, expected {stored:08x}"
