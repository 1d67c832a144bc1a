"""Dataclasses out of JSON, key by key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from codectool.errors import ConfigError
from codectool.schema import MAX_ITEMS, from_json, to_json


@dataclass(frozen=True)
class Round:
    kind: Literal["round"]
    radius: float


@dataclass(frozen=True)
class Square:
    kind: Literal["square"]
    sides: tuple[int, int]

    def __post_init__(self) -> None:
        if min(self.sides) < 0:
            raise ConfigError("sides must not be below 0")


@dataclass(frozen=True)
class Drawing:
    shapes: tuple[Round | Square, ...]
    power: Literal[1, 2] = 1
    name: str = "mine"
    filled: bool = False
    frame: Square | None = None
    scale: float | None = None
    weights: Mapping[str, float] | None = None
    anything: Any = None


GOOD: dict[str, Any] = {
    "shapes": [{"kind": "round", "radius": 2}, {"kind": "square", "sides": [3, 4]}],
    "frame": {"kind": "square", "sides": [9, 9]},
    "weights": {"light": 0.5, "heavy": 2},
}


def test_there_and_back() -> None:
    drawing = from_json(Drawing, GOOD)
    assert drawing.shapes == (Round("round", 2.0), Square("square", (3, 4)))
    assert type(drawing.shapes[0].radius) is float  # type: ignore[union-attr]
    assert drawing.weights == {"light": 0.5, "heavy": 2.0}
    assert from_json(Drawing, to_json(drawing)) == drawing
    assert from_json(Drawing, json.loads(json.dumps(to_json(drawing)))) == drawing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": []}, "unknown key `shape`; did you mean `shapes`?"),
        ({"quite_another": 1}, "unknown key `quite_another`"),
        ({3: 1}, "unknown key `3`"),
        ({"shapes": None}, "`shapes` must be a list, not None"),
        ({"shapes": [[]]}, "`shapes[0].kind` must be one of 'round', 'square', not None"),
        (
            {"shapes": [{"kind": ["round"]}]},
            "`shapes[0].kind` must be one of 'round', 'square', not ['round']",
        ),
        ({"shapes": [{"kind": "round"}]}, "key `shapes[0].radius` is missing"),
        (
            {"shapes": [GOOD["shapes"][0], {"kind": "square", "sides": [1, 2, 3]}]},
            "`shapes[1].sides` must be a list of 2, not [1, 2, 3]",
        ),
        (
            {"shapes": [{"kind": "square", "sides": [1, -2]}]},
            "`shapes[0]`: sides must not be below 0",
        ),
        (
            {"frame": {"kind": "square", "sides": [1, 2.0]}},
            "`frame.sides[1]` must be an integer, not 2.0",
        ),
        ({"frame": {"kind": "round", "sides": [1, 2]}}, "`frame.kind` must be one of 'square'"),
        ({"frame": 3}, "`frame` must be an object, not 3"),
        ({"power": True}, "`power` must be one of 1, 2, not True"),
        ({"power": 1.0}, "`power` must be one of 1, 2, not 1.0"),
        ({"name": None}, "`name` must be a text, not None"),
        ({"filled": 1}, "`filled` must be true or false, not 1"),
        ({"filled": "yes"}, "`filled` must be true or false, not 'yes'"),
        ({"scale": True}, "`scale` must be a number, not True"),
        ({"scale": "1"}, "`scale` must be a number, not '1'"),
        ({"scale": float("nan")}, "`scale` must be a finite number, not nan"),
        ({"scale": float("-inf")}, "`scale` must be a finite number, not -inf"),
        ({"scale": 10**400}, "`scale` must be a finite number, not 1000"),
        ({"weights": [1]}, "`weights` must be an object, not [1]"),
        ({"weights": {"light": None}}, "`weights.light` must be a number, not None"),
        ({"weights": {str(n): 1 for n in range(MAX_ITEMS + 1)}}, "`weights` must be an object"),
        ({"shapes": GOOD["shapes"] * MAX_ITEMS}, "`shapes` must be a list, not ["),
    ],
)
def test_what_is_wrong_is_named_in_full(change: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_json(Drawing, {**GOOD, **change})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_the_place_is_named_where_it_began() -> None:
    with pytest.raises(ConfigError, match=r"^`a\.b\.sides` must be a list, not 7$"):
        from_json(Square, {"kind": "square", "sides": 7}, "a.b")
    with pytest.raises(ConfigError, match=r"^`a\.b` must be an object, not \[\]$"):
        from_json(Square, [], "a.b")


def test_anything_is_taken_as_it_is() -> None:
    assert from_json(Drawing, {**GOOD, "anything": [{"x": None}]}).anything == [{"x": None}]
