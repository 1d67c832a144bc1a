"""The figure of codebook usage: positions, contents and labels of panels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codectool.errors import UsageError
from codectool.evaluation.tokens.plot import (
    MAX_PANELS,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    arrange,
    draw_tokens,
)
from codectool.evaluation.tokens.usage import token_usage
from codectool.plots import DPI
from codectool.tokens import Tokens
from tests.evaluation.token_clips import clip
from tests.figures import (
    BLUE,
    INK,
    VERMILLION,
    WHITE,
    figure_of,
    read_png,
    share_of,
    without_matplotlib,
)


def token_figure(monkeypatch: pytest.MonkeyPatch, *clips: Tokens) -> Any:
    models = token_usage(clips)
    return figure_of(monkeypatch, "codectool.evaluation.tokens.plot", lambda: draw_tokens(models))


@pytest.mark.parametrize(
    ("panels", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 3, 2), (90, 3, 30)]
)
def test_token_figure_has_rows_of_three_panels(panels: int, columns: int, rows: int) -> None:
    layout = arrange(panels)
    assert len(set(layout.places)) == panels
    assert len({left for left, _ in layout.places}) == columns
    assert len({top for _, top in layout.places}) == rows
    assert layout.hidden == 0
    for left, top in layout.places:
        assert left + PANEL_WIDTH < layout.size[0]
        assert top + PANEL_HEIGHT < layout.size[1]


def test_token_figure_counts_panels_beyond_the_maximum() -> None:
    layout = arrange(MAX_PANELS + 7)
    assert (len(layout.places), layout.hidden) == (MAX_PANELS, 7)
    assert layout.size[1] == arrange(MAX_PANELS).size[1]


def test_token_figure_draws_every_panel() -> None:
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    codebooks = clip(np.stack([[0, 1, 1, 1] * 4, [2] * 16, rng.integers(0, 8, 16)]), (2, 3, 3))
    bits = clip([rng.integers(0, 2**18, 50)], (18,), "hac")
    pixels = read_png(draw_tokens(token_usage([codebooks, bits])))
    layout = arrange(4)
    assert pixels.shape[:2] == (round(layout.size[1] * DPI), round(layout.size[0] * DPI))
    assert share_of(WHITE, pixels) > 0.6
    for number, (left, top) in enumerate(layout.places):
        rows = slice(round(top * DPI), round((top + PANEL_HEIGHT) * DPI))
        panel = pixels[rows, round(left * DPI) : round((left + PANEL_WIDTH) * DPI)]
        title = pixels[
            rows.start - 70 : rows.start - 5, round(left * DPI) : round(left * DPI) + 200
        ]
        assert share_of(BLUE, panel) > 0.0002
        assert share_of(INK, title) > 0.01
        assert (share_of(VERMILLION, panel) > 0) == (number == 3)


def test_token_figure_labels_its_panels(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert "min 1.000, mean 1.000, total 3.03 of 18 bits" in notes[2]
    assert panels[0].get_xlabel() == "rank of the entry"
    assert panels[0].get_ylabel() == "share of the tokens"
    assert panels[2].get_ylabel() == "entropy, bits"


def test_token_figure_draws_entries_in_order_of_frequency(monkeypatch: pytest.MonkeyPatch) -> None:
    (axes,) = token_figure(monkeypatch, clip([[6, 2, 6, 3]], (3,))).axes
    uniform, shares = axes.lines
    assert list(uniform.get_xdata()) == [1, 8]
    assert list(uniform.get_ydata()) == [1 / 8, 1 / 8]
    assert list(shares.get_xdata()) == [1, 2, 3]
    assert list(shares.get_ydata()) == [0.5, 0.25, 0.25]


def test_token_figure_draws_bits_with_the_most_significant_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (axes,) = token_figure(monkeypatch, clip([[0, 1 << 17] * 8], (18,))).axes
    assert [bar.get_height() for bar in axes.patches] == [1, *[0] * 17]


def test_token_figure_has_equal_axes_for_all_codebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.stack([[0] * 64, np.arange(64)])
    first, second = token_figure(monkeypatch, clip(codes, (2, 10))).axes
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == second.get_ylim()
    assert first.get_xlim()[1] > 1024
    assert first.get_ylim()[0] < 1 / 1024


@pytest.mark.parametrize(("more", "text"), [(1, "1 more codebook is"), (2, "2 more codebooks are")])
def test_token_figure_names_the_number_of_hidden_codebooks(
    monkeypatch: pytest.MonkeyPatch, more: int, text: str
) -> None:
    monkeypatch.setattr("codectool.evaluation.tokens.plot.MAX_PANELS", 3)
    figure = token_figure(monkeypatch, clip(np.zeros((3 + more, 1)), (1,) * (3 + more)))
    assert len(figure.axes) == 3
    assert [line.get_text() for line in figure.texts] == [f"{text} not shown"]


@pytest.mark.parametrize("bits", [1, 3, 18])
@pytest.mark.parametrize("frames", [0, 1])
def test_token_figure_of_one_token_or_none(bits: int, frames: int) -> None:
    pytest.importorskip("matplotlib")
    pixels = read_png(draw_tokens(token_usage([clip(np.zeros((1, frames)), (bits,))])))
    assert share_of(INK, pixels) > 0.002


def test_token_figure_without_matplotlib_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    without_matplotlib(monkeypatch)
    with pytest.raises(
        UsageError, match=r"needs matplotlib: run `pip install 'codectool\[eval\]'`"
    ):
        draw_tokens(token_usage([clip([[0]], (1,))]))
