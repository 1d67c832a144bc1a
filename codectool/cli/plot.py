"""`codectool plot`: draw learning curves of training runs."""

from __future__ import annotations

import math
from pathlib import Path

import click

from codectool.cli.console import note, print_data
from codectool.cli.options import PIPE, check_output, check_png, debug_option, write_output
from codectool.errors import UsageError
from codectool.messages import to_json

FIGURE_NAME = "curves.png"


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
    show_default=f"RUN_DIR/{FIGURE_NAME}, which is replaced",
    help="Figure to write.",
)
@click.option(
    "--metric", "wanted", multiple=True, metavar="NAME", help="Draw only this metric. Repeatable."
)
@click.option(
    "--smooth",
    type=float,
    callback=_below_one,
    metavar="W",
    show_default="by the number of points",
    help="Smoothing of training curves, 0 to below 1.",
)
@click.option("--log-x", is_flag=True, help="Logarithmic axis of steps.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line per run; no figure.")
@click.option("--overwrite", is_flag=True, help="Replace the file given with -o if it exists.")
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
    """Draw learning curves from RUN_DIR/metrics.jsonl: losses, learning rate, validation.

    Several runs are drawn in the same figure. Runs may still be in progress.

    \b
    Examples:
      codectool plot runs/hac
      codectool plot runs/hac runs/hac-large -o compare.png --metric mel_db --metric stoi
      codectool plot runs/hac --json | jq '.figures["valid/mel_db"].best'
    """
    from codectool.training.curves import read_runs, select_metrics, summary

    if not as_json:
        output, overwrite = _target(folders, output, overwrite)
    runs = read_runs(folders)
    names = select_metrics(runs, wanted)
    if as_json:
        for run in runs:
            print_data(to_json(summary(run, names)))
        return
    assert output is not None

    from codectool.training.plot import draw

    write_output(output, memoryview(draw(runs, names, smooth, log_x)), overwrite)
    if output != PIPE:
        last = max(run.last_step for run in runs)
        note(f"{output}: {len(names)} metrics up to step {last}")


def _target(folders: tuple[Path, ...], output: Path | None, overwrite: bool) -> tuple[Path, bool]:
    """Return the path of the figure and whether an existing file may be replaced.

    Raises:
        UsageError: It cannot be written, is no PNG, or is not given for several runs.
    """
    if output is None:
        if len(folders) > 1:
            raise UsageError("for several runs, give the figure with `-o PNG`")
        output, overwrite = folders[0] / FIGURE_NAME, True
    if output != PIPE:
        check_png(output)
    check_output(output, PIPE, overwrite)
    return output, overwrite
