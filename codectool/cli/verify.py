"""`codectool verify`: check .hcd files for damage."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from codectool.cli.console import EXIT_BAD_INPUT, count, error_text, print_data, report_error
from codectool.cli.options import FILE, PIPE, STDIN, debug_option, open_input
from codectool.errors import CodectoolError, DamagedError
from codectool.messages import printable, to_json


@click.command()
@click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON per file.")
@debug_option
def verify(sources: tuple[Path, ...], as_json: bool) -> None:
    """Check each FILE for damage: header, tags and all blocks. Needs no model.

    \b
    Examples:
      codectool verify out.hcd
      codectool verify --json archive/*.hcd | jq 'select(.ok | not)'
    """
    from tqdm import tqdm

    failed = False
    for source in tqdm(sources, unit="file", disable=None, leave=False):
        name = STDIN if source == PIPE else str(source)
        problems, summary = _check(source)
        failed |= bool(problems)
        if as_json:
            errors = [error_text(problem) for problem in problems]
            print_data(to_json({"file": name, "ok": not problems, "errors": errors}))
            continue
        for problem in problems:
            report_error(problem)
        if not problems:
            print_data(f"{printable(name)}: ok, {summary}")
    if failed:
        sys.exit(EXIT_BAD_INPUT)


def _check(source: Path) -> tuple[list[Exception], str]:
    """Return all problems of a file, and a summary if there are none."""
    from codectool.container import Reader

    problems: list[Exception] = []
    try:
        with open_input(source) as (file, name):
            reader = Reader(file, name, damaged="keep")
            blocks = 0
            for block in reader.blocks():
                blocks += 1
                if block.error is not None:
                    problems.append(DamagedError(block.error))
            problems += reader.problems
    except (CodectoolError, OSError) as error:
        return [error], ""
    seconds = (reader.num_samples or 0) / reader.header.sample_rate
    return problems, f"{count(blocks, 'block')}, {seconds:.3f} s"
