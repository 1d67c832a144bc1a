"""The figure of two recordings and their difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codectool.audio.mel import RATE
from codectool.errors import UsageError
from codectool.evaluation import pair_figure
from codectool.evaluation.pair_figure import draw_pair
from codectool.plots import DPI
from tests.figures import Pixels, figure_of, read_png, share_of, without_matplotlib
from tests.test_plots import Wave, noise, tone

ABSENT, SAME = (221, 221, 221), (246, 246, 246)


def panel_of(pixels: Pixels, row: int) -> Pixels:
    """Return the inside of one of the three panels."""
    top = round((pair_figure.TOP + row * pair_figure.STEP) * DPI)
    left = round(pair_figure.LEFT * DPI)
    width, height = round(pair_figure.WIDTH * DPI), round(pair_figure.PANEL * DPI)
    return pixels[top + 2 : top + height - 2, left + 2 : left + width - 2]


def panels(first: Wave, second: Wave) -> tuple[Pixels, Pixels, Pixels]:
    pytest.importorskip("matplotlib")
    pixels = read_png(draw_pair(first, second, ("a.wav", "b.wav")))
    assert pixels.shape == (915, 1500, 3)
    return panel_of(pixels, 0), panel_of(pixels, 1), panel_of(pixels, 2)


def drawn(
    monkeypatch: pytest.MonkeyPatch,
    first: Wave,
    second: Wave,
    names: tuple[str, str] = ("a", "b"),
    note: str = "b minus a",
) -> Any:
    module = "codectool.evaluation.pair_figure"
    return figure_of(monkeypatch, module, lambda: draw_pair(first, second, names, note))


def test_pair_figure_of_equal_signals_shows_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, difference = panels(noise(12000), noise(12000))
    assert share_of(SAME, difference) > 0.99
    figure = drawn(monkeypatch, noise(12000), noise(12000))
    first, second, changes = (axes.images[0].get_array() for axes in figure.axes[:3])
    assert (first == second).all()
    assert (changes == 0).all()


def test_pair_figure_shows_more_in_red_and_less_in_blue() -> None:
    *_, more = panels(noise(12000, 0.05), noise(12000, 0.1))
    *_, less = panels(noise(12000, 0.1), noise(12000, 0.05))
    assert (more[..., 0] > more[..., 2] + 10).mean() > 0.95
    assert (less[..., 2] > less[..., 0] + 10).mean() > 0.95


def test_pair_figure_is_grey_where_a_signal_has_ended() -> None:
    first, second, difference = panels(noise(24000), noise(12000))
    assert share_of(ABSENT, first) == 0
    for panel in (second, difference):
        half = panel.shape[1] // 2
        assert share_of(ABSENT, panel[:, : half - 20]) == 0
        assert share_of(ABSENT, panel[:, half + 30 :]) > 0.99


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 500), (500, 0)])
def test_pair_figure_of_an_empty_signal_leaves_panels_empty(first: int, second: int) -> None:
    above, below, difference = panels(noise(first), noise(second))
    assert share_of(ABSENT, above) == (first == 0)
    assert share_of(ABSENT, below) == (second == 0)
    assert share_of(ABSENT, difference) == 1


def test_pair_figure_of_a_single_sample() -> None:
    above, below, _ = panels(np.ones(1, np.float32), np.ones(1, np.float32))
    assert share_of(ABSENT, above) == share_of(ABSENT, below) == 0


def test_pair_figure_titles_and_units(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("talk.wav", "$decoded_1$.wav"), "b minus a; b was 3 ms late"
    figure = drawn(monkeypatch, noise(24000), noise(24000), *words)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:3] == ["a: talk.wav", "b: $decoded_1$.wav", "b minus a; b was 3 ms late"]
    assert [axes.get_ylabel() for axes in figure.axes[:3]] == ["kHz"] * 3
    assert figure.axes[2].get_xlabel() == "seconds"
    assert [axes.get_ylabel() for axes in figure.axes[3:]] == [
        "dB; a sine at full scale is 0",
        "dB; red: b has more",
    ]
    assert [axes.get_xlim() for axes in figure.axes[:3]] == [(0, 1)] * 3


def test_pair_figure_does_not_parse_names_as_formulas() -> None:
    """As a formula, this name is a syntax error."""
    pytest.importorskip("matplotlib")
    assert draw_pair(tone(500), tone(500), (r"$\frac{$", "$_$")).startswith(b"\x89PNG")


def test_pair_figure_shows_the_end_of_a_long_name(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(monkeypatch, tone(500), tone(500), ("x" * 200 + "/a.wav", "b.wav"))
    title = figure.axes[0].get_title(loc="left")
    assert title.startswith("a: …x")
    assert title.endswith("x/a.wav")
    assert len(title) == 3 + pair_figure.NAME_LENGTH


def test_pair_figure_limits_the_columns_of_long_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """95 frames in at most ten columns: ten frames per column, the last one is not full."""
    monkeypatch.setattr(pair_figure, "MAX_COLUMNS", 10)
    figure = drawn(monkeypatch, noise(24000), noise(12000))
    images = [axes.images[0] for axes in figure.axes[:3]]
    assert [image.get_array().shape[1] for image in images] == [10, 5, 5]
    hop = 256 / RATE
    left, right, *_ = images[0].get_extent()
    assert (left, right) == pytest.approx((-hop / 2, 99.5 * hop))


def test_pair_figure_without_matplotlib_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    without_matplotlib(monkeypatch)
    with pytest.raises(
        UsageError, match=r"needs matplotlib: run `pip install 'codectool\[eval\]'`"
    ):
        draw_pair(tone(500), tone(500), ("a", "b"))
