"""`codectool verify`: check .hcd files for damage."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from codectool.cli.console import EXIT_BAD_INPUT, Settings, printable, report_error
from codectool.cli.options import debug_option, files_argument, open_input
from codectool.errors import CodectoolError


@click.command()
@files_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line and file.")
@debug_option
@click.pass_obj
def verify(settings: Settings, sources: tuple[Path, ...], as_json: bool) -> None:
    """Check header, tags and all blocks of each FILE and list all damage. Needs no model.

    \b
    Examples:
      codectool verify out.hcd
      codectool verify --json archive/*.hcd | jq 'select(.ok | not)'
    """
    from tqdm import tqdm

    failed = False
    for source in tqdm(sources, unit="file", disable=None, leave=False):
        name = "<stdin>" if str(source) == "-" else str(source)
        problems, summary = check(source)
        failed |= bool(problems)
        if as_json:
            errors = [str(problem) for problem in problems]
            click.echo(json.dumps({"file": name, "ok": not problems, "errors": errors}))
            continue
        for problem in problems:
            report_error(problem, settings)
        if not problems:
            click.echo(f"{printable(name)}: ok, {summary}")
    if failed:
        sys.exit(EXIT_BAD_INPUT)


def check(source: Path) -> tuple[list[CodectoolError], str]:
    """Return all problems of a file, and a summary if there are none."""
    from codectool.container import Reader
    from codectool.errors import DamagedError

    problems: list[CodectoolError] = []
    try:
        with open_input(source) as (file, name):
            reader = Reader(file, name, damaged="keep")
            blocks = 0
            for block in reader.blocks():
                blocks += 1
                if block.error is not None:
                    problems.append(DamagedError(block.error))
            problems += reader.problems
    except CodectoolError as error:
        return [error], ""
    duration = (reader.num_samples or 0) / reader.header.sample_rate
    return problems, f"{blocks} {'block' if blocks == 1 else 'blocks'}, {duration:.3f} s"
