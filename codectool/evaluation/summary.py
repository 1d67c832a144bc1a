"""From scores of clips to one line per system."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from statistics import NormalDist

from codectool.evaluation.metrics.base import Metric
from codectool.evaluation.results import Clip, Mean, Score, SystemResult

CONFIDENCE = 0.95


def summarise(
    name: str,
    clips: Sequence[Clip],
    scores: Sequence[Score],
    metrics: Sequence[Metric],
    delay_ms: float | None,
) -> SystemResult:
    """Means with their intervals, rates and speed of one system.

    Rates and speeds are sums over sums: of all bits, or seconds of work, over all seconds of audio.
    """
    seconds = {clip.name: clip.seconds for clip in clips}
    means = {}
    for metric in metrics:
        known = [
            (value, score.clip)
            for score in scores
            if (value := score.values.get(metric.name)) is not None
        ]
        if known:
            means[metric.name] = mean_of(known, metric)

    def rate(attribute: str, factor: float = 1.0) -> float | None:
        pairs = [(getattr(score, attribute), seconds[score.clip]) for score in scores]
        known = [(value, length) for value, length in pairs if value is not None]
        total = sum(length for _, length in known)
        return factor * sum(value for value, _ in known) / total if total else None

    return SystemResult(
        name=name,
        scores=tuple(scores),
        means=means,
        delay_ms=delay_ms,
        kbps=rate("payload_bits", 0.001),
        kbps_file=rate("file_bytes", 0.008),
        rtf_encode=rate("encode_seconds"),
        rtf_decode=rate("decode_seconds"),
    )


def mean_of(known: Sequence[tuple[float, str]], metric: Metric) -> Mean:
    """Mean of ``(value, clip)`` pairs with its 95 % interval, Student's for so many clips."""
    values = [value for value, _ in known]
    worst, clip = (min if metric.better == "higher" else max)(known)
    mean = statistics.fmean(values)
    low = high = None
    if len(values) > 1:
        reach = student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
        low, high = mean - reach, mean + reach
    return Mean(mean, low, high, worst, clip, len(values))


def student_t(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Two-sided quantile of Student's t distribution.

    Exact for one and two degrees of freedom, from there on the expansion by powers of their
    inverse around the normal quantile (Abramowitz and Stegun 1964, 26.7.5), within 0.5 %.

    Examples:
        >>> f"{student_t(39):.3f}"
        '2.023'
    """
    p = (1 + confidence) / 2
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    if freedom == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    x = NormalDist().inv_cdf(p)
    terms = (
        x,
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))
