"""ViSQOL's two mappings, against what google/visqol says of them."""

from __future__ import annotations

import numpy as np
import pytest
from metric_clips import speech, with_noise

from codectool.evaluation.metrics.base import MetricUndefinedError
from codectool.evaluation.metrics.visqol import Visqol, VisqolPolynomial, opinion

pytest.importorskip("visqol", reason="the package visqol-python is not here")


def test_best_opinion() -> None:
    """`kPerfectScore` of tests/visqol_api_test.cc, within its tolerance."""
    wave = speech(16000)
    assert VisqolPolynomial().compute(wave, wave)["visqol_poly"] == pytest.approx(5.0, abs=1e-4)


def test_mapping() -> None:
    """The fit of src/speech_similarity_to_quality_mapper.cc, and where it leaves the scale."""
    from visqol.quality_mapper import SpeechSimilarityToQualityMapper

    for similarity in np.linspace(0, 1, 11):
        theirs = SpeechSimilarityToQualityMapper().predict_quality(np.full(21, similarity))
        assert opinion(similarity) == pytest.approx(theirs, abs=1e-9)
    assert opinion(0.1) == 1
    assert opinion(1) == pytest.approx(5, abs=1e-4)


def test_one_similarity_two_opinions() -> None:
    pytest.importorskip("ai_edge_litert", reason="the package ai-edge-litert is not here")
    wave = speech(16000)
    worse = with_noise(wave, 30)
    both, alone = Visqol().compute(wave, worse), VisqolPolynomial().compute(wave, worse)
    # `opinion` is ours, the other is the package's
    assert both["visqol_poly"] == pytest.approx(alone["visqol_poly"], abs=1e-9)
    # The network is the stricter one, by 1 to 2 points for noise (visqol-python's README).
    assert 0.5 < both["visqol_poly"] - both["visqol"] < 3


def test_bounds_of_the_network() -> None:
    """Above 3 for similarity 1, below 3 for noise: tests/tflite_quality_mapper_test.cc."""
    pytest.importorskip("ai_edge_litert", reason="the package ai-edge-litert is not here")
    wave, judge = speech(16000), Visqol()
    assert 3 < judge.compute(wave, wave)["visqol"] <= 5
    assert 1 <= judge.compute(wave, with_noise(wave, 0))["visqol"] < 3


def test_reasons() -> None:
    wave = speech(16000)
    with pytest.raises(MetricUndefinedError, match=r"shorter than 0\.64 s"):
        VisqolPolynomial().compute(wave[20000:30000], wave[20000:30000])
