"""PESQ: perceptual evaluation of speech quality, wide-band and narrow-band.

Letters used in shapes: N samples.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave
from codectool.evaluation.metrics.support import is_silent, no_warnings, require_sound

# The ITU's C code, which the package wraps, has room for 50 utterances and writes past the end of
# its table where a clip has more. Utterances have 50 frames of 4 ms at least, and pauses that
# part them 47 (51, less the two by which each utterance is widened on either side), so that 50 of
# them take 50 * 50 + 49 * 47 = 4803 frames. The code adds 150 frames of padding: within
# 4 ms * (4803 - 150) = 18.6 s there is no room for them.
LONGEST_PIECE = 18.0  # in seconds


class _Pesq(Metric):
    """PESQ of either band, as the package `pesq` computes it with the ITU's own code.

    Clips of more than 18 s are judged in pieces of equal length, and their value is the mean: the
    ITU's code corrupts memory where it finds more than 50 utterances, and was made for sentences
    of some seconds. Pieces of the reference in which it finds no speech do not count; one that the
    degraded clip leaves silent does not either, but takes the whole clip with it.
    """

    band: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ("pesq",)

    def __init__(self) -> None:
        with no_warnings():
            import pesq
        self._pesq: Any = pesq

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        """MOS-LQO; it wants a quarter of a second with speech."""
        require_sound(reference, degraded)
        pieces = math.ceil(len(reference) / (LONGEST_PIECE * self.rate))
        pairs = (np.array_split(wave, pieces) for wave in (reference, degraded))
        found = [self._judge_piece(*pair) for pair in zip(*pairs, strict=True)]
        values = [value for value in found if value is not None]
        if not values:
            raise MetricUndefinedError("no speech found")
        return {self.metrics[0].name: float(np.mean(values))}

    def _judge_piece(self, reference: Wave, degraded: Wave) -> float | None:
        """MOS-LQO; None where there is no speech in the reference."""
        if is_silent(reference):
            return None
        require_sound(reference, degraded)
        pair = (np.ascontiguousarray(wave, dtype=float) for wave in (reference, degraded))
        try:
            with no_warnings():
                return float(self._pesq.pesq(self.rate, *pair, self.band))
        except self._pesq.NoUtterancesError:
            return None
        except self._pesq.BufferTooShortError:
            raise MetricUndefinedError("shorter than 0.25 s") from None
        except ValueError:  # it asks whether NaN is one of its error codes
            raise MetricUndefinedError("PESQ finds no number for it") from None


class PesqWide(_Pesq):
    """Wide-band PESQ: ITU-T P.862.2, of signals at 16 kHz."""

    band: ClassVar[str] = "wb"
    rate: ClassVar[int] = 16000
    metrics: ClassVar[tuple[MetricInfo, ...]] = (
        MetricInfo(
            name="pesq_wb",
            title="PESQ-wb",
            unit="MOS-LQO",
            better="higher",
            digits=2,
            range=(0.999, 4.644),
            about="Wide-band PESQ (ITU-T P.862.2) at 16 kHz; clips of more than 18 s are judged in "
            "pieces.",
        ),
    )


class PesqNarrow(_Pesq):
    """Narrow-band PESQ: ITU-T P.862 mapped by P.862.1, of signals at 8 kHz."""

    band: ClassVar[str] = "nb"
    rate: ClassVar[int] = 8000
    metrics: ClassVar[tuple[MetricInfo, ...]] = (
        MetricInfo(
            name="pesq_nb",
            title="PESQ-nb",
            unit="MOS-LQO",
            better="higher",
            digits=2,
            range=(0.999, 4.549),
            about="Narrow-band PESQ (ITU-T P.862, mapped by P.862.1) at 8 kHz; clips of more than "
            "18 s are judged in pieces.",
        ),
    )
