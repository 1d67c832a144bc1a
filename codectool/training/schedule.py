"""The learning rate over a run."""

from __future__ import annotations

import math

from codectool.training.config import Schedule


def rate_factor(schedule: Schedule, step: int, max_steps: int, progress: float) -> float:
    """Share of the optimizer's learning rate in a step.

    Args:
        schedule: what the config asks for.
        step: steps done so far.
        max_steps: length of the run.
        progress: done share of the run, which is ahead of ``step / max_steps`` where time is what
            ends it.
    """
    if step < schedule.warmup_steps:
        risen = math.pow(step / schedule.warmup_steps, schedule.warmup_power)
        return schedule.warmup_from + (1 - schedule.warmup_from) * risen
    if schedule.decay == "none":
        return 1.0
    if schedule.decay_steps is None:
        start = min(schedule.warmup_steps / max_steps, 0.99)
        done = (progress - start) / (1 - start)
    else:
        done = (step - schedule.warmup_steps) / schedule.decay_steps
    done = min(max(done, 0.0), 1.0)
    left = 1 - done if schedule.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
    return schedule.final + (1 - schedule.final) * left
