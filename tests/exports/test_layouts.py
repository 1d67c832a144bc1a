"""`SequenceLayout`: codes to ids and back."""

from __future__ import annotations

import doctest
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codectool.corpus import ExportMetadata, SequenceLayout, layouts
from codectool.errors import ConfigError, TokensError, UnsupportedError
from codectool.schema import from_json, to_json
from codectool.tokens import TokenLayout

SUPERCODEC = TokenLayout("supercodec", 16_000, 320, (10, 10))
CODES = np.array([[[1, 2, 3], [1021, 1022, 1023]]], np.int32)  # C = 1, K = 2, F = 3


def random_codes(bits: Sequence[int], channels: int, frames: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 1 << width, (channels, 1, frames), np.int32) for width in bits]
    return np.concatenate(rows, axis=1)


def test_docstring_examples() -> None:
    assert doctest.testmod(layouts).failed == 0


@pytest.mark.parametrize(
    ("kind", "options", "ids", "dtype"),
    [
        ("frames", {}, [[1, 1021], [2, 1022], [3, 1023]], "uint16"),
        ("codebooks", {}, [[1, 2, 3], [1021, 1022, 1023]], "uint16"),
        ("flat", {}, [1, 1021, 2, 1022, 3, 1023], "uint16"),
        ("flat", {"offsets": True}, [1, 2045, 2, 2046, 3, 2047], "uint16"),
        ("flat", {"id_base": 64_512}, [64_513, 65_533, 64_514, 65_534, 64_515, 65_535], "uint16"),
        (
            "flat",
            {"offsets": True, "id_base": 65_000},
            [65_001, 67_045, 65_002, 67_046, 65_003, 67_047],
            "int32",
        ),
        ("delay", {}, [[1, 2, 3, 1024], [1024, 1021, 1022, 1023]], "uint16"),
        ("delay", {"offsets": True}, [[1, 2, 3, 2048], [2048, 2045, 2046, 2047]], "uint16"),
        ("delay", {"pad_id": -1}, [[1, 2, 3, -1], [-1, 1021, 1022, 1023]], "int16"),
        (
            "frames",
            {"group_bits": 5},
            [[0, 1, 31, 29], [0, 2, 31, 30], [0, 3, 31, 31]],
            "uint8",
        ),
        (
            "flat",
            {"group_bits": 5, "offsets": True},
            [0, 33, 95, 125, 0, 34, 95, 126, 0, 35, 95, 127],
            "uint8",
        ),
    ],
)
def test_layouts_of_two_codebooks(kind: str, options: Any, ids: Any, dtype: str) -> None:
    layout = SequenceLayout.make(kind, (10, 10), **options)
    result = layout.to_ids(CODES)
    assert result.tolist() == ids
    assert result.dtype == dtype
    assert result.shape == layout.shape(3)
    assert result.max() < layout.vocabulary_size
    assert np.array_equal(layout.from_ids(ids), CODES)
    assert np.array_equal(layout.to_ids(CODES[0]), result)


def test_bits_are_those_of_tokens() -> None:
    layout = SequenceLayout.make("bits", (18,))
    codes = random_codes((18,), 2, 5)
    ids = layout.to_ids(codes)
    assert ids.dtype == np.uint8
    assert ids.shape == (5, 36)
    shifted = (codes[:, 0, :, None] >> np.arange(17, -1, -1)) & 1
    assert np.array_equal(ids.reshape(5, 2, 18), shifted.transpose(1, 0, 2))
    assert np.array_equal(layout.from_ids(ids, channels=2), codes)


def test_groups_split_the_18_bits_of_hac_in_two_ids_of_512() -> None:
    layout = SequenceLayout.make("frames", [18], group_bits=9)
    assert layout.to_ids(np.array([[0b000000011_100000001]])).tolist() == [[3, 257]]
    assert (layout.vocabulary_size, layout.ids_per_frame, layout.dtype) == (512, 2, "uint16")
    assert SequenceLayout.make("frames", [18]).dtype == "int32"


@pytest.mark.parametrize(
    ("bits", "group", "widths"), [(13, 9, [7, 6]), (18, 7, [6, 6, 6]), (10, 9, [5, 5]), (9, 9, [9])]
)
def test_groups_have_about_equal_widths(bits: int, group: int, widths: list[int]) -> None:
    layout = SequenceLayout.make("flat", [bits], group_bits=group)
    assert [column.bits for column in layout.columns] == widths


LAYOUTS_OF_ANY_KIND = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(layouts.LAYOUTS),
        "bits_per_codebook": st.lists(st.integers(1, 24), min_size=1, max_size=4),
        "group_bits": st.none() | st.integers(1, 24),
        "offsets": st.booleans(),
        "id_base": st.integers(0, 70_000) | st.just(layouts.MAX_ID),
    }
)


@settings(max_examples=150, deadline=None)
@given(LAYOUTS_OF_ANY_KIND, st.integers(1, 3), st.integers(0, 12), st.integers(0, 9))
def test_from_ids_undoes_to_ids(options: Any, channels: int, frames: int, seed: int) -> None:
    if options["kind"] == "bits":
        options["group_bits"] = None
    columns = sum(-(-b // (options["group_bits"] or b)) for b in options["bits_per_codebook"])
    options["offsets"] &= options["kind"] != "bits" and columns <= layouts.MAX_OFFSETS
    layout = SequenceLayout.make(**options)
    codes = random_codes(options["bits_per_codebook"], channels, frames, seed)
    ids = layout.to_ids(codes)
    assert ids.shape == layout.shape(frames, channels)
    assert ids.size == 0 or (ids.min() >= 0 and ids.max() < layout.vocabulary_size)
    for same in (ids, ids.tolist(), ids[None], ids.astype(np.int64)):
        assert np.array_equal(layout.from_ids(same, channels), codes)
    stored = json.loads(json.dumps(to_json(layout)))
    assert from_json(SequenceLayout, stored) == layout
    metadata = ExportMetadata.describe(
        TokenLayout("x", 24_000, 320, tuple(options["bits_per_codebook"])), "0123abcd", layout
    )
    assert ExportMetadata.from_json(json.loads(json.dumps(metadata.to_json()))) == metadata


@pytest.mark.parametrize("dtype", layouts.DTYPES)
def test_every_dtype_holds_its_largest_id(dtype: str) -> None:
    high = min(np.iinfo(dtype).max, layouts.MAX_ID)
    layout = SequenceLayout.make("flat", [4], id_base=high - 15, dtype=dtype)
    assert layout.to_ids(np.array([[15]])).tolist() == [high]
    assert layout.to_ids(np.array([[15]])).dtype == dtype
    if high < layouts.MAX_ID:
        with pytest.raises(ConfigError, match=f"do not fit {dtype}; take"):
            SequenceLayout.make("flat", [4], id_base=high - 14, dtype=dtype)


def test_a_dtype_that_is_too_small_is_refused_with_what_fits() -> None:
    with pytest.raises(ConfigError, match=r"ids 0..262143 do not fit uint16; take int32, or split"):
        SequenceLayout.make("flat", [18], dtype="uint16")
    with pytest.raises(ConfigError, match=r"ids -1..1023 do not fit uint16; take int16"):
        SequenceLayout.make("delay", [10, 10], pad_id=-1, dtype="uint16")


def test_tensors_are_accepted() -> None:
    layout = SequenceLayout.make("flat", [10, 10])
    assert np.array_equal(layout.from_ids(torch.from_numpy(layout.to_ids(CODES)).long()), CODES)


def test_delay_longer_than_the_clip() -> None:
    layout = SequenceLayout.make("delay", [4] * 5)
    for frames in (0, 1, 2):
        codes = random_codes([4] * 5, 1, frames)
        ids = layout.to_ids(codes)
        assert ids.shape == (5, frames + 4)
        assert np.array_equal(layout.from_ids(ids), codes)
    assert layout.from_ids([]).shape == (1, 5, 0)


def test_delay_of_several_channels_is_that_of_their_codebook() -> None:
    layout = SequenceLayout.make("delay", [4, 4])
    ids = layout.to_ids(np.ones((2, 2, 1), np.int32))
    assert ids.tolist() == [[1, 16], [16, 1], [1, 16], [16, 1]]


@pytest.mark.parametrize(
    ("kind", "ids", "message"),
    [
        ("flat", [1, 1024, 2, 2000, 3, 1025], None),
        (
            "flat",
            [1, 1024, 2, 2],
            r"id 2 at position 3 \(frame 1, codebook 1\) belongs to codebook",
        ),
        ("flat", [1, 1024, 2048, 1025], r"id 2048 at position 2 .*not in 0..1023"),
        ("flat", [-1, 1024], r"id -1 at position 0"),
        ("flat", [1, 1024, 2], "3 ids are not whole frames of 2: frame 1 has only 1"),
        ("flat", [[1, 1024], [2, 1024]], r"`flat` needs ids of shape \(ids,\), not \(2, 2\)"),
        ("frames", [[1, 1024], [2, 3000]], "id 3000 at frame 1, codebook 1 is not in 1024..2047"),
        ("frames", [1, 2], "a single row is the layout `flat`"),
        ("frames", [[1, 2, 3], [4, 5, 6]], "transposed"),
        ("frames", [[1, 2], [3]], "different lengths"),
        ("codebooks", [[1, 2], [1024, 3]], "id 3 at frame 1, codebook 1 belongs to codebook 0"),
        ("delay", [[1, 2048], [1024, 1025]], "id 1024 at step 0 of codebook 1 should be the pad"),
        ("delay", [[1, 2], [2048, 1025]], "id 2 at step 1 of codebook 0 should be the pad"),
        ("flat", [0.5, 1024.0], "ids must be integers, not float64 such as 0.5"),
        ("flat", ["1", "2"], "ids must be integers"),
        ("flat", [True, False], "ids must be integers, not bool"),
        ("flat", [1, None], "ids must be integers"),
        ("flat", [1, 1 << 80], "ids must be integers"),
        ("flat", np.array([1, 1 << 63], np.uint64), "id 9223372036854775808 is too large"),
    ],
)
def test_wrong_ids_are_refused_with_the_place(kind: str, ids: Any, message: str | None) -> None:
    layout = SequenceLayout.make(kind, [10, 10], offsets=True)
    if message is None:
        layout.from_ids(ids)
        return
    with pytest.raises(TokensError, match=message):
        layout.from_ids(ids)


def test_errors_name_channel_and_part() -> None:
    layout = SequenceLayout.make("flat", [18], group_bits=9)
    with pytest.raises(TokensError, match=r"\(frame 0, channel 1 codebook 0 part 1\)"):
        layout.from_ids([0, 0, 0, 512], channels=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "rows"}, "no layout 'rows'; there are frames"),
        ({"kind": "bits", "group_bits": 3}, "one bit per id"),
        ({"kind": "flat", "pad_id": 3}, "for the layout `delay` only"),
        ({"kind": "delay", "pad_id": 3}, "the pad id 3 is also the id of a code; take 1024"),
        ({"kind": "flat", "id_base": -1}, "id base must be an integer in 0"),
        ({"kind": "flat", "id_base": 1 << 40}, "id base must be"),
        ({"kind": "flat", "group_bits": 0}, "bits per group must be"),
        ({"kind": "flat", "dtype": "float32"}, "no dtype 'float32' for ids"),
        ({"kind": "flat", "bits_per_codebook": []}, "number of codebooks must be"),
        ({"kind": "flat", "bits_per_codebook": [25]}, "bits per code must be"),
        ({"kind": "bits", "bits_per_codebook": [20] * 4, "offsets": True}, "offsets for 80 ids"),
    ],
)
def test_contradicting_options_are_refused(options: Any, message: str) -> None:
    with pytest.raises((ConfigError, TokensError), match=message):
        SequenceLayout.make(**({"bits_per_codebook": [10, 10]} | options))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocabulary_size": 7}, "`vocabulary_size` is 7, but the other values give 2048"),
        ({"fingerprint": "xyz"}, "eight hexadecimal digits"),
        ({"bits_per_codebook": [10]}, "`codebook_sizes`|`layout.bits_per_codebook`"),
        ({"layout": {"kind": "flat"}}, "key `layout.bits_per_codebook` is missing"),
        ({"family": "../x"}, "codec family"),
        ({"hop_length": 0}, "`hop_length` must be an integer >= 1"),
        ({"extra": 1}, "unknown key `extra`"),
    ],
)
def test_metadata_that_contradict_themselves_are_refused(change: Any, message: str) -> None:
    layout = SequenceLayout.make("flat", (10, 10), offsets=True)
    value = ExportMetadata.describe(SUPERCODEC, "0123abcd", layout).to_json()
    assert value["layout"]["offsets"] == [0, 1024]
    with pytest.raises(ConfigError, match=message):
        ExportMetadata.from_json(value | change)
    with pytest.raises(UnsupportedError, match="update codectool"):
        ExportMetadata.from_json(value | {"format_version": 2, "new": 1})


def test_hostile_offsets_are_refused() -> None:
    value = to_json(SequenceLayout.make("flat", [10, 10], offsets=True))
    for change in ({"offsets": [1]}, {"offsets": [-1, 0]}, {"dtype": "uint8"}, {"pad_id": 5}):
        with pytest.raises(ConfigError):
            from_json(SequenceLayout, value | change)
