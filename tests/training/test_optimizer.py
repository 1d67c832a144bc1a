"""Learning rate schedules at chosen steps."""

from __future__ import annotations

import math

import pytest

from codectool.training.config import load
from codectool.training.optimizer import ScheduleConfig

BIGCODEC_STEPS = 600_000


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1e-5),
        (500, 1e-5 + 9e-5 * 0.25),  # the warm-up is quadratic
        (1_000, 1e-4),
        (251_000, 5.5e-5),
        (501_000, 1e-5),
        (599_999, 1e-5),
    ],
)
def test_bigcodec_learning_rate_matches_paper(step: int, rate: float) -> None:
    training = load("bigcodec").training
    factor = training.schedule.factor(step, BIGCODEC_STEPS, step / BIGCODEC_STEPS)
    assert factor * training.generator.learning_rate == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize("step", [0, 1, 777, 5_000, 9_999])
def test_supercodec_schedule_matches_paper(step: int) -> None:
    schedule = load("supercodec").training.schedule
    expected = 0.1 + 0.9 * (1 + math.cos(math.pi * step / 10_000)) / 2
    assert schedule.factor(step, 10_000, step / 10_000) == pytest.approx(expected)


def test_cosine_starts_after_warm_up_and_follows_progress() -> None:
    schedule = ScheduleConfig(decay="cosine", final=0.02, warmup_steps=100)
    assert schedule.factor(50, 1_000, 0.05) == pytest.approx(0.5)
    assert schedule.factor(100, 1_000, 0.1) == pytest.approx(1.0)
    assert schedule.factor(550, 1_000, 0.55) == pytest.approx(0.51)
    assert schedule.factor(200, 1_000, 1.0) == pytest.approx(0.02)


def test_schedule_without_decay_is_constant() -> None:
    assert ScheduleConfig(decay="none").factor(900, 1_000, 0.9) == 1.0
