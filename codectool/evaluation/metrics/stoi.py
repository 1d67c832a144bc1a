"""STOI and extended STOI: short-time objective intelligibility."""

from __future__ import annotations

import math
import warnings

import numpy as np
from typing_extensions import override

from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave
from codectool.evaluation.metrics.support import require_sound

MIN_SECONDS = 0.4  # one segment: 30 frames of 256 samples at 10 kHz with half overlap


class Stoi(Metric):
    """STOI and ESTOI as computed by the package `pystoi`, which resamples to 10 kHz.

    Undefined if less than 0.4 s of the reference are within 40 dB of its loudest frame.
    """

    rate = 16000
    packages = ("pystoi",)
    outputs = (
        MetricInfo(
            name="stoi",
            title="STOI",
            unit="",
            better="higher",
            digits=3,
            range=(-1.0, 1.0),
            about="Short-time objective intelligibility (Taal et al. 2011): correlation of the "
            "envelopes of third-octave bands up to 4.3 kHz.",
            needs_speech=True,
        ),
        MetricInfo(
            name="estoi",
            title="ESTOI",
            unit="",
            better="higher",
            digits=3,
            range=(-1.0, 1.0),
            about="Extended STOI (Jensen and Taal 2016): correlation of whole short-time spectra.",
            needs_speech=True,
        ),
    )

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        require_sound(reference, degraded)
        if len(reference) < MIN_SECONDS * self.rate:
            raise MetricUndefinedError(f"shorter than {MIN_SECONDS} s")
        pair = reference.astype(float), degraded.astype(float)
        return {
            "stoi": self.intelligibility(*pair, self.rate, extended=False),
            "estoi": self.intelligibility(*pair, self.rate, extended=True),
        }

    def intelligibility(
        self, reference: Wave, degraded: Wave, rate: int, *, extended: bool
    ) -> float:
        """Return STOI, or ESTOI if ``extended``, of signals ``(N,)`` at any rate."""
        import pystoi

        random = np.random.get_state()
        np.random.seed(0)  # pystoi adds noise below float64 precision, which matters for silence
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # pystoi returns a placeholder after this warning
                warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
                value = float(pystoi.stoi(reference, degraded, rate, extended=extended))
        except RuntimeWarning:
            raise MetricUndefinedError(f"less than {MIN_SECONDS} s of speech") from None
        finally:
            np.random.set_state(random)
        if not math.isfinite(value):
            raise MetricUndefinedError("STOI is not finite")
        return value
