"""Tasks of the worker processes: the work on one clip, and its results."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from codectool.audio.sink import audio_bytes
from codectool.evaluation import alignment
from codectool.evaluation.alignment import Correlation, correlate, find_delay
from codectool.evaluation.metrics.base import Metric
from codectool.evaluation.metrics.compute import compute_metrics
from codectool.evaluation.results import Score
from codectool.evaluation.signals import Signal, read_signal
from codectool.evaluation.systems.spec import SystemSpec
from codectool.evaluation.systems.system import CodecCost, System
from codectool.files import atomic_output

LENGTH_TOLERANCE_SECONDS = 0.25  # codecs pad their last frame


@dataclass(frozen=True)
class Task:
    """Work on one clip.

    Attributes:
        system: name of the system; empty if the task concerns only the reference.
        clip: name of the clip.
    """

    system: str
    clip: str


@dataclass(frozen=True)
class ProbeTask(Task):
    """Read a reference and measure its length."""

    path: Path


@dataclass(frozen=True)
class CodecTask(Task):
    """Encode and decode a clip.

    Attributes:
        spec: the system.
        source: file of the clip.
        target: file for the decoded audio.
    """

    spec: SystemSpec
    source: Path
    target: Path


@dataclass(frozen=True)
class PairTask(Task):
    """Compare two files.

    Attributes:
        reference: file of the original.
        degraded: file of the coded audio.
        metrics: metrics to compute.
        delay_seconds: delay of the coded audio; None to find it for this pair.
    """

    reference: Path
    degraded: Path
    metrics: tuple[type[Metric], ...] = ()
    delay_seconds: float | None = 0.0

    def read(self) -> tuple[Signal, Signal]:
        """Read both files."""
        return read_signal(self.reference), read_signal(self.degraded)


def probe(task: ProbeTask) -> float:
    """Return the length of a recording in seconds; raises what `read_signal` raises."""
    return read_signal(task.path).seconds


def run_codec(task: CodecTask) -> CodecCost:
    """Encode and decode a clip and write the result as 16-bit wav."""
    signal = read_signal(task.source)
    coded = _load(task.spec).code(signal.samples, signal.rate)
    task.target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(task.target, overwrite=True) as file:
        file.write(audio_bytes(coded.wave[None], coded.rate))
    return coded.cost


@lru_cache(maxsize=1)  # tasks arrive sorted by system
def _load(spec: SystemSpec) -> System:
    return spec.load()


def correlate_pair(task: PairTask) -> Correlation:
    """Correlate two files to find the delay."""
    reference, degraded = (signal.at(alignment.RATE) for signal in task.read())
    return correlate(reference, degraded)


def score_pair(task: PairTask) -> Score:
    """Compute the metrics of two files; the score does not contain the cost of coding."""
    reference, degraded = task.read()
    delay = task.delay_seconds
    if delay is None:
        pair = reference.at(alignment.RATE), degraded.at(alignment.RATE)
        delay = find_delay(*pair) / alignment.RATE
    values, notes = compute_metrics(reference, degraded, task.metrics, delay)
    longer = degraded.seconds - delay - reference.seconds
    if abs(longer) > LENGTH_TOLERANCE_SECONDS:
        word = "longer" if longer > 0 else "shorter"
        notes["length"] = f"is {abs(longer):.2f} s {word} than its reference"
    return Score(task.clip, task.degraded, values, notes, 1000 * delay)
