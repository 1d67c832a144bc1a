"""Helpers of figure tests: pixels of PNG files, and figures before they are written."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

Pixels = npt.NDArray[np.int64]

WHITE, INK = (255, 255, 255), (38, 38, 38)
BLUE, VERMILLION = (0, 114, 178), (213, 94, 0)


def read_png(data: bytes) -> Pixels:
    """Return the pixels ``(height, width, 3)``, 0 to 255."""
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(data))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"), np.int64)


def share_of(color: tuple[int, int, int], pixels: Pixels) -> float:
    """Return the share of pixels of this colour."""
    return float((np.abs(pixels - color).max(-1) <= 3).mean())


def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make imports of matplotlib fail."""
    for name in [m for m in sys.modules if m.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def figure_of(monkeypatch: pytest.MonkeyPatch, module: str, draw: Callable[[], object]) -> Any:
    """Return the matplotlib figure that ``draw`` passes to `draw_png` in a module."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figures = []

    def keep(size: tuple[float, float], draw: Callable[[Figure], None]) -> bytes:
        figures.append(Figure(figsize=size))
        draw(figures[0])
        return b""

    monkeypatch.setattr(f"{module}.draw_png", keep)
    draw()
    return figures[0]
