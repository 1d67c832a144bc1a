"""ViSQOL in its speech mode, with either of its mappings to a scale of opinion.

Letters used in shapes: N samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave
from codectool.evaluation.metrics.support import no_warnings, require_sound, silent

# The first patch: 9 frames are left out before it, it has 20, of 80 ms and 20 ms apart.
LEAST_SECONDS = 0.64

POLYNOMIAL = MetricInfo(
    name="visqol_poly",
    title="ViSQOL-poly",
    unit="MOS-LQO",
    better="higher",
    digits=2,
    range=(1.0, 5.0),
    about="ViSQOL v3 in speech mode at 16 kHz with the exponential mapping, as that program "
    "computes it by `--use_lattice_model=false`; the reference itself has 5.",
)
LATTICE = MetricInfo(
    name="visqol",
    title="ViSQOL",
    unit="MOS-LQO",
    better="higher",
    digits=2,
    range=(1.0, 5.0),
    about="ViSQOL v3 in speech mode at 16 kHz (Chinen et al. 2020) with the lattice network, its "
    "program's default; the reference itself has about 4.5.",
)


class _Visqol(Metric):
    """Similarity as the package `visqol-python` computes it.

    It compiles itself where `numba` is installed: a quarter of a minute once, kept on disk, for a
    fifth of the time after that. Not for several threads of one process at once, which numba's
    own pool of threads does not survive.
    """

    rate: ClassVar[int] = 16000
    lattice: ClassVar[bool]

    def __init__(self) -> None:
        with silent():  # TensorFlow Lite tells of its delegates, from C
            from visqol import VisqolApi

            self._visqol: Any = VisqolApi()
            self._visqol.create(mode="speech", use_lattice_model=self.lattice)

    def similarity(self, reference: Wave, degraded: Wave) -> Any:
        """What the package finds: its similarity, and its opinion by the mapping asked for.

        Raises:
            MetricUndefinedError: a signal is silent, or shorter than 0.64 s.
        """
        require_sound(reference, degraded)
        if len(reference) < LEAST_SECONDS * self.rate:
            raise MetricUndefinedError(f"shorter than {LEAST_SECONDS} s")
        pair = reference.astype(float), degraded.astype(float)
        with no_warnings(), _one_thread():
            found = self._visqol.measure_from_arrays(*pair, self.rate)
        if not (math.isfinite(found.moslqo) and math.isfinite(found.vnsim)):
            raise MetricUndefinedError("ViSQOL finds no number for it")
        return found


class Visqol(_Visqol):
    """Both mappings of one similarity; the network wants the package `ai-edge-litert`."""

    lattice: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("visqol", "ai_edge_litert")
    metrics: ClassVar[tuple[MetricInfo, ...]] = (LATTICE, POLYNOMIAL)

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        """Both want 0.64 s of sound."""
        found = self.similarity(reference, degraded)
        return {
            "visqol": float(np.clip(found.moslqo, 1, 5)),
            "visqol_poly": opinion(float(found.vnsim)),
        }


class VisqolPolynomial(_Visqol):
    """The exponential mapping alone, where there is no `ai-edge-litert`."""

    lattice: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("visqol",)
    metrics: ClassVar[tuple[MetricInfo, ...]] = (POLYNOMIAL,)

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        """It wants 0.64 s of sound."""
        return {"visqol_poly": float(self.similarity(reference, degraded).moslqo)}


def opinion(similarity: float) -> float:
    """MOS-LQO of a mean similarity up to 1, by the fit of ViSQOL v3.1 and later.

    The constants are those of ``speech_similarity_to_quality_mapper.cc`` of google/visqol, fitted
    to the TCD-VoIP data, and scaled so that similarity 1 is opinion 5.
    """
    return min(
        5.0, max(1.0, 1.245063 * (math.exp(0.0154302525 * (similarity + 361.063949)) - 262.847869))
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Numba, if it is there, takes one thread: evaluation has a process for every core."""
    try:
        import numba
    except ImportError:
        yield
        return
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(threads)
