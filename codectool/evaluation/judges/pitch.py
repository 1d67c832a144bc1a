"""How well pitch and voicing are kept.

Letters used in shapes: N samples, T frames of 5 ms.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from codectool.evaluation.judges.quiet import no_warnings
from codectool.evaluation.metric import CannotJudgeError, Judge, Metric, Values, Wave

FRAME = 5.0  # in ms
LOWEST, HIGHEST = 60.0, 600.0  # in Hz: from a low man's voice to a child's
GROSS = 0.2  # of the true pitch: what is further off counts as a gross error

Track = npt.NDArray[np.float64]


class _PitchTracks(Judge):
    """What compares tracks of pitch.

    The tracker is DIO, refined by StoneMask (Morise et al. 2009, 2010), from WORLD, in the package
    `pyworld`. Harvest, its successor, takes 20 times as long and calls more noise voiced.
    """

    rate: ClassVar[int] = 16000
    packages: ClassVar[tuple[str, ...]] = ("pyworld",)

    def __init__(self) -> None:
        with no_warnings():
            import pyworld
        self._world: Any = pyworld

    def tracks(self, reference: Wave, degraded: Wave) -> tuple[Track, Track]:
        """Pitch ``(T,)`` in Hz of each, 0 where there is none.

        Raises:
            CannotJudgeError: the reference has no voiced frame.
        """
        before = self._track(reference)
        if not before.any():
            raise CannotJudgeError("no voiced speech found in the reference")
        return before, self._track(degraded)

    def _track(self, wave: Wave) -> Track:
        signal = np.ascontiguousarray(wave, dtype=float)
        rough, times = self._world.dio(
            signal, self.rate, f0_floor=LOWEST, f0_ceil=HIGHEST, frame_period=FRAME
        )
        pitch: Track = self._world.stonemask(signal, rough, times, self.rate)
        return pitch


class PitchError(_PitchTracks):
    """By how much pitch is off, in frames that are voiced in both.

    The median, since an octave error in one frame of a hundred would be most of a mean square; the
    gross error share tells of those.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            name="f0_cents",
            title="F0 error",
            unit="cents",
            better="lower",
            digits=1,
            range=(0.0, None),
            about="Median difference of pitch, up or down, over the frames that are voiced in "
            "both (WORLD's DIO with StoneMask, frames of 5 ms, 60 to 600 Hz).",
        ),
        Metric(
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

    def judge(self, reference: Wave, degraded: Wave) -> Values:
        """Both values; they want a frame that is voiced in both."""
        before, after = self.tracks(reference, degraded)
        voiced = (before > 0) & (after > 0)
        if not voiced.any():
            raise CannotJudgeError("no frame is voiced in both")
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

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
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

    def judge(self, reference: Wave, degraded: Wave) -> Values:
        """It wants a voiced frame in the reference."""
        before, after = self.tracks(reference, degraded)
        return {"vde": float(np.mean((before > 0) != (after > 0)))}
