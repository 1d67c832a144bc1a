"""What the worker processes do, one clip at a time; everything here travels between processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Protocol

from codectool.audio.sink import audio_bytes
from codectool.evaluation import alignment
from codectool.evaluation.alignment import Correlation, best_delay, correlate
from codectool.evaluation.metrics.base import Metric, MetricUndefinedError, Values, Wave
from codectool.evaluation.signals import Signal, advance, read_signal
from codectool.evaluation.systems.spec import SystemChoice
from codectool.evaluation.systems.system import System
from codectool.files import atomic_output


def score_pair(
    reference: Signal, degraded: Signal, judges: Sequence[type[Metric]], delay_seconds: float = 0.0
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


def _judge(judge: type[Metric], before: Wave, after: Wave) -> tuple[Values, str]:
    try:
        return _instance(judge).compute(before, after), ""
    except MetricUndefinedError as error:
        return {}, str(error)
    except Exception as error:  # other people's code on material that it was not written for
        return {}, f"unexpected {type(error).__name__}: {error}".splitlines()[0]


@cache
def _instance(judge: type[Metric]) -> Metric:
    """One of each kind per process: some load a model."""
    return judge()


SAME_LENGTH_SECONDS = 0.25  # codecs fill up their last frame


class Named(Protocol):
    """What a task says of itself: the clip, and the name of the system if it is about one."""

    @property
    def clip(self) -> str:
        """Name of the clip."""

    @property
    def system(self) -> str:
        """Name of the system."""


@dataclass(frozen=True)
class Look:
    """A recording to be read."""

    clip: str
    path: Path
    system: str = ""


@dataclass(frozen=True)
class Coding:
    """A clip to be coded by a system.

    Attributes:
        choice: which system.
        clip: name of the clip.
        source: its file.
        target: where what comes back is written.
    """

    choice: SystemChoice
    clip: str
    source: Path
    target: Path

    @property
    def system(self) -> str:
        """Its name."""
        return self.choice.name


@dataclass(frozen=True)
class Cost:
    """What coding a clip took; see `codectool.evaluation.results.Score`."""

    payload_bits: float
    file_bytes: int
    encode_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class Pair:
    """Two files to be compared.

    Attributes:
        system: name of the system.
        clip: name of the clip.
        reference: file of the original.
        degraded: file of what came back.
        judges: who judges.
        delay_seconds: by how much it is late; None if that is to be found out for it alone.
    """

    system: str
    clip: str
    reference: Path
    degraded: Path
    judges: tuple[type[Metric], ...] = ()
    delay_seconds: float | None = 0.0


@dataclass(frozen=True)
class Judgement:
    """Measures of a pair; see `codectool.evaluation.results.Score`."""

    values: dict[str, float | None]
    notes: dict[str, str]
    delay_seconds: float


def seconds_of(task: Look) -> float:
    """Length of a recording, all of which can be read; raises what `read_signal` does."""
    return read_signal(task.path).seconds


def code(task: Coding) -> Cost:
    """Code a clip, and write what comes back as 16-bit wav."""
    signal = read_signal(task.source)
    coded = _opened(task.choice).code(signal.samples, signal.rate)
    task.target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(task.target, overwrite=True) as file:
        file.write(audio_bytes(coded.wave[None], coded.rate))
    return Cost(coded.payload_bits, coded.file_bytes, coded.encode_seconds, coded.decode_seconds)


@lru_cache(maxsize=1)
def _opened(choice: SystemChoice) -> System:
    """One system at a time: tasks come in their order."""
    return choice.open()


def correlation(task: Pair) -> Correlation:
    """How well both match when one is moved."""
    reference, degraded = read_signal(task.reference), read_signal(task.degraded)
    return correlate(reference.at(alignment.RATE), degraded.at(alignment.RATE))


def judge(task: Pair) -> Judgement:
    """Compare two files."""
    reference, degraded = read_signal(task.reference), read_signal(task.degraded)
    delay = task.delay_seconds
    if delay is None:
        found = correlate(reference.at(alignment.RATE), degraded.at(alignment.RATE))
        delay = best_delay(found) / alignment.RATE
    values, notes = score_pair(reference, degraded, task.judges, delay)
    longer = degraded.seconds - delay - reference.seconds
    if abs(longer) > SAME_LENGTH_SECONDS:
        word = "longer" if longer > 0 else "shorter"
        notes["length"] = f"is {abs(longer):.2f} s {word} than its reference"
    return Judgement(values, notes, delay)
