"""What holds for every judge: identity, order, and pairs that no one could judge."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from metric_clips import sine, speech, with_noise

from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Wave
from codectool.evaluation.metrics.registry import METRICS

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
}
# Noise moves voicing, but hardly the pitch of what is still voiced.
UNORDERED = ("f0_cents", "gpe")
SLACK = {"visqol": 0.02}  # the network's values for what is bad lie close together, around 1.43


@pytest.fixture(scope="module", params=METRICS, ids=lambda judge: judge.__name__)
def judge(request: pytest.FixtureRequest) -> Metric:
    for package in request.param.packages:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip(package, reason=f"the package {package} is not here")
    return request.param()


@pytest.fixture(autouse=True)
def _quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


def check(metric: MetricInfo, value: float) -> None:
    low, high = metric.range
    assert type(value) is float
    assert math.isfinite(value)
    assert (-math.inf if low is None else low) <= value <= (math.inf if high is None else high)


def test_identity_and_order(judge: Metric) -> None:
    reference = speech(judge.rate)
    table = [judge.compute(reference, reference)]
    table += [judge.compute(reference, with_noise(reference, level)) for level in (30, 20, 10, 0)]
    for metric in judge.metrics:
        values = [row[metric.name] for row in table]
        assert values[0] == pytest.approx(IDENTITY[metric.name], abs=2e-3), metric.name
        for value in values:
            check(metric, value)
        if metric.name not in UNORDERED:
            worse = np.diff(values) * (1 if metric.better == "lower" else -1)
            assert (worse > -SLACK.get(metric.name, 0)).all(), (metric.name, values)


ODD = {
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


@pytest.mark.parametrize("name", ODD)
def test_odd_pairs(judge: Metric, name: str) -> None:
    for seconds in (0, 0.01, 0.2, 0.4, 0.7, 2):  # 0: one sample
        pair = ODD[name](max(1, round(seconds * judge.rate)))
        settle(judge, *(wave.astype(np.float32) for wave in pair))


def test_short_speech(judge: Metric) -> None:
    for seconds in (0.25, 0.3, 0.41, 0.6, 0.639, 0.64, 0.65, 0.72, 1.0):
        wave = speech(judge.rate)[judge.rate :][: round(seconds * judge.rate)]
        settle(judge, wave, with_noise(wave, 20))


def settle(judge: Metric, reference: Wave, degraded: Wave) -> None:
    kept = reference.copy(), degraded.copy()
    values, reason = {}, ""
    try:
        values = judge.compute(reference, degraded)
    except MetricUndefinedError as error:
        reason = str(error)
    if values:
        assert list(values) == [metric.name for metric in judge.metrics]
        for metric in judge.metrics:
            check(metric, values[metric.name])
    else:
        assert 5 < len(reason) < 80
    np.testing.assert_array_equal(kept, (reference, degraded))


def test_import_brings_in_nothing_heavy() -> None:
    heavy = "pesq pystoi scipy numba visqol webrtcvad parselmouth torch soxr ai_edge_litert"
    code = (
        "import sys, codectool.evaluation.metrics.registry\n"
        f"print(*[name for name in {heavy.split()} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
