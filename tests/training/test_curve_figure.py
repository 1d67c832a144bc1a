"""The figure of learning curves: positions, curves and labels of panels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codectool.errors import UsageError
from codectool.plots import DPI
from codectool.training.curves import Curve, Run, select_metrics
from codectool.training.plot import (
    PANEL_HEIGHT,
    PANEL_WIDTH,
    arrange,
    draw,
    short_step,
    short_value,
    spread,
    value_limits,
)
from tests.figures import BLUE, VERMILLION, WHITE, read_png, share_of, without_matplotlib


def curve(steps: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> Curve:
    return Curve(steps.astype(np.int64), values.astype(np.float64))


def sample_run(label: str, offset: float = 0.0) -> Run:
    steps = np.arange(1, 201) * 10
    rng = np.random.default_rng(0)
    curves = {f"train/t{i}": curve(steps, offset + rng.normal(0, 1, 200)) for i in range(2)}
    curves |= {
        f"valid/{name}": curve(steps[::20], offset + np.linspace(0, 1, 10))
        for name in ("mel_db", "stoi", "estoi", "si_sdr_db")
    }
    return Run(label, Path(label), curves)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0.5], [0.5]),
        ([0.1, 0.9], [0.1, 0.9]),
        ([0.9, 0.1, 0.5], [0.9, 0.1, 0.5]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.52, 0.5, 0.48], [0.6, 0.5, 0.4]),
        ([0.0, 0.0, 0.1, 0.9], [-1 / 15, 1 / 30, 2 / 15, 0.9]),
        ([], []),
    ],
)
def test_spread_moves_labels_apart_around_their_mean(
    places: list[float], expected: list[float]
) -> None:
    assert spread(places, 0.1) == pytest.approx(expected)


def test_spread_keeps_order_and_distance() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        places = rng.uniform(0, 1, 8)
        moved = np.array(spread(places.tolist(), 0.08))
        order = places.argsort()
        assert (np.diff(moved[order]) >= 0.08 - 1e-9).all()


def test_value_limits_have_a_margin() -> None:
    assert value_limits([np.array([0.0, np.nan, 1.0]), np.array([2.0])]) == pytest.approx(
        (-0.12, 2.12)
    )
    assert value_limits([np.array([4.0, 4.0])]) == pytest.approx((3.8, 4.2))
    assert value_limits([np.array([0.0])]) == (-0.5, 0.5)
    assert value_limits([np.array([np.nan])]) == (0.0, 1.0)


def test_short_step_and_short_value() -> None:
    steps = [short_step(s) for s in (0, 950, 12000, 12500, 1_200_000)]
    assert steps == ["0", "950", "12k", "12.5k", "1.2M"]
    values = [short_value(v) for v in (4.9312, 0.0, -0.02, 8.123e-5, 81920.0)]
    assert values == ["4.931", "0", "−0.02", "8.1e−5", "81.92k"]


def test_arrange_places_sections_and_rows() -> None:
    names = ["valid/a", "valid/b", "valid/c", "valid/d", "train/e", "train/f"]
    layout = arrange(names)
    assert [place.name for place in layout.places] == names
    assert [place.lowest for place in layout.places] == [False, True, True, True, True, True]
    rows = [round(place.top, 6) for place in layout.places]
    assert rows[0] == rows[1] == rows[2] < rows[3] < rows[4] == rows[5]
    lefts = [round(place.left, 6) for place in layout.places]
    assert lefts[0] == lefts[3] == lefts[4] < lefts[1] == lefts[5] < lefts[2]
    for place in layout.places:
        assert place.left + PANEL_WIDTH < layout.size[0]
        assert place.top + PANEL_HEIGHT < layout.size[1]
    assert [heading for heading, _ in layout.sections] == ["VALIDATION", "TRAINING"]
    assert arrange(["train/a"]).size[0] < layout.size[0]
    assert arrange(names, 3).size[1] > layout.size[1]
    assert arrange(names, 9).size[1] > arrange(names, 3).size[1]


@pytest.mark.parametrize("log_x", [False, True])
def test_curve_figure_shows_every_run_in_every_panel(log_x: bool) -> None:
    runs = [sample_run("first"), sample_run("$other_一", offset=0.5)]
    names = select_metrics(runs)
    pixels = read_png(draw(runs, names, log_x=log_x))
    layout = arrange(names, 2)
    assert pixels.shape == (*(round(inches * DPI) for inches in reversed(layout.size)), 3)
    assert share_of(WHITE, pixels) > 0.7
    for place in layout.places:
        left, top = round(place.left * DPI), round(place.top * DPI)
        right, bottom = left + round(PANEL_WIDTH * DPI), top + round(PANEL_HEIGHT * DPI)
        panel, beside = pixels[top:bottom, left:right], pixels[top:bottom, right + 8 : right + 75]
        for color in (BLUE, VERMILLION):
            assert 0.0008 < share_of(color, panel) < 0.2, (place.name, color)
            assert share_of(color, beside) > 0.001, (place.name, "last value")


def test_curve_figure_without_a_curve_of_one_run() -> None:
    first, other = sample_run("first"), sample_run("other", offset=0.5)
    del other.curves["train/t1"]
    names = ["train/t0", "train/t1"]
    pixels = read_png(draw([first, other], names))
    places = {place.name: round(place.left * DPI) for place in arrange(names, 2).places}
    middle = places["train/t1"] - 90  # left of its tick labels
    assert share_of(VERMILLION, pixels[150:, :middle]) > 0
    assert share_of(VERMILLION, pixels[150:, middle:]) == 0


def test_curve_figure_smooths_the_strong_curve() -> None:
    """The smoother the strong curve of noise is, the less area it covers."""
    run = sample_run("run")
    rough, calm = (
        share_of(BLUE, read_png(draw([run], ["train/t0"], smooth=s))) for s in (0.0, 0.98)
    )
    assert 0 < calm < 0.7 * rough


@pytest.mark.parametrize("steps", [[0], [7], [0, 1]])
def test_curve_figure_of_runs_that_have_just_started(steps: list[int]) -> None:
    curves = {"train/mel": curve(np.array(steps), np.ones(len(steps)))}
    run = Run("young", Path("young"), curves)
    for log_x in (False, True):
        assert read_png(draw([run], ["train/mel"], log_x=log_x)).size > 0


def test_curve_figure_without_matplotlib_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    without_matplotlib(monkeypatch)
    with pytest.raises(UsageError, match=r"pip install 'codectool\[train\]'"):
        draw([sample_run("run")], ["train/t0"])


def test_curve_figure_does_not_smooth_the_learning_rate() -> None:
    steps = np.arange(100)
    rate = curve(steps, np.where(steps < 50, 1e-3, 1e-4))
    run = Run("run", Path("run"), {"train/learning_rate": rate})
    draws = [read_png(draw([run], ["train/learning_rate"], smooth=s)) for s in (0.0, 0.99)]
    np.testing.assert_array_equal(*draws)


def test_curve_figure_of_nothing_but_nan() -> None:
    pytest.importorskip("matplotlib")
    nan = curve(np.arange(2), np.full(2, np.nan))
    assert read_png(draw([Run("run", Path("run"), {"valid/mel_db": nan})], ["valid/mel_db"])).size
