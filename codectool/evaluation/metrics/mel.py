"""Mel distance."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from codectool.audio.mel import RATE, log_mel
from codectool.evaluation.metrics.base import Metric, MetricInfo, Values, Wave

SCALES = ((256, 20), (512, 40), (1024, 80), (2048, 128))  # window in samples, mel bands


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
    for length, bands in SCALES:
        window = 2 * round(length * rate / RATE / 2)
        before, after = (log_mel(wave, window, bands, rate=rate) for wave in (reference, degraded))
        differences.append(np.mean(np.abs(after - before)))
    return float(np.mean(differences))
