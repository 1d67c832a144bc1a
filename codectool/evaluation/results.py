"""What an evaluation found: plain values that tables, JSON, CSV and the page are made of."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist

from codectool.evaluation.metrics.base import MetricInfo


@dataclass(frozen=True)
class Clip:
    """A recording that all systems are compared on.

    Attributes:
        name: its path as seen from the folder of the references, with `/`.
        path: the file.
        seconds: its length.
    """

    name: str
    path: Path
    seconds: float


@dataclass(frozen=True)
class Score:
    """What became of one clip in one system.

    Attributes:
        clip: name of the clip.
        path: the audio that came back; None if there is none.
        values: by name of the metric; None where it cannot judge.
        notes: why it cannot, by name of the metric.
        delay_ms: by how much the audio was late, and was moved before it was compared.
        payload_bits: bits that the decoder needs; None if nobody knows.
        file_bytes: size of the coded file; None likewise.
        encode_seconds: processor time; None likewise.
        decode_seconds: processor time; None likewise.
        problem: why there is nothing to compare, in one line; None if there is.
    """

    clip: str
    path: Path | None = None
    values: Mapping[str, float | None] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    delay_ms: float = 0.0
    payload_bits: float | None = None
    file_bytes: int | None = None
    encode_seconds: float | None = None
    decode_seconds: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Mean:
    """One metric over all clips of a system.

    Attributes:
        mean: over the clips that have a value.
        low: lower end of the 95 % interval of the mean; None for a single clip.
        high: upper end of it; None likewise.
        worst: the worst value.
        worst_clip: name of its clip.
        clips: how many have a value.
    """

    mean: float
    low: float | None
    high: float | None
    worst: float
    worst_clip: str
    clips: int


@dataclass(frozen=True)
class SystemResult:
    """All clips through one system.

    Attributes:
        name: as given or asked for; no two are the same.
        scores: one per clip of the evaluation, in its order.
        means: by name of the metric; metrics without any value are left out.
        delay_ms: of the system; None where each clip has its own.
        kbps: kilobits per second of audio that carry it; None if nobody knows.
        kbps_file: likewise, of whole files.
        rtf_encode: seconds of processor time per second of audio; None if nobody knows.
        rtf_decode: likewise.
    """

    name: str
    scores: tuple[Score, ...]
    means: Mapping[str, Mean]
    delay_ms: float | None
    kbps: float | None = None
    kbps_file: float | None = None
    rtf_encode: float | None = None
    rtf_decode: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Everything that was found.

    Attributes:
        clips: what all systems were given.
        metrics: what was measured, in the order of tables.
        systems: what became of the clips.
        left_out: metrics that were not measured, and why: one line each.
        problems: (system, clip, reason) of every clip that has no scores; of a clip that is bad
            itself the system is empty.
    """

    clips: tuple[Clip, ...]
    metrics: tuple[MetricInfo, ...]
    systems: tuple[SystemResult, ...]
    left_out: tuple[str, ...] = ()
    problems: tuple[tuple[str, str, str], ...] = ()


CONFIDENCE = 0.95


def summarise(
    name: str,
    clips: Sequence[Clip],
    scores: Sequence[Score],
    metrics: Sequence[MetricInfo],
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


def mean_of(known: Sequence[tuple[float, str]], metric: MetricInfo) -> Mean:
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
