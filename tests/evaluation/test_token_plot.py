"""The picture of what tokens carry: where panels lie, what they show and say."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from codectool.errors import UsageError
from codectool.evaluation.tokens.plot import (
    MOST_PANELS,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    arrange,
    draw_tokens,
)
from codectool.evaluation.tokens.usage import TokenUsage, token_usage
from codectool.plots import DPI
from codectool.tokens import Tokens
from tests.evaluation.token_clips import clip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, VERMILLION = (0, 114, 178), (213, 94, 0)
Pixels = npt.NDArray[np.int64]


def use_of(*clips: Tokens) -> list[TokenUsage]:
    return token_usage(clips)


def read_png(data: bytes) -> Pixels:
    """Pixels 0 to 255: ``(height, width, 3)``."""
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(data))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"), np.int64)


def share_of(color: tuple[int, int, int], pixels: Pixels) -> float:
    """Share of the pixels that have this colour."""
    return float((np.abs(pixels - color).max(-1) <= 3).mean())


def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not installed."""
    for name in [m for m in sys.modules if m.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def figure_of(monkeypatch: pytest.MonkeyPatch, module: str, draw: Callable[[], object]) -> Figure:
    """The figure that ``draw`` fills, for its words to be read."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figures = []

    def keep(size: tuple[float, float], fill: Callable[[Figure], None]) -> bytes:
        figures.append(Figure(figsize=size))
        fill(figures[0])
        return b""

    monkeypatch.setattr(f"{module}.draw_png", keep)
    draw()
    return figures[0]


def token_figure(monkeypatch: pytest.MonkeyPatch, *clips: Tokens) -> Any:
    models = use_of(*clips)
    return figure_of(monkeypatch, "codectool.evaluation.tokens.plot", lambda: draw_tokens(models))


@pytest.mark.parametrize(
    ("panels", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 3, 2), (90, 3, 30)]
)
def test_panels_stand_in_rows_of_three(panels: int, columns: int, rows: int) -> None:
    layout = arrange(panels)
    assert len(set(layout.places)) == panels
    assert len({left for left, _ in layout.places}) == columns
    assert len({top for _, top in layout.places}) == rows
    assert layout.left_out == 0
    for left, top in layout.places:
        assert left + PANEL_WIDTH < layout.width
        assert top + PANEL_HEIGHT < layout.height


def test_of_too_many_panels_the_rest_is_counted() -> None:
    layout = arrange(MOST_PANELS + 7)
    assert (len(layout.places), layout.left_out) == (MOST_PANELS, 7)
    assert layout.height == arrange(MOST_PANELS).height


def test_every_panel_is_drawn() -> None:
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    of_books = clip(np.stack([[0, 1, 1, 1] * 4, [2] * 16, rng.integers(0, 8, 16)]), (2, 3, 3))
    of_bits = clip([rng.integers(0, 2**18, 50)], (18,), "hac")
    pixels = read_png(draw_tokens(use_of(of_books, of_bits)))
    layout = arrange(4)
    assert pixels.shape[:2] == (round(layout.height * DPI), round(layout.width * DPI))
    assert share_of((255, 255, 255), pixels) > 0.6
    for number, (left, top) in enumerate(layout.places):
        rows = slice(round(top * DPI), round((top + PANEL_HEIGHT) * DPI))
        panel = pixels[rows, round(left * DPI) : round((left + PANEL_WIDTH) * DPI)]
        title = pixels[
            rows.start - 70 : rows.start - 5, round(left * DPI) : round(left * DPI) + 200
        ]
        assert share_of(BLUE, panel) > 0.0002
        assert share_of((38, 38, 38), title) > 0.01
        assert (share_of(VERMILLION, panel) > 0) == (number == 3)


def test_a_panel_says_whose_it_is_and_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    codebooks = clip([[0, 1, 2, 3] * 4, [7] * 16], (2, 3))
    bits = clip([[0, 2**18 - 1] * 32], (18,), "hac")
    panels = token_figure(monkeypatch, codebooks, bits).axes
    assert [axes.get_title(loc="left") for axes in panels] == [
        "bigcodec 0123abcd, 1 of 2",
        "bigcodec 0123abcd, 2 of 2",
        "hac 0123abcd",
    ]
    notes = [{text.get_text() for text in axes.texts} for axes in panels]
    assert "4 of 4 used, perplexity 4.0, 2.00 of 2 bits" in notes[0]
    assert "1 of 8 used, perplexity 1.0, 0.00 of 3 bits" in notes[1]
    assert "least 1.000, mean 1.000, together 3.03 of 18 bits" in notes[2]
    assert panels[0].get_xlabel() == "rank of the code"
    assert panels[0].get_ylabel() == "share of the tokens"
    assert panels[2].get_ylabel() == "entropy, bits"


def test_codes_are_drawn_from_the_most_frequent_on(monkeypatch: pytest.MonkeyPatch) -> None:
    (axes,) = token_figure(monkeypatch, clip([[6, 2, 6, 3]], (3,))).axes
    even, shares = axes.lines
    assert list(even.get_xdata()) == [1, 8]
    assert list(even.get_ydata()) == [1 / 8, 1 / 8]
    assert list(shares.get_xdata()) == [1, 2, 3]
    assert list(shares.get_ydata()) == [0.5, 0.25, 0.25]


def test_bits_are_drawn_as_bars_with_the_most_significant_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (axes,) = token_figure(monkeypatch, clip([[0, 1 << 17] * 8], (18,))).axes
    assert [bar.get_height() for bar in axes.patches] == [1, *[0] * 17]


def test_codebooks_share_their_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.stack([[0] * 64, np.arange(64)])
    first, second = token_figure(monkeypatch, clip(codes, (2, 10))).axes
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == second.get_ylim()
    assert first.get_xlim()[1] > 1024
    assert first.get_ylim()[0] < 1 / 1024


@pytest.mark.parametrize(("more", "words"), [(1, "1 more stream is"), (2, "2 more streams are")])
def test_streams_that_are_not_shown_are_counted(
    monkeypatch: pytest.MonkeyPatch, more: int, words: str
) -> None:
    monkeypatch.setattr("codectool.evaluation.tokens.plot.MOST_PANELS", 3)
    figure = token_figure(monkeypatch, clip(np.zeros((3 + more, 1)), (1,) * (3 + more)))
    assert len(figure.axes) == 3
    assert [text.get_text() for text in figure.texts] == [f"{words} not shown"]


@pytest.mark.parametrize("bits", [1, 3, 18])
@pytest.mark.parametrize("frames", [0, 1])
def test_hardly_any_tokens(bits: int, frames: int) -> None:
    pytest.importorskip("matplotlib")
    pixels = read_png(draw_tokens(use_of(clip(np.zeros((1, frames)), (bits,)))))
    assert share_of((38, 38, 38), pixels) > 0.002


def test_without_matplotlib_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    without_matplotlib(monkeypatch)
    with pytest.raises(
        UsageError, match=r"needs matplotlib: run `pip install 'codectool\[eval\]'`"
    ):
        draw_tokens(use_of(clip([[0]], (1,))))
