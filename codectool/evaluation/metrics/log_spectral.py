"""Log-spectral distance.

Letters used in shapes: N samples.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from codectool.audio.mel import amplitude_to_db, stft_magnitudes
from codectool.evaluation.metrics.base import Metric, MetricInfo, Values, Wave

WINDOW, HOP = 2048, 512  # samples: 85 ms, a quarter of it from frame to frame


class LogSpectralDistance(Metric):
    """Root mean square difference of log spectra, the mean over frames.

    Gray and Markel, "Distance measures for speech processing", 1976, with the spectra of the
    signals themselves in place of those of their linear predictors, and a floor: without one, the
    gaps between words would decide.
    """

    rate: ClassVar[int] = 24000
    metrics: ClassVar[tuple[MetricInfo, ...]] = (
        MetricInfo(
            name="lsd_db",
            title="LSD",
            unit="dB",
            better="lower",
            digits=2,
            range=(0.0, None),
            about="Log-spectral distance (Gray and Markel 1976): root mean square over the bins of "
            "the difference in dB, the mean over frames; at 24 kHz, Hann windows of 2048 samples, "
            "512 from frame to frame; what is below -80 dB counts as silence.",
        ),
    )

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        """There is a value for every pair; signals are filled up to one window at least."""
        before, after = (
            amplitude_to_db(stft_magnitudes(w, WINDOW, HOP)) for w in (reference, degraded)
        )
        return {"lsd_db": float(np.mean(np.sqrt(np.mean((after - before) ** 2, axis=1))))}
