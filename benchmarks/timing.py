"""Time as a benchmark takes it: in turns, the least of several, beside what the machine can do.

Others may use the machine at the same time. They only ever make a run longer, so the least time of
each side is the one to believe, and sides that take turns meet the same neighbours.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

# Channels, kernel and length of convolutions that the codecs make much use of.
CONVOLUTIONS = ((96, 7, 8000), (192, 7, 4000), (384, 7, 2000), (768, 7, 800), (1536, 7, 160))


@dataclass
class Turns:
    """Seconds of both sides, turn by turn."""

    ours: list[float] = field(default_factory=list)
    upstream: list[float] = field(default_factory=list)

    def take(self, ours: Callable[[], Any], upstream: Callable[[], Any] | None) -> tuple[Any, Any]:
        """Let both do their work once, each first every other time; return what they made."""
        if upstream is None:
            return timed(ours, self.ours), None
        if len(self.ours) % 2:
            theirs = timed(upstream, self.upstream)
            return timed(ours, self.ours), theirs
        mine = timed(ours, self.ours)
        return mine, timed(upstream, self.upstream)

    def row(self, audio_seconds: float, together: bool = False) -> dict[str, Any]:
        """Real-time factors: seconds of work for a second of audio.

        Args:
            audio_seconds: of one turn, or of all where each turn is another part of the work.
            together: whether the turns are such parts; then they are added up.
        """
        whole = sum if together else min
        row: dict[str, Any] = {"turns": len(self.ours), "ours": whole(self.ours) / audio_seconds}
        if self.upstream:
            both = zip(self.ours, self.upstream, strict=True)
            ratios = [theirs / mine for mine, theirs in both]
            row["upstream"] = whole(self.upstream) / audio_seconds
            row["ratio"] = whole(self.upstream) / whole(self.ours)
            row["ratios"] = [min(ratios), max(ratios)]
        return row


def timed(work: Callable[[], Any], seconds: list[float]) -> Any:
    """Do work once and note how long it took."""
    start = time.perf_counter()
    made = work()
    seconds.append(time.perf_counter() - start)
    return made


def least(work: Callable[[], Any], rounds: int) -> float:
    """Seconds of the fastest of several rounds, one more for a start."""
    seconds: list[float] = []
    for _ in range(rounds + 1):
        timed(work, seconds)
    return min(seconds[1:])


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let PyTorch use so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def peaks(size: int, rounds: int, shrink: int = 1) -> dict[str, float]:
    """Floating-point operations per second that this process reaches, with its threads.

    Args:
        size: rows and columns of the matrices of ``sgemm``.
        rounds: of which the fastest counts.
        shrink: divides the length of the convolutions; ``convolution`` is the fastest of them.
    """
    a, b = torch.rand(size, size), torch.rand(size, size)
    rates = {"sgemm": 2 * size**3 / least(lambda: a @ b, rounds), "convolution": 0.0}
    for channels, kernel, length in CONVOLUTIONS:
        x = torch.rand(1, channels, length // shrink)
        weight = torch.rand(channels, channels, kernel)
        seconds = least(lambda x=x, w=weight: F.conv1d(x, w, padding=w.shape[2] // 2), rounds)
        operations = 2 * channels**2 * kernel * x.shape[-1]
        rates["convolution"] = max(rates["convolution"], operations / seconds)
    return rates


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
