"""`codectool compare`: one recording against another, in numbers and as a picture."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codectool.cli.console import note, printable, warn, working
from codectool.cli.options import PIPE, check_picture, debug_option, write_output
from codectool.errors import UsageError

if TYPE_CHECKING:
    from codectool.evaluation.metrics.base import Metric, MetricInfo
    from codectool.evaluation.signals import Signal

TOLD_SECONDS = 0.1  # of difference in length, which is more than any codec's frame

Rows = Sequence[tuple[str, ...]]


@click.command()
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    metavar="PNG",
    help="Draw the spectrograms of A and B, and what B has more or less.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Only this measure; may be repeated. Default: all that are installed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--align/--no-align",
    default=True,
    show_default=True,
    help="Find out by how much B is late, up to half a second, and take it off.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say what each measure is.")
@click.option("--overwrite", is_flag=True, help="Replace the picture if it exists.")
@debug_option
def compare(
    first: Path,
    second: Path,
    picture: Path | None,
    metrics: tuple[str, ...],
    as_json: bool,
    align: bool,
    verbose: bool,
    overwrite: bool,
) -> None:
    """Tell how good B sounds, beside A, which is what it should sound like.

    Both may be of any format and rate; channels are averaged. `-` is standard input.

    \b
    Examples:
      codectool compare talk.wav decoded.wav
      codectool compare talk.wav decoded.wav --picture difference.png
      codectool compare talk.wav decoded.wav --metric stoi --json | jq .metrics.stoi
      codectool decode talk.hcd - | codectool compare talk.wav -
    """
    from codectool.evaluation.alignment import RATE, find_delay
    from codectool.evaluation.tasks import score_pair

    if first == second == PIPE:
        raise UsageError("standard input is one recording; give a file for the other one")
    if picture is not None:
        check_picture(picture, (first, second), overwrite)
    judges, measured, left_out = _choose(metrics)
    for line in left_out:
        warn(line)
    with working(f"comparing {second} with {first}"):
        reference, degraded = _read(first), _read(second)
        delay = find_delay(reference.at(RATE), degraded.at(RATE)) / RATE if align else 0.0
        # drawn before the slow work: without matplotlib there is no picture
        image = _draw(reference, degraded, (first, second), delay) if picture else b""
        values, notes = score_pair(reference, degraded, judges, delay)
    _tell_lengths(reference, degraded, (first, second), delay)
    if picture is not None:
        write_output(picture, memoryview(image), overwrite)
        note(f"{picture}: spectrograms of both, and their difference")
    if as_json:
        facts = {
            "reference": _facts(first, reference),
            "degraded": _facts(second, degraded),
            "delay_ms": 1000 * delay if align else None,
            "metrics": {metric.name: values[metric.name] for metric in measured},
            "notes": {m.name: notes[m.name] for m in measured if m.name in notes},
            "left_out": left_out,
        }
        click.echo(json.dumps(facts))
        return
    head = [
        ("reference", _length(first, reference)),
        ("compared", _length(second, degraded)),
        ("delay", _delay(delay) if align else "not looked for"),
    ]
    click.echo(_aligned(head) + "\n\n" + _aligned(_table(measured, values, notes)))
    if verbose:
        about = (f"{metric.title}: {metric.about}" for metric in measured)
        click.echo("\n" + "\n".join(about))


def _choose(names: Sequence[str]) -> tuple[list[type[Metric]], list[MetricInfo], list[str]]:
    """Judges, what is told of their figures, and a line for each measure that is left out.

    Raises:
        UsageError: a measure is unknown, or there is nobody to judge.
    """
    from codectool.evaluation.metrics.registry import available, choose

    judges, left_out = available(choose(names)) if names else available()
    if not judges:
        raise UsageError("; ".join(left_out))
    every = {metric.name: metric for judge in judges for metric in judge.metrics}
    measured = [metric for metric in every.values() if not names or metric.name in names]
    return judges, measured, left_out


def _read(path: Path) -> Signal:
    """Read a recording.

    Raises:
        UsageError: it is a folder.
        AudioError: it is no audio that can be compared.
    """
    from codectool.evaluation.signals import read_signal

    if path == PIPE:
        return read_signal(io.BytesIO(sys.stdin.buffer.read()), "standard input")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; `codectool evaluate` compares folders")
    return read_signal(path)


def _draw(reference: Signal, degraded: Signal, paths: tuple[Path, Path], delay: float) -> bytes:
    from codectool.audio.mel import RATE
    from codectool.evaluation.pair_figure import draw_pair
    from codectool.evaluation.signals import advance

    before, after = reference.at(RATE), degraded.at(RATE)
    samples = round(delay * RATE)
    moved = advance(after, samples, max(0, len(after) - samples))
    what = f"b minus a; b was {_delay(delay)}" if samples else "b minus a"
    first, second = (printable(str(path)) for path in paths)
    return draw_pair(before, moved, (first, second), what)


def _tell_lengths(
    reference: Signal, degraded: Signal, paths: tuple[Path, Path], delay: float
) -> None:
    """Say so if a part of one recording has no counterpart in the other."""
    more = degraded.seconds - delay - reference.seconds
    if abs(more) < TOLD_SECONDS:
        return
    what = "that part is left out" if more > 0 else "silence is taken for what is missing"
    longer = "longer" if more > 0 else "shorter"
    warn(f"{paths[1]} is {abs(more):.2f} s {longer} than {paths[0]}; {what}")


def _facts(path: Path, signal: Signal) -> dict[str, Any]:
    return {
        "file": str(path),
        "seconds": signal.seconds,
        "num_samples": len(signal.samples),
        "sample_rate": signal.rate,
    }


def _length(path: Path, signal: Signal) -> str:
    return f"{printable(str(path))}, {signal.seconds:.3f} s at {signal.rate} Hz"


def _delay(seconds: float) -> str:
    if seconds == 0:
        return "none"
    return f"{abs(1000 * seconds):.2f} ms {'late' if seconds > 0 else 'early'}, which is taken off"


def _table(
    metrics: Sequence[MetricInfo], values: Mapping[str, float | None], notes: Mapping[str, str]
) -> Rows:
    """A row per measure; where there is no value, why."""
    rows = [("measure", "value", "unit", "better", "")]
    for metric in metrics:
        value = values[metric.name]
        shown = "-" if value is None else f"{value:.{metric.digits}f}"
        why = "" if value is not None else f"no value: {printable(notes[metric.name])}"
        rows.append((metric.title, shown, metric.unit, metric.better, why))
    return rows


def _aligned(rows: Rows) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)
