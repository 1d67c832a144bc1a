"""`codectool plot`: learning curves of training runs as one picture."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from codectool.cli.console import note
from codectool.cli.options import PIPE, check_output, check_png, debug_option, write_output
from codectool.errors import UsageError

PICTURE_NAME = "curves.png"


def _below_one(_ctx: click.Context, _param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and 0 <= value < 1):
        raise click.BadParameter(f"{value} is not from 0 to below 1")
    return value


@click.command()
@click.argument(
    "folders", metavar="RUN_DIR...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PNG",
    help=f"The picture; default {PICTURE_NAME} in RUN_DIR, which is replaced.",
)
@click.option(
    "--metric", "wanted", multiple=True, metavar="NAME", help="Only this figure; may be repeated."
)
@click.option(
    "--smooth",
    type=float,
    callback=_below_one,
    metavar="W",
    help="Weight of the past in the strong curves of training; default by the number of points.",
)
@click.option("--log-x", is_flag=True, help="Steps on a logarithmic axis.")
@click.option("--json", "as_json", is_flag=True, help="Print figures, a line per run; no picture.")
@click.option("--overwrite", is_flag=True, help="Replace the file named with -o if it exists.")
@debug_option
def plot(
    folders: tuple[Path, ...],
    output: Path | None,
    wanted: tuple[str, ...],
    smooth: float | None,
    log_x: bool,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Draw what RUN_DIR/metrics.jsonl tells: losses, learning rate, validation.

    Several runs are drawn over each other. A run may still be going on.

    \b
    Examples:
      codectool plot runs/hac
      codectool plot runs/hac runs/hac-large -o compare.png --metric mel_db --metric stoi
      codectool plot runs/hac --json | jq '.figures["valid/mel_db"].best'
    """
    from codectool.training.curves import choose, read_runs, summary

    if not as_json:
        output, overwrite = _target(folders, output, overwrite)
    runs = read_runs(folders)
    names = choose(runs, wanted)
    if as_json:
        for run in runs:
            click.echo(json.dumps(summary(run, names)))
        return
    assert output is not None

    from codectool.training.plot import draw

    write_output(output, memoryview(draw(runs, names, smooth, log_x)), overwrite)
    if output != PIPE:
        last = max(run.last_step for run in runs)
        note(f"{output}: {len(names)} figures up to step {last}")


def _target(folders: tuple[Path, ...], output: Path | None, overwrite: bool) -> tuple[Path, bool]:
    """Where the picture goes, and whether a file there may be replaced.

    Raises:
        UsageError: it cannot be written, is no PNG, or is not named for several runs.
    """
    if output is None:
        if len(folders) > 1:
            raise UsageError("several runs: name the picture with `-o PNG`")
        output, overwrite = folders[0] / PICTURE_NAME, True
    if output != PIPE:
        check_png(output)
    check_output(output, PIPE, overwrite)
    return output, overwrite
