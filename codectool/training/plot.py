"""Learning curves as one picture: a small panel for each figure, all over the same steps.

Needs matplotlib. Sizes are in inches, as matplotlib has them.

      | header: runs and their colours                |
      | panel | panel | panel |    validation
      | panel | panel |
      | panel | panel | panel |    training
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from codectool.errors import UsageError
from codectool.training.curves import Curve, Run, Values, smoothed, smoothing_weight

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 3.2, 1.55
LEFT, RIGHT, BETWEEN = 0.62, 0.62, 0.52  # beside a panel: tick labels, and last values
ABOVE, BELOW = 0.45, 0.3  # title; steps, below the last row of a kind
HEADER, LEGEND_LINE, LEGEND_WIDTH, SECTION, FOOT = 0.45, 0.24, 2.6, 0.16, 0.08

# Okabe and Ito's colours, which people of all colour visions tell apart; yellow is too pale.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)))  # for more runs than colours
INK, PALE = "#262626", "#8c8c8c"
LABEL_GAP = 0.105  # of the panel's height, between last values that would overlap
FEW_POINTS = 40  # up to here every point is shown as a dot

TITLES = {
    "mel_db": "mel distance, dB",
    "si_sdr": "SI-SDR, dB",
    "stoi": "STOI",
    "estoi": "ESTOI",
    "bit_entropy_min": "least entropy of a bit",
    "bit_entropy_mean": "mean entropy of a bit",
    "bits_per_token": "bits per token",
    "bits_given_previous": "bits per token, given the one before",
    "distinct": "distinct tokens, share",
    "gradient": "gradient norm",
    "judge_gradient": "gradient norm, discriminators",
    "steps_per_second": "steps per second",
    "waited": "share of time waiting for data",
    "skipped": "skipped steps",
}
SECTIONS = {"valid": "VALIDATION", "train": "TRAINING"}


@dataclass(frozen=True)
class Place:
    """Where a panel lies.

    Attributes:
        name: of its curve.
        left: inches from the picture's left edge.
        top: inches from the picture's upper edge.
        lowest: no panel lies below it in its column.
    """

    name: str
    left: float
    top: float
    lowest: bool


@dataclass(frozen=True)
class Layout:
    """Where everything lies.

    Attributes:
        width: of the picture in inches.
        height: likewise.
        legend_columns: runs that the legend names in a row.
        places: of the panels.
        sections: heading and inches from the upper edge.
    """

    width: float
    height: float
    legend_columns: int
    places: tuple[Place, ...]
    sections: tuple[tuple[str, float], ...]

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height of the picture."""
        return round(self.width * DPI), round(self.height * DPI)


def arrange(names: Sequence[str], num_runs: int = 1) -> Layout:
    """Give every curve a panel: kinds one after another, each from the left."""
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
            below = number + columns < len(group)
            top = y + row * row_height + ABOVE
            places.append(Place(name, LEFT + column * step, top, not below))
        y += math.ceil(len(group) / columns) * row_height + BELOW
    return Layout(width, y + FOOT, legend_columns, tuple(places), tuple(sections))


def draw(
    runs: Sequence[Run], names: Sequence[str], smooth: float | None = None, log_x: bool = False
) -> bytes:
    """Draw curves of one or several runs.

    Figures of training are shown raw, faint, and smoothed, strong.

    Args:
        runs: each has a colour of its own.
        names: of the curves, one panel each; see `curves.choose`.
        smooth: weight of the past in the smoothed curves, from 0 to below 1 (see
            `curves.smoothed`); None goes by the number of points.
        log_x: steps on a logarithmic axis.

    Returns:
        A PNG file of ``arrange(names, len(runs)).pixels``.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "drawing curves needs matplotlib: run `pip install 'codectool[train]'`"
        ) from error
    layout = arrange(names, len(runs))
    style: Any = {"font.size": 8, "font.family": "DejaVu Sans", "text.parse_math": False}
    with rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box will do
        # matplotlib cuts off what is left of a pixel, be it a rounding error
        width, height = ((pixels + 0.01) / DPI for pixels in layout.pixels)
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        _header(figure, layout, runs)
        limits = _step_limits(runs, names, log_x)
        for place in layout.places:
            axes = _panel(figure, layout, place, limits, log_x)
            _curves(axes, runs, place.name, smooth)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": "codectool"})
    return buffer.getvalue()


def _header(figure: Figure, layout: Layout, runs: Sequence[Run]) -> None:
    def put(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / layout.width, 1 - y / layout.height, text, va="top", **style)

    last = max(run.last_step for run in runs)
    many = len(runs) > 1
    title = "learning curves" if many else _shortened(runs[0].label, int(6 * layout.width))
    put(0.12, 0.14, title, fontsize=12, fontweight="bold", color=INK)
    right = layout.width - 0.12
    put(right, 0.17, f"up to step {last:,}", fontsize=9, color=PALE, ha="right")
    if many:
        from matplotlib.lines import Line2D

        lines = [Line2D([], [], linewidth=2, **_style(number)) for number in range(len(runs))]
        figure.legend(
            lines,
            [_shortened(run.label, 30) for run in runs],
            loc="upper left",
            bbox_to_anchor=(0.12 / layout.width, 1 - (HEADER - 0.03) / layout.height),
            ncols=layout.legend_columns,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
            handlelength=1.8,
            labelcolor=INK,
            fontsize=9,
        )
    for heading, y in layout.sections:
        put(0.12, y + 0.08, heading, fontsize=8, fontweight="bold", color=PALE)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else "…" + text[1 - length :]


def _style(number: int) -> dict[str, Any]:
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number // len(COLORS) % len(DASHES)],
    }


def _panel(
    figure: Figure, layout: Layout, place: Place, limits: tuple[float, float], log_x: bool
) -> Axes:
    """An empty panel with its title and step axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes = figure.add_axes(
        (
            place.left / layout.width,
            1 - (place.top + PANEL_HEIGHT) / layout.height,
            PANEL_WIDTH / layout.width,
            PANEL_HEIGHT / layout.height,
        )
    )
    key = place.name.partition("/")[2]
    title = TITLES.get(key, key.replace("_", " ").replace(".", " "))
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold", color=INK, pad=5)
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlim(limits)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: short_step(step)))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(colors=INK, labelsize=7.5, length=2.5, color=PALE, width=0.6)
    axes.tick_params(which="minor", length=0)
    axes.tick_params(axis="x", labelbottom=place.lowest)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=PALE, linewidth=0.6)
    return axes


def _curves(axes: Axes, runs: Sequence[Run], name: str, smooth: float | None) -> None:
    """Lines, dots, the best point, and the last values beside them."""
    # the mean over all clips, and what was set, are not noisy
    calm = name.startswith("valid/") or name == "train/learning_rate"
    shown: list[Values] = []
    ends: list[tuple[float, str, str]] = []
    for number, run in enumerate(runs):
        curve = run.curves.get(name)
        if curve is None:
            continue
        style = _style(number)
        weight = smoothing_weight(len(curve.values)) if smooth is None else smooth
        strong = curve.values if calm else smoothed(curve.values, weight)
        shown.append(strong)
        if not calm:
            shown.append(_middle(curve.values))
            faint = 0.28 if len(runs) == 1 else 0.15
            axes.plot(curve.steps, curve.values, linewidth=0.7, alpha=faint, **style)
        dots = "o" if len(curve.steps) <= FEW_POINTS else None
        axes.plot(
            curve.steps, strong, linewidth=1.5, marker=dots, markersize=2.6, zorder=3, **style
        )
        _mark_best(axes, curve, name, style["color"], tell=len(runs) == 1)
        finite = strong[np.isfinite(strong)]
        if len(finite):
            ends.append((float(finite[-1]), short_value(float(finite[-1])), style["color"]))
    low, high = value_limits(shown)
    axes.set_ylim(low, high)
    if max(abs(low), abs(high)) < 1e-2 or max(abs(low), abs(high)) > 1e5:
        axes.yaxis.set_major_formatter(lambda value, _: short_value(value))
    wanted = [(value - low) / (high - low) for value, _, _ in ends]
    for y, (_, text, color) in zip(spread(wanted, LABEL_GAP), ends, strict=True):
        axes.annotate(
            text,
            (1.015, y),
            xycoords="axes fraction",
            va="center",
            fontsize=8,
            fontweight="bold",
            color=color,
            annotation_clip=False,
        )


def _mark_best(axes: Axes, curve: Curve, name: str, color: str, tell: bool) -> None:
    best = curve.best(name)
    if best is None:
        return
    step, value = best
    axes.plot(
        [step], [value], "o", markersize=6, markerfacecolor="none", markeredgecolor=color, zorder=4
    )
    if tell:
        text = f"best {short_value(value)} at {short_step(step)}"
        axes.set_title(text, loc="right", fontsize=8, color=PALE, pad=5)


def _step_limits(runs: Sequence[Run], names: Sequence[str], log_x: bool) -> tuple[float, float]:
    steps = [run.curves[name].steps for run in runs for name in names if name in run.curves]
    first, last = min(int(s[0]) for s in steps), max(int(s[-1]) for s in steps)
    if log_x:
        first = max(1, first)
        return first, max(last, first + 1) * 1.03
    room = 0.02 * max(1, last - first)
    return first - room, last + room


def _middle(values: Values) -> Values:
    """The values without the outermost hundredth at either end."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return finite
    low, high = np.percentile(finite, [1, 99])
    middle: Values = finite[(finite >= low) & (finite <= high)]
    return middle


def value_limits(shown: Sequence[Values]) -> tuple[float, float]:
    """Ends of the value axis: all that is ``shown`` and finite, with a little room."""
    finite = np.concatenate([np.zeros(0), *(values[np.isfinite(values)] for values in shown)])
    if len(finite) == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - room, high + room


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move places apart until neighbours are at least ``gap`` from each other, keeping their order.

    Groups that collide are pushed apart around their mean, so that each stays near its own.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    groups: list[list[int]] = []
    centers: list[float] = []
    for i in order:
        groups.append([i])
        centers.append(places[i])
        while len(groups) > 1:
            reach = gap * (len(groups[-1]) + len(groups[-2])) / 2
            if centers[-1] - centers[-2] >= reach:
                break
            last = groups.pop()
            groups[-1] += last
            centers.pop()
            centers[-1] = sum(places[j] for j in groups[-1]) / len(groups[-1])
    moved = [0.0] * len(places)
    for group, center in zip(groups, centers, strict=True):
        for k, i in enumerate(group):
            moved[i] = center + gap * (k - (len(group) - 1) / 2)
    return moved


def short_step(step: float) -> str:
    """``12000`` as ``12k``."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(step) >= size:
            return f"{step / size:.4g}{unit}"
    return f"{step:.4g}"


def short_value(value: float) -> str:
    """Four digits at most: ``4.931``, ``−0.02``, ``8.1e−5``, ``12.3k``."""
    if 0 < abs(value) < 1e-3:
        digits, _, exponent = f"{value:.1e}".partition("e")
        text = f"{float(digits):g}e{int(exponent)}"
    else:
        text = f"{value:.4g}" if abs(value) < 1e4 else short_step(value)
    return text.replace("-", "−")  # the minus sign of the axes
