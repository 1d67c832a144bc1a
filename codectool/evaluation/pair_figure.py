"""Figure of two signals and their difference, as log-mel spectrograms; sizes are in inches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codectool.audio.mel import RATE, Array, hz_to_mel
from codectool.evaluation.metrics.base import Wave
from codectool.plots import (
    HOP,
    INK,
    MAX_DB,
    MIN_DB,
    add_axes,
    draw_png,
    frames_per_column,
    palette,
    shorten,
    spectrogram,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_COLUMNS = 2000  # more are not visible
SIZE = 10.0, 6.1
LEFT, WIDTH, BAR, BAR_WIDTH = 0.55, 8.45, 9.15, 0.12  # panels and colour bars
TOP, PANEL, STEP = 0.36, 1.55, 1.87
DIFFERENCE = 30.0  # dB
TICKS = (500, 1000, 2000, 4000, 8000)  # Hz
ABSENT = "#dddddd"  # where a signal has ended
NAME_LENGTH = 100


def draw_pair(
    reference: Wave, degraded: Wave, names: tuple[str, str], note: str = "b minus a"
) -> bytes:
    """Draw the spectrograms of two signals and their difference, one below the other.

    Args:
        reference: float32 ``(N,)`` in [-1, 1] at 24 kHz.
        degraded: the same, of any length, aligned with the reference.
        names: titles of the two signals.
        note: title of the difference.

    Returns:
        A PNG file of 1500 by 915 pixels.

    Raises:
        UsageError: matplotlib is not installed.
    """
    longest = max(len(reference), len(degraded), 1)
    per_column = frames_per_column(longest, MAX_COLUMNS)
    first, second = (spectrogram(wave, per_column) for wave in (reference, degraded))
    both = min(len(first), len(second))
    difference = second[:both] - first[:both]

    def draw(figure: Figure) -> None:
        from matplotlib.colors import ListedColormap

        level_colors = {"cmap": ListedColormap(palette() / 255), "vmin": MIN_DB, "vmax": MAX_DB}
        change_colors = {"cmap": "RdBu_r", "vmin": -DIFFERENCE, "vmax": DIFFERENCE}
        name_a, name_b = (shorten(name, NAME_LENGTH) for name in names)
        panels = (
            (f"a: {name_a}", first, level_colors),
            (f"b: {name_b}", second, level_colors),
            (note, difference, change_colors),
        )
        images = []
        for row, (title, levels, colors) in enumerate(panels):
            axes = add_axes(figure, LEFT, TOP + row * STEP, WIDTH, PANEL, title)
            axes.set_facecolor(ABSENT)
            images.append(_show(axes, levels, per_column * HOP / RATE, colors))
            axes.set_xlim(0, max(longest, HOP // 2) / RATE)
            axes.tick_params(labelbottom=row == 2)
        axes.set_xlabel("seconds", labelpad=2)
        _add_color_bar(figure, images[1], 0, 1, "dB; a sine at full scale is 0")
        _add_color_bar(figure, images[2], 2, 2, "dB; red: b has more")

    return draw_png(SIZE, draw)


def _show(axes: Axes, levels: Array, column_seconds: float, colors: dict[str, Any]) -> Any:
    """Draw a spectrogram ``(T, M)`` whose first frame is centred at time 0."""
    axes.spines[:].set_visible(False)
    axes.set_ylim(0, hz_to_mel(RATE / 2))
    axes.set_yticks([hz_to_mel(tick) for tick in TICKS], [f"{t / 1000:g}" for t in TICKS])
    axes.set_ylabel("kHz", labelpad=2)
    left = -HOP / 2 / RATE
    right = left + max(1, len(levels)) * column_seconds  # also an empty image needs a width
    extent = (left, right, *axes.get_ylim())
    return axes.imshow(levels.T, origin="lower", aspect="auto", extent=extent, **colors)


def _add_color_bar(figure: Figure, image: Any, first: int, last: int, label: str) -> None:
    """Add the colour bar of the panels ``first`` to ``last``."""
    height = (last - first) * STEP + PANEL
    axes = add_axes(figure, BAR, TOP + first * STEP, BAR_WIDTH, height)
    bar = figure.colorbar(image, cax=axes)
    bar.set_label(label, fontsize=7.5, color=INK)
    bar.outline.set_visible(False)
