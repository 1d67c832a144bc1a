"""Log-mel spectrograms of one clip, one system under the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.measures import RATE, Wave, hertz_to_mel, log_mel
from codectool.errors import UsageError

WINDOW, BANDS = 1024, 80
TICKS = (500, 1000, 2000, 4000, 8000)  # in Hz


def draw(path: Path, title: str, waves: dict[str, Wave]) -> None:
    """Draw the spectrogram of each wave, ``(N,)`` at 24 kHz, on one scale of -80 to -10 dB.

    Raises:
        UsageError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("a picture needs matplotlib; `pip install matplotlib`") from error
    figure = Figure(figsize=(10, 0.6 + 2 * len(waves)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(waves), sharex=True, squeeze=False)[:, 0]
    top = hertz_to_mel(RATE / 2)
    image = None
    for axis, (name, wave) in zip(axes, waves.items(), strict=True):
        image = axis.imshow(
            np.asarray(log_mel(wave, WINDOW, BANDS)).T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=-80,
            vmax=-10,
            extent=(0, len(wave) / RATE, 0, top),
        )
        axis.set_yticks([hertz_to_mel(tick) for tick in TICKS], [f"{t / 1000:g}" for t in TICKS])
        axis.set_ylabel("kHz")
        axis.set_title(name, loc="left", fontsize="medium")
    axes[-1].set_xlabel(f"seconds of {title}")
    if image is not None:
        figure.colorbar(image, ax=list(axes), label="dB; a sine at full scale is 0", shrink=0.6)
    figure.savefig(path, dpi=110)
