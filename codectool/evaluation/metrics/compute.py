"""Compute metrics for one pair of clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from codectool.evaluation.metrics.base import Metric, MetricUndefinedError, Values, Wave
from codectool.evaluation.signals import Signal, advance


def compute_metrics(
    reference: Signal,
    degraded: Signal,
    metrics: Sequence[type[Metric]],
    delay_seconds: float = 0.0,
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Compute metrics for one pair of clips at any sampling rates.

    Both signals are resampled to the rate of each metric. The degraded signal is advanced by the
    delay and cut or zero-padded to the length of the reference.

    Args:
        reference: the original.
        degraded: the coded signal.
        metrics: metrics to compute; see `registry.select_metrics`.
        delay_seconds: how late the degraded signal is.

    Returns:
        A value by name for each output, None where it is undefined or the metric failed; and the
        reason by name for each None.
    """
    values: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    for metric in metrics:
        before = reference.at(metric.rate)
        after = advance(degraded.at(metric.rate), round(delay_seconds * metric.rate), len(before))
        computed, note = _compute(metric, before, after)
        for info in metric.outputs:
            value = computed.get(info.name)
            finite = value is not None and math.isfinite(value)
            values[info.name] = value if finite else None
            if not finite:
                notes[info.name] = note or "no finite value"
    return values, notes


def _compute(metric: type[Metric], before: Wave, after: Wave) -> tuple[Values, str]:
    try:
        return _instance(metric).compute(before, after), ""
    except MetricUndefinedError as error:
        return {}, str(error)
    except Exception as error:  # third-party code on input that it was not written for
        return {}, f"unexpected {type(error).__name__}: {error}".splitlines()[0]


@cache
def _instance(metric: type[Metric]) -> Metric:
    """Create a metric once per process: some load a model."""
    return metric()
