"""Mel distance and log-spectral distance."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from codectool.audio.mel import RATE, amplitude_to_db, log_mel, stft_magnitudes
from codectool.evaluation.metrics.base import Metric, MetricInfo, Values, Wave

MEL_SCALES = ((256, 20), (512, 40), (1024, 80), (2048, 128))  # window in samples, mel bands
WINDOW, HOP = 2048, 512  # of the log-spectral distance, in samples; the window is 85 ms


class MelDistance(Metric):
    """Mean absolute difference of log-mel spectrograms at four resolutions."""

    rate = RATE
    outputs = (
        MetricInfo(
            name="mel_db",
            title="mel distance",
            unit="dB",
            better="lower",
            digits=2,
            range=(0.0, None),
            about="Mean absolute difference of log-mel spectrograms at 24 kHz, over four window "
            "lengths from 256 to 2048 samples, floor -80 dB.",
        ),
    )

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        return {"mel_db": mel_distance(reference, degraded)}


def mel_distance(reference: Wave, degraded: Wave, rate: int = RATE) -> float:
    """Return the mel distance in dB of signals ``(N,)`` at a rate in Hz.

    The windows have the same duration at any rate.
    """
    differences = []
    for length, bands in MEL_SCALES:
        window = 2 * round(length * rate / RATE / 2)
        before, after = (log_mel(wave, window, bands, rate=rate) for wave in (reference, degraded))
        differences.append(np.mean(np.abs(after - before)))
    return float(np.mean(differences))


class LogSpectralDistance(Metric):
    """Root mean square difference of log spectra, averaged over frames.

    Gray and Markel, "Distance measures for speech processing", 1976, computed on the spectra of the
    signals instead of their linear predictors. A floor of -80 dB keeps pauses from dominating.
    """

    rate = RATE
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
