"""Properties of every metric: identity, monotonicity, and degenerate input."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from metric_clips import sine, speech, with_noise

from codectool.evaluation.metrics.base import (
    NO_SETTINGS,
    Metric,
    MetricInfo,
    MetricUndefinedError,
    Wave,
)
from codectool.evaluation.metrics.registry import METRICS, unusable

IDENTITY = {
    "pesq_wb": 4.644,
    "pesq_nb": 4.549,
    "stoi": 1.0,
    "estoi": 1.0,
    "visqol": 4.531,
    "visqol_poly": 5.0,
    "warpq": 0.387,
    "mel_db": 0.0,
    "lsd_db": 0.0,
    "si_sdr_db": 120.0,
    "f0_cents": 0.0,
    "gpe": 0.0,
    "vde": 0.0,
    "per": 0.0,
    "speaker": 1.0,
    "buzz": 0.0,
}
# Noise changes voicing, but hardly the pitch of frames that are still voiced; it is not periodic.
NOT_MONOTONIC = ("f0_cents", "gpe", "buzz")
SLACK = {"visqol": 0.02}  # the network's values for bad clips are all close to 1.43


# `WordErrors` needs a model; see test_metric_words.py.
WITHOUT_SETTINGS = [metric for metric in METRICS if not metric.missing_setting(NO_SETTINGS)]


@pytest.fixture(scope="module", params=WITHOUT_SETTINGS, ids=lambda metric: metric.__name__)
def metric(request: pytest.FixtureRequest) -> Metric:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if problem := unusable(request.param):
            pytest.skip(problem)
        metric: Metric = request.param()
    return metric


@pytest.fixture(autouse=True)
def _quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


def check(info: MetricInfo, value: float) -> None:
    low, high = info.range
    assert type(value) is float
    assert math.isfinite(value)
    assert (-math.inf if low is None else low) <= value <= (math.inf if high is None else high)


def test_metric_of_identical_clips_is_best_and_worsens_with_noise(metric: Metric) -> None:
    reference = speech(metric.rate)
    table = [metric.compute(reference, reference)]
    table += [metric.compute(reference, with_noise(reference, level)) for level in (30, 20, 10, 0)]
    for info in metric.outputs:
        values = [row[info.name] for row in table]
        for value in values:
            check(info, value)
        if not info.needs_reference:  # see test_metric_listening.py
            continue
        assert values[0] == pytest.approx(IDENTITY[info.name], abs=2e-3), info.name
        if info.name not in NOT_MONOTONIC:
            worse = np.diff(values) * (1 if info.better == "lower" else -1)
            assert (worse > -SLACK.get(info.name, 0)).all(), (info.name, values)


DEGENERATE = {
    "silent reference": lambda n: (np.zeros(n), sine(200, n, 16000, 0.1)),
    "silent degraded": lambda n: (sine(200, n, 16000, 0.1), np.zeros(n)),
    "both silent": lambda n: (np.zeros(n), np.zeros(n)),
    "constant": lambda n: (np.full(n, 0.3), np.full(n, 0.3)),
    "constant degraded": lambda n: (sine(200, n, 16000, 0.1), np.full(n, 0.3)),
    "full scale": lambda n: (np.ones(n), -np.ones(n)),
    "one click": lambda n: (np.eye(1, n, n // 2)[0], np.eye(1, n, n // 2)[0]),
    "faint": lambda n: (sine(200, n, 16000, 1e-9), sine(210, n, 16000, 1e-9)),
    "beyond full scale": lambda n: (sine(200, n, 16000, 1.5), sine(210, n, 16000, 1.5)),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_metric_of_degenerate_clips_is_valid_or_undefined(metric: Metric, name: str) -> None:
    for seconds in (0, 0.01, 0.2, 0.4, 0.7, 2):  # 0: one sample
        pair = DEGENERATE[name](max(1, round(seconds * metric.rate)))
        compute_and_check(metric, *(wave.astype(np.float32) for wave in pair))


def test_metric_of_short_speech_is_valid_or_undefined(metric: Metric) -> None:
    for seconds in (0.25, 0.3, 0.41, 0.6, 0.639, 0.64, 0.65, 0.72, 1.0):
        wave = speech(metric.rate)[metric.rate :][: round(seconds * metric.rate)]
        compute_and_check(metric, wave, with_noise(wave, 20))


def compute_and_check(metric: Metric, reference: Wave, degraded: Wave) -> None:
    """Check the values, or the reason of `MetricUndefinedError`; the input must not change."""
    kept = reference.copy(), degraded.copy()
    values, reason = {}, ""
    try:
        values = metric.compute(reference, degraded)
    except MetricUndefinedError as error:
        reason = str(error)
    if values:
        assert list(values) == [info.name for info in metric.outputs]
        for info in metric.outputs:
            check(info, values[info.name])
    else:
        assert 5 < len(reason) < 80
    np.testing.assert_array_equal(kept, (reference, degraded))


def test_metrics_import_no_optional_package() -> None:
    heavy = "pesq pystoi scipy numba visqol webrtcvad parselmouth torch soxr ai_edge_litert"
    heavy += " distillmos speechmos onnxruntime librosa transformers resemblyzer pocketsphinx"
    code = (
        "import sys\n"
        "import codectool.evaluation.metrics.compute, codectool.evaluation.metrics.registry\n"
        f"print(*[name for name in {heavy.split()} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
