"""PESQ, against numbers that others publish."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from metric_clips import sine, speech, with_noise

from codectool.evaluation.metrics.base import MetricUndefinedError
from codectool.evaluation.metrics.pesq import PesqNarrow, PesqWide

pytest.importorskip("pesq", reason="the package pesq is not here")


@pytest.mark.parametrize(("judge", "value"), [(PesqNarrow, 2.2076), (PesqWide, 1.7359)])
def test_example_of_torchmetrics(judge: type[PesqNarrow | PesqWide], value: float) -> None:
    """The example of torchmetrics.audio.PerceptualEvaluationSpeechQuality (v0.6 to v1.9)."""
    random = torch.Generator().manual_seed(1)
    degraded, reference = (torch.randn(8000, generator=random).numpy() for _ in range(2))
    found = judge().compute(reference, degraded)[judge.metrics[0].name]
    assert found == pytest.approx(value, abs=5e-5)


def test_best_values_are_those_of_the_mappings() -> None:
    """P.862.1 and P.862.2 map the best raw score, 4.5, by logistic functions."""
    for judge, slope, offset in ((PesqNarrow, 1.4945, 4.6607), (PesqWide, 1.3669, 3.8224)):
        best = 0.999 + 4 / (1 + np.exp(-slope * 4.5 + offset))
        wave = speech(judge.rate)
        name = judge.metrics[0].name
        assert judge().compute(wave, wave)[name] == pytest.approx(best, abs=1e-4)
        assert judge.metrics[0].range[1] == pytest.approx(best, abs=1e-3)


def test_long_clips_are_judged_in_pieces() -> None:
    clip = np.tile(speech(16000), 5)
    worse = with_noise(clip, 25)
    judge = PesqWide()
    halves = [
        judge.compute(*pair)["pesq_wb"]
        for pair in zip(np.array_split(clip, 2), np.array_split(worse, 2), strict=True)
    ]
    assert judge.compute(clip, worse)["pesq_wb"] == pytest.approx(np.mean(halves), abs=1e-6)
    worse[: len(worse) // 2 + 1] = 0
    with pytest.raises(MetricUndefinedError, match="the degraded clip is silent"):
        judge.compute(clip, worse)
    clip[: len(clip) // 2 + 1] = 0
    worse = with_noise(clip, 25)
    assert 1 < judge.compute(clip, worse)["pesq_wb"] < 4


def test_more_utterances_than_the_code_of_the_itu_survives() -> None:
    burst = with_noise(sine(150, 4000, 16000, 0.3) ** 3, 20)
    wave = np.tile(np.concatenate([burst, np.zeros(4000, np.float32)]), 120)
    assert 1 < PesqWide().compute(wave, with_noise(wave, 30))["pesq_wb"] < 4.65


def test_reasons() -> None:
    wave = speech(16000)
    judge = PesqWide()
    with pytest.raises(MetricUndefinedError, match=r"shorter than 0\.25 s"):
        judge.compute(wave[20000:23900], wave[20000:23900])
    with pytest.raises(MetricUndefinedError, match="the reference is silent"):
        judge.compute(np.zeros_like(wave), wave)
