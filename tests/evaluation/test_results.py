"""Means, intervals and rates against values computed by hand and by scipy."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from codectool.evaluation.metrics.base import MetricInfo
from codectool.evaluation.metrics.speech_level import SpeechLevel
from codectool.evaluation.results import Clip, Score, mean_of, student_t, summarise

STOI = MetricInfo("stoi", "STOI", "", "higher", 3, (None, 1.0), "")
MEL = MetricInfo("mel_db", "mel distance", "dB", "lower", 2, (0.0, None), "")


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 10, 39, 1000])
def test_student_t_matches_scipy(freedom: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert student_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=5e-3)
    if freedom not in (3, 4):
        assert student_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)


def test_mean_of_has_confidence_interval_and_worst_clip() -> None:
    """1, 2, 3: standard deviation 1, two degrees of freedom, t = 4.3027 (any table)."""
    found = mean_of([(1.0, "a"), (2.0, "b"), (3.0, "c")], STOI)
    assert (found.mean, found.worst, found.worst_clip, found.clips) == (2.0, 1.0, "a", 3)
    assert found.low == pytest.approx(2 - 4.3027 / math.sqrt(3), abs=1e-4)
    assert found.high == pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-4)
    assert mean_of([(1.0, "a"), (2.0, "b")], MEL).worst_clip == "b"
    assert mean_of([(1.0, "a")], MEL).low is None


def test_summarise_divides_sums_by_sums() -> None:
    speech = SpeechLevel(-26.0, 1.0, 1.0)
    lengths = {"a": 1.0, "b": 3.0, "c": 9.0}
    clips = [Clip(name, Path(name), seconds, speech) for name, seconds in lengths.items()]
    scores = [
        Score("a", Path("a"), {"stoi": 0.5}, payload_bits=1000, file_bytes=200, encode_seconds=0.1),
        Score(
            "b", Path("b"), {"stoi": None}, payload_bits=7000, file_bytes=900, encode_seconds=0.3
        ),
        Score("c", problem="cannot be read"),
    ]
    found = summarise("x", clips, scores, [STOI, MEL], 5.0)
    assert found.kbps == pytest.approx(2.0)  # the third clip is not counted
    assert found.kbps_file == pytest.approx(2.2)
    assert found.rtf_encode == pytest.approx(0.1)
    assert found.rtf_decode is None
    assert found.means.keys() == {"stoi"}
    assert found.means["stoi"].clips == 1
