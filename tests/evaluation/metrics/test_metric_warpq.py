"""WARP-Q against the authors' package."""

from __future__ import annotations

import numpy as np
import pytest
from metric_clips import speech

from codectool.evaluation.metrics import warpq
from codectool.evaluation.metrics.base import MetricUndefinedError, Wave
from codectool.evaluation.metrics.warpq import WarpQ

pytest.importorskip("webrtcvad", reason="package webrtcvad-wheels is not installed")

# Computed by `warpq` 1.5.2 with its defaults, both with numpy 1.26, librosa 0.9.2 and pyvad 0.2.0,
# and with numpy 2.4, librosa 0.11 and pyvad 0.1.3 (with `numpy.lib.pad` restored). They agree.
AUTHORS = {
    "espeak": {"same": 0.387, "noise 0.003": 1.223, "noise 0.03": 2.420, "soft": 0.414},
    "flite": {"same": 0.539, "noise 0.003": 1.548, "noise 0.03": 2.852, "soft": 0.555},
}
BACKWARDS = {"espeak": 2.661, "flite": 2.955}


def noisy(wave: Wave, level: float) -> Wave:
    noise = np.random.default_rng(0).normal(0, level, len(wave))
    return np.clip(wave + noise, -1, 1).astype(np.float32)


@pytest.mark.parametrize("name", AUTHORS)
def test_warpq_matches_authors_package(name: str) -> None:
    wave = speech(16000, name)
    clips = {
        "same": wave,
        "noise 0.003": noisy(wave, 0.003),
        "noise 0.03": noisy(wave, 0.03),
        "soft": wave * np.float32(0.3),
    }
    metric = WarpQ()
    found = {label: metric.compute(wave, clip)["warpq"] for label, clip in clips.items()}
    assert found == pytest.approx(AUTHORS[name], abs=2e-3)
    backwards = metric.compute(wave, np.ascontiguousarray(wave[::-1]))["warpq"]
    assert backwards == pytest.approx(BACKWARDS[name], abs=2e-3)


def test_warpq_tolerates_delay() -> None:
    wave = speech(16000)
    late = np.concatenate([np.zeros(6000, np.float32), wave])[: len(wave)]
    assert WarpQ().compute(wave, late)["warpq"] < 0.5


def test_patch_costs_match_step_by_step_search() -> None:
    random = np.random.default_rng(0)
    reference, degraded = random.normal(size=(40, 3)), random.normal(size=(150, 3))
    found = warpq.patch_costs(reference, degraded)
    assert len(found) == 2
    for start, value in zip((0, warpq.PATCH_HOP), found, strict=True):
        patch = degraded[start : start + warpq.PATCH]
        cost = np.linalg.norm(patch[:, None] - reference, axis=-1)
        total = np.full_like(cost, np.inf)
        total[0] = cost[0]
        for n in range(1, len(patch)):
            for m in range(len(reference)):
                steps = [total[n - 1, m]]
                if m >= 3:
                    steps += [total[n - 1, m - 3], total[n, m - 3]]
                total[n, m] = cost[n, m] + min(steps)
        assert value == pytest.approx(total[-1].min() / len(patch), rel=1e-12)


def test_warpq_splits_long_clips() -> None:
    clip = np.tile(speech(16000), 6)
    metric = WarpQ()
    whole = metric.compute(clip, noisy(clip, 0.003))["warpq"]
    assert whole == pytest.approx(1.223, abs=0.05)
    gap = clip.copy()
    gap[len(gap) // 2 :] = 0
    with pytest.raises(MetricUndefinedError, match=r"less than 0\.4 s of speech in the degraded"):
        metric.compute(clip, gap)
