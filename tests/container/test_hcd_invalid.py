"""Files that are rejected although every check is correct, and the messages."""

import io
import zlib

import pytest
from hcd_samples import (
    HAC,
    Pipe,
    with_header_check,
)

from codectool.container import Header, Reader
from codectool.container.header import build_fields
from codectool.container.layout import MUST_UNDERSTAND, VARINT
from codectool.container.sections import section_check
from codectool.errors import (
    ContainerError,
    DamagedError,
    NotHcdError,
    UnsupportedError,
)


def rejection(data):
    with pytest.raises(ContainerError) as caught:
        Reader(Pipe(data), "clip.hcd").read_all()
    assert str(caught.value).startswith("clip.hcd: ")
    return type(caught.value), str(caught.value)


def header_bytes(**changes):
    """Return the header of an empty HAC file with changed bytes and a correct CRC-16."""
    fields = bytearray(build_fields(Header(HAC, "0123abcd", 16_000, num_samples=0), False))
    for position, value in changes.items():
        fields[int(position.removeprefix("at"))] = value
    return with_header_check(bytes(fields) + bytes(4))


def test_other_formats_are_not_hcd():
    kind, message = rejection(b"RIFF\0\0\0\0WAVE")
    assert kind is NotHcdError
    assert "it is a RIFF file" in message
    kind, message = rejection(b"\x01\x02\x03\x04")
    assert kind is NotHcdError
    assert "it begins with 01 02 03, not 48 43 44" in message


def test_later_version_asks_for_an_update():
    kind, message = rejection(b"HCD\2 followed by other bytes")
    assert kind is UnsupportedError
    assert "later version of the format (2)" in message
    assert message.endswith("update codectool")
    assert rejection(b"HCD\0")[0] is DamagedError


@pytest.mark.parametrize(
    ("changes", "message_part"),
    [
        ({"at4": 0x41}, "reserved flag bits 01"),
        ({"at4": 0x81}, "reserved flag bits 10"),
        ({"at5": 5}, "profile 5"),
        ({"at5": 255}, "profile 255"),
        ({"at10": 0xE1}, "sampling-rate code 14"),
    ],
)
def test_reserved_values_are_unsupported(changes, message_part):
    kind, message = rejection(header_bytes(**changes))
    assert kind is UnsupportedError
    assert message_part in message


def explicit(*octets, flags=1, form=0x41):
    """Return an empty file with these bytes from its explicit profile on."""
    fields = b"HCD\1" + bytes([flags, 0, 1, 2, 3, 4, form, *octets])
    return with_header_check(fields + bytes(4))


@pytest.mark.parametrize(
    ("data", "kind", "message_part"),
    [
        (explicit(0x44, 1, 1, 1, 0), UnsupportedError, "codec family 4"),
        (explicit(0x1F, 1, 1, 1, 0), UnsupportedError, "sampling-rate code 15 for the model"),
        (explicit(0x14, 1, 1, 25, 0), DamagedError, "in 1..24, not 25"),
        (explicit(0x14, 1, 65, 1, 0), DamagedError, "cannot be read"),
        (explicit(0x14, 1, 0, 1, 0), DamagedError, "cannot be read"),
        (explicit(0x14, 1, 2, 0, 7, 7, 0), DamagedError, "equal widths"),
        (explicit(0x14, 1, 2, 0, 0, 7, 0), DamagedError, "in 1..24, not 0"),
        (explicit(0x14, 0, 1, 1, 0), DamagedError, "hop length must be"),
        (explicit(0x14, *VARINT.build(65_537), 1, 1, 0), DamagedError, "more than 65536 samples"),
        (explicit(0x04, 2, 0x41, 0x42, 1, 1, 1, 0), DamagedError, "codec family 'AB'"),
        (explicit(0x04, 1, 0xFF, 1, 1, 1, 0), DamagedError, "cannot be read"),
        (explicit(0x04, 0, 1, 1, 1, 0), DamagedError, "codec family ''"),
        (explicit(0x10, 0, 1, 1, 1, 0), DamagedError, "sampling rate in Hz must be"),
        (explicit(0x14, 0x81, 0, 1, 1, 0), DamagedError, "shortest form"),
        (explicit(0x14, *[0xFF] * 8, 0x80, 1, 1, 0), DamagedError, "longer than 9 bytes"),
        (explicit(15, 0x14, 1, 1, 1, 0, form=0x40), DamagedError, "short form"),
        (explicit(0x81, 8, 0x14, 1, 1, 1, 0, form=0x40), DamagedError, "in 1..1024, not 1025"),
        (explicit(0, 0x14, 1, 1, 1, 0, form=0x01), DamagedError, "sampling rate in Hz must be"),
        (explicit(0x14, 1, 1, 1, 0, 2, flags=0x31), DamagedError, "2 extra frames"),
        (explicit(0x14, 1, 1, 1, flags=0x10), DamagedError, "extra frames without"),
        (explicit(0x14, 1, 1, 1, 0, 0, flags=5), DamagedError, "segments of 0"),
        (explicit(0x14, 1, 1, 1, 0, 0, flags=9), DamagedError, "block length 0"),
        (explicit(0x34, 0xC0, 2, 1, 9, 0, 0xB0, 9, flags=9), DamagedError, "block length 1200"),
        (
            explicit(0x14, 1, 2, 9, 0, *VARINT.build(1 << 20), flags=9),
            DamagedError,
            "block length must be",
        ),
    ],
)
def test_invalid_fields_are_rejected(data, kind, message_part):
    found, message = rejection(data)
    assert (found, message_part in message) == (kind, True), message


def test_explicit_form_of_a_standard_profile_is_read():
    """A file may be older than the number of its profile."""
    rate = VARINT.build(16_000)
    fields = b"HCD\1\1\0" + bytes(4) + b"\x01" + rate
    fields += b"\x00\x08bigcodec" + rate + VARINT.build(200) + b"\x01\x0d" + b"\x00"
    first_check = zlib.crc32(fields + bytes(8))
    data = with_header_check(fields + first_check.to_bytes(4, "little"))
    header = Reader(io.BytesIO(data)).header
    assert (header.profile_name, header.sample_rate) == ("bigcodec", 16_000)


def with_sections(*sections, end=b"\0"):
    """Return an empty file with these (type, payload) sections."""
    fields = build_fields(Header(HAC, "0123abcd", 16_000, num_samples=0), True)
    first = zlib.crc32(fields + bytes(8))
    data = with_header_check(fields + first.to_bytes(4, "little"))
    for kind, payload in sections:
        start = bytes([kind]) + VARINT.build(len(payload))
        check = section_check(first, start, payload)
        data += start + payload + check.to_bytes(4, "little")
    return data + end


def test_unknown_sections_are_skipped_or_rejected_by_type():
    tags = (1, b"\x01a\x01b")
    reader = Reader(io.BytesIO(with_sections((0x03, b"xyz"), tags, (0x7F, b""))))
    assert reader.tags == {"a": "b"}
    assert reader.unknown_sections == 2
    kind, message = rejection(with_sections((MUST_UNDERSTAND, b"")))
    assert kind is UnsupportedError
    assert "0x80" in message


@pytest.mark.parametrize(
    ("data", "message_part"),
    [
        (with_sections((1, b"\x01b\x00\x01a\x00")), "not in order"),
        (with_sections((1, b"\x01a\x00\x01a\x00")), "repeated"),
        (with_sections((1, b"\x00\x00")), "not in order"),
        (with_sections((1, b"\x01\xff\x00")), "cannot be read"),
        (with_sections((1, b"\x05a\x00")), "cannot be read"),
        (with_sections((1, b"\xff\xff\xff\xff\xff\xff\xff\xff\x7fa\x00")), "cannot be read"),
        (with_sections((1, b""), (1, b"")), "again"),
        (with_sections((3, bytes(65_537))), "exceeds the 65536"),
        (with_sections(*[(3, bytes(65_530))] * 17), "1048576 bytes of all"),
        (with_sections(*[(3, b"")] * 257), "more than 256 sections"),
        (with_sections((2, b"\x00\x00"), (2, b"\x00\x00")), "a gain again"),
        (with_sections((2, b"\x00")), "the gain cannot be read"),
        (with_sections((2, b"\x00\x00\x00")), "it has 3 bytes"),
        (with_sections((2, b"\xff\x7f")), "must be in -120..120 dB"),
        (with_sections(end=b"\x02\x80\x00"), "shortest form"),
    ],
)
def test_invalid_sections_are_rejected(data, message_part):
    kind, message = rejection(data)
    assert (kind, message_part in message) == (DamagedError, True), message


def test_empty_sections_are_read():
    assert Reader(io.BytesIO(with_sections())).tags == {}
