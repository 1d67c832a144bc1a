"""Compare the two readers of `.hcd` files on many mutants: `make fuzz-container MUTANTS=1000000`.

Results are kept by block of mutants, so that a run that was stopped continues where it was. Mutant
number n of a seed is always the same file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.mutants import compare, mutant

BLOCK = 1000


def run_block(task: tuple[int, int, int]) -> dict[str, Any]:
    """Compare the readers on a block of mutants; findings are mutants on which they disagree."""
    seed, block, count = task
    outcomes: Counter[str] = Counter()
    findings = []
    for index in range(block * BLOCK, block * BLOCK + count):
        data = mutant(seed, index)
        try:
            outcomes[compare(data, through_pipe=index % 2 == 1)] += 1
        except Exception:
            findings.append({"index": index, "data": data.hex(), "error": traceback.format_exc()})
    return {"block": block, "count": count, **outcomes, "findings": findings}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=Path(".fuzz"), help="folder")
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / f"mutants-{args.seed}.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    results = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be cut
    done = {(result["block"], result["count"]) for result in results}
    sizes = [min(BLOCK, args.mutants - start) for start in range(0, args.mutants, BLOCK)]
    tasks = [(args.seed, n, size) for n, size in enumerate(sizes) if (n, size) not in done]
    results = [result for result in results if result["block"] < len(sizes)]
    with path.open("w") as file, multiprocessing.Pool(args.jobs) as pool:
        file.writelines(json.dumps(result) + "\n" for result in results)
        for result in pool.imap_unordered(run_block, tasks):
            results.append(result)
            print(json.dumps(result), file=file, flush=True)
            if len(results) % 20 == 0 or result["findings"]:
                summary(results, args.mutants)
    summary(results, args.mutants)
    findings = [finding for result in results for finding in result["findings"]]
    for finding in findings[:5]:
        print(f"mutant {finding['index']}: {finding['data']}\n{finding['error']}", file=sys.stderr)
    return 1 if findings else 0


def summary(results: list[dict[str, Any]], wanted: int) -> None:
    total = Counter[str]()
    for result in results:
        total.update({key: value for key, value in result.items() if isinstance(value, int)})
        total["findings"] += len(result["findings"])
    print(
        f"{total['count']} of {wanted} mutants: {total['accepted']} accepted and "
        f"{total['refused']} refused by both readers, {total['findings']} findings",
        file=sys.stderr,
    )


if __name__ == "__main__":
    sys.exit(main())
