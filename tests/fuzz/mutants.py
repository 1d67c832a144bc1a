"""Mutants of `.hcd` files with correct checksums, on which two readers must agree.

A mutant is made from the fields of a sample: fields are changed, added, left out or repeated, then
the blocks are usually made to fit the header again, and all checks are computed. So the readers get
past the checks, into the rules for the values, which mutated bytes hardly reach.
"""

from __future__ import annotations

import binascii
import io
import random
import struct
import zlib
from copy import deepcopy
from dataclasses import dataclass, field

from codectool.container import Reader
from codectool.errors import ContainerError
from tests.container.hcd_samples import SAMPLES, Pipe
from tests.container.independent_reader import PROFILES, RATES, ceil, read_hcd

LENGTH_KNOWN, SECTIONS, SEGMENTED, BLOCK_LENGTH, EXTRA = 1, 2, 4, 8, 48
MAX_FRAMES = 400  # of mutants whose blocks are made to fit; others only claim more
NUMBERS = [
    *(0, 1, 2, 3, 4, 7, 15, 16, 17, 63, 64, 65, 127, 128, 200, 255, 256, 320, 1023, 1024, 1025),
    *(1200, 1800, 1920, 8000, 16_000, 24_000, 48_000, 65_535, 65_536, 65_537, 1 << 20),
    *((1 << 20) + 1, 10_000_000, 10_000_001, 1 << 32, (1 << 63) - 1, 1 << 63),
]
NAMES = [
    b"",
    b"hac",
    b"my-codec",
    b"a" * 31,
    b"a" * 32,
    b"A",
    b"1a",
    b"a b",
    b"a\n",
    b"\xe9",
    b"a-1",
]


def varint(value: int) -> bytes:
    """Return the shortest form, also of numbers that are too large."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def number(raw: bytes) -> int:
    return sum((byte & 127) << 7 * place for place, byte in enumerate(raw))


@dataclass
class Section:
    kind: int
    payload: bytes
    length: bytes | None = None  # None: the right one


@dataclass
class Block:
    payload: bytes
    marker: bytes = b""
    end: bytes = b""  # samples and extra frames of a final record


@dataclass
class Parts:
    """A file as its fields; those of the header by name, in order."""

    fields: dict[str, bytes]
    sections: list[Section] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    sections_end: bytes = b"\0"
    trailing: bytes = b""

    @property
    def flags(self) -> int:
        return self.fields["flags"][0]

    @property
    def is_stream(self) -> bool:
        return not self.flags & LENGTH_KNOWN

    def build(self) -> bytes:
        """Return the file with correct checks."""
        head = b"HCD\1" + b"".join(self.fields.values())
        first = self.blocks[0].payload if self.blocks else b""
        s0 = struct.pack("<I", zlib.crc32(head + bytes(8) + first))
        out = head + s0
        out += struct.pack("<H", binascii.crc_hqx(out, 0xFFFF))
        if self.flags & SECTIONS:
            for section in self.sections:
                length = varint(len(section.payload)) if section.length is None else section.length
                body = bytes([section.kind]) + length + section.payload
                out += body + struct.pack("<I", zlib.crc32(s0 + body))
            out += self.sections_end
        for index, block in enumerate(self.blocks):
            final = block.marker == b"\2"
            body = (block.marker + block.end if final else b"") + block.payload
            check = zlib.crc32(head + (s0 if index else b"") + struct.pack("<Q", index) + body)
            out += body if final else block.marker + body
            if index or final:
                out += struct.pack("<I", check)
        return out + self.trailing


def split(data: bytes) -> Parts:
    """Return the fields of a valid file."""
    file = io.BytesIO(data)
    file.seek(4)

    def read_varint() -> bytes:
        raw = file.read(1)
        while raw[-1] & 128:
            raw += file.read(1)
        return raw

    fields = {"flags": file.read(1), "profile": file.read(1), "fingerprint": file.read(4)}
    fields["format"] = file.read(1)
    flags, code = fields["flags"][0], fields["format"][0]
    if not code >> 4:
        fields["rate"] = read_varint()
    if not code & 15:
        fields["channels"] = read_varint()
    if not fields["profile"][0]:
        fields["codes"] = file.read(1)
        if not fields["codes"][0] >> 4:
            size = file.read(1)
            fields["family"] = size + file.read(size[0])
        if not fields["codes"][0] & 15:
            fields["model rate"] = read_varint()
        fields["hop"], fields["codebooks"] = read_varint(), read_varint()
        fields["bits"] = file.read(1)
        if fields["bits"] == b"\0":
            fields["widths"] = file.read(number(fields["codebooks"]))
    if flags & LENGTH_KNOWN:
        fields["samples"] = read_varint()
        if flags & EXTRA == EXTRA:
            fields["extra"] = read_varint()
    if flags & SEGMENTED:
        fields["segment"] = read_varint()
    if flags & BLOCK_LENGTH:
        fields["block"] = read_varint()
    parts = Parts(fields)
    file.seek(6, io.SEEK_CUR)
    while flags & SECTIONS and (kind := file.read(1)[0]):
        parts.sections.append(Section(kind, file.read(number(read_varint()))))
        file.seek(4, io.SEEK_CUR)
    fit_blocks(parts, random.Random(0))
    return parts


@dataclass
class Layout:
    """What the header says about the blocks."""

    widths: list[int]
    channels: int
    block: int
    rate: int
    model_rate: int
    hop: int
    samples: int | None
    extra: int

    def frames(self, samples: int, extra: int) -> int:
        return ceil(ceil(samples * self.model_rate, self.rate), self.hop) + extra

    def bits(self, frames: int) -> int:
        return frames * self.channels * sum(self.widths)


def layout_of(fields: dict[str, bytes]) -> Layout | None:
    """Interpret a header as far as it makes sense; None if it does not."""
    try:
        flags, code = fields["flags"][0], fields["format"][0]
        rate = RATES[code >> 4] or number(fields["rate"])
        channels = code & 15 or number(fields["channels"])
        if fields["profile"][0]:
            _, model_rate, hop, widths = PROFILES[fields["profile"][0]]
        else:
            model_rate = RATES[fields["codes"][0] & 15] or number(fields["model rate"])
            hop, bits = number(fields["hop"]), fields["bits"][0]
            codebooks = min(number(fields["codebooks"]), 100)
            widths = [bits] * codebooks if bits else list(fields["widths"])
        extra = number(fields["extra"]) if flags & EXTRA == EXTRA else (flags & EXTRA) >> 4
        default = min(ceil(24 * model_rate, hop), 1_048_576 // (channels * len(widths)))
        block = number(fields["block"]) if flags & BLOCK_LENGTH else default
        samples = number(fields["samples"]) if flags & LENGTH_KNOWN else None
    except (KeyError, IndexError, ZeroDivisionError):
        return None
    if not (len(widths) <= 64 and channels <= 1024 and rate and model_rate and hop and block):
        return None
    return Layout(widths, channels, block, rate, model_rate, hop, samples, extra)


def fit_blocks(parts: Parts, rng: random.Random, samples: int | None = None) -> None:
    """Replace the blocks by random ones that fit the header, unless they would be large."""
    layout = layout_of(parts.fields)
    if layout is None:
        return
    most = 1 << 16  # bits
    if not parts.is_stream:
        frames = layout.frames(layout.samples or 0, layout.extra)
        if frames > MAX_FRAMES or layout.bits(frames) > most:
            return
        counts = [layout.block] * max(0, (frames - 1) // layout.block)
        counts.append(frames - sum(counts))
        parts.blocks = [Block(payload(layout, count, rng)) for count in counts]
        return
    extra = rng.choice([0, 0, 1, 2, 3, 9])
    if layout.block > MAX_FRAMES or layout.bits(layout.block) > most // 4:
        return
    full = rng.randint(1, 4)
    wanted = (full + rng.random()) * layout.block - extra
    samples = max(0, int(wanted * layout.hop * layout.rate / layout.model_rate))
    rest = layout.frames(samples, extra) - full * layout.block
    parts.blocks = [Block(payload(layout, layout.block, rng), b"\1") for _ in range(full)]
    if rest >= 0:
        end = varint(samples) + varint(extra)
        parts.blocks.append(Block(payload(layout, rest, rng), b"\2", end))


def payload(layout: Layout, frames: int, rng: random.Random) -> bytes:
    bits = layout.bits(frames)
    size = ceil(bits, 8)
    return (rng.getrandbits(bits) << 8 * size - bits).to_bytes(size, "big") if bits else b""


def any_varint(rng: random.Random) -> bytes:
    value = rng.choice(NUMBERS) if rng.random() < 0.7 else rng.getrandbits(rng.randint(1, 40))
    raw = varint(value)
    if rng.random() < 0.05:  # not the shortest form, or too long
        raw = raw[:-1] + bytes([raw[-1] | 128]) + b"\x80" * rng.choice([0, 0, 7, 8, 9]) + b"\0"
    return raw


def any_byte(rng: random.Random, old: bytes) -> bytes:
    if rng.random() < 0.5:
        return bytes([old[0] ^ 1 << rng.randrange(8)])
    return bytes([rng.choice([0, 1, 2, 3, 4, 5, 24, 25, 64, 65, 255, rng.randrange(256)])])


FIELD_ORDER = [
    *("flags", "profile", "fingerprint", "format", "rate", "channels", "codes", "family"),
    *("model rate", "hop", "codebooks", "bits", "widths", "samples", "extra", "segment", "block"),
]
OPTIONAL = {"samples": LENGTH_KNOWN, "extra": EXTRA, "segment": SEGMENTED, "block": BLOCK_LENGTH}
BYTES = {"flags", "profile", "format", "codes", "bits"}


def set_field(parts: Parts, name: str, value: bytes | None) -> None:
    """Set or leave out a field, and keep the order of the fields."""
    fields = {**parts.fields}
    if value is None:
        fields.pop(name, None)
    else:
        fields[name] = value
    parts.fields = {key: fields[key] for key in FIELD_ORDER if key in fields}


def new_value(name: str, rng: random.Random, old: bytes | None) -> bytes:
    if name in BYTES:
        return any_byte(rng, old or b"\0")
    if name == "fingerprint":
        return rng.randbytes(4)
    if name == "family":
        text = rng.choice(NAMES)
        size = len(text) if rng.random() < 0.9 else rng.randrange(256)
        return bytes([size]) + text
    if name == "widths":
        size = len(old) if old and rng.random() < 0.8 else rng.randrange(70)
        return bytes(rng.choice([0, 1, 7, 24, 25, rng.randint(1, 24)]) for _ in range(size))
    return any_varint(rng)


def change_field(parts: Parts, rng: random.Random) -> None:
    name = rng.choice(list(parts.fields))
    set_field(parts, name, new_value(name, rng, parts.fields[name]))


def toggle_option(parts: Parts, rng: random.Random) -> None:
    """Set or clear a flag together with its field, so that the header stays consistent."""
    name = rng.choice([*OPTIONAL, "sections", "rate", "channels"])
    if name == "sections":
        set_field(parts, "flags", bytes([parts.flags ^ SECTIONS]))
    elif name in ("rate", "channels"):
        shift = 4 if name == "rate" else 0
        code = parts.fields["format"][0] & ~(15 << shift)
        short = name in parts.fields and rng.random() < 0.8
        code |= rng.randint(1, 15) << shift if short else 0
        set_field(parts, "format", bytes([code]))
        set_field(parts, name, None if short else any_varint(rng))
    else:
        flag = OPTIONAL[name]
        present = parts.flags & flag == flag
        set_field(parts, "flags", bytes([parts.flags & ~flag if present else parts.flags | flag]))
        set_field(parts, name, None if present else any_varint(rng))
        if name == "samples" and present:
            set_field(parts, "extra", None)
            set_field(parts, "flags", bytes([parts.flags & ~EXTRA]))


def small_block(parts: Parts, rng: random.Random) -> None:
    set_field(parts, "flags", bytes([parts.flags | BLOCK_LENGTH]))
    set_field(parts, "block", varint(rng.randint(1, 12)))


def small_length(parts: Parts, rng: random.Random) -> None:
    if not parts.is_stream:
        set_field(parts, "samples", varint(rng.randrange(20_000)))


def change_profile(parts: Parts, rng: random.Random) -> None:
    """Exchange a numbered profile for an explicit one, or the reverse."""
    for name in ("codes", "family", "model rate", "hop", "codebooks", "bits", "widths"):
        set_field(parts, name, None)
    if rng.random() < 0.3:
        set_field(parts, "profile", bytes([rng.randint(1, 6)]))
        return
    family, rate = rng.randrange(5), rng.choice([0, 0, 4, 6, 13, 14])
    codebooks = rng.choice([1, 1, 2, 3, 5, 64, 65])
    equal = rng.random() < 0.6
    set_field(parts, "profile", b"\0")
    set_field(parts, "codes", bytes([family << 4 | rate]))
    if not family:
        set_field(parts, "family", new_value("family", rng, None))
    if not rate:
        set_field(parts, "model rate", varint(rng.choice([8000, 16_000, 14_700, 44_100, 0, 1])))
    set_field(parts, "hop", varint(rng.choice([1, 200, 320, 294, 65_536, 65_537, 0])))
    set_field(parts, "codebooks", varint(codebooks))
    set_field(parts, "bits", bytes([rng.randint(1, 25) if equal else 0]))
    if not equal:
        set_field(parts, "widths", bytes(rng.randint(1, 24) for _ in range(codebooks)))


def change_fields(parts: Parts, rng: random.Random) -> None:
    """Add, leave out or repeat a field without a flag that says so."""
    name = rng.choice(FIELD_ORDER[3:])
    if name in parts.fields and rng.random() < 0.5:
        times = 2 if name in BYTES else rng.choice([0, 2])
        set_field(parts, name, parts.fields[name] * times)
    else:
        set_field(parts, name, new_value(name, rng, parts.fields.get(name)))


def any_tags(rng: random.Random) -> bytes:
    texts = [b"", b"a", b"b", b"title", "Grüße".encode(), b"\xff", b"\xed\xa0\x80", b"x" * 300]
    keys = sorted(rng.sample(texts[1:5], rng.randint(0, 3)))
    if rng.random() < 0.3:
        keys = [rng.choice(texts) for _ in range(rng.randint(1, 3))]
    values = [rng.choice(texts[:5] if rng.random() < 0.8 else texts) for _ in keys]
    pairs = zip(keys, values, strict=True)
    return b"".join(varint(len(t)) + t for pair in pairs for t in pair)


def change_sections(parts: Parts, rng: random.Random) -> None:
    set_field(parts, "flags", bytes([parts.flags | SECTIONS]))
    sections, choice = parts.sections, rng.random()
    if choice < 0.3:
        gain = Section(2, rng.randbytes(rng.choice([1, 2, 2, 2, 3])))
        sections.append(rng.choice([Section(1, any_tags(rng)), gain]))
    elif choice < 0.5:
        kind = rng.choice([2, 3, 127, 128, 255, rng.randint(1, 255)])
        size = rng.choice([0, 1, 100, 65_535, 65_536, 65_537]) if rng.random() < 0.1 else 3
        sections.insert(0, Section(kind, rng.randbytes(size)))
    elif choice < 0.6:
        parts.sections = [Section(3, b"")] * rng.choice([0, 2, 255, 256, 257])
    elif choice < 0.65:
        parts.sections = [Section(9, bytes(65_530))] * rng.choice([15, 16, 17])
    elif choice < 0.7:
        parts.sections_end = rng.choice([b"", b"\0\0", b"\x80"])
    elif sections:
        section = rng.choice(sections)
        if rng.random() < 0.3:
            section.length = any_varint(rng)
        else:
            place = rng.randrange(len(section.payload) + 1)
            section.payload = (
                section.payload[:place] + rng.randbytes(1) + section.payload[place + 1 :]
            )


def change_blocks(parts: Parts, rng: random.Random) -> None:
    blocks = parts.blocks
    if not blocks:
        return
    index, choice = rng.randrange(len(blocks)), rng.random()
    block = blocks[index]
    if choice < 0.3 and block.payload:
        data = bytearray(block.payload)
        data[-1 if rng.random() < 0.7 else rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        block.payload = bytes(data)
    elif choice < 0.4:
        block.payload += bytes(rng.randint(1, 30))
    elif choice < 0.5:
        block.payload = block.payload[: -rng.randint(1, 30)]
    elif choice < 0.6:
        blocks.insert(index, deepcopy(block))
    elif choice < 0.7:
        del blocks[index]
    elif choice < 0.8:
        block.marker = rng.choice([b"", b"\0", b"\1", b"\2", b"\3"])
    else:
        block.end = any_varint(rng) + any_varint(rng) if rng.random() < 0.5 else block.end[:1]


MUTATIONS = [
    *(change_field, change_field, toggle_option, toggle_option, small_block, small_length),
    *(change_profile, change_fields, change_sections, change_blocks),
]
LATE_MUTATIONS = {change_blocks}
BASES = [split(sample.data) for sample in SAMPLES.values()]


def mutant(seed: int, index: int) -> bytes:
    """Return mutant number ``index``."""
    rng = random.Random(f"{seed}:{index}")
    parts = deepcopy(rng.choice(BASES))
    chosen = [rng.choice(MUTATIONS) for _ in range(rng.choice([1, 1, 2, 2, 3, 5]))]
    for change in chosen:
        if change not in LATE_MUTATIONS:
            change(parts, rng)
    if rng.random() < 0.8:
        fit_blocks(parts, rng)
    for change in chosen:
        if change in LATE_MUTATIONS:
            change(parts, rng)
    data = bytearray(parts.build())
    if rng.random() < 0.03:
        del data[rng.randrange(len(data)) :]
    if rng.random() < 0.03:
        data += rng.randbytes(rng.randint(1, 9))
    if rng.random() < 0.03 and data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def compare(data: bytes, through_pipe: bool = False) -> str:
    """Read a file with both readers.

    Returns:
        ``"accepted"`` or ``"refused"``.

    Raises:
        AssertionError: The readers disagree.
    """
    try:
        expected = read_hcd(data)
    except AssertionError as error:
        expected, refusal = None, str(error)
    source = Pipe(data, 97) if through_pipe else io.BytesIO(data)
    reason: ContainerError | None = None
    try:
        reader = Reader(source, "x.hcd")
        codes = reader.read_all()
    except ContainerError as error:
        reason = error
    if reason is not None:
        assert expected is None, f"codectool refuses what the document allows: {reason}"
        check_lenient(data)
        return "refused"
    assert expected is not None, f"codectool accepts what the document refuses: {refusal}"
    header, layout = reader.header, reader.header.layout
    extra = header.extra_frames
    if header.num_samples is None:
        extra = codes.shape[2] - header.frames_for(reader.num_samples or 0)
    found = {
        "family": layout.family,
        "model_rate": layout.sample_rate,
        "hop": layout.hop_length,
        "bits_per_codebook": list(layout.bits_per_codebook),
        "fingerprint": header.fingerprint,
        "input_rate": header.sample_rate,
        "samples": reader.num_samples,
        "extra": extra,
        "segment": header.segment_frames,
        "block": header.block_frames,
        "tags": reader.tags,
        "gain": reader.gain_db,
        "codes": codes.tolist(),
    }
    assert found == expected
    return "accepted"


def check_lenient(data: bytes) -> None:
    """Read a refused file as `decode --conceal` does, which must end in blocks or an error."""
    try:
        reader = Reader(io.BytesIO(data), "x.hcd", damaged="keep")
        for block in reader.blocks():
            assert (block.codes is None) == (block.error is not None)
        reader.scan()
    except ContainerError:
        pass
