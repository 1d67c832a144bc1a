"""The interface of a quality metric."""

from __future__ import annotations

import importlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float32]
Values = Mapping[str, float]


@dataclass(frozen=True)
class MetricInfo:
    """Description of one value that a metric computes.

    Attributes:
        name: key in JSON and CSV: ``pesq_wb``.
        title: heading in tables: ``PESQ-wb``.
        unit: ``dB``, ``MOS-LQO`` or empty.
        better: which of two values is better.
        digits: decimals to show.
        range: lowest and highest possible value; None where unbounded.
        about: definition and source, in one sentence.
        needs_speech: whether the value is defined only for references that contain speech.
        needs_reference: whether the value compares two signals; otherwise it depends only on the
            degraded one, and originals have a value too.
        takes_text: whether the value compares with a text, if there is one.
    """

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    digits: int
    range: tuple[float | None, float | None]
    about: str
    needs_speech: bool = False
    needs_reference: bool = True
    takes_text: bool = False

    @property
    def heading(self) -> str:
        """The title with its unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


@dataclass(frozen=True)
class MetricSettings:
    """Settings of metrics that need any.

    Attributes:
        asr_model: folder or name of a speech recognition model; see `words.WordErrors`.
        asr_language: language of the speech, such as ``en``; None to find it in each clip.
    """

    asr_model: str | None = None
    asr_language: str | None = None


NO_SETTINGS = MetricSettings()


class MetricUndefinedError(Exception):
    """A metric has no value for a pair of clips; the message is a short reason."""


class Metric(ABC):
    """Computes one value, or several that share most of the work.

    An instance has imported the packages that it needs.

    Attributes:
        outputs: descriptions of the values that `compute` returns, in order.
        rate: sampling rate of the signals that `compute` takes, in Hz.
        packages: import names of optional packages that it needs.
        install: arguments of `pip install` that install them.
    """

    outputs: ClassVar[tuple[MetricInfo, ...]]
    rate: ClassVar[int]
    packages: ClassVar[tuple[str, ...]] = ()
    install: ClassVar[str] = "'codectool[eval]'"

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for package in self.packages:
                importlib.import_module(package)

    @classmethod
    def load(cls, settings: MetricSettings) -> Metric:
        """Return an instance with the settings that apply to it."""
        return cls()

    @classmethod
    def missing_setting(cls, settings: MetricSettings) -> str:
        """Return how to make a setting that the metric cannot do without; empty if it is made."""
        return ""

    @abstractmethod
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        """Compare two signals.

        Args:
            reference: float32 ``(N,)`` in [-1, 1] at `rate`.
            degraded: float32 ``(N,)``, aligned with the reference.

        Returns:
            A value for each of `outputs`, by name.

        Raises:
            MetricUndefinedError: the metric has no value for this pair.
        """

    def compute_with_text(self, reference: Wave, degraded: Wave, text: str | None) -> Values:
        """Compare two signals as `compute` does, or with a text that the speaker reads."""
        return self.compute(reference, degraded)

    @classmethod
    def names(cls) -> set[str]:
        """Return the names of `outputs`."""
        return {info.name for info in cls.outputs}
