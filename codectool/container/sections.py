"""Optional sections between header and blocks: text tags, and the gain."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from construct import ConstructError, StreamError

from codectool.container.layout import (
    CHECK32,
    GAIN,
    GAIN_STEPS,
    GAIN_VALUE,
    MAX_SECTION_BYTES,
    MAX_SECTIONS,
    MAX_SECTIONS_BYTES,
    MUST_UNDERSTAND,
    SECTION_START,
    SECTIONS_END,
    TEXT_TAG,
    TEXT_TAGS,
    checksum_error,
)
from codectool.container.source import ByteSource, RecordingReader
from codectool.errors import (
    ContainerError,
    DamagedError,
    TokensError,
    TruncatedError,
    UnsupportedError,
)
from codectool.tokens import check_gain


@dataclass(frozen=True)
class Sections:
    """Contents of the sections of a file.

    Attributes:
        tags: text tags.
        gain_db: gain in dB that was applied before encoding; two decimals are stored.
        unknown: number of sections that were skipped because their types are unknown.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    gain_db: float = 0.0
    unknown: int = 0

    def __bool__(self) -> bool:
        return bool(self.tags or round(self.gain_db * GAIN_STEPS))


def build_sections(sections: Sections, first_check: int) -> bytes:
    """Return the sections and the byte that ends them.

    Raises:
        ContainerError: a tag cannot be written as UTF-8, has no name, or the tags are too long.
    """
    parts = []
    if sections.tags:
        parts.append((TEXT_TAGS, _build_tags(sections.tags)))
    if steps := round(sections.gain_db * GAIN_STEPS):
        parts.append((GAIN, GAIN_VALUE.build(steps)))
    data = b""
    for kind, payload in parts:
        start = SECTION_START.build({"type": kind, "length": len(payload)})
        data += start + payload + CHECK32.build(section_check(first_check, start, payload))
    return data + bytes([SECTIONS_END])


def _build_tags(tags: Mapping[str, str]) -> bytes:
    try:
        pairs = sorted((key.encode(), value.encode()) for key, value in tags.items())
    except UnicodeEncodeError as error:
        raise ContainerError(f"a tag cannot be written as UTF-8: {error}") from error
    if pairs and not pairs[0][0]:
        raise ContainerError("a tag has no name")
    payload = b"".join(
        TEXT_TAG.build({"key": key.decode(), "value": value.decode()}) for key, value in pairs
    )
    if len(payload) > MAX_SECTION_BYTES:
        raise ContainerError(
            f"the tags take {len(payload)} bytes; the limit is {MAX_SECTION_BYTES}"
        )
    return payload


def parse_sections(
    source: ByteSource, name: str, first_check: int, keep: bool
) -> tuple[Sections, DamagedError | None]:
    """Read all sections and the byte that ends them, and no byte more.

    Args:
        source: source positioned at the first section.
        name: name of the file in error messages.
        first_check: first-block check of the header, which the checks of sections include.
        keep: skip damaged sections instead of raising, unless their type must be understood.

    Returns:
        The sections, and the first damage that was skipped.

    Raises:
        UnsupportedError: a section of unknown type that must be understood.
        DamagedError: a check failed (unless ``keep``), or a limit is exceeded.
        TruncatedError: the data end early.
    """
    tags: dict[str, str] | None = None
    gain_db: float | None = None
    unknown = 0
    damage: DamagedError | None = None
    total = 0
    for number in range(MAX_SECTIONS + 1):
        recorder = RecordingReader(source)
        try:
            fields = SECTION_START.parse_stream(recorder)
        except StreamError as error:
            raise TruncatedError(f"{name}: ends at the start of section {number}") from error
        except ValueError as error:
            raise DamagedError(f"{name}: the length of section {number}: {error}") from error
        kind, start, length = fields.type, bytes(recorder.data), fields.length
        if kind == SECTIONS_END:
            return Sections(tags or {}, gain_db or 0.0, unknown), damage
        total += len(start) + length + 4
        if length > MAX_SECTION_BYTES or total > MAX_SECTIONS_BYTES:
            raise DamagedError(
                f"{name}: section {number} exceeds the {MAX_SECTION_BYTES} bytes "
                f"of a section or the {MAX_SECTIONS_BYTES} bytes of all sections"
            )
        body = source.read(length + 4)
        if len(body) < length + 4:
            raise TruncatedError(f"{name}: ends inside section {number}")
        payload, stored = body[:length], CHECK32.parse(body[length:])
        try:
            if reason := checksum_error(section_check(first_check, start, payload), stored):
                raise DamagedError(f"{name}: section {number} is damaged: {reason}")
            if kind == TEXT_TAGS:
                if tags is not None:
                    raise DamagedError(f"{name}: section {number} holds text tags again")
                tags = _parse_tags(payload, name)
            elif kind == GAIN:
                if gain_db is not None:
                    raise DamagedError(f"{name}: section {number} holds a gain again")
                gain_db = _parse_gain(payload, name)
            else:
                unknown += 1
        except DamagedError as error:
            if not keep or kind & MUST_UNDERSTAND:
                raise
            damage = damage or error
            continue
        if kind & MUST_UNDERSTAND:
            raise UnsupportedError(
                f"{name}: section {number} is of type {kind:#04x}, which must be understood and "
                "which this codectool does not know: update it"
            )
    raise DamagedError(f"{name}: more than {MAX_SECTIONS} sections")


def section_check(first_check: int, start: bytes, payload: bytes) -> int:
    """Return the CRC-32 of a section; ``start`` is its type and length as stored."""
    return zlib.crc32(payload, zlib.crc32(struct.pack("<I", first_check) + start))


def _parse_gain(payload: bytes, name: str) -> float:
    try:
        gain_db = float(GAIN_VALUE.parse(payload)) / GAIN_STEPS
        check_gain(gain_db)
    except (ConstructError, TokensError) as error:
        raise DamagedError(f"{name}: the gain cannot be read: {error}") from error
    if len(payload) != GAIN_VALUE.sizeof():
        raise DamagedError(f"{name}: the gain cannot be read: it has {len(payload)} bytes")
    return gain_db


def _parse_tags(payload: bytes, name: str) -> dict[str, str]:
    """Parse text tags, whose keys must be in strictly ascending byte order."""
    stream = io.BytesIO(payload)
    tags: dict[str, str] = {}
    last = b""
    while stream.tell() < len(payload):
        try:
            tag = TEXT_TAG.parse_stream(stream)
        except (ConstructError, ValueError) as error:
            reason = str(error).splitlines()[-1]
            raise DamagedError(f"{name}: the text tags cannot be read: {reason}") from error
        key = tag.key.encode()
        if key <= last:
            raise DamagedError(f"{name}: the text tags are not in order, or a key is repeated")
        last = key
        tags[tag.key] = tag.value
    return tags
