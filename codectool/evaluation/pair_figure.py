"""Two signals and what one makes of the other, as log-mel spectrograms.

Letters used in shapes: N samples, T columns of the picture, M mel bands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from codectool.audio.mel import RATE, hz_to_mel, log_mel
from codectool.evaluation.metrics.base import Wave
from codectool.plots import INK, PALE, draw_png, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOW, HOP, BANDS = 1024, 256, 80
MOST_COLUMNS = 2000  # more than that are no pixels of their own
ROWS_AT_ONCE = 4096  # spectra in memory
SIZE = 10.0, 6.1  # of the picture in inches
LEFT, WIDTH, BAR, BAR_WIDTH = 0.55, 8.45, 9.15, 0.12  # panels, and the bars of their colours
TOP, PANEL, STEP = 0.36, 1.55, 1.87
LEVELS = -80.0, -10.0  # dB, of which a sine at full scale has 0
DIFFERENCE = 30.0  # dB
TICKS = (500, 1000, 2000, 4000, 8000)  # Hz
ABSENT = "#dddddd"  # where one of the two has ended
NAME_LENGTH = 100

Array = npt.NDArray[np.floating[Any]]


def draw_pair(
    reference: Wave, degraded: Wave, names: tuple[str, str], note: str = "b minus a"
) -> bytes:
    """Draw one signal, the other, and their difference, one below the other.

    Args:
        reference: float32 ``(N,)`` in [-1, 1] at 24 kHz.
        degraded: likewise, of any length, aligned with it.
        names: of the two: titles.
        note: title of the difference.

    Returns:
        A PNG file of 1500 by 915 pixels.

    Raises:
        UsageError: matplotlib is not installed.
    """
    longest = max(len(reference), len(degraded), 1)
    per_column = -(-num_frames(longest) // MOST_COLUMNS)
    first, second = (spectrogram(wave, per_column) for wave in (reference, degraded))
    both = min(len(first), len(second))
    difference = second[:both] - first[:both]
    seconds = per_column * HOP / RATE

    def fill(figure: Figure) -> None:
        title_a, title_b = (shortened(name, NAME_LENGTH) for name in names)
        panels = [_panel(figure, row) for row in range(3)]
        low, high = LEVELS
        _show(panels[0], first, seconds, f"a: {title_a}", cmap="magma", vmin=low, vmax=high)
        levels = _show(
            panels[1], second, seconds, f"b: {title_b}", cmap="magma", vmin=low, vmax=high
        )
        changes = _show(
            panels[2], difference, seconds, note, cmap="RdBu_r", vmin=-DIFFERENCE, vmax=DIFFERENCE
        )
        for axes in panels:
            axes.set_xlim(0, max(longest, HOP // 2) / RATE)
            axes.tick_params(labelbottom=axes is panels[2])
        panels[2].set_xlabel("seconds", labelpad=2)
        _bar(figure, 0, 1, levels, "dB; a sine at full scale is 0")
        _bar(figure, 2, 2, changes, "dB; red: b has more")

    return draw_png(SIZE, fill)


def spectrogram(wave: Wave, per_column: int) -> Array:
    """Log-mel spectrogram in dB of ``(N,)`` at 24 kHz: the mean of some frames for each column.

    Frames are 256 samples apart; the first is centred at the first sample.

    Args:
        wave: may be empty.
        per_column: frames of a column.

    Returns:
        ``(T, 80)`` with ``T = ceil(num_frames(N) / per_column)``, at least -80 dB; for an empty
        signal T is 0.
    """
    columns = -(-num_frames(len(wave)) // per_column)
    if columns == 0:
        return np.zeros((0, BANDS))
    missing = (columns * per_column - 1) * HOP + WINDOW - len(wave) - WINDOW // 2
    padded = np.pad(wave, (WINDOW // 2, max(0, missing)))
    at_once = max(1, ROWS_AT_ONCE // per_column)
    pieces = []
    for column in range(0, columns, at_once):
        start = column * per_column * HOP
        count = min(at_once, columns - column)
        piece = padded[start : start + (count * per_column - 1) * HOP + WINDOW]
        levels = log_mel(piece, WINDOW, BANDS, HOP)
        pieces.append(levels.reshape(count, per_column, BANDS).mean(axis=1))
    return np.concatenate(pieces)


def num_frames(num_samples: int) -> int:
    """Frames that it takes for every sample to lie within half a hop of a frame's centre."""
    return 1 + (num_samples + HOP // 2 - 1) // HOP if num_samples else 0


def _place(left: float, width: float, first: int, last: int) -> tuple[float, float, float, float]:
    """Of axes beside the panels ``first`` to ``last``, from the lower left corner, in 0..1."""
    bottom = SIZE[1] - TOP - last * STEP - PANEL
    height = (last - first) * STEP + PANEL
    return left / SIZE[0], bottom / SIZE[1], width / SIZE[0], height / SIZE[1]


def _panel(figure: Figure, row: int) -> Axes:
    axes = figure.add_axes(_place(LEFT, WIDTH, row, row), facecolor=ABSENT)
    axes.set_ylim(0, hz_to_mel(RATE / 2))
    axes.set_yticks([hz_to_mel(tick) for tick in TICKS], [f"{t / 1000:g}" for t in TICKS])
    axes.set_ylabel("kHz", labelpad=2)
    axes.tick_params(color=PALE, labelcolor=INK, width=0.6, length=2.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _show(axes: Axes, levels: Array, seconds: float, title: str, **colors: Any) -> Any:
    """Put ``(T, M)`` into a panel; a column is so many seconds, its first frame centred at 0."""
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold", color=INK, pad=4)
    left = -HOP / 2 / RATE
    # an image must have a width, be there nothing in it
    extent = (left, left + max(1, len(levels)) * seconds, *axes.get_ylim())
    return axes.imshow(levels.T, origin="lower", aspect="auto", extent=extent, **colors)


def _bar(figure: Figure, first: int, last: int, image: Any, label: str) -> None:
    """What the colours of the panels ``first`` to ``last`` mean."""
    axes = figure.add_axes(_place(BAR, BAR_WIDTH, first, last))
    bar = figure.colorbar(image, cax=axes)
    bar.set_label(label, fontsize=7.5, color=INK)
    bar.outline.set_visible(False)
    axes.tick_params(color=PALE, labelcolor=INK, width=0.6, length=2.5, labelsize=7.5)
