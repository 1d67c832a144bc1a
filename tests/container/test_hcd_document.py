"""The worked examples of docs/reference/file-format.md are files, and the tables are the tables."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hcd_samples import write
from independent_reader import read_hcd

from codectool.container import Header, Reader
from codectool.container.layout import PROFILES, SAMPLE_RATES, encode_varint, header_check
from codectool.tokens import TokenLayout

DOCUMENT = (Path(__file__).parents[2] / "docs" / "reference" / "file-format.md").read_text(
    encoding="utf-8"
)
EXAMPLES = re.findall(r"```json\n(.*?)```\n\n```hex\n(.*?)```", DOCUMENT, re.DOTALL)


def bytes_of(dump):
    """Bytes of an annotated dump; every line must begin where the one before ended."""
    data = b""
    for line in dump.splitlines():
        offset, octets, explanation = re.fullmatch(
            r"([0-9a-f]{4})  ((?:[0-9a-f]{2} )*[0-9a-f]{2})  +(\S.*)", line
        ).groups()
        assert int(offset, 16) == len(data)
        assert explanation
        data += bytes.fromhex(octets)
    return data


def test_there_are_three_examples():
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize(("said", "dump"), EXAMPLES)
def test_examples_are_read_and_made_again(said, dump):
    said, data = json.loads(said), bytes_of(dump)
    reader = Reader(io.BytesIO(data))
    codes = reader.read_all()
    assert codes.tolist() == said["codes"]
    assert reader.tags == said["tags"]
    assert reader.num_samples == said["samples"]

    header = Header(
        layout=TokenLayout(
            said["family"], said["model_rate"], said["hop"], tuple(said["bits_per_codebook"])
        ),
        fingerprint=said["fingerprint"],
        sample_rate=said["input_rate"],
        channels=len(said["codes"]),
        num_samples=None if said["stream"] else said["samples"],
        segment_frames=said.get("segment"),
        block_frames=said.get("block", 0),
    )
    assert reader.header == header
    assert write(header, np.array(said["codes"]), said["tags"], said["samples"]) == data


@pytest.mark.parametrize(("said", "dump"), EXAMPLES)
def test_examples_pass_the_independent_reader(said, dump):
    said, found = json.loads(said), read_hcd(bytes_of(dump))
    for key in set(said) - {"stream"}:
        assert found[key] == said[key]


def test_numbers_named_in_the_text():
    assert encode_varint(48_000).hex(" ") == "80 f7 02"
    assert header_check(b"123456789") == 0x29B1


def test_table_of_profiles():
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


def test_table_of_sampling_rates():
    codes, rates = (
        [int(cell) for cell in re.findall(r"\d+", row)]
        for row in re.findall(r"^\| (?:code|Hz) \|(.*)\|$", DOCUMENT, re.MULTILINE)
    )
    assert dict(zip(codes, rates, strict=True)) == SAMPLE_RATES
