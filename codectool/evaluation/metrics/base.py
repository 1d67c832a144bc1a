"""What a measure of quality is, and how one says that it cannot judge.

Letters used in shapes: N samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float32]
Values = Mapping[str, float]


@dataclass(frozen=True)
class MetricInfo:
    """One figure that tells how good a clip came back.

    Attributes:
        name: key in JSON and CSV: ``pesq_wb``.
        title: heading: ``PESQ-wb``.
        unit: ``dB``, ``MOS-LQO`` or nothing.
        better: which of two values is the better one.
        digits: decimals worth showing.
        range: the least and the largest value there can be; None where there is no bound.
        about: what it is, with its source, in one sentence.
    """

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    digits: int
    range: tuple[float | None, float | None]
    about: str

    @property
    def heading(self) -> str:
        """The title with its unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


class MetricUndefinedError(Exception):
    """A pair of clips that a judge has no value for; the message says why, in a few words."""


class Metric(ABC):
    """Computes one metric, or several that come from the same work.

    Attributes:
        metrics: what `judge` returns, in order.
        rate: sampling rate in Hz of the signals that it takes.
        packages: import names of what it needs beside codectool.
    """

    metrics: ClassVar[tuple[MetricInfo, ...]]
    rate: ClassVar[int]
    packages: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        """Compare two signals.

        Args:
            reference: float32 ``(N,)`` in [-1, 1] at `rate`.
            degraded: likewise, aligned with it and of the same length.

        Returns:
            A value for each of `metrics`, by name.

        Raises:
            MetricUndefinedError: there is no value for this pair.
        """

    @classmethod
    def missing(cls) -> list[str]:
        """Which of `packages` are not installed."""
        return [name for name in cls.packages if find_spec(name) is None]
