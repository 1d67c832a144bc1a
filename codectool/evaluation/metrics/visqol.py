"""ViSQOL in speech mode, with both of its mappings from similarity to opinion score."""

from __future__ import annotations

import math
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
    needs_speech=True,
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
    needs_speech=True,
)


class Visqol(Metric):
    """Both mappings of one similarity, as computed by the package `visqol-python`.

    The lattice network needs the package `ai-edge-litert`. If `numba` is installed, `visqol-python`
    compiles itself once (about 15 s, cached on disk) and is five times faster afterwards. Do not
    call it from several threads of one process: numba's own thread pool does not support that.
    Undefined for clips shorter than 0.64 s.
    """

    rate = 16000
    lattice: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("visqol", "ai_edge_litert")
    outputs: ClassVar[tuple[MetricInfo, ...]] = (LATTICE, POLYNOMIAL)

    def __init__(self) -> None:
        with suppress_stderr():  # TensorFlow Lite logs from C
            super().__init__()
            from visqol import VisqolApi

            self._visqol: Any = VisqolApi()
            self._visqol.create(mode="speech", use_lattice_model=self.lattice)

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        result = self._measure(reference, degraded)
        return {
            "visqol": float(np.clip(result.moslqo, 1, 5)),
            "visqol_poly": similarity_to_mos(float(result.vnsim)),
        }

    def _measure(self, reference: Wave, degraded: Wave) -> Any:
        """Return the package's result: ``vnsim`` (similarity) and ``moslqo`` (opinion score)."""
        require_sound(reference, degraded)
        if len(reference) < MIN_SECONDS * self.rate:
            raise MetricUndefinedError(f"shorter than {MIN_SECONDS} s")
        pair = reference.astype(float), degraded.astype(float)
        with suppress_warnings():
            result = self._visqol.measure_from_arrays(*pair, self.rate)
        if not (math.isfinite(result.moslqo) and math.isfinite(result.vnsim)):
            raise MetricUndefinedError("ViSQOL is not finite")
        return result


class VisqolPolynomial(Visqol):
    """The exponential mapping only, for use without `ai-edge-litert`."""

    lattice = False
    packages = ("visqol",)
    outputs = (POLYNOMIAL,)

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        return {"visqol_poly": float(self._measure(reference, degraded).moslqo)}


def similarity_to_mos(similarity: float) -> float:
    """Map a mean similarity, at most 1, to MOS-LQO by the fit of ViSQOL v3.1 and later.

    The constants are from ``speech_similarity_to_quality_mapper.cc`` of google/visqol. They were
    fitted to the TCD-VoIP data and scaled so that similarity 1 maps to 5.
    """
    exponential = math.exp(0.0154302525 * (similarity + 361.063949))
    return min(5.0, max(1.0, 1.245063 * (exponential - 262.847869)))
