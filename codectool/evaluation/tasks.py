"""Work on one clip, for the worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from codectool.audio.sink import audio_bytes
from codectool.evaluation.alignment import RATE, Correlation, correlate, find_delay
from codectool.evaluation.metrics.base import Metric, MetricSettings
from codectool.evaluation.metrics.compute import compute_metrics
from codectool.evaluation.results import Clip, Score
from codectool.evaluation.signals import read_signal
from codectool.evaluation.systems.spec import SystemSpec
from codectool.evaluation.systems.system import CodecCost, System
from codectool.files import atomic_output

# Difference in length that is not reported: codecs pad their last frame.
LENGTH_TOLERANCE_SECONDS = 0.25
LENGTH_TOLERANCE = 0.1  # relative to the reference, of short clips, but at least 0.1 s


def measure_clip(name: str, path: Path) -> Clip:
    """Read a recording and measure its length and its speech level."""
    signal = read_signal(path)
    return Clip(name, path, signal.seconds, signal.speech, signal.warnings)


def run_codec(spec: SystemSpec, source: Path, target: Path) -> CodecCost:
    """Encode and decode a clip and write the result as 16-bit WAV."""
    signal = read_signal(source)
    coded = _load(spec).code(signal.samples, signal.rate)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(target, overwrite=True) as file:
        file.write(audio_bytes(coded.wave[None], coded.rate))
    return coded.cost


@lru_cache(maxsize=1)  # calls arrive sorted by system
def _load(spec: SystemSpec) -> System:
    return spec.load()


def correlate_files(reference: Path, degraded: Path) -> Correlation:
    """Correlate two files to find the delay of the second."""
    return correlate(read_signal(reference).at(RATE), read_signal(degraded).at(RATE))


def score_files(
    clip: str,
    reference_file: Path,
    degraded_file: Path,
    metrics: Sequence[type[Metric]],
    settings: MetricSettings,
    text: str | None,
    delay_seconds: float | None,
) -> Score:
    """Compute the metrics of two files, after finding the delay if it is None.

    The score does not contain the cost of coding.
    """
    reference, degraded = read_signal(reference_file), read_signal(degraded_file)
    if delay_seconds is None:
        delay_seconds = find_delay(reference.at(RATE), degraded.at(RATE)) / RATE
    values, notes = compute_metrics(reference, degraded, metrics, delay_seconds, settings, text)
    longer = degraded.seconds - delay_seconds - reference.seconds
    tolerance = min(LENGTH_TOLERANCE_SECONDS, max(0.1, LENGTH_TOLERANCE * reference.seconds))
    if abs(longer) > tolerance:
        word = "longer" if longer > 0 else "shorter"
        notes["length"] = f"is {abs(longer):.2f} s {word} than its reference"
    delay_ms = 1000 * delay_seconds
    return Score(clip, degraded_file, values, notes, delay_ms, warnings=degraded.warnings)
