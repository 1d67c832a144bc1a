"""SI-SDR, against a published number and where it is known."""

from __future__ import annotations

import numpy as np
import pytest
from metric_clips import sine

from codectool.evaluation.metrics.base import MetricUndefinedError, Wave
from codectool.evaluation.metrics.si_sdr import WaveformMatch


def ratio(reference: Wave, degraded: Wave) -> float:
    return WaveformMatch().compute(reference, degraded)["si_sdr_db"]


def test_example_of_torchmetrics() -> None:
    """The example of torchmetrics.audio.ScaleInvariantSignalNoiseRatio, which takes means off."""
    reference = np.array([3.0, -0.5, 2.0, 7.0], np.float32)
    degraded = np.array([2.5, 0.0, 2.0, 8.0], np.float32)
    assert ratio(reference, degraded) == pytest.approx(15.0918, abs=5e-5)


def test_of_a_tone_with_another_tone() -> None:
    wave, other = sine(1000, 24000, 24000, 0.5), sine(2000, 24000, 24000, 0.05)
    for scale in (1.0, -3.0, 0.01):
        assert ratio(wave, scale * (wave + other) + 0.2) == pytest.approx(20, abs=0.01)


def test_ends_of_the_scale() -> None:
    wave, other = sine(1000, 24000, 24000, 0.5), sine(2000, 24000, 24000, 0.05)
    assert ratio(wave, wave) == pytest.approx(120, abs=1e-6)
    assert -120 <= ratio(wave, other) < -60
    with pytest.raises(MetricUndefinedError, match="the reference is silent"):
        ratio(np.full(10, 0.1, np.float32), wave[:10])
    with pytest.raises(MetricUndefinedError, match="the degraded clip is silent"):
        ratio(wave[:10], np.zeros(10, np.float32))
