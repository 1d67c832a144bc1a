"""Log-spectral distance."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from codectool.audio.mel import amplitude_to_db, stft_magnitudes
from codectool.evaluation.metrics.base import Metric, MetricInfo, Values, Wave

WINDOW, HOP = 2048, 512  # in samples; the window is 85 ms


class LogSpectralDistance(Metric):
    """Root mean square difference of log spectra, averaged over frames.

    Gray and Markel, "Distance measures for speech processing", 1976, computed on the spectra of the
    signals instead of their linear predictors. A floor of -80 dB keeps pauses from dominating.
    """

    rate = 24000
    outputs = (
        MetricInfo(
            name="lsd_db",
            title="LSD",
            unit="dB",
            better="lower",
            digits=2,
            range=(0.0, None),
            about="Log-spectral distance (Gray and Markel 1976): root mean square difference in dB "
            "over the bins, averaged over frames; at 24 kHz, Hann windows of 2048 samples, hop "
            "512, floor -80 dB.",
        ),
    )

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        before, after = (
            amplitude_to_db(stft_magnitudes(w, WINDOW, HOP)) for w in (reference, degraded)
        )
        return {"lsd_db": float(np.mean(np.sqrt(np.mean((after - before) ** 2, axis=1))))}
