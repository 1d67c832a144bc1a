"""`recover_codes`: codes from ids that a language model generated, and what was repaired."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from codectool.corpus.layouts import Codes, Ids, SequenceLayout
from codectool.errors import TokensError, UsageError

OnBadId = Literal["error", "clamp", "drop-frame"]
ON_BAD_ID: tuple[str, ...] = get_args(OnBadId)


@dataclass(frozen=True)
class Recovered:
    """Codes of a sequence of ids, and how they differ from it.

    Attributes:
        codes: int32 ``(C, K, F)``.
        stripped_start: positions before the first id of a code that were removed.
        stripped_end: positions after the last id of a code that were removed.
        special: positions of special ids that were removed in between.
        clamped: ids that were replaced by the nearest id of their codebook.
        dropped_frames: frames that were removed; an estimate if ids were realigned, because a
            lost frame leaves no trace.
        dropped_ids: ids that were removed to find the codebooks again.
        gaps: places where they were.
    """

    codes: Codes
    stripped_start: int = 0
    stripped_end: int = 0
    special: int = 0
    clamped: int = 0
    dropped_frames: int = 0
    dropped_ids: int = 0
    gaps: int = 0

    @property
    def changes(self) -> list[str]:
        """What was changed, each in a few words; empty if nothing was."""
        frames = _count(self.dropped_frames, "frame")
        ids, places = _count(self.dropped_ids, "id"), _count(self.gaps, "place")
        texts = (
            (self.stripped_start, f"{_count(self.stripped_start, 'id')} stripped at the start"),
            (self.stripped_end, f"{_count(self.stripped_end, 'id')} stripped at the end"),
            (self.special, f"{_count(self.special, 'special id')} removed in between"),
            (self.clamped, f"{_count(self.clamped, 'id')} clamped"),
            (self.gaps, f"realigned: {ids} in {places} dropped, about {frames}"),
            (self.dropped_frames and not self.gaps, f"{frames} dropped"),
        )
        return [text for number, text in texts if number]


def recover_codes(
    layout: SequenceLayout,
    ids: npt.ArrayLike,
    *,
    channels: int = 1,
    on_bad_id: str = "error",
    realign: bool = False,
    special_ids: Collection[int] = (),
) -> Recovered:
    """Return the codes of ids that may be incomplete or wrong, as a language model generates them.

    Ids outside the vocabulary of the layout, such as BOS, EOS and text, are stripped at both ends
    of the sequence; in other layouts than ``flat`` a frame or step is stripped if none of its ids
    is in the vocabulary.

    Args:
        layout: how codes were arranged.
        ids: as for `SequenceLayout.from_ids`.
        channels: number of channels C.
        on_bad_id: what to do about an id that is no code of its codebook, and about incomplete
            frames: ``"error"``; ``"clamp"`` to the nearest id of the codebook (not if it is an id
            of another codebook); ``"drop-frame"``. Incomplete frames at the end are dropped by
            both.
        realign: find the codebooks again where a flat sequence lost or gained ids; the frames
            concerned are dropped. The layout needs offsets, so that an id determines its codebook.
        special_ids: ids outside the vocabulary to remove anywhere in the sequence.

    Raises:
        TokensError: what ``on_bad_id`` and ``realign`` do not repair; the message says where.
        UsageError: the layout cannot be realigned, or a special id is the id of a code.
    """
    if on_bad_id not in ON_BAD_ID:
        raise UsageError(f"no way {on_bad_id!r} to treat bad ids; there are {', '.join(ON_BAD_ID)}")
    if realign:
        _check_realignable(layout, channels, on_bad_id)
    for special in special_ids:
        if any(column.first_id <= special <= column.last_id for column in layout.columns):
            raise UsageError(f"special id {special} is the id of a code in this layout")
    array, kept, counts = _strip(layout, layout.to_sequence(ids), special_ids)
    if realign:
        return _realign(layout, array, kept, on_bad_id, counts)
    grid = layout.to_grid(array, channels, complete=False)
    dropped = _incomplete_frames(layout, array, grid)
    bad = layout.find_bad(grid)
    clamped = 0
    if bad.any():
        frame, index = np.argwhere(bad)[0].tolist()
        if on_bad_id == "error":
            raise layout.bad_id_error(grid, frame, index, kept)
        if on_bad_id == "clamp":
            grid, clamped = _clamp(layout, grid, bad, kept)
        else:
            keep = ~bad.any(axis=1)
            dropped += int((~keep).sum())
            grid = grid[keep]
    if on_bad_id == "error":
        layout.to_grid(array, channels)  # raises for incomplete frames
    codes = layout.to_codes(grid, channels)
    return Recovered(codes, **counts, clamped=clamped, dropped_frames=dropped)


def _strip(
    layout: SequenceLayout, array: Ids, special_ids: Collection[int]
) -> tuple[Ids, Ids, dict[str, int]]:
    """Remove special ids; return the rest, its positions in the sequence, and the numbers."""
    axis = layout.time_axis
    length = array.shape[axis]
    known = layout.is_code(array)
    special = np.isin(array, list(special_ids))
    if (special | (array == layout.pad_id)).all():  # no frames
        return array[..., :0], np.zeros(0, np.int64), {}
    if not known.any():
        raise TokensError(
            f"none of the ids, such as {int(array.flat[0])}, is in the vocabulary "
            f"{layout.first_id}..{layout.end_id - 1} of the layout; is the id base right?"
        )
    if array.ndim == 2:
        known = np.logical_or.reduce(known, axis=1 - axis)
        special = np.logical_and.reduce(special, axis=1 - axis)
    inside = np.flatnonzero(known)
    first, last = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (length, length)
    kept = first + np.flatnonzero(~special[first:last])
    counts = {
        "stripped_start": first,
        "stripped_end": length - last,
        "special": last - first - len(kept),
    }
    return np.take(array, kept, axis=axis), kept, counts


def _clamp(
    layout: SequenceLayout, grid: Ids, bad: npt.NDArray[np.bool_], kept: Ids
) -> tuple[Ids, int]:
    """Return a grid with ids outside the vocabulary replaced, and their number."""
    misplaced = np.argwhere(bad & layout.is_code(grid))
    if len(misplaced):
        frame, index = misplaced[0].tolist()
        raise layout.bad_id_error(grid, frame, index, kept)
    first, last = layout.id_ranges(grid.shape[1])
    return np.clip(grid, first, last), int(bad.sum())


def _incomplete_frames(layout: SequenceLayout, array: Ids, grid: Ids) -> int:
    """Return the number of frames at the end of a sequence of which only some ids are there."""
    if layout.kind == "flat":
        return int(array.size > grid.size)
    if layout.kind == "delay" and array.size:
        return int((array[0, len(grid) :] != layout.pad_id).sum())
    return 0


def _check_realignable(layout: SequenceLayout, channels: int, on_bad_id: str) -> None:
    if layout.kind != "flat":
        raise UsageError(
            f"`--realign` is for flat sequences; in the layout `{layout.kind}` the place of an id "
            "determines its codebook"
        )
    if not layout.knows_columns:
        raise UsageError(
            "`--realign` needs ids that tell their codebook: export with `--offsets`; without, "
            "nothing in a sequence shows where an id is missing"
        )
    if channels != 1:
        raise UsageError("`--realign` takes one channel at a time; channels share their ids")
    if on_bad_id == "clamp":
        raise UsageError(
            "`--realign` cannot clamp: an id outside the vocabulary has no codebook; use "
            "`--on-bad-id drop-frame`"
        )


def _realign(
    layout: SequenceLayout, array: Ids, kept: Ids, on_bad_id: str, counts: dict[str, int]
) -> Recovered:
    """Keep the frames whose ids are there in the order of the columns."""
    width = layout.ids_per_frame
    columns = np.full(len(array), -1)
    for index, column in enumerate(layout.columns):
        columns[(array >= column.first_id) & (array <= column.last_id)] = index
    if on_bad_id == "error" and (unknown := np.flatnonzero(columns < 0)).size:
        position = int(unknown[0])
        raise TokensError(
            f"id {int(array[position])} at position {int(kept[position])} is not in the "
            f"vocabulary {layout.first_id}..{layout.end_id - 1}; see `--on-bad-id`"
        )
    starts = np.zeros(0, np.int64)
    if len(array) >= width:
        windows = np.lib.stride_tricks.sliding_window_view(columns, width)
        starts = np.flatnonzero((windows == np.arange(width)).all(axis=1))
    grid = array[starts[:, None] + np.arange(width)].reshape(-1, width)
    # Ids between the frames. A frame that lost an id leaves width - 1 of them, an id that was
    # added within a frame width + 1, an id between frames one.
    edges = np.concatenate([[-width], starts, [len(array)]])
    gaps = np.diff(edges) - width
    gaps = gaps[gaps > 0]
    return Recovered(
        layout.to_codes(grid),
        **counts,
        dropped_frames=int(((gaps + width // 2) // width).sum()),
        dropped_ids=int(gaps.sum()),
        gaps=len(gaps),
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
