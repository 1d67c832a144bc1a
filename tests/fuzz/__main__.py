"""Fuzz the readers of untrusted input with atheris: `make fuzz SECONDS=600`.

The time is divided among the targets. Findings and inputs that reach new code are kept in `.fuzz`,
so that the next run goes on from there. To run a finding again, give its file to a target:
`python -m tests.fuzz pickle --input .fuzz/findings/pickle-...`.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
from pathlib import Path

CORPUS = Path(__file__).parents[1] / "corpus"
TARGETS = ("container", "pickle", "checkpoint", "config", "audio", "filelist")
MAX_INPUT_BYTES = 1 << 15
TIMEOUT_S = 30  # a bound for hangs, also on a busy machine
MEMORY_MB = 2048
LOG_LINES = 30  # shown of a target that failed
MISSING = (
    "fuzzing needs atheris, which has wheels for CPython 3.11 to 3.13 on Linux: "
    "`pip install -e '.[fuzz]'`"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", nargs="*", help="all by default", choices=[*TARGETS, []])
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0, help="0: another one in each run")
    parser.add_argument("--results", type=Path, default=Path(".fuzz"), help="folder")
    parser.add_argument("--input", type=Path, help="run one input instead")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    targets = args.target or TARGETS
    if args.input is not None:
        from tests.fuzz.targets import TARGETS as functions

        for target in targets:
            functions[target](args.input.read_bytes())
        return 0
    try:
        import atheris  # noqa: F401
    except ImportError:
        print(MISSING, file=sys.stderr)
        return 1
    if args.in_this_process:
        fuzz(targets[0], args.seconds, args.seed, args.results)
        return 0
    seconds = max(1, args.seconds // len(targets))
    failed = [target for target in targets if not run(target, seconds, args.seed, args.results)]
    return 1 if failed else 0


def run(target: str, seconds: int, seed: int, results: Path) -> bool:
    """Fuzz a target in a process of its own, and print a line; return whether all was well."""
    results.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz", target, "--in-this-process"]
    command += ["--seconds", str(seconds), "--seed", str(seed), "--results", str(results)]
    log = results / f"{target}.log"
    with log.open("w") as file:
        code = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    text = log.read_text(errors="replace")
    executed = re.findall(r"number_of_executed_units: (\d+)", text) or re.findall(
        r"^#(\d+)", text, re.M
    )
    features = re.findall(r"cov: (\d+) ft: (\d+)", text) or [("0", "0")]
    print(
        f"{target}: {executed[-1] if executed else 0} inputs, {features[-1][0]} edges, "
        f"{features[-1][1]} features, " + ("no findings" if code == 0 else f"FAILED, see {log}")
    )
    if code != 0:
        print("\n".join(text.splitlines()[-LOG_LINES:]))
    return code == 0


def fuzz(target: str, seconds: int, seed: int, results: Path) -> None:
    """Fuzz a target until the time is over; does not return."""
    import atheris

    with atheris.instrument_imports(include=["codectool", "pickletools"]):
        from tests.fuzz.targets import TARGETS as functions

    grown, findings = results / "corpus" / target, results / "findings"
    for folder in (grown, findings):
        folder.mkdir(parents=True, exist_ok=True)

    def run_one(data: bytes) -> None:
        try:
            functions[target](data)
        except BaseException:  # libFuzzer does not always keep the input
            (findings / f"{target}-{hashlib.sha1(data).hexdigest()[:12]}").write_bytes(data)
            raise

    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={findings}/{target}-",
        "-print_final_stats=1",
        "-use_value_profile=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(grown), str(CORPUS / target)], run_one)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
