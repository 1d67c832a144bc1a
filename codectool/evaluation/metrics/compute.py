"""Compute metrics for one pair of clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from codectool.evaluation.metrics.base import (
    NO_SETTINGS,
    Metric,
    MetricSettings,
    MetricUndefinedError,
    Values,
)
from codectool.evaluation.signals import Signal, advance

NO_SPEECH = "no speech in the reference"


def compute_metrics(
    reference: Signal,
    degraded: Signal,
    metrics: Sequence[type[Metric]],
    delay_seconds: float = 0.0,
    settings: MetricSettings = NO_SETTINGS,
    text: str | None = None,
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Compute metrics for one pair of clips at any sampling rates.

    Both signals are resampled to the rate of each metric. The degraded signal is advanced by the
    delay and cut or zero-padded to the length of the reference. Metrics of speech are undefined for
    a reference without speech (see `SpeechLevel.is_speech`): their values for noise say nothing
    about a codec, but would count in a mean as much as the others.

    Args:
        reference: the original.
        degraded: the coded signal.
        metrics: metrics to compute; see `registry.select_metrics`.
        delay_seconds: how late the degraded signal is.
        settings: settings of the metrics.
        text: what is said in the original, for metrics that take a text; empty if it is unknown,
            None to compare with the original.

    Returns:
        A value by name for each output, None where it is undefined or the metric failed; and the
        reason by name for each None.
    """
    values: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    for metric in metrics:
        before = reference.at(metric.rate)
        after = advance(degraded.at(metric.rate), round(delay_seconds * metric.rate), len(before))
        computed: Values = {}
        note = "no finite value"
        try:
            if any(info.needs_speech for info in metric.outputs) and not reference.speech.is_speech:
                raise MetricUndefinedError(NO_SPEECH)
            computed = _instance(metric, settings).compute_with_text(before, after, text)
        except MetricUndefinedError as error:
            note = str(error)
        except Exception as error:  # third-party code on input that it was not written for
            note = f"unexpected {type(error).__name__}: {error}".splitlines()[0]
        for info in metric.outputs:
            value = computed.get(info.name, math.nan)
            values[info.name] = value if math.isfinite(value) else None
            if not math.isfinite(value):
                notes[info.name] = note
    return values, notes


@cache
def _instance(metric: type[Metric], settings: MetricSettings) -> Metric:
    """Create a metric once per process: some load a model."""
    return metric.load(settings)
