"""Log-mel spectrograms as small pictures, all on one scale of colours.

Letters used in shapes: N samples, T frames, M mel bands, P colours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codectool.audio.mel import log_mel
from codectool.evaluation.metrics.base import Wave
from codectool.evaluation.report.png import png_bytes

WINDOW, HOP, BANDS = 1024, 256, 96  # samples, samples, mel bands
MAX_FRAMES = 1000  # about as many pixels as a page is wide
FLOOR, TOP = -80.0, -10.0  # dB: the ends of the colours; speech leaves no band louder than the top
COLOURS = 64  # steps of about a decibel, which nobody sees, and half the bytes of 256
# Dark to light, each step as much lighter than the one before, so that it also reads in grey.
STOPS = (
    *("000004", "180f3d", "440f76", "721f81", "9e2f7f"),
    *("cd4071", "f1605d", "fd9668", "feca8d", "fcfdbf"),
)


def picture(wave: Wave) -> bytes:
    """PNG of ``(N,)`` at 24 kHz: a column per frame, the deepest band in the lowest row."""
    return png_bytes(pixels(wave), palette())


def pixels(wave: Wave) -> npt.NDArray[np.uint8]:
    """Steps of the palette, ``(M, T)``.

    Half a window of silence is put before and behind, so that the picture begins and ends with the
    sound and a playing head can be drawn on it; the hop of a long sound is larger, for a picture
    that is not wider than `MAX_FRAMES`.
    """
    hop = max(HOP, -(-len(wave) // MAX_FRAMES))
    decibels = log_mel(np.pad(wave, WINDOW // 2), WINDOW, BANDS, hop)
    share = (decibels - FLOOR) / (TOP - FLOOR)
    steps = np.clip(np.rint(share * (COLOURS - 1)), 0, COLOURS - 1).astype(np.uint8)
    return np.ascontiguousarray(steps.T[::-1])


def palette() -> npt.NDArray[np.uint8]:
    """``(P, 3)``, straight lines between the stops."""
    stops = np.array([list(bytes.fromhex(stop)) for stop in STOPS], float)
    places = np.linspace(0, len(stops) - 1, COLOURS)
    mixed = [np.interp(places, np.arange(len(stops)), channel) for channel in stops.T]
    return np.asarray(np.rint(np.stack(mixed, axis=1)), np.uint8)
