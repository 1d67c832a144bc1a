"""Timing: alternatives take turns, and the least time counts.

Other programs only make a run longer, so the least of several times is the best estimate, and
alternatives that take turns see the same load.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

# Channels, kernel and length of convolutions that are typical of the codecs.
CONVOLUTIONS = ((96, 7, 8000), (192, 7, 4000), (384, 7, 2000), (768, 7, 800), (1536, 7, 160))

Work = Callable[[], Any]


class InterleavedTimer:
    """Time alternatives in turns; in each turn another one goes first."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def run(self, work: Mapping[str, Work]) -> dict[str, Any]:
        """Run every alternative once; return the results by name."""
        names = list(work)
        first = len(self.seconds.get(names[0], ())) % len(names)
        results = {}
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            results[name] = work[name]()
            self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        return results

    def row(self, audio_seconds: float, parts: bool = False) -> dict[str, Any]:
        """Return real-time factors by name, and how much slower than codectool the others are.

        Args:
            audio_seconds: audio of one turn, or of all turns if these are parts of the work.
            parts: add the turns up instead of taking the least.
        """
        total = sum if parts else min
        rtf = {name: total(times) / audio_seconds for name, times in self.seconds.items()}
        row: dict[str, Any] = {"turns": len(self.seconds["codectool"]), "rtf": rtf, "ratios": {}}
        for name in rtf.keys() - {"codectool"}:
            pairs = zip(self.seconds[name], self.seconds["codectool"], strict=True)
            ratios = [other / ours for other, ours in pairs]
            row["ratios"][name] = [rtf[name] / rtf["codectool"], min(ratios), max(ratios)]
        return row


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of PyTorch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def peak_rates(size: int = 2048, rounds: int = 5, shrink: int = 1) -> dict[str, float]:
    """Return the floating-point operations per second of matrix products and convolutions.

    Args:
        size: rows and columns of the matrices.
        rounds: repetitions, of which the fastest counts.
        shrink: divides the length of the convolutions.
    """
    a, b = torch.rand(size, size), torch.rand(size, size)
    rates = {"sgemm": 2 * size**3 / _fastest(lambda: a @ b, rounds), "convolution": 0.0}
    for channels, kernel, length in CONVOLUTIONS:
        x = torch.rand(1, channels, length // shrink)
        weight = torch.rand(channels, channels, kernel)
        seconds = _fastest(lambda x=x, w=weight: F.conv1d(x, w, padding=w.shape[2] // 2), rounds)
        operations = 2 * channels**2 * kernel * x.shape[-1]
        rates["convolution"] = max(rates["convolution"], operations / seconds)
    return rates


def _fastest(work: Work, rounds: int) -> float:
    timer = InterleavedTimer()
    for _ in range(rounds + 1):
        timer.run({"codectool": work})
    return min(timer.seconds["codectool"][1:])


def machine() -> dict[str, Any]:
    """Describe the machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "load": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    fields = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    known = {"avx2", "avx512f", "amx_bf16"} & set(fields.get("flags", "").split())
    name = fields.get("model name", platform.processor() or platform.machine())
    return f"{name} ({', '.join(sorted(known))})" if known else name
