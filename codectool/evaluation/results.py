"""Results of an evaluation, from which tables, JSON, CSV and the report are written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from codectool.evaluation.metrics.base import MetricInfo
from codectool.evaluation.metrics.speech_level import SpeechLevel


class Problem(NamedTuple):
    """Reason, in one line, why a clip has no scores."""

    system: str  # empty if the reference itself cannot be used
    clip: str
    reason: str


@dataclass(frozen=True)
class Clip:
    """A recording that all systems are compared on."""

    name: str  # path relative to the folder of the references, with `/`
    path: Path
    seconds: float
    speech: SpeechLevel
    warnings: tuple[str, ...] = ()  # one sentence, with its path, for each fault of the file


@dataclass(frozen=True)
class Score:
    """Result of one clip in one system; what is unknown is None."""

    clip: str
    path: Path | None = None  # the coded audio
    # values by name of the metric, None where undefined
    values: Mapping[str, float | None] = field(default_factory=dict)
    # reasons by name of the metric; under `length` a remark if the lengths differ
    notes: Mapping[str, str] = field(default_factory=dict)
    delay_ms: float = 0.0  # of the coded audio, compensated before the comparison
    payload_bits: float | None = None  # this and the next three as in `CodecCost`
    file_bytes: int | None = None
    encode_seconds: float | None = None
    decode_seconds: float | None = None
    problem: str | None = None  # why there are no values, in one line
    warnings: tuple[str, ...] = ()  # as in `Clip`, of the coded audio


@dataclass(frozen=True)
class Mean:
    """Mean of one metric over the clips of a system that have a value."""

    mean: float
    low: float | None  # 95 % confidence interval of the mean; None for a single clip
    high: float | None
    worst: float
    worst_clip: str
    clips: int


@dataclass(frozen=True)
class SystemResult:
    """Results of all clips in one system; what is unknown is None."""

    name: str
    scores: tuple[Score, ...]  # one per clip of the evaluation, in the same order
    means: Mapping[str, Mean]  # by name of the metric, without metrics that have no value
    delay_ms: float | None  # None if each clip has its own
    kbps: float | None = None  # bit rate of the payload, in kbit/s
    kbps_file: float | None = None  # bit rate of whole files, in kbit/s
    rtf_encode: float | None = None  # processor time per second of audio
    rtf_decode: float | None = None
    version: str = ""  # of an external codec


@dataclass(frozen=True)
class Evaluation:
    """Results of all systems."""

    clips: tuple[Clip, ...]
    metrics: tuple[MetricInfo, ...]  # in the order of tables
    systems: tuple[SystemResult, ...]
    left_out: tuple[str, ...] = ()  # one line for each metric that could not be computed here
    problems: tuple[Problem, ...] = ()
    # values of the recordings themselves, of metrics without reference; None without such metrics
    originals: SystemResult | None = None

    @property
    def clips_without_speech(self) -> tuple[str, ...]:
        """Names of the clips that are left out of the means of metrics that need speech."""
        return tuple(clip.name for clip in self.clips if not clip.speech.is_speech)

    @property
    def columns(self) -> tuple[SystemResult, ...]:
        """The originals, if they have values, and all systems."""
        return self.systems if self.originals is None else (self.originals, *self.systems)

    def by_folder(self) -> dict[str, Evaluation]:
        """Return the evaluation of the clips in each folder, by its name.

        A folder is the first part of the name of a clip; it is ``.`` for clips in no folder.
        Problems and clips that could not be read are not repeated.
        """
        folders: dict[str, list[int]] = {}
        for number, clip in enumerate(self.clips):
            folder, separator, _ = clip.name.partition("/")
            folders.setdefault(folder if separator else ".", []).append(number)
        return {folder: self._only(folders[folder]) for folder in sorted(folders)}

    def _only(self, numbers: Sequence[int]) -> Evaluation:
        clips = tuple(self.clips[number] for number in numbers)

        def only(system: SystemResult) -> SystemResult:
            scores = [system.scores[number] for number in numbers]
            metrics = [metric for metric in self.metrics if metric.name in system.means]
            found = summarise(system.name, clips, scores, metrics, system.delay_ms)
            return replace(found, version=system.version)

        systems = tuple(map(only, self.systems))
        originals = self.originals and only(self.originals)
        return Evaluation(clips, self.metrics, systems, originals=originals)


def summarise(
    name: str,
    clips: Sequence[Clip],
    scores: Sequence[Score],
    metrics: Sequence[MetricInfo],
    delay_ms: float | None,
) -> SystemResult:
    """Compute means with confidence intervals, bit rates and speeds of one system.

    A bit rate or speed is the sum over clips (of bits or processor time) divided by the sum of
    their lengths.
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
    """Compute the mean of ``(value, clip)`` pairs with its 95 % interval by Student's t."""
    values = [value for value, _ in known]
    worst, clip = (min if metric.better == "higher" else max)(known)
    mean = statistics.fmean(values)
    low = high = None
    if len(values) > 1:
        margin = student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
        low, high = mean - margin, mean + margin
    return Mean(mean, low, high, worst, clip, len(values))


def student_t(freedom: int) -> float:
    """Return the two-sided 95 % quantile of Student's t distribution.

    Exact for one and two degrees of freedom; above, a series in powers of their inverse around the
    normal quantile (Abramowitz and Stegun 1964, 26.7.5), accurate to 0.5 %.

    Examples:
        >>> f"{student_t(39):.3f}"
        '2.023'
    """
    p = 0.975
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    if freedom == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    x = statistics.NormalDist().inv_cdf(p)
    terms = (
        x,
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))
