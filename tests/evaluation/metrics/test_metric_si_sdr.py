"""SI-SDR against a published value and signals with a known ratio."""

from __future__ import annotations

import numpy as np
import pytest
from metric_clips import sine

from codectool.evaluation.metrics.base import MetricUndefinedError, Wave
from codectool.evaluation.metrics.si_sdr import SiSdr


def ratio(reference: Wave, degraded: Wave) -> float:
    return SiSdr().compute(reference, degraded)["si_sdr_db"]


def test_si_sdr_matches_torchmetrics_example() -> None:
    """Example of torchmetrics.audio.ScaleInvariantSignalNoiseRatio, which removes the mean."""
    reference = np.array([3.0, -0.5, 2.0, 7.0], np.float32)
    degraded = np.array([2.5, 0.0, 2.0, 8.0], np.float32)
    assert ratio(reference, degraded) == pytest.approx(15.0918, abs=5e-5)


def test_si_sdr_of_two_tones_is_their_level_difference() -> None:
    wave, other = sine(1000, 24000, 24000, 0.5), sine(2000, 24000, 24000, 0.05)
    for scale in (1.0, -3.0, 0.01):
        assert ratio(wave, scale * (wave + other) + 0.2) == pytest.approx(20, abs=0.01)


def test_si_sdr_is_limited_and_undefined_for_silence() -> None:
    wave, other = sine(1000, 24000, 24000, 0.5), sine(2000, 24000, 24000, 0.05)
    assert ratio(wave, wave) == pytest.approx(120, abs=1e-6)
    assert -120 <= ratio(wave, other) < -60
    with pytest.raises(MetricUndefinedError, match="the reference is silent"):
        ratio(np.full(10, 0.1, np.float32), wave[:10])
    with pytest.raises(MetricUndefinedError, match="the degraded clip is silent"):
        ratio(wave[:10], np.zeros(10, np.float32))
