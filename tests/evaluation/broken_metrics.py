"""Metrics that are fast, undefined, raise or crash; in a module that workers can import."""

from __future__ import annotations

import math
import os
import signal
from typing import ClassVar

import numpy as np

from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave


def info(name: str, better: str = "lower") -> MetricInfo:
    return MetricInfo(name, name, "", better, 3, (None, None), f"{name} of a test")  # type: ignore[arg-type]


class Error(Metric):
    """Root mean square of the difference, and the number of samples."""

    rate: ClassVar[int] = 16000
    outputs: ClassVar[tuple[MetricInfo, ...]] = (info("error"), info("length", "higher"))

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        assert len(reference) == len(degraded)
        error = float(np.sqrt(np.mean((reference - degraded) ** 2)))
        return {"error": error, "length": float(len(reference))}


class Level(Metric):
    """Root mean square of the degraded signal; undefined for silence."""

    rate: ClassVar[int] = 16000
    outputs: ClassVar[tuple[MetricInfo, ...]] = (
        MetricInfo(
            *("level", "level", "", "higher", 3, (0, None), "level of a test"),
            needs_reference=False,
        ),
    )

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        if not degraded.any():
            raise MetricUndefinedError("silence")
        return {"level": float(np.sqrt(np.mean(degraded**2)))}


class Undefined(Metric):
    """Undefined for a silent reference."""

    rate: ClassVar[int] = 16000
    outputs: ClassVar[tuple[MetricInfo, ...]] = (info("undefined"),)

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        if not reference.any():
            raise MetricUndefinedError("silence")
        return {"undefined": 1.0}


class Broken(Metric):
    """Raises, or returns NaN."""

    rate: ClassVar[int] = 16000
    outputs: ClassVar[tuple[MetricInfo, ...]] = (info("broken"),)

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        if len(reference) < 2000:
            return {"broken": math.nan}
        raise IndexError("list index out of range\nand more")


class Crashing(Metric):
    """Kills its process on loud clips."""

    rate: ClassVar[int] = 16000
    outputs: ClassVar[tuple[MetricInfo, ...]] = (info("crashing"),)

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        if np.abs(reference).max() > 0.9:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"crashing": 0.0}
