"""PESQ against published values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from metric_clips import sine, speech, with_noise

from codectool.evaluation.metrics.base import MetricUndefinedError
from codectool.evaluation.metrics.pesq import PesqNarrowband, PesqWideband

pytest.importorskip("pesq", reason="package pesq is not installed")


@pytest.mark.parametrize(("metric", "value"), [(PesqNarrowband, 2.2076), (PesqWideband, 1.7359)])
def test_pesq_matches_torchmetrics_example(
    metric: type[PesqNarrowband | PesqWideband], value: float
) -> None:
    """Example of torchmetrics.audio.PerceptualEvaluationSpeechQuality (v0.6 to v1.9)."""
    random = torch.Generator().manual_seed(1)
    degraded, reference = (torch.randn(8000, generator=random).numpy() for _ in range(2))
    found = metric().compute(reference, degraded)[metric.outputs[0].name]
    assert found == pytest.approx(value, abs=5e-5)


def test_pesq_maximum_follows_from_the_itu_mapping() -> None:
    """P.862.1 and P.862.2 map the best raw score, 4.5, by logistic functions."""
    for metric, slope, offset in ((PesqNarrowband, 1.4945, 4.6607), (PesqWideband, 1.3669, 3.8224)):
        best = 0.999 + 4 / (1 + np.exp(-slope * 4.5 + offset))
        wave = speech(metric.rate)
        name = metric.outputs[0].name
        assert metric().compute(wave, wave)[name] == pytest.approx(best, abs=1e-4)
        assert metric.outputs[0].range[1] == pytest.approx(best, abs=1e-3)


def test_pesq_of_long_clip_is_mean_over_parts() -> None:
    clip = np.tile(speech(16000), 5)
    worse = with_noise(clip, 25)
    metric = PesqWideband()
    halves = [
        metric.compute(*pair)["pesq_wb"]
        for pair in zip(np.array_split(clip, 2), np.array_split(worse, 2), strict=True)
    ]
    assert metric.compute(clip, worse)["pesq_wb"] == pytest.approx(np.mean(halves), abs=1e-6)
    worse[: len(worse) // 2 + 1] = 0
    with pytest.raises(MetricUndefinedError, match="the degraded clip is silent"):
        metric.compute(clip, worse)
    clip[: len(clip) // 2 + 1] = 0
    worse = with_noise(clip, 25)
    assert 1 < metric.compute(clip, worse)["pesq_wb"] < 4


def test_pesq_survives_more_than_50_utterances() -> None:
    burst = with_noise(sine(150, 4000, 16000, 0.3) ** 3, 20)
    wave = np.tile(np.concatenate([burst, np.zeros(4000, np.float32)]), 120)
    assert 1 < PesqWideband().compute(wave, with_noise(wave, 30))["pesq_wb"] < 4.65


def test_pesq_undefined_for_short_and_silent_clips() -> None:
    wave = speech(16000)
    metric = PesqWideband()
    with pytest.raises(MetricUndefinedError, match=r"shorter than 0\.25 s"):
        metric.compute(wave[20000:23900], wave[20000:23900])
    with pytest.raises(MetricUndefinedError, match="the reference is silent"):
        metric.compute(np.zeros_like(wave), wave)
