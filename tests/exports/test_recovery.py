"""`recover_codes`: codes from incomplete and wrong ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codectool.corpus import SequenceLayout, recover_codes
from codectool.errors import TokensError, UsageError

CODES = np.array([[[1, 2, 3, 4], [11, 12, 13, 14]]], np.int32)  # C = 1, K = 2, F = 4
FLAT = SequenceLayout.make("flat", [10, 10], offsets=True, id_base=100)  # 100..2147
PLAIN = SequenceLayout.make("flat", [10, 10])
BOS, EOS = 1, 2


def flat_ids() -> list[int]:
    return FLAT.to_ids(CODES).tolist()


def test_untouched_ids_have_no_changes() -> None:
    for kind in ("flat", "frames", "codebooks", "delay"):
        layout = SequenceLayout.make(kind, [10, 10], offsets=True)
        for on_bad_id in ("error", "clamp", "drop-frame"):
            recovered = recover_codes(layout, layout.to_ids(CODES), on_bad_id=on_bad_id)
            assert np.array_equal(recovered.codes, CODES)
            assert recovered.changes == []


def test_special_ids_are_stripped_at_both_ends() -> None:
    recovered = recover_codes(FLAT, [BOS, 7, *flat_ids(), EOS, 0, 0])
    assert np.array_equal(recovered.codes, CODES)
    assert recovered.changes == ["2 ids stripped at the start", "3 ids stripped at the end"]


def test_named_special_ids_are_removed_in_between() -> None:
    ids = flat_ids()
    ids[2:2] = [50, 51]
    with pytest.raises(TokensError, match=r"id 50 at position 2 \(frame 1, codebook 0\)"):
        recover_codes(FLAT, ids)
    recovered = recover_codes(FLAT, ids, special_ids=[50, 51])
    assert np.array_equal(recovered.codes, CODES)
    assert recovered.changes == ["2 special ids removed in between"]
    with pytest.raises(UsageError, match="special id 100 is the id of a code"):
        recover_codes(FLAT, ids, special_ids=[100])


def test_positions_in_errors_count_the_ids_that_were_stripped() -> None:
    ids = [BOS, 50, *flat_ids()]
    ids[5] = 9999
    with pytest.raises(TokensError, match=r"id 9999 at position 5 \(frame 1, codebook 1\)"):
        recover_codes(FLAT, ids, special_ids=[50])


def test_steps_without_codes_are_stripped_in_other_layouts() -> None:
    """A model with a head per codebook begins with a step of start tokens."""
    for kind, axis in (("frames", 0), ("codebooks", 1), ("delay", 1)):
        layout = SequenceLayout.make(kind, [10, 10])
        ids = layout.to_ids(CODES).astype(np.int64)
        start = np.full_like(np.take(ids, [0], axis), layout.pad_id or 5000)
        recovered = recover_codes(layout, np.concatenate([start, ids, start, start], axis))
        assert np.array_equal(recovered.codes, CODES)
        assert (recovered.stripped_start, recovered.stripped_end) == (1, 2)


@pytest.mark.parametrize("ids", [[3, 4, 5], [5000], [-1, -2]])
def test_ids_that_are_all_outside_the_vocabulary_are_refused(ids: list[int]) -> None:
    with pytest.raises(TokensError, match=r"none of the ids.*100..2147.*is the id base right"):
        recover_codes(FLAT, ids)


def test_sequences_without_codes() -> None:
    assert recover_codes(FLAT, []).codes.shape == (1, 2, 0)
    assert recover_codes(FLAT, [BOS, EOS], special_ids=[BOS, EOS]).codes.shape == (1, 2, 0)
    delay = SequenceLayout.make("delay", [10, 10])
    assert recover_codes(delay, [[1024], [1024]]).codes.shape == (1, 2, 0)
    assert recover_codes(FLAT, [], realign=True).codes.shape == (1, 2, 0)


def test_clamp_replaces_ids_outside_the_vocabulary_only() -> None:
    ids = flat_ids()
    ids[2], ids[5] = 3, 5000
    recovered = recover_codes(FLAT, ids, on_bad_id="clamp")
    assert recovered.codes.tolist() == [[[1, 0, 3, 4], [11, 12, 1023, 14]]]
    assert recovered.changes == ["2 ids clamped"]
    ids[2], ids[3] = ids[3], ids[2]
    with pytest.raises(TokensError, match=r"position 2 \(frame 1, codebook 0\) belongs to codeb"):
        recover_codes(FLAT, ids, on_bad_id="clamp")


def test_drop_frame_removes_frames_with_bad_ids_and_the_incomplete_one() -> None:
    ids = flat_ids()[:-1]
    ids[2] = 5000
    recovered = recover_codes(FLAT, ids, on_bad_id="drop-frame")
    assert recovered.codes.tolist() == [[[1, 3], [11, 13]]]
    assert recovered.changes == ["2 frames dropped"]
    with pytest.raises(TokensError, match="7 ids are not whole frames of 2: frame 3 has only 1"):
        recover_codes(FLAT, flat_ids()[:-1])
    assert recover_codes(FLAT, flat_ids()[:-1], on_bad_id="clamp").dropped_frames == 1


def test_a_delay_pattern_that_ends_early_loses_its_incomplete_frames() -> None:
    layout = SequenceLayout.make("delay", [10, 10, 10])
    codes = np.arange(18).reshape(1, 3, 6)
    ids = layout.to_ids(codes)[:, :6]
    with pytest.raises(TokensError, match="a delay pattern of 4 frames ends before it"):
        recover_codes(layout, ids)
    recovered = recover_codes(layout, ids, on_bad_id="drop-frame")
    assert np.array_equal(recovered.codes, codes[:, :, :4])
    assert recovered.dropped_frames == 2


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(2, 8), min_size=1, max_size=4),
    st.integers(0, 30),
    st.integers(1, 3),
    st.data(),
)
def test_realign_recovers_all_frames_but_those_that_were_touched(
    bits: list[int], frames: int, edits: int, data: st.DataObject
) -> None:
    layout = SequenceLayout.make("flat", bits, offsets=True, id_base=10)
    rng = np.random.default_rng(frames)
    codes = np.stack([rng.integers(0, 1 << b, frames) for b in bits])[None]
    ids = layout.to_ids(codes).tolist()
    owners: list[int | None] = [f for f in range(frames) for _ in bits]
    touched = set()
    for _ in range(edits):
        place = data.draw(st.integers(0, len(ids)))
        if data.draw(st.booleans()) and place < len(ids):
            touched.add(owners[place])
            del ids[place], owners[place]
        else:
            inside = 0 < place < len(ids) and owners[place - 1] == owners[place]
            touched.add(owners[place] if inside else None)
            ids.insert(place, data.draw(st.integers(10, layout.end_id - 1)))
            owners.insert(place, owners[place] if inside else None)
    recovered = recover_codes(layout, ids, realign=True)
    rows = recovered.codes[0].T.tolist()
    kept = [codes[0, :, f].tolist() for f in range(frames) if f not in touched]
    found = iter(rows)
    assert all(row in found for row in kept)  # in this order
    # Ids that were added may complete a frame that lost some, or be one if K is 1.
    assert len(rows) <= len(kept) + edits
    assert recovered.dropped_ids + len(rows) * len(bits) == len(ids)


@pytest.mark.parametrize("width", [2, 3, 8])
def test_realign_counts_the_frames_that_one_edit_costs(width: int) -> None:
    layout = SequenceLayout.make("flat", [4] * width, offsets=True)
    codes = np.arange(10 * width).reshape(1, 10, width).transpose(0, 2, 1) % 16
    ids = layout.to_ids(codes).tolist()
    lost = ids[: 3 * width + 1] + ids[3 * width + 2 :]
    recovered = recover_codes(layout, lost, realign=True)
    assert np.array_equal(recovered.codes, np.delete(codes, 3, axis=2))
    assert (recovered.dropped_frames, recovered.gaps) == (1, 1)
    assert recovered.changes[0].startswith(f"realigned: {width - 1} id")
    with pytest.raises(TokensError, match=r"\(frame 3, codebook 1\) belongs to codebook"):
        layout.from_ids([*lost, ids[0]])


def test_realign_of_sequences_that_start_and_end_within_a_frame() -> None:
    recovered = recover_codes(FLAT, flat_ids()[1:-1], realign=True)
    assert np.array_equal(recovered.codes, CODES[:, :, 1:3])
    assert recovered.changes == ["realigned: 2 ids in 2 places dropped, about 2 frames"]


def test_realign_treats_ids_outside_the_vocabulary_as_on_bad_id_says() -> None:
    ids = [*flat_ids()[:3], 7, *flat_ids()[4:]]
    with pytest.raises(TokensError, match="id 7 at position 3 is not in the vocabulary 100..2147"):
        recover_codes(FLAT, ids, realign=True)
    recovered = recover_codes(FLAT, ids, realign=True, on_bad_id="drop-frame")
    assert recovered.codes.tolist() == [[[1, 3, 4], [11, 13, 14]]]


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        (PLAIN, {}, "needs ids that tell their codebook: export with `--offsets`"),
        (SequenceLayout.make("frames", [10, 10], offsets=True), {}, "is for flat sequences"),
        (FLAT, {"channels": 2}, "one channel at a time"),
        (FLAT, {"on_bad_id": "clamp"}, "cannot clamp"),
        (FLAT, {"on_bad_id": "ignore"}, "no way 'ignore' to treat bad ids"),
    ],
)
def test_realign_says_what_it_cannot_do(layout: SequenceLayout, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recover_codes(layout, [100, 1124], realign=True, **options)


@pytest.mark.parametrize(
    "ids", [5, [[[[1]]]], [[1, 2], [3, 4]], np.ones((5, 5, 5), int), "abc", None]
)
@pytest.mark.parametrize("realign", [False, True])
def test_ids_of_other_shapes_are_refused(ids: Any, realign: bool) -> None:
    with pytest.raises(TokensError):
        recover_codes(FLAT, ids, realign=realign)


def test_an_id_that_is_missing_is_found_where_it_is_missing() -> None:
    ids = flat_ids()
    del ids[3]
    for read in (FLAT.from_ids, lambda ids: recover_codes(FLAT, ids)):
        with pytest.raises(TokensError, match=r"id 103 at position 3 \(frame 1, codebook 1\)"):
            read(ids)
    ids = PLAIN.to_ids(CODES).tolist()
    with pytest.raises(TokensError, match=r"7 ids are not whole frames of 2.*drop-frame`$"):
        PLAIN.from_ids(ids[1:])


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["flat", "frames", "codebooks", "delay", "bits"]),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from(["error", "clamp", "drop-frame"]),
    st.booleans(),
    st.data(),
)
def test_any_integers_give_codes_or_one_clear_error(
    kind: str, bits: list[int], offsets: bool, on_bad_id: str, realign: bool, data: st.DataObject
) -> None:
    layout = SequenceLayout.make(kind, bits, offsets=offsets and kind != "bits", id_base=3)
    width, length = data.draw(st.sampled_from([(1, 0), (2, 0), (layout.ids_per_frame, 1)]))
    shape = data.draw(st.permutations([width, data.draw(st.integers(0, 9))]))
    ids = data.draw(st.lists(st.integers(0, layout.vocabulary_size + 2), min_size=40, max_size=40))
    array = np.resize(ids, shape[:1] if length == 0 and width == 1 else shape)
    try:
        recovered = recover_codes(
            layout, array, on_bad_id=on_bad_id, realign=realign, special_ids=[1]
        )
    except (TokensError, UsageError):
        return
    assert recovered.codes.shape[:2] == (1, len(bits))
    again = layout.to_ids(recovered.codes)
    assert np.array_equal(layout.from_ids(again), recovered.codes)
