"""Learning curves in one figure: a panel per metric, all over the same steps.

The header names the runs; below it, a section of validation and a section of training have rows of
three panels. Sizes are in inches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from codectool.evaluation.metrics.registry import METRIC_INFO
from codectool.plots import COLORS, FEW_POINTS, GRID, INK, PALE, add_axes, draw_png, shorten
from codectool.training.curves import Run, Values, smoothed, smoothing_weight

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 3.2, 1.55
LEFT, RIGHT, BETWEEN = 0.62, 0.62, 0.52  # beside a panel: tick labels, and last values
ABOVE, BELOW = 0.45, 0.3  # title; steps, below the last row of a kind
HEADER, LEGEND_LINE, LEGEND_WIDTH, SECTION, FOOT = 0.45, 0.24, 2.6, 0.16, 0.08
MARGIN = 0.12
DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)))  # for more runs than colours
LABEL_GAP = 0.105  # smallest distance of last values, relative to the height of a panel

TITLES = {
    **{name: info.heading for name, info in METRIC_INFO.items()},
    "bit_entropy_min": "smallest entropy of a bit",
    "bit_entropy_mean": "mean entropy of a bit",
    "bits_per_token": "entropy, bits per token",
    "conditional_entropy": "conditional entropy, bits per token",
    "distinct": "distinct tokens, share",
    "grad_norm": "gradient norm",
    "discriminator_grad_norm": "gradient norm, discriminators",
    "steps_per_second": "steps per second",
    "data_wait_fraction": "data wait, share of time",
    "skipped": "skipped steps",
}
SECTIONS = {"valid": "VALIDATION", "train": "TRAINING"}


class Place(NamedTuple):
    """Position of a panel."""

    name: str
    left: float
    top: float
    lowest: bool  # no panel is below it in its column


class Layout(NamedTuple):
    """Positions in the figure."""

    size: tuple[float, float]
    legend_columns: int
    places: list[Place]
    sections: list[tuple[str, float]]  # headings, and their distances from the upper edge


def arrange(names: Sequence[str], num_runs: int = 1) -> Layout:
    """Place a panel per curve: one section per kind, rows from the left."""
    kinds = list(dict.fromkeys(name.partition("/")[0] for name in names))
    groups = [[n for n in names if n.startswith(f"{kind}/")] for kind in kinds]
    columns = min(COLUMNS, max(map(len, groups)))
    row_height = ABOVE + PANEL_HEIGHT
    step = PANEL_WIDTH + RIGHT + BETWEEN
    width = LEFT + columns * step - BETWEEN + 0.2
    legend_columns = max(1, int(width / LEGEND_WIDTH))
    y = HEADER + (LEGEND_LINE * math.ceil(num_runs / legend_columns) if num_runs > 1 else 0)
    sections, places = [], []
    for kind, group in zip(kinds, groups, strict=True):
        sections.append((SECTIONS.get(kind, kind.upper()), y))
        y += SECTION
        for number, name in enumerate(group):
            row, column = divmod(number, columns)
            lowest = number + columns >= len(group)
            top = y + row * row_height + ABOVE
            places.append(Place(name, LEFT + column * step, top, lowest))
        y += math.ceil(len(group) / columns) * row_height + BELOW
    return Layout((width, y + FOOT), legend_columns, places, sections)


def draw(
    runs: Sequence[Run], names: Sequence[str], smooth: float | None = None, log_x: bool = False
) -> bytes:
    """Return a PNG file, at 150 dpi, of curves of one or several runs, one panel each.

    Curves of training are drawn pale, and smoothed on top with a weight of the past from 0 to
    below 1 (see `curves.smoothed`); None for a weight by the number of points.

    Raises:
        UsageError: matplotlib is not installed.
    """
    layout = arrange(names, len(runs))
    limits = _step_limits(runs, names, log_x)

    def draw_panels(figure: Figure) -> None:
        _draw_header(figure, layout, runs)
        for place in layout.places:
            axes = _add_panel(figure, place, limits, log_x)
            _draw_curves(axes, runs, place.name, smooth)

    return draw_png(layout.size, draw_panels, extra="train")


def _draw_header(figure: Figure, layout: Layout, runs: Sequence[Run]) -> None:
    width, height = layout.size

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / width, 1 - y / height, text, va="top", **style)

    title = "learning curves" if len(runs) > 1 else shorten(runs[0].label, int(6 * width))
    write(MARGIN, 0.14, title, fontsize=12, fontweight="bold", color=INK)
    last = f"up to step {max(run.last_step for run in runs):,}"
    write(width - MARGIN, 0.17, last, fontsize=9, color=PALE, ha="right")
    if len(runs) > 1:
        from matplotlib.lines import Line2D

        figure.legend(
            [Line2D([], [], linewidth=2, **_line_style(number)) for number in range(len(runs))],
            [shorten(run.label, 30) for run in runs],
            loc="upper left",
            bbox_to_anchor=(MARGIN / width, 1 - (HEADER - 0.03) / height),
            ncols=layout.legend_columns,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
            handlelength=1.8,
            labelcolor=INK,
            fontsize=9,
        )
    for heading, y in layout.sections:
        write(MARGIN, y + 0.08, heading, fontsize=8, fontweight="bold", color=PALE)


def _line_style(number: int) -> dict[str, Any]:
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number // len(COLORS) % len(DASHES)],
    }


def _add_panel(figure: Figure, place: Place, limits: tuple[float, float], log_x: bool) -> Axes:
    """Add an empty panel with its title and step axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    key = place.name.partition("/")[2]
    title = TITLES.get(key, key.replace("_", " ").replace(".", " "))
    axes = add_axes(figure, place.left, place.top, PANEL_WIDTH, PANEL_HEIGHT, title)
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlim(limits)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: short_step(step)))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(axis="x", labelbottom=place.lowest)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    return axes


def _draw_curves(axes: Axes, runs: Sequence[Run], name: str, smooth: float | None) -> None:
    """Draw lines, dots, the best point, and the last values beside the panel."""
    # means over all clips, and settings, are not noisy
    noisy = not name.startswith("valid/") and name != "train/learning_rate"
    shown: list[Values] = []
    last_values: list[tuple[float, str]] = []
    for number, run in enumerate(runs):
        curve = run.curves.get(name)
        if curve is None:
            continue
        style = _line_style(number)
        values = curve.values
        if noisy:
            shown.append(_without_outliers(values))
            alpha = 0.28 if len(runs) == 1 else 0.15
            axes.plot(curve.steps, values, linewidth=0.7, alpha=alpha, **style)
            weight = smoothing_weight(len(values)) if smooth is None else smooth
            values = smoothed(values, weight)
        shown.append(values)
        marker = "o" if len(values) <= FEW_POINTS else None
        axes.plot(
            curve.steps, values, linewidth=1.5, marker=marker, markersize=2.6, zorder=3, **style
        )
        if best := curve.best(name):
            ring = {"markersize": 6, "markerfacecolor": "none", "markeredgecolor": style["color"]}
            axes.plot(*best, "o", zorder=4, **ring)
            if len(runs) == 1:
                text = f"best {short_value(best[1])} at {short_step(best[0])}"
                axes.set_title(text, loc="right", fontsize=8, color=PALE, pad=5)
        finite = values[np.isfinite(values)]
        last_values += [(float(value), style["color"]) for value in finite[-1:]]
    low, high = value_limits(shown)
    axes.set_ylim(low, high)
    if not 1e-2 <= max(abs(low), abs(high)) <= 1e5:
        axes.yaxis.set_major_formatter(lambda value, _: short_value(value))
    heights = spread([(value - low) / (high - low) for value, _ in last_values], LABEL_GAP)
    for y, (value, color) in zip(heights, last_values, strict=True):
        style = {"va": "center", "fontsize": 8, "fontweight": "bold", "color": color}
        axes.text(1.015, y, short_value(value), transform=axes.transAxes, **style)


def _step_limits(runs: Sequence[Run], names: Sequence[str], log_x: bool) -> tuple[float, float]:
    steps = [run.curves[name].steps for run in runs for name in names if name in run.curves]
    first, last = min(int(s[0]) for s in steps), max(int(s[-1]) for s in steps)
    if log_x:
        first = max(1, first)
        return first, max(last, first + 1) * 1.03
    margin = 0.02 * max(1, last - first)
    return first - margin, last + margin


def _without_outliers(values: Values) -> Values:
    """Return the finite values without the lowest and the highest hundredth."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [1, 99]) if len(finite) else (0, 0)
    return np.asarray(finite[(finite >= low) & (finite <= high)])


def value_limits(shown: Sequence[Values]) -> tuple[float, float]:
    """Return the limits of the value axis: all finite values that are shown, and a margin."""
    finite = np.concatenate([np.zeros(0), *(values[np.isfinite(values)] for values in shown)])
    if len(finite) == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move places apart, in order, until neighbours are at least ``gap`` from each other.

    The sum of the squared displacements is minimal, so places that collide are spread around their
    mean (isotonic regression of ``place - rank * gap`` by pooling adjacent violators).
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    pools: list[tuple[float, int]] = []  # mean and number of places
    for rank, i in enumerate(order):
        mean, size = places[i] - rank * gap, 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    means = [mean for mean, size in pools for _ in range(size)]
    moved = {i: means[rank] + rank * gap for rank, i in enumerate(order)}
    return [moved[i] for i in range(len(places))]


def short_step(step: float) -> str:
    """Format ``12000`` as ``12k``."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(step) >= size:
            return f"{step / size:.4g}{unit}"
    return f"{step:.4g}"


def short_value(value: float) -> str:
    """Format with at most four digits: ``4.931``, ``−0.02``, ``8.1e−5``, ``12.3k``."""
    if 0 < abs(value) < 1e-3:
        digits, _, exponent = f"{value:.1e}".partition("e")
        text = f"{float(digits):g}e{int(exponent)}"
    else:
        text = f"{value:.4g}" if abs(value) < 1e4 else short_step(value)
    return text.replace("-", "−")  # the minus sign of the axes
