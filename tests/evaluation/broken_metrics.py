"""Judges that answer at once, refuse, break or die: for processes, which import them by name."""

from __future__ import annotations

import math
import os
import signal
from typing import ClassVar

import numpy as np

from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave


def metric(name: str, better: str = "lower") -> MetricInfo:
    return MetricInfo(name, name, "", better, 3, (None, None), f"{name} of a test")  # type: ignore[arg-type]


class Error(Metric):
    """Root mean square of the difference, and the length that it saw."""

    rate: ClassVar[int] = 16000
    metrics: ClassVar[tuple[MetricInfo, ...]] = (metric("error"), metric("length", "higher"))

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        assert len(reference) == len(degraded)
        error = float(np.sqrt(np.mean((reference - degraded) ** 2)))
        return {"error": error, "length": float(len(reference))}


class Picky(Metric):
    """Has no opinion on silence."""

    rate: ClassVar[int] = 16000
    metrics: ClassVar[tuple[MetricInfo, ...]] = (metric("picky"),)

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        if not reference.any():
            raise MetricUndefinedError("silence")
        return {"picky": 1.0}


class Broken(Metric):
    """Raises, or gives what is no number."""

    rate: ClassVar[int] = 16000
    metrics: ClassVar[tuple[MetricInfo, ...]] = (metric("broken"),)

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        if len(reference) < 2000:
            return {"broken": math.nan}
        raise IndexError("list index out of range\nand more")


class Deadly(Metric):
    """Kills its process on loud clips."""

    rate: ClassVar[int] = 16000
    metrics: ClassVar[tuple[MetricInfo, ...]] = (metric("deadly"),)

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        if np.abs(reference).max() > 0.9:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"deadly": 0.0}
