"""One pair of clips before all judges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from codectool.evaluation.metrics.base import CannotJudgeError, Judge, Values, Wave
from codectool.evaluation.signals import Signal, advance


def score_pair(
    reference: Signal, degraded: Signal, judges: Sequence[type[Judge]], delay_seconds: float = 0.0
) -> tuple[dict[str, float | None], dict[str, str]]:
    """All measures of one clip.

    Each judge gets both signals at its own rate, ``degraded`` moved by the delay and cut, or filled
    up with zeros, to the length of ``reference``. A judge that breaks costs its own figures only.

    Args:
        reference: the original.
        degraded: what came back.
        judges: who judges.
        delay_seconds: by how much ``degraded`` is late.

    Returns:
        Values by name of the metric, None where there is none, and for those the reason.
    """
    values: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    for judge in judges:
        before = reference.at(judge.rate)
        after = advance(degraded.at(judge.rate), round(delay_seconds * judge.rate), len(before))
        found, note = _judge(judge, before, after)
        for metric in judge.metrics:
            value = found.get(metric.name)
            usable = value is not None and math.isfinite(value)
            values[metric.name] = value if usable else None
            if not usable:
                notes[metric.name] = note or "no finite value"
    return values, notes


def _judge(judge: type[Judge], before: Wave, after: Wave) -> tuple[Values, str]:
    try:
        return _opened(judge).judge(before, after), ""
    except CannotJudgeError as error:
        return {}, str(error)
    except Exception as error:  # other people's code on material that it was not written for
        return {}, f"unexpected {type(error).__name__}: {error}".splitlines()[0]


@cache
def _opened(judge: type[Judge]) -> Judge:
    """One of each kind per process: some load a model."""
    return judge()
