"""How fast tokens are packed and unpacked: millions of tokens a second on one core.

    python benchmarks/bitpack.py [--json] [--seconds 1.0]

A row is one layout of tokens, worked on block by block as the reader and the writer do, with
codes that are checked on the way in and padding that is checked on the way out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from codectool.container.bitpack import pack_codes, unpack_codes

# name, frames of a default block, width of each stream
LAYOUTS = [
    ("hac 1x18", 1800, (18,)),
    ("bigcodec 1x13", 1920, (13,)),
    ("supercodec 2x10", 1200, (10, 10)),
    ("8x10", 1800, (10,) * 8),
    ("18x1", 1800, (1,) * 18),
    ("mixed 10+13+7", 1200, (10, 13, 7)),
    ("one long block 1x13", 1 << 20, (13,)),
]


def rate(work: Callable[[], object], tokens: int, seconds: float) -> float:
    """Tokens per second: the best of five runs, each of a fifth of the given time."""
    work()
    best = 0.0
    for _ in range(5):
        rounds = 0
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds / 5 or not rounds:
            work()
            rounds += 1
        best = max(best, rounds * tokens / elapsed)
    return best


def measure(name: str, frames: int, bits_per_codebook: tuple[int, ...], seconds: float) -> dict:
    random = np.random.default_rng(0)
    codes = np.stack([random.integers(0, 1 << bits, frames) for bits in bits_per_codebook])[None]
    codes = codes.astype(np.int32)
    data = pack_codes(codes, bits_per_codebook)
    assert np.array_equal(unpack_codes(data, 1, bits_per_codebook, frames), codes)
    return {
        "layout": name,
        "block_tokens": codes.size,
        "pack": rate(lambda: pack_codes(codes, bits_per_codebook), codes.size, seconds),
        "unpack": rate(
            lambda: unpack_codes(data, 1, bits_per_codebook, frames), codes.size, seconds
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--json", action="store_true", help="print one JSON list, tokens per second"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each number")
    options = parser.parse_args()
    results = [measure(*layout, options.seconds) for layout in LAYOUTS]
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{'layout':<22}{'tokens/block':>14}{'pack M/s':>10}{'unpack M/s':>12}")
    for row in results:
        print(
            f"{row['layout']:<22}{row['block_tokens']:>14}"
            f"{row['pack'] / 1e6:>10.0f}{row['unpack'] / 1e6:>12.0f}"
        )


if __name__ == "__main__":
    main()
