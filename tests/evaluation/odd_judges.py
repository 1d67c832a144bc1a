"""Judges that answer at once, refuse, break or die: for processes, which import them by name."""

from __future__ import annotations

import math
import os
import signal
from typing import ClassVar

import numpy as np

from codectool.evaluation.metrics.base import CannotJudgeError, Judge, Metric, Values, Wave


def metric(name: str, better: str = "lower") -> Metric:
    return Metric(name, name, "", better, 3, (None, None), f"{name} of a test")  # type: ignore[arg-type]


class Error(Judge):
    """Root mean square of the difference, and the length that it saw."""

    rate: ClassVar[int] = 16000
    metrics: ClassVar[tuple[Metric, ...]] = (metric("error"), metric("length", "higher"))

    def judge(self, reference: Wave, degraded: Wave) -> Values:
        assert len(reference) == len(degraded)
        error = float(np.sqrt(np.mean((reference - degraded) ** 2)))
        return {"error": error, "length": float(len(reference))}


class Picky(Judge):
    """Has no opinion on silence."""

    rate: ClassVar[int] = 16000
    metrics: ClassVar[tuple[Metric, ...]] = (metric("picky"),)

    def judge(self, reference: Wave, degraded: Wave) -> Values:
        if not reference.any():
            raise CannotJudgeError("silence")
        return {"picky": 1.0}


class Broken(Judge):
    """Raises, or gives what is no number."""

    rate: ClassVar[int] = 16000
    metrics: ClassVar[tuple[Metric, ...]] = (metric("broken"),)

    def judge(self, reference: Wave, degraded: Wave) -> Values:
        if len(reference) < 2000:
            return {"broken": math.nan}
        raise IndexError("list index out of range\nand more")


class Deadly(Judge):
    """Kills its process on loud clips."""

    rate: ClassVar[int] = 16000
    metrics: ClassVar[tuple[Metric, ...]] = (metric("deadly"),)

    def judge(self, reference: Wave, degraded: Wave) -> Values:
        if np.abs(reference).max() > 0.9:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"deadly": 0.0}
