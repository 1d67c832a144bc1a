"""`codectool compare`: one recording against another, as a table and a figure."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codectool.cli.console import note, print_data, warn, working
from codectool.cli.options import (
    FILE,
    PIPE,
    asr_language_option,
    asr_model_option,
    check_figure,
    debug_option,
    metric_option,
    open_input,
    write_output,
)
from codectool.errors import UsageError, naming
from codectool.messages import printable, to_json

if TYPE_CHECKING:
    from codectool.evaluation.signals import Signal

LENGTH_TOLERANCE_SECONDS = 0.1  # longer than a frame of any codec


@click.command()
@click.argument("first", metavar="A", type=FILE)
@click.argument("second", metavar="B", type=FILE)
@click.option(
    "--picture",
    "figure",
    type=FILE,
    metavar="PNG",
    help="Figure to write: spectrograms of A and B and their difference.",
)
@metric_option
@asr_model_option
@asr_language_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--align/--no-align",
    default=True,
    help="Find and compensate the delay of B, up to 0.5 s.",
)
@click.option("-v", "--verbose", is_flag=True, help="Print a description of each metric.")
@click.option("--overwrite", is_flag=True, help="Replace the figure if it exists.")
@debug_option
def compare(
    first: Path,
    second: Path,
    figure: Path | None,
    metrics: tuple[str, ...],
    asr_model: str | None,
    asr_language: str | None,
    as_json: bool,
    align: bool,
    verbose: bool,
    overwrite: bool,
) -> None:
    """Compare a coded recording B with its original A.

    Formats and sampling rates may differ; channels are averaged. `-` is stdin.

    \b
    Examples:
      codectool compare talk.wav decoded.wav
      codectool compare talk.wav decoded.wav --picture difference.png
      codectool compare talk.wav decoded.wav --metric stoi --json | jq .metrics.stoi
      codectool decode talk.hcd - | codectool compare talk.wav -
    """
    from codectool.evaluation.alignment import RATE, find_delay
    from codectool.evaluation.metrics.base import MetricSettings
    from codectool.evaluation.metrics.compute import compute_metrics
    from codectool.evaluation.metrics.registry import select_metrics
    from codectool.evaluation.tables import as_text

    if first == second == PIPE:
        raise UsageError("A and B cannot both be stdin; give a file name for one of them")
    if figure is not None:
        check_figure(figure, (first, second), overwrite)
    settings = MetricSettings(asr_model, asr_language)
    selection = select_metrics(metrics, settings=settings)
    infos = selection.infos
    with working(f"comparing {second} with {first}"):
        reference, degraded = _read(first), _read(second)
        for text in (*selection.left_out, *reference.warnings, *degraded.warnings):
            warn(text)
        delay = find_delay(reference.at(RATE), degraded.at(RATE)) / RATE if align else 0.0
        # drawn first, so that a missing matplotlib is reported before the slow metrics
        image = _draw(reference, degraded, (first, second), delay) if figure else b""
        values, notes = compute_metrics(reference, degraded, selection.metrics, delay, settings)
    longer = degraded.seconds - delay - reference.seconds
    if abs(longer) >= LENGTH_TOLERANCE_SECONDS:
        word = "longer" if longer > 0 else "shorter"
        consequence = "the rest is ignored" if longer > 0 else "it is padded with silence"
        warn(f"{second} is {abs(longer):.2f} s {word} than {first}; {consequence}")
    if figure is not None:
        write_output(figure, memoryview(image), overwrite)
        note(f"{figure}: spectrograms and their difference")
    if as_json:
        result = {
            "reference": _properties(first, reference),
            "degraded": _properties(second, degraded),
            "delay_ms": 1000 * delay if align else None,
            "metrics": {info.name: values[info.name] for info in infos},
            "notes": {info.name: notes[info.name] for info in infos if info.name in notes},
            "left_out": selection.left_out,
        }
        print_data(to_json(result))
        return
    head = [
        [kind, f"{printable(str(path))}, {signal.seconds:.3f} s at {signal.rate} Hz"]
        for kind, path, signal in (("reference", first, reference), ("compared", second, degraded))
    ]
    head.append(["delay", _delay(delay) if align else "not measured"])
    rows = [["metric", "value", "unit", "better", ""]]
    for info in infos:
        value = values[info.name]
        text = "-" if value is None else f"{value:.{info.digits}f}"
        reason = f"no value: {printable(notes[info.name])}" if value is None else ""
        rows.append([info.title, text, info.unit, info.better, reason])
    print_data(as_text(head, str.ljust) + "\n\n" + as_text(rows, str.ljust))
    if verbose:
        print_data("\n" + "\n".join(f"{info.title}: {info.about}" for info in infos))


def _read(path: Path) -> Signal:
    from codectool.evaluation.signals import read_signal

    if path == PIPE:
        with open_input(path) as (file, name):
            return read_signal(io.BytesIO(file.read()), name)
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; use `codectool evaluate` to compare folders")
    with naming(str(path)):
        return read_signal(path)


def _draw(reference: Signal, degraded: Signal, paths: tuple[Path, Path], delay: float) -> bytes:
    from codectool.audio.mel import RATE
    from codectool.evaluation.pair_figure import draw_pair
    from codectool.evaluation.signals import advance

    before, after = reference.at(RATE), degraded.at(RATE)
    samples = round(delay * RATE)
    aligned = advance(after, samples, max(0, len(after) - samples))
    title = f"b minus a; b was {_delay(delay)}" if samples else "b minus a"
    first, second = (printable(str(path)) for path in paths)
    return draw_pair(before, aligned, (first, second), title)


def _delay(seconds: float) -> str:
    if seconds == 0:
        return "none"
    return f"{abs(1000 * seconds):.2f} ms {'late' if seconds > 0 else 'early'} (compensated)"


def _properties(path: Path, signal: Signal) -> dict[str, Any]:
    return {
        "file": str(path),
        "seconds": signal.seconds,
        "num_samples": len(signal.samples),
        "sample_rate": signal.rate,
    }
