"""What the worker processes do, one clip at a time; everything here travels between processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from codectool.audio.sink import audio_bytes
from codectool.evaluation import alignment
from codectool.evaluation.alignment import Correlation, best_delay, correlate
from codectool.evaluation.metrics.base import Judge
from codectool.evaluation.scoring import score_pair
from codectool.evaluation.signals import read_signal
from codectool.evaluation.systems.choice import SystemChoice
from codectool.evaluation.systems.system import System
from codectool.files import atomic_output

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
    judges: tuple[type[Judge], ...] = ()
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
