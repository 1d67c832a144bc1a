"""Configs read from JSON: what is accepted, and what an error says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import pytest

from codectool.errors import ConfigError
from codectool.schema import MAX_ITEMS, Config, Fraction, TaggedConfig, from_json, to_json


class Round(TaggedConfig, tag="round", frozen=True):
    radius: float


class Square(TaggedConfig, tag="square", frozen=True):
    sides: tuple[int, int]

    def __post_init__(self) -> None:
        if min(self.sides) < 0:
            raise ConfigError("sides must not be below 0")


class Drawing(Config, frozen=True):
    shapes: tuple[Round | Square, ...]
    power: Literal[1, 2] = 1
    name: str = "mine"
    filled: bool = False
    frame: Square | None = None
    scale: float | None = None
    opacity: Fraction | None = None
    copies: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1
    weights: Mapping[str, float] | None = None
    anything: Any = None


GOOD: dict[str, Any] = {
    "shapes": [{"kind": "round", "radius": 2}, {"kind": "square", "sides": [3, 4]}],
    "frame": {"kind": "square", "sides": [9, 9]},
    "weights": {"light": 0.5, "heavy": 2},
}


def test_from_json_and_to_json_round_trip() -> None:
    drawing = from_json(Drawing, GOOD)
    assert drawing.shapes == (Round(2.0), Square((3, 4)))
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
        ({"shapes": [[]]}, "`shapes[0]` must be an object, not []"),
        ({"shapes": [{"radius": 2}]}, "key `shapes[0].kind` is missing"),
        (
            {"shapes": [{"kind": "circle"}]},
            "`shapes[0].kind` must be one of 'round', 'square', not 'circle'",
        ),
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
        ({"frame": 3}, "`frame` must be an object or null, not 3"),
        ({"power": True}, "`power` must be one of 1, 2, not True"),
        ({"power": 1.0}, "`power` must be one of 1, 2, not 1.0"),
        ({"name": None}, "`name` must be a string, not None"),
        ({"filled": 1}, "`filled` must be true or false, not 1"),
        ({"filled": "yes"}, "`filled` must be true or false, not 'yes'"),
        ({"scale": True}, "`scale` must be a number or null, not True"),
        ({"scale": "1"}, "`scale` must be a number or null, not '1'"),
        ({"scale": float("nan")}, "`scale` must be a finite number, not nan"),
        ({"scale": float("-inf")}, "`scale` must be a finite number, not -inf"),
        ({"scale": 10**400}, "`scale` must be a finite number, not 1000"),
        ({"opacity": 1.5}, "`opacity` must be a number <= 1.0, not 1.5"),
        ({"copies": 0}, "`copies` must be an integer >= 1, not 0"),
        ({"copies": 2**70}, "`copies` must be an integer <= 9, not 11805916"),
        ({"weights": [1]}, "`weights` must be an object or null, not [1]"),
        ({"weights": {"light": None}}, "`weights.light` must be a number, not None"),
        (
            {"weights": {str(n): 1 for n in range(MAX_ITEMS + 1)}},
            "`weights` must be an object of at most 64 keys",
        ),
        (
            {"shapes": GOOD["shapes"] * MAX_ITEMS},
            "`shapes` must be a list of at most 64 items, not [",
        ),
        ({"anything": [{"x": float("nan")}]}, "`anything[0].x` must be a finite number, not nan"),
    ],
)
def test_error_names_path_and_expected_value(change: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_json(Drawing, {**GOOD, **change})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_error_starts_with_the_given_path() -> None:
    with pytest.raises(ConfigError, match=r"^`a\.b\.sides` must be a list, not 7$"):
        from_json(Square, {"kind": "square", "sides": 7}, "a.b")
    with pytest.raises(ConfigError, match=r"^`a\.b` must be an object, not \[\]$"):
        from_json(Square, [], "a.b")
    with pytest.raises(ConfigError, match=r"^`a\.b`: sides must not be below 0$"):
        from_json(Square, {"kind": "square", "sides": [-1, 0]}, "a.b")


def test_union_is_chosen_by_kind() -> None:
    assert from_json(Round | Square, {"kind": "square", "sides": [1, 2]}) == Square((1, 2))
    with pytest.raises(ConfigError, match=r"^`kind` must be one of 'round', 'square', not 'x'$"):
        from_json(Round | Square, {"kind": "x"})
    with pytest.raises(ConfigError, match="^unknown key `a.side`; did you mean `sides`\\?$"):
        from_json(Round | Square, {"kind": "square", "sides": [1, 2], "side": 1}, "a")


def test_any_accepts_all_json_values() -> None:
    assert from_json(Drawing, {**GOOD, "anything": [{"x": None}]}).anything == [{"x": None}]


def test_deep_nesting_is_refused() -> None:
    value: Any = 1
    for _ in range(5000):
        value = [value]
    with pytest.raises(ConfigError, match="nested too deep"):
        from_json(Drawing, {**GOOD, "anything": value})
