"""ViSQOL in speech mode, with both of its mappings from similarity to opinion score."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave
from codectool.evaluation.metrics.support import require_sound, suppress_stderr, suppress_warnings

# The first patch skips 9 frames and has 20; frames are 80 ms long and 20 ms apart.
MIN_SECONDS = 0.64

POLYNOMIAL = MetricInfo(
    name="visqol_poly",
    title="ViSQOL-poly",
    unit="MOS-LQO",
    better="higher",
    digits=2,
    range=(1.0, 5.0),
    about="ViSQOL v3 in speech mode at 16 kHz with the exponential mapping "
    "(`--use_lattice_model=false`); identical clips score 5.",
)
LATTICE = MetricInfo(
    name="visqol",
    title="ViSQOL",
    unit="MOS-LQO",
    better="higher",
    digits=2,
    range=(1.0, 5.0),
    about="ViSQOL v3 in speech mode at 16 kHz (Chinen et al. 2020) with the lattice network, its "
    "default; identical clips score about 4.5.",
)


class _Visqol(Metric):
    """Similarity as computed by the package `visqol-python`.

    If `numba` is installed, the package compiles itself once (about 15 s, cached on disk) and is
    five times faster afterwards. Do not call it from several threads of one process: numba's own
    thread pool does not support that. Undefined for clips shorter than 0.64 s.
    """

    rate: ClassVar[int] = 16000
    lattice: ClassVar[bool]

    def __init__(self) -> None:
        with suppress_stderr():  # TensorFlow Lite logs from C
            from visqol import VisqolApi

            self._visqol: Any = VisqolApi()
            self._visqol.create(mode="speech", use_lattice_model=self.lattice)

    def similarity(self, reference: Wave, degraded: Wave) -> Any:
        """Return the package's result: ``vnsim`` (similarity) and ``moslqo`` (opinion score).

        Raises:
            MetricUndefinedError: a signal is silent, or shorter than 0.64 s.
        """
        require_sound(reference, degraded)
        if len(reference) < MIN_SECONDS * self.rate:
            raise MetricUndefinedError(f"shorter than {MIN_SECONDS} s")
        pair = reference.astype(float), degraded.astype(float)
        with suppress_warnings(), _one_numba_thread():
            result = self._visqol.measure_from_arrays(*pair, self.rate)
        if not (math.isfinite(result.moslqo) and math.isfinite(result.vnsim)):
            raise MetricUndefinedError("ViSQOL is not finite")
        return result


class Visqol(_Visqol):
    """Both mappings of one similarity; the lattice network needs the package `ai-edge-litert`."""

    lattice: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("visqol", "ai_edge_litert")
    outputs: ClassVar[tuple[MetricInfo, ...]] = (LATTICE, POLYNOMIAL)

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        result = self.similarity(reference, degraded)
        return {
            "visqol": float(np.clip(result.moslqo, 1, 5)),
            "visqol_poly": similarity_to_mos(float(result.vnsim)),
        }


class VisqolPolynomial(_Visqol):
    """The exponential mapping only, for use without `ai-edge-litert`."""

    lattice: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("visqol",)
    outputs: ClassVar[tuple[MetricInfo, ...]] = (POLYNOMIAL,)

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        return {"visqol_poly": float(self.similarity(reference, degraded).moslqo)}


def similarity_to_mos(similarity: float) -> float:
    """Map a mean similarity, at most 1, to MOS-LQO by the fit of ViSQOL v3.1 and later.

    The constants are from ``speech_similarity_to_quality_mapper.cc`` of google/visqol. They were
    fitted to the TCD-VoIP data and scaled so that similarity 1 maps to 5.
    """
    exponential = math.exp(0.0154302525 * (similarity + 361.063949))
    return min(5.0, max(1.0, 1.245063 * (exponential - 262.847869)))


@contextmanager
def _one_numba_thread() -> Iterator[None]:
    """Limit numba, if it is installed, to one thread: evaluation runs one process per core."""
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
