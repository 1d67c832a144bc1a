"""Figures: one style, one spectrogram and one PNG writer.

Line plots need matplotlib, which is imported when a figure is drawn. Spectrograms need only NumPy.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from codectool.audio.mel import RATE, Array, log_mel
from codectool.audio.samples import resample
from codectool.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
INK, PALE, GRID = "#262626", "#8c8c8c", "#e6e6e6"
# Okabe and Ito's palette, which colour-blind people can distinguish; yellow is too pale.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
FEW_POINTS = 40  # lines of up to this number of points show each of them
# Names in a figure are not parsed as formulas, because they may contain dollar signs.
STYLE: Any = {"font.size": 8, "font.family": "DejaVu Sans", "text.parse_math": False}

WINDOW, HOP, BANDS = 1024, 256, 96  # spectrograms at 24 kHz: samples, samples, mel bands
MIN_DB, MAX_DB = -80.0, -10.0  # range of the palette; no band of speech is louder
PNG_COLUMNS = 1000
PAIR_COLUMNS, PAIR_ZOOM, PAIR_GAP = 600, 2, 4  # columns, pixels per value, pixels
BATCH_FRAMES = 4096  # frames whose spectra are in memory at the same time
# Magma, whose lightness rises evenly; 64 steps of about 1 dB give half the file size of 256.
PALETTE_SIZE = 64
PALETTE_STOPS = (
    *("000004", "180f3d", "440f76", "721f81", "9e2f7f"),
    *("cd4071", "f1605d", "fd9668", "feca8d", "fcfdbf"),
)

Bytes = npt.NDArray[np.uint8]


def require_matplotlib(extra: str = "eval") -> None:
    """Raise if matplotlib is not installed.

    Raises:
        UsageError: matplotlib is not installed; the message names the extra that contains it.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"a figure needs matplotlib: run `pip install 'codectool[{extra}]'`"
        ) from error


def draw_png(
    size: tuple[float, float], draw: Callable[[Figure], None], extra: str = "eval"
) -> bytes:
    """Draw a figure.

    Args:
        size: width and height in inches of 150 pixels.
        draw: draws into the empty figure.
        extra: extra of the package that contains matplotlib, for the error message.

    Returns:
        A PNG file.

    Raises:
        UsageError: matplotlib is not installed.
    """
    require_matplotlib(extra)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # drawn as a box
        # matplotlib rounds down, after rounding errors
        width, height = ((round(inches * DPI) + 0.01) / DPI for inches in size)
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": "codectool"})
    return buffer.getvalue()


def add_axes(
    figure: Figure,
    left: float,
    top: float,
    width: float,
    height: float,
    title: str = "",
    title_pad: float = 5,
) -> Axes:
    """Add axes in the common style; sizes in inches from the upper left corner, pad in points."""
    page_width, page_height = figure.get_size_inches()
    bottom = page_height - top - height
    box = left / page_width, bottom / page_height, width / page_width, height / page_height
    axes = figure.add_axes(box)
    axes.tick_params(which="both", color=PALE, labelcolor=INK, labelsize=7.5, width=0.6)
    axes.tick_params(which="major", length=2.5)
    axes.tick_params(which="minor", length=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=PALE, linewidth=0.6)
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold", color=INK, pad=title_pad)
    return axes


def shorten(text: str, length: int) -> str:
    """Shorten to at most ``length`` characters; the end is kept, because it identifies a path.

    Examples:
        >>> shorten("folder/talk.wav", 9)
        '…talk.wav'
    """
    return text if len(text) <= length else "…" + text[len(text) - length + 1 :]


def num_frames(num_samples: int) -> int:
    """Return the number of frames for which no sample is further than half a hop from a centre."""
    return 1 + (num_samples + HOP // 2 - 1) // HOP if num_samples else 0


def frames_per_column(num_samples: int, max_columns: int) -> int:
    """Return the number of frames to average so that there are at most ``max_columns`` columns."""
    return max(1, -(-num_frames(num_samples) // max_columns))


def spectrogram(wave: Array, per_column: int = 1) -> Array:
    """Return the log-mel spectrogram of a signal at 24 kHz, averaged over frames.

    The first frame is centred at the first sample.

    Args:
        wave: ``(N,)`` in [-1, 1].
        per_column: frames to average in each column.

    Returns:
        ``(T, 96)`` in dB, at least -80, with ``T = ceil(num_frames(N) / per_column)``.
    """
    columns = -(-num_frames(len(wave)) // per_column)
    step = per_column * HOP
    padded = np.pad(wave, (WINDOW // 2, WINDOW + step))
    batch = max(1, BATCH_FRAMES // per_column)
    parts = [np.zeros((0, BANDS))]
    for first in range(0, columns, batch):
        last = min(first + batch, columns)
        levels = log_mel(padded[first * step : last * step - HOP + WINDOW], WINDOW, BANDS, HOP)
        parts.append(levels.reshape(last - first, per_column, BANDS).mean(axis=1))
    return np.concatenate(parts)


def palette() -> Bytes:
    """Return the colours of spectrograms, dark to light: ``(64, 3)``, red, green and blue."""
    stops = np.array([list(bytes.fromhex(stop)) for stop in PALETTE_STOPS], float)
    places = np.linspace(0, len(stops) - 1, PALETTE_SIZE)
    channels = [np.interp(places, np.arange(len(stops)), channel) for channel in stops.T]
    return np.asarray(np.rint(np.stack(channels, axis=1)), np.uint8)


def spectrogram_pixels(wave: Array, max_columns: int) -> Bytes:
    """Return the spectrogram of a signal ``(N,)`` at 24 kHz as indices into the palette.

    Returns:
        ``(96, T)`` with ``T <= max_columns``, the highest band first.
    """
    levels = spectrogram(wave, frames_per_column(len(wave), max_columns))
    share = np.clip((levels - MIN_DB) / (MAX_DB - MIN_DB), 0, 1)
    pixels = np.rint(share * (PALETTE_SIZE - 1)).astype(np.uint8)
    return np.ascontiguousarray(pixels.T[::-1])


def spectrogram_png(wave: Array) -> bytes:
    """Draw the spectrogram of a signal ``(N,)`` at 24 kHz as a PNG file without axes."""
    return png_bytes(spectrogram_pixels(wave, PNG_COLUMNS), palette())


def spectrogram_pair(reference: Array, output: Array, rate: int) -> Bytes:
    """Draw the spectrogram of a signal above the spectrogram of its decoded version.

    Args:
        reference: ``(N,)`` in [-1, 1].
        output: ``(N',)``, cut or zero-padded to N.
        rate: sampling rate of both, in Hz.

    Returns:
        ``(height, width, 3)``, red, green and blue.
    """
    length = len(reference)
    output = np.pad(output[:length], (0, max(0, length - len(output))))
    images = []
    for wave in (reference, output):
        finite = np.clip(np.nan_to_num(wave), -1, 1).astype(np.float32)
        pixels = spectrogram_pixels(resample(finite[None], rate, RATE)[0], PAIR_COLUMNS)
        images.append(palette()[pixels].repeat(PAIR_ZOOM, axis=0).repeat(PAIR_ZOOM, axis=1))
    gap = np.full((PAIR_GAP, *images[0].shape[1:]), 255, np.uint8)
    return np.concatenate([images[0], gap, images[1]])


def png_bytes(pixels: Bytes, colors: Bytes) -> bytes:
    """Write an image with a palette as a PNG file.

    Args:
        pixels: ``(height, width)``, indices into the palette, the top row first.
        colors: the palette, ``(P, 3)``, red, green and blue, with P up to 256.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    height, width = pixels.shape
    bit_depth, color_type = 8, 3  # one byte per pixel, an index into the palette
    rows = np.pad(pixels, ((0, 0), (1, 0)))  # each row starts with its filter: 0, none
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)),
            chunk(b"PLTE", colors.tobytes()),
            chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)),
            chunk(b"IEND", b""),
        )
    )
