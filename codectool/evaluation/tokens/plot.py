"""Figure of codebook usage, with a panel per codebook; sizes are in inches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from codectool.evaluation.tokens.usage import BinaryUsage, CodebookUsage, TokenUsage
from codectool.plots import COLORS, FEW_POINTS, GRID, INK, PALE, add_axes, draw_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
MAX_PANELS = 90
PANEL_WIDTH, PANEL_HEIGHT = 3.0, 1.75
LEFT, BETWEEN, RIGHT = 0.78, 0.85, 0.2
ABOVE, BELOW, FOOT = 0.55, 0.42, 0.2
DASHED = (0, (4, 2))


class Layout(NamedTuple):
    """Positions in the figure."""

    size: tuple[float, float]
    places: list[tuple[float, float]]  # distances of panels from the left and the upper edge
    hidden: int  # number of panels that are left out


def arrange(panels: int) -> Layout:
    """Place panels in rows of three."""
    shown = min(panels, MAX_PANELS)
    step, row_height = PANEL_WIDTH + BETWEEN, ABOVE + PANEL_HEIGHT + BELOW
    cells = [divmod(number, COLUMNS) for number in range(shown)]
    places = [(LEFT + column * step, ABOVE + row * row_height) for row, column in cells]
    width = LEFT + min(COLUMNS, shown) * step - BETWEEN + RIGHT
    height = math.ceil(shown / COLUMNS) * row_height + FOOT
    return Layout((width, height), places, panels - shown)


def draw_tokens(models: Sequence[TokenUsage]) -> bytes:
    """Draw the usage of all codebooks.

    A codebook is shown as the share of its entries among the tokens, in order of frequency, on
    logarithmic axes. A binary codebook is shown as the entropies of its bits.

    Args:
        models: at least one.

    Returns:
        A PNG file with up to 90 panels.

    Raises:
        UsageError: matplotlib is not installed.
    """
    codebooks = [
        (_title(model, number), usage)
        for model in models
        for number, usage in enumerate(model.codebooks, 1)
    ]
    layout = arrange(len(codebooks))
    limits = _rank_limits([usage for _, usage in codebooks if isinstance(usage, CodebookUsage)])

    def draw(figure: Figure) -> None:
        for (left, top), (title, usage) in zip(layout.places, codebooks, strict=False):
            axes = add_axes(figure, left, top, PANEL_WIDTH, PANEL_HEIGHT, title, title_pad=17)
            if isinstance(usage, CodebookUsage):
                _draw_ranks(axes, usage, limits)
            else:
                _draw_bits(axes, usage)
        if layout.hidden:
            more = "codebook is" if layout.hidden == 1 else "codebooks are"
            text = f"{layout.hidden} more {more} not shown"
            figure.text(0.5, 0.08 / layout.size[1], text, fontsize=8, color=PALE, ha="center")

    return draw_png(layout.size, draw)


def _title(model: TokenUsage, number: int) -> str:
    count = len(model.codebooks)
    return f"{model.name}, {number} of {count}" if count > 1 else model.name


def _label(axes: Axes, x: str, y: str, subtitle: str) -> None:
    axes.set_xlabel(x, fontsize=7.5, color=INK, labelpad=2)
    axes.set_ylabel(y, fontsize=7.5, color=INK, labelpad=3)
    axes.annotate(
        subtitle, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontsize=8
    )


def _rank_limits(codebooks: Sequence[CodebookUsage]) -> tuple[float, float, float]:
    """Return the largest rank and the smallest and largest share, for axes common to all panels."""
    shares = [1 / usage.size for usage in codebooks]
    for usage in codebooks:
        counts = usage.counts  # sorted
        shares += [float(count) / usage.tokens for count in (*counts[:1], *counts[-1:])]
    size = max((usage.size for usage in codebooks), default=1)
    return size, min(shares, default=1.0), max(shares, default=1.0)


def _draw_ranks(axes: Axes, usage: CodebookUsage, limits: tuple[float, float, float]) -> None:
    """Draw the share of the tokens over the rank of their entry."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    max_rank, min_share, max_share = limits
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.8, 1.3 * max(2, max_rank))
    axes.set_ylim(min_share / 2.5, min(2.0, 2 * max_share))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rank, _: f"{rank:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g} %"))
    axes.grid(color=GRID, linewidth=0.6)
    uniform = 1 / usage.size
    axes.plot([1, usage.size], [uniform, uniform], color=INK, linewidth=0.9, linestyle=DASHED)
    # below the line, because the most frequent entry is above it
    axes.annotate("uniform", (1, uniform), (2, -8), textcoords="offset points", fontsize=7)
    if usage.tokens:
        shares = usage.counts / usage.tokens
        marker = "o" if usage.used <= FEW_POINTS else None
        ranks = np.arange(1, usage.used + 1)
        axes.plot(ranks, shares, color=COLORS[0], linewidth=1.6, marker=marker, markersize=2.6)
    digits = 1 if usage.perplexity < 1000 else 0
    _label(
        axes,
        "rank of the entry",
        "share of the tokens",
        f"{usage.used:,} of {usage.size:,} used, perplexity {usage.perplexity:,.{digits}f}, "
        f"{usage.entropy:.2f} of {usage.coded_bits} bits",
    )


def _draw_bits(axes: Axes, usage: BinaryUsage) -> None:
    """Draw the entropy of each bit, and its conditional entropy given the previous frame."""
    from matplotlib.ticker import MaxNLocator

    bits = np.arange(1, usage.coded_bits + 1)
    axes.set_xlim(0.3, usage.coded_bits + 0.7)
    axes.set_ylim(0, 1.06)
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.bar(bits, usage.bit_entropies, width=0.72, color=COLORS[0])
    axes.hlines(
        usage.conditional_entropies, bits - 0.36, bits + 0.36, colors=COLORS[1], linewidth=1.8
    )
    axes.axhline(1, color=INK, linewidth=0.9, linestyle=DASHED)
    _label(
        axes,
        "bit; orange: given the same bit of the previous frame",
        "entropy, bits",
        f"min {usage.bit_entropy_min:.3f}, mean {usage.bit_entropy_mean:.3f}, "
        f"total {usage.entropy:.2f} of {usage.coded_bits} bits",
    )
