"""How well pitch and voicing are kept.

Letters used in shapes: N samples, T frames of 10 ms.
"""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave

RATE = 16000
FRAME = 0.01  # seconds
LOWEST, HIGHEST = 60.0, 600.0  # in Hz: from a low man's voice to a child's
WINDOW = 3 / LOWEST  # seconds that the tracker looks at: three periods
GROSS = 0.2  # of the true pitch: what is further off counts as a gross error

Track = npt.NDArray[np.float64]


class _PitchTracks(Metric):
    """What compares tracks of pitch.

    The tracker is Praat's (Boersma 1993: autocorrelation and the best path), with its defaults but
    for the range, in the package `praat-parselmouth`. It hears a pitch whose fundamental is weak
    or missing, as people do. Codec2 puts what lies below 150 Hz down by 6 to 11 dB, and a tracker
    that looks for the fundamental itself (WORLD's DIO was tried) then finds a third of the frames
    an octave too high.
    """

    rate: ClassVar[int] = RATE
    packages: ClassVar[tuple[str, ...]] = ("parselmouth",)

    def __init__(self) -> None:
        import parselmouth  # noqa: F401  # it says whether it is here

    def tracks(self, reference: Wave, degraded: Wave) -> tuple[Track, Track]:
        """Pitch ``(T,)`` in Hz of each, 0 where there is none.

        Raises:
            MetricUndefinedError: the reference has no voiced frame, or is too short to tell.
        """
        if len(reference) < WINDOW * self.rate:
            raise MetricUndefinedError(f"shorter than {1000 * WINDOW:.0f} ms")
        before, after = (pitch_track(wave.tobytes()) for wave in (reference, degraded))
        if not before.any():
            raise MetricUndefinedError("no voiced speech found in the reference")
        return before, after


@lru_cache(maxsize=2)  # the pair that one judge has just seen comes before the other one, too
def pitch_track(wave: bytes) -> Track:
    """Pitch ``(T,)`` in Hz of float32 samples ``(N,)`` at 16 kHz; 0 where there is none."""
    import parselmouth

    sound = parselmouth.Sound(np.frombuffer(wave, np.float32).astype(float), RATE)
    pitch = sound.to_pitch_ac(time_step=FRAME, pitch_floor=LOWEST, pitch_ceiling=HIGHEST)
    track: Track = pitch.selected_array["frequency"]
    return track


class PitchError(_PitchTracks):
    """By how much pitch is off, in frames that are voiced in both.

    The median, since an octave error in one frame of a hundred would be most of a mean square; the
    gross error share tells of those.
    """

    metrics: ClassVar[tuple[MetricInfo, ...]] = (
        MetricInfo(
            name="f0_cents",
            title="F0 error",
            unit="cents",
            better="lower",
            digits=1,
            range=(0.0, None),
            about="Median difference of pitch, up or down, over the frames that are voiced in "
            "both (Praat's autocorrelation method, Boersma 1993, frames of 10 ms, 60 to 600 Hz).",
        ),
        MetricInfo(
            name="gpe",
            title="gross pitch error",
            unit="",
            better="lower",
            digits=3,
            range=(0.0, 1.0),
            about="Share of the frames that are voiced in both in which pitch is off by more than "
            "20 % (Chu and Alwan 2009).",
        ),
    )

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        """Both values; they want a frame that is voiced in both."""
        before, after = self.tracks(reference, degraded)
        voiced = (before > 0) & (after > 0)
        if not voiced.any():
            raise MetricUndefinedError("no frame is voiced in both")
        ratio = after[voiced] / before[voiced]
        return {
            "f0_cents": float(np.median(np.abs(1200 * np.log2(ratio)))),
            "gpe": float(np.mean(np.abs(ratio - 1) > GROSS)),
        }


class VoicingError(_PitchTracks):
    """How often a frame is voiced in one and unvoiced in the other.

    A judge of its own, since it has a value where no frame is voiced in both: a codec that turns
    voices into whispers is to be blamed, not left out. A reference without voiced frames has none:
    agreement on silence is no merit.
    """

    metrics: ClassVar[tuple[MetricInfo, ...]] = (
        MetricInfo(
            name="vde",
            title="voicing error",
            unit="",
            better="lower",
            digits=3,
            range=(0.0, 1.0),
            about="Share of all frames that are voiced in one and not in the other: voicing "
            "decision error (Chu and Alwan 2009).",
        ),
    )

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        """It wants a voiced frame in the reference."""
        before, after = self.tracks(reference, degraded)
        return {"vde": float(np.mean((before > 0) != (after > 0)))}
