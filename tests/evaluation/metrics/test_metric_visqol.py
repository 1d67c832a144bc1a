"""ViSQOL's two mappings against the values of google/visqol."""

from __future__ import annotations

import numpy as np
import pytest
from metric_clips import speech, with_noise

from codectool.evaluation.metrics.base import MetricUndefinedError
from codectool.evaluation.metrics.visqol import Visqol, VisqolPolynomial, similarity_to_mos

pytest.importorskip("visqol", reason="package visqol-python is not installed")


def test_visqol_of_identical_clips_is_five() -> None:
    """`kPerfectScore` of tests/visqol_api_test.cc, within its tolerance."""
    wave = speech(16000)
    assert VisqolPolynomial().compute(wave, wave)["visqol_poly"] == pytest.approx(5.0, abs=1e-4)


def test_similarity_to_mos_matches_google_visqol() -> None:
    """The fit of src/speech_similarity_to_quality_mapper.cc, clipped to 1..5."""
    from visqol.quality_mapper import SpeechSimilarityToQualityMapper

    for similarity in np.linspace(0, 1, 11):
        expected = SpeechSimilarityToQualityMapper().predict_quality(np.full(21, similarity))
        assert similarity_to_mos(similarity) == pytest.approx(expected, abs=1e-9)
    assert similarity_to_mos(0.1) == 1
    assert similarity_to_mos(1) == pytest.approx(5, abs=1e-4)


def test_visqol_mappings_agree_on_similarity() -> None:
    pytest.importorskip("ai_edge_litert", reason="package ai-edge-litert is not installed")
    wave = speech(16000)
    worse = with_noise(wave, 30)
    both, alone = Visqol().compute(wave, worse), VisqolPolynomial().compute(wave, worse)
    # one computed by `similarity_to_mos`, the other by the package
    assert both["visqol_poly"] == pytest.approx(alone["visqol_poly"], abs=1e-9)
    # The network gives lower values, by 1 to 2 points for noise (visqol-python's README).
    assert 0.5 < both["visqol_poly"] - both["visqol"] < 3


def test_visqol_lattice_is_within_published_bounds() -> None:
    """Above 3 for similarity 1, below 3 for noise: tests/tflite_quality_mapper_test.cc."""
    pytest.importorskip("ai_edge_litert", reason="package ai-edge-litert is not installed")
    wave, metric = speech(16000), Visqol()
    assert 3 < metric.compute(wave, wave)["visqol"] <= 5
    assert 1 <= metric.compute(wave, with_noise(wave, 0))["visqol"] < 3


def test_visqol_undefined_for_short_clips() -> None:
    wave = speech(16000)
    with pytest.raises(MetricUndefinedError, match=r"shorter than 0\.64 s"):
        VisqolPolynomial().compute(wave[20000:30000], wave[20000:30000])
