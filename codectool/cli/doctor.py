"""`codectool doctor`: check this installation and this machine."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from codectool._version import __version__
from codectool.cli.console import count, print_data, working
from codectool.cli.options import debug_option
from codectool.messages import printable, to_json

if TYPE_CHECKING:
    from codectool.doctor.finding import Finding

EXIT_BROKEN = 1
MARKS = {"ok": " ", "note": "-", "warning": "!", "error": "x"}
COLORS = {"warning": "yellow", "error": "red"}


@click.command()
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for a bug report. It names no folders."
)
@debug_option
def doctor(as_json: bool) -> None:
    """Check versions, devices, libraries, weights, disks and programs, and say what to repair.

    Marks: x broken, ! slow or limited, - optional and not installed. The exit code is 1 if anything
    is broken.

    \b
    Examples:
      codectool doctor
      codectool doctor --json > report.json
    """
    from codectool.doctor.run import examine

    with working("checking this installation"):
        findings = examine()
    if as_json:
        data = {"version": __version__, "findings": [asdict(finding) for finding in findings]}
        print_data(to_json(data, indent=1))
    else:
        _print(findings)
    if any(finding.state == "error" for finding in findings):
        sys.exit(EXIT_BROKEN)


def _print(findings: Sequence[Finding]) -> None:
    """Print findings in sections, each problem with its advice, and a summary."""
    colors = sys.stdout is not None and sys.stdout.isatty()
    width = max(len(printable(finding.name)) for finding in findings)
    for section, group in itertools.groupby(findings, key=lambda finding: finding.section):
        print_data(section)
        for finding in group:
            name, value = printable(finding.name), printable(finding.value)
            line = f"  {MARKS[finding.state]} {name:{width}}  {value}"
            if colors and finding.state in COLORS:
                line = click.style(line, fg=COLORS[finding.state])
            print_data(line)
            if finding.advice:
                print_data(f"    {'':{width}}  -> {printable(finding.advice)}")
    states = [finding.state for finding in findings]
    errors, warnings = states.count("error"), states.count("warning")
    print_data(
        f"\n{count(errors, 'error')}, {count(warnings, 'warning')}"
        if errors or warnings
        else "\nno problems"
    )
