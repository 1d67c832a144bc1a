"""The worked examples and the tables of docs/reference/file-format.md match the code."""

import io
import json
import re
from binascii import crc_hqx
from pathlib import Path

import numpy as np
import pytest
from hcd_samples import write
from independent_reader import read_hcd

from codectool.container import Header, Reader
from codectool.container.layout import CRC16_START, PROFILES, SAMPLE_RATES, VARINT
from codectool.tokens import TokenLayout

DOCUMENT = (Path(__file__).parents[2] / "docs" / "reference" / "file-format.md").read_text(
    encoding="utf-8"
)
EXAMPLES = re.findall(r"```json\n(.*?)```\n\n```hex\n(.*?)```", DOCUMENT, re.DOTALL)


def bytes_of(dump):
    """Return the bytes of an annotated dump; the offset of every line must be right."""
    data = b""
    for line in dump.splitlines():
        offset, octets, explanation = re.fullmatch(
            r"([0-9a-f]{4})  ((?:[0-9a-f]{2} )*[0-9a-f]{2})  +(\S.*)", line
        ).groups()
        assert int(offset, 16) == len(data)
        assert explanation
        data += bytes.fromhex(octets)
    return data


def test_document_has_three_examples():
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize(("content", "dump"), EXAMPLES)
def test_examples_are_read_and_reproduced(content, dump):
    content, data = json.loads(content), bytes_of(dump)
    reader = Reader(io.BytesIO(data))
    codes = reader.read_all()
    assert codes.tolist() == content["codes"]
    assert reader.tags == content["tags"]
    assert reader.num_samples == content["samples"]

    header = Header(
        layout=TokenLayout(
            content["family"],
            content["model_rate"],
            content["hop"],
            tuple(content["bits_per_codebook"]),
        ),
        fingerprint=content["fingerprint"],
        sample_rate=content["input_rate"],
        channels=len(content["codes"]),
        num_samples=None if content["stream"] else content["samples"],
        segment_frames=content.get("segment"),
        block_frames=content.get("block", 0),
    )
    assert reader.header == header
    assert write(header, np.array(content["codes"]), content["tags"], content["samples"]) == data


@pytest.mark.parametrize(("content", "dump"), EXAMPLES)
def test_examples_match_the_independent_reader(content, dump):
    content, found = json.loads(content), read_hcd(bytes_of(dump))
    for key in set(content) - {"stream"}:
        assert found[key] == content[key]


def test_varint_and_crc_examples():
    assert VARINT.build(48_000).hex(" ") == "80 f7 02"
    assert crc_hqx(b"123456789", CRC16_START) == 0x29B1


def test_table_of_profiles_matches():
    rows = re.findall(
        r"^\| (\d) \| [^|]+ \| `(\w+)` \| (\d+) \| (\d+) \| ([\d, ]+) \| (\d+) \| (\d+) \|$",
        DOCUMENT,
        re.MULTILINE,
    )
    assert len(rows) == len(PROFILES)
    for number, family, rate, hop, bits, frame_rate, bit_rate in rows:
        layout = PROFILES[int(number)].layout
        assert layout == TokenLayout(family, int(rate), int(hop), tuple(map(int, bits.split(","))))
        assert (layout.frame_rate, layout.bit_rate) == (int(frame_rate), int(bit_rate))


def test_table_of_sampling_rates_matches():
    codes, rates = (
        [int(cell) for cell in re.findall(r"\d+", row)]
        for row in re.findall(r"^\| (?:code|Hz) \|(.*)\|$", DOCUMENT, re.MULTILINE)
    )
    assert dict(zip(codes, rates, strict=True)) == SAMPLE_RATES
