"""What the pictures of an evaluation have in common; needs matplotlib."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from codectool.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
INK, PALE, GRID = "#262626", "#8c8c8c", "#e6e6e6"
# A name in a picture may hold anything: a dollar sign begins no formula.
STYLE: Any = {"font.size": 8, "font.family": "DejaVu Sans", "text.parse_math": False}


def need_matplotlib() -> None:
    """Refuse a picture before the work is done that it would show.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "a picture needs matplotlib: run `pip install 'codectool[eval]'`"
        ) from error


def draw_png(size: tuple[float, float], fill: Callable[[Figure], None]) -> bytes:
    """Make a picture.

    Args:
        size: width and height in inches, of 150 pixels each.
        fill: is given the empty figure.

    Returns:
        A PNG file.

    Raises:
        UsageError: matplotlib is not installed.
    """
    need_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box will do
        # matplotlib cuts off what is left of a pixel, be it a rounding error
        width, height = ((round(inches * DPI) + 0.01) / DPI for inches in size)
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        fill(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": "codectool"})
    return buffer.getvalue()


def calm(axes: Axes) -> None:
    """Take away what draws the eye from the data."""
    axes.tick_params(which="both", colors=PALE, labelcolor=INK, labelsize=7.5, width=0.6)
    axes.tick_params(which="major", length=2.5)
    axes.tick_params(which="minor", length=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=PALE, linewidth=0.6)


def shortened(text: str, length: int) -> str:
    """At most so many characters, the last ones: of a path they tell most."""
    return text if len(text) <= length else "…" + text[len(text) - length + 1 :]
