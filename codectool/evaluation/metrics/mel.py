"""Mel distance."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from typing_extensions import override

from codectool.audio.mel import RATE, log_mel
from codectool.evaluation.metrics.base import Metric, MetricInfo, Values, Wave

SCALES = ((256, 20), (512, 40), (1024, 80), (2048, 128))  # window in samples, mel bands


class MelDistance(Metric):
    """Mean absolute difference of log-mel spectrograms at four resolutions."""

    rate: ClassVar[int] = RATE
    outputs: ClassVar[tuple[MetricInfo, ...]] = (
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
        differences = [
            np.mean(np.abs(log_mel(degraded, *scale) - log_mel(reference, *scale)))
            for scale in SCALES
        ]
        return {"mel_db": float(np.mean(differences))}
