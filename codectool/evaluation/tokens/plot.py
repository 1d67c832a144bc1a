"""How evenly tokens use their codebooks, or their bits, as one picture: a panel for each stream.

Needs matplotlib. Sizes are in inches, as matplotlib has them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from codectool.evaluation.tokens.usage import BinaryUsage, CodebookUsage, TokenUsage
from codectool.plots import GRID, INK, PALE, calm, draw_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
MOST_PANELS = 90  # a picture of more would be a roll of paper
PANEL_WIDTH, PANEL_HEIGHT = 3.0, 1.75
LEFT, BETWEEN, RIGHT = 0.78, 0.85, 0.2
ABOVE, BELOW, FOOT = 0.55, 0.42, 0.2

COLOR, AFTER_COLOR = "#0072B2", "#D55E00"  # Okabe and Ito's, for all kinds of colour vision
DASHED = (0, (4, 2))
FEW_CODES = 40  # up to here every code is shown as a dot


@dataclass(frozen=True)
class Layout:
    """Where everything lies, in inches from the upper left corner.

    Attributes:
        width: of the picture.
        height: likewise.
        places: left and upper edge of every panel that is shown.
        left_out: panels for which there is no room.
    """

    width: float
    height: float
    places: tuple[tuple[float, float], ...]
    left_out: int


def arrange(panels: int) -> Layout:
    """Place panels in rows of three."""
    shown = min(panels, MOST_PANELS)
    columns = min(COLUMNS, shown)
    step, row_height = PANEL_WIDTH + BETWEEN, ABOVE + PANEL_HEIGHT + BELOW
    places = [
        (LEFT + column * step, ABOVE + row * row_height)
        for row, column in (divmod(number, COLUMNS) for number in range(shown))
    ]
    width = LEFT + columns * step - BETWEEN + RIGHT
    height = math.ceil(shown / COLUMNS) * row_height + FOOT
    return Layout(width, height, tuple(places), panels - shown)


def draw_tokens(models: Sequence[TokenUsage]) -> bytes:
    """Draw the use of all streams.

    Of a codebook: the share of all tokens that its most frequent code has, the second, and so on,
    on logarithmic axes, beside the line of a codebook whose codes are all alike. Of binary
    scalars: the entropy of each.

    Args:
        models: at least one.

    Returns:
        A PNG file with a panel for each stream, for 90 at most.

    Raises:
        UsageError: matplotlib is not installed.
    """
    streams = [
        (_title(model, number), stream)
        for model in models
        for number, stream in enumerate(model.codebooks, 1)
    ]
    layout = arrange(len(streams))
    limits = _rank_limits([s for _, s in streams if isinstance(s, CodebookUsage)])

    def fill(figure: Figure) -> None:
        for (left, top), (title, stream) in zip(layout.places, streams, strict=False):
            axes = figure.add_axes(
                (
                    left / layout.width,
                    1 - (top + PANEL_HEIGHT) / layout.height,
                    PANEL_WIDTH / layout.width,
                    PANEL_HEIGHT / layout.height,
                )
            )
            calm(axes)
            axes.set_title(title, loc="left", fontsize=9, fontweight="bold", color=INK, pad=17)
            if isinstance(stream, CodebookUsage):
                _ranks(axes, stream, limits)
            else:
                _bits(axes, stream)
        if layout.left_out:
            more = "stream is" if layout.left_out == 1 else "streams are"
            text = f"{layout.left_out} more {more} not shown"
            figure.text(0.5, 0.08 / layout.height, text, fontsize=8, color=PALE, ha="center")

    return draw_png((layout.width, layout.height), fill)


def _title(model: TokenUsage, number: int) -> str:
    many = len(model.codebooks) > 1
    return f"{model.name}, {number} of {len(model.codebooks)}" if many else model.name


def _below_title(axes: Axes, text: str) -> None:
    axes.annotate(
        text, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontsize=8
    )


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=7.5, color=INK, labelpad=2)
    axes.set_ylabel(y, fontsize=7.5, color=INK, labelpad=3)


def _rank_limits(streams: Sequence[CodebookUsage]) -> tuple[float, float, float]:
    """Largest rank, least and largest share of all codebooks: they are drawn on the same axes."""
    shares = [1 / stream.size for stream in streams]
    shares += [
        float(count) / stream.tokens
        for stream in streams
        if stream.tokens
        for count in (stream.counts[0], stream.counts[-1])
    ]
    size = max((stream.size for stream in streams), default=1)
    return size, min(shares, default=1.0), max(shares, default=1.0)


def _ranks(axes: Axes, stream: CodebookUsage, limits: tuple[float, float, float]) -> None:
    """Share of the tokens over the rank of their code."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    size, least, most = limits
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.8, 1.3 * max(2, size))
    axes.set_ylim(least / 2.5, min(2.0, 2 * most))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rank, _: f"{rank:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g} %"))
    axes.grid(color=GRID, linewidth=0.6)
    even = 1 / stream.size
    axes.plot([1, stream.size], [even, even], color=INK, linewidth=0.9, linestyle=DASHED)
    # below the line: the most frequent code cannot be rarer than that
    axes.annotate("all alike", (1, even), (2, -8), textcoords="offset points", fontsize=7)
    if stream.tokens:
        share = stream.counts / stream.tokens
        dots = "o" if stream.used <= FEW_CODES else None
        ranks = np.arange(1, stream.used + 1)
        axes.plot(ranks, share, color=COLOR, linewidth=1.6, marker=dots, markersize=2.6)
    _label(axes, "rank of the code", "share of the tokens")
    digits = 1 if stream.perplexity < 1000 else 0
    _below_title(
        axes,
        f"{stream.used:,} of {stream.size:,} used, perplexity {stream.perplexity:,.{digits}f}, "
        f"{stream.entropy:.2f} of {stream.coded_bits} bits",
    )


def _bits(axes: Axes, stream: BinaryUsage) -> None:
    """Entropy of every bit, and what of it is news after the frame before."""
    from matplotlib.ticker import MaxNLocator

    places = np.arange(1, stream.coded_bits + 1)
    axes.set_xlim(0.3, stream.coded_bits + 0.7)
    axes.set_ylim(0, 1.06)
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.bar(places, stream.bit_entropies, width=0.72, color=COLOR)
    axes.hlines(
        stream.conditional_entropies, places - 0.36, places + 0.36, AFTER_COLOR, linewidth=1.8
    )
    axes.axhline(1, color=INK, linewidth=0.9, linestyle=DASHED)
    _label(axes, "bit; orange: given the same bit a frame before", "entropy, bits")
    _below_title(
        axes,
        f"least {stream.bit_entropy_min:.3f}, mean {stream.bit_entropy_mean:.3f}, "
        f"together {stream.entropy:.2f} of {stream.coded_bits} bits",
    )
