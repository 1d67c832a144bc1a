"""PESQ: perceptual evaluation of speech quality, wide-band and narrow-band."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave
from codectool.evaluation.metrics.support import (
    is_constant,
    require_sound,
    split_pair,
    suppress_warnings,
)

# The ITU's C code writes past the end of its table of 50 utterances where a clip has more; it was
# made for sentences of a few seconds. An utterance has at least 50 frames of 4 ms. Pauses between
# utterances have at least 47 (51, less the two frames by which each utterance is widened on either
# side). So 50 utterances take 50 * 50 + 49 * 47 = 4803 frames, of which 150 are padding that the
# code adds: clips shorter than 4 ms * (4803 - 150) = 18.6 s are safe.
MAX_SECONDS = 18.0


class _Pesq(Metric):
    """PESQ as computed by the ITU's code in the package `pesq`.

    Clips longer than 18 s are split into equal parts and the values averaged. Parts whose reference
    contains no speech are skipped. Undefined if a part of the degraded clip is silent where the
    reference is not, or if there is less than 0.25 s of speech.
    """

    packages = ("pesq",)

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        require_sound(reference, degraded)
        parts = split_pair(reference, degraded, MAX_SECONDS * self.rate)
        values = [value for part in parts if (value := self._compute_part(*part)) is not None]
        if not values:
            raise MetricUndefinedError("no speech found")
        return {self.outputs[0].name: float(np.mean(values))}

    def _compute_part(self, reference: Wave, degraded: Wave) -> float | None:
        """Return MOS-LQO; None if the reference contains no speech."""
        import pesq

        if is_constant(reference):
            return None
        require_sound(reference, degraded)
        pair = (np.ascontiguousarray(wave, dtype=float) for wave in (reference, degraded))
        band = "wb" if self.rate == 16000 else "nb"
        try:
            with suppress_warnings():
                return float(pesq.pesq(self.rate, *pair, band))
        except pesq.NoUtterancesError:
            return None
        except pesq.BufferTooShortError:
            raise MetricUndefinedError("shorter than 0.25 s") from None
        except ValueError:  # the package looks up NaN among its error codes
            raise MetricUndefinedError("PESQ is not finite") from None


class PesqWideband(_Pesq):
    """Wide-band PESQ, ITU-T P.862.2, of signals at 16 kHz."""

    rate = 16000
    outputs = (
        MetricInfo(
            name="pesq_wb",
            title="PESQ-wb",
            unit="MOS-LQO",
            better="higher",
            digits=2,
            range=(0.999, 4.644),
            about="Wide-band PESQ (ITU-T P.862.2) at 16 kHz; clips longer than 18 s are split and "
            "the values averaged.",
            needs_speech=True,
        ),
    )


class PesqNarrowband(_Pesq):
    """Narrow-band PESQ, ITU-T P.862 mapped by P.862.1, of signals at 8 kHz."""

    rate = 8000
    outputs = (
        MetricInfo(
            name="pesq_nb",
            title="PESQ-nb",
            unit="MOS-LQO",
            better="higher",
            digits=2,
            range=(0.999, 4.549),
            about="Narrow-band PESQ (ITU-T P.862, mapped by P.862.1) at 8 kHz; clips longer than "
            "18 s are split and the values averaged.",
            needs_speech=True,
        ),
    )
