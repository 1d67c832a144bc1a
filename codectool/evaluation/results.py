"""What an evaluation found: plain values that tables, JSON, CSV and the page are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from codectool.evaluation.metrics.base import Metric


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
    metrics: tuple[Metric, ...]
    systems: tuple[SystemResult, ...]
    left_out: tuple[str, ...] = ()
    problems: tuple[tuple[str, str, str], ...] = ()
