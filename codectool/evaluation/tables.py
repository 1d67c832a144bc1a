"""Results of an evaluation as a table, JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from codectool.evaluation.metrics.base import MetricInfo
from codectool.evaluation.results import Evaluation, SystemResult
from codectool.messages import first_few, printable

NO_VALUE = "-"
ARROWS = {"higher": "↑", "lower": "↓"}
# attribute of a SystemResult, heading, decimals
COSTS = (
    ("kbps", "kbps of audio", 2),
    ("kbps_file", "kbps in files", 2),
    ("rtf_encode", "RTF encode", 3),
    ("rtf_decode", "RTF decode", 3),
    ("delay_ms", "delay, ms", 1),
)

Rows = Sequence[Sequence[str]]


def table(evaluation: Evaluation) -> Rows:
    """Make a table with a column per system and a row per metric.

    Cells show the mean, half of its 95 % interval and the worst clip. The best mean has a star. If
    a metric needs no reference, the first column is for the originals.
    """
    metrics = []
    for metric in evaluation.metrics:
        best = best_systems(evaluation, metric)
        cells = [_cell(system, metric, system.name in best) for system in evaluation.columns]
        if set(cells) != {NO_VALUE}:
            metrics.append([f"{metric.heading} {ARROWS[metric.better]}", *cells])
    costs = [
        [heading, *(_cost(getattr(system, name), digits) for system in evaluation.columns)]
        for name, heading, digits in COSTS
    ]
    versions = [system.version for system in evaluation.columns]
    return [
        ["", *(system.name for system in evaluation.columns)],
        *costs[:2],
        *metrics,
        *costs[2:],
        *([["version", *(version or NO_VALUE for version in versions)]] if any(versions) else []),
    ]


def best_systems(evaluation: Evaluation, metric: MetricInfo) -> set[str]:
    """Return the systems whose rounded mean is best; empty if only one system has a mean."""
    means = {
        system.name: round(system.means[metric.name].mean, metric.digits)
        for system in evaluation.systems
        if metric.name in system.means
    }
    if len(means) < 2:
        return set()
    best = (max if metric.better == "higher" else min)(means.values())
    return {name for name, mean in means.items() if mean == best}


def as_text(rows: Rows, align: Callable[[str, int], str] = str.rjust) -> str:
    """Format a table with aligned columns; the first column is aligned left."""
    rows = [[printable(cell) for cell in row] for row in rows]
    first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join([head.ljust(first), *map(align, cells, others)]) for head, *cells in rows)
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(rows: Rows) -> str:
    """Format a table as Markdown."""
    marked = [[printable(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = [marked[0], ["---", *("---:" for _ in marked[0][1:])], *marked[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def remarks(evaluation: Evaluation) -> Iterator[str]:
    """Yield one line per remark: faulty files, clips without values and why, and other lengths."""
    warnings = [text for clip in evaluation.clips for text in clip.warnings]
    warnings += [text for s in evaluation.systems for score in s.scores for text in score.warnings]
    yield from first_few(warnings, see="`--json`")
    speechless = evaluation.clips_without_speech
    left_out = [metric.title for metric in evaluation.metrics if metric.needs_speech]
    if speechless and left_out:
        have, are = ("has", "is") if len(speechless) == 1 else ("have", "are")
        counted = f"{len(speechless)} of {len(evaluation.clips)} clips {have} no speech and {are}"
        yield f"{counted} left out of {', '.join(left_out)}: {_listed(speechless)}"
    for system in evaluation.columns:
        scored = [score for score in system.scores if score.problem is None]
        # metrics that are undefined for the same clips for the same reasons share a line
        titles: dict[tuple[str, ...], list[str]] = {}
        for metric in evaluation.metrics:
            if metric.needs_reference and system is evaluation.originals:
                continue
            clips_without = tuple(
                f"{score.clip} ({score.notes.get(metric.name, 'no value')})"
                for score in scored
                if score.values.get(metric.name) is None
                and not (metric.needs_speech and score.clip in speechless)
            )
            titles.setdefault(clips_without, []).append(metric.title)
        for clips_without, names in titles.items():
            if clips_without:
                have = "has" if len(clips_without) == 1 else "have"
                counted = f"{len(clips_without)} of {len(scored)} clips {have} no"
                yield f"{system.name}: {counted} {', '.join(names)}: {_listed(clips_without)}"
        lengths = [f"{s.clip} {s.notes['length']}" for s in scored if "length" in s.notes]
        if lengths:
            yield f"{system.name}: {_listed(lengths)}"


def _listed(items: Sequence[str]) -> str:
    return ", ".join(first_few(items, see="`--json`"))


def to_json(evaluation: Evaluation, by_folder: bool = False) -> dict[str, Any]:
    """Convert all results to JSON values, with means of each folder if ``by_folder`` is true."""
    folders = {
        name: {
            "clips": len(only.clips),
            "originals": only.originals and _means_json(only.originals),
            "systems": [_means_json(system) for system in only.systems],
        }
        for name, only in (evaluation.by_folder() if by_folder else {}).items()
    }
    return {
        **({"folders": folders} if by_folder else {}),
        "clips": [
            {
                "name": clip.name,
                "seconds": clip.seconds,
                "speech_level_db": clip.speech.level_db,
                "speech_seconds": clip.speech.seconds,
                "warnings": clip.warnings,
            }
            for clip in evaluation.clips
        ],
        "clips_without_speech": list(evaluation.clips_without_speech),
        "metrics": [dataclasses.asdict(metric) for metric in evaluation.metrics],
        "originals": evaluation.originals and _system_json(evaluation.originals),
        "systems": [_system_json(system) for system in evaluation.systems],
        "left_out": list(evaluation.left_out),
        "problems": [
            {"system": system or None, "clip": clip, "reason": reason}
            for system, clip, reason in evaluation.problems
        ],
    }


def to_csv(evaluation: Evaluation) -> str:
    """Format all values as CSV with a line per clip and system, originals included."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [metric.name for metric in evaluation.metrics]
    costs = ["payload_bits", "file_bytes", "encode_seconds", "decode_seconds"]
    writer.writerow(["system", "clip", "seconds", *names, "delay_ms", *costs, "problem"])
    seconds = {clip.name: clip.seconds for clip in evaluation.clips}
    for system in evaluation.columns:
        for score in system.scores:
            values = [score.values.get(name) for name in names]
            cost = [getattr(score, name) for name in costs]
            row = [system.name, score.clip, seconds[score.clip], *values, score.delay_ms, *cost]
            writer.writerow([*row, score.problem])
    return file.getvalue()


def _cost(value: float | None, digits: int) -> str:
    # + 0.0 turns a rounded -0.0 into 0.0
    return NO_VALUE if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def _cell(system: SystemResult, metric: MetricInfo, best: bool) -> str:
    found = system.means.get(metric.name)
    if found is None:
        return NO_VALUE
    star = "*" if best else ""
    text = f"{star}{found.mean:.{metric.digits}f}"
    if found.low is not None:
        text += f" ±{found.mean - found.low:.{metric.digits}f}"
    return f"{text} ({found.worst:.{metric.digits}f})"


def _means_json(system: SystemResult) -> dict[str, Any]:
    values = dataclasses.asdict(system)
    del values["scores"]
    return values


def _system_json(system: SystemResult) -> dict[str, Any]:
    values = dataclasses.asdict(system)
    values["clips"] = values.pop("scores")
    for clip in values["clips"]:
        clip["path"] = clip["path"] and str(clip["path"])
    return values
