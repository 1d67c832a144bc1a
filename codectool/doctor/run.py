"""Run all checks, each in a process of its own, so that none can stop the others.

A library that is built for another processor or another version of its dependencies may end the
process that imports it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import import_module

from codectool.doctor.finding import Finding, reason

TIMEOUT_SECONDS = 120
REINSTALL = "reinstall codectool and its packages in a new environment"
# Has the search path of this process, and so the same packages.
PROGRAM = """import sys; name, *sys.path[:] = sys.argv[1:]
from codectool.doctor.run import run_check; run_check(name)"""
# Function of a module in this package by name of the check, in the order of the report.
CHECKS = {
    "system": "machine:check_system",
    "packages": "packages:check_packages",
    "devices": "devices:check_devices",
    "audio": "audio:check_audio",
    "models": "models:check_models",
    "programs": "programs:check_programs",
}


def examine() -> list[Finding]:
    """Run all checks at the same time and return their findings in order."""
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        return [finding for findings in pool.map(_run_apart, CHECKS) for finding in findings]


def _run_apart(name: str) -> list[Finding]:
    """Run a check in a process of its own; a process that dies is a finding, too."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, name, *sys.path],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
        )
        output, errors, code = done.stdout, done.stderr, done.returncode
        failure = "" if code == 0 else f"ended with exit code {code}"
        if code < 0:
            failure = f"was ended by {signal.Signals(-code).name}"
    except subprocess.TimeoutExpired as error:
        output, errors = error.stdout or b"", error.stderr or b""
        failure = f"did not finish in {TIMEOUT_SECONDS} s"
    except OSError as error:
        output, errors, failure = b"", b"", f"cannot be run ({reason(error)})"
    findings = [Finding(**json.loads(line)) for line in output.splitlines() if line.endswith(b"}")]
    if failure:
        last = findings[-1].name if findings else "the start"
        text = errors.decode(errors="replace").strip().splitlines()
        why = f": {reason(RuntimeError(text[-1]))}" if text else ""
        findings.append(
            Finding(
                name,
                "check",
                f"{failure} after {last}{why}",
                "error",
                REINSTALL,
            )
        )
    return findings


def run_check(name: str) -> None:
    """Run a check and print each finding as a line of JSON."""
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # libraries may print
    module, _, function = CHECKS[name].partition(":")
    try:
        findings: Iterator[Finding] = getattr(
            import_module(f"codectool.doctor.{module}"), function
        )()
        for finding in findings:
            print(json.dumps(asdict(finding)), file=out, flush=True)
    except Exception as error:
        text = f"{type(error).__name__}: {reason(error)}"
        finding = Finding(name, "check", text, "error", REINSTALL)
        print(json.dumps(asdict(finding)), file=out, flush=True)
