"""Accuracy of pitch and voicing."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave

RATE = 16000
HOP_SECONDS = 0.01
PITCH_MIN, PITCH_MAX = 60.0, 600.0  # in Hz: from a low male voice to a child's
WINDOW_SECONDS = 3 / PITCH_MIN  # Praat's window: three periods
GROSS_ERROR = 0.2  # relative pitch error that counts as gross

Track = npt.NDArray[np.float64]


def pitch_tracks(reference: Wave, degraded: Wave) -> list[Track]:
    """Return the pitch of two signals at 16 kHz, ``(F,)`` in Hz; 0 in unvoiced frames."""
    if len(reference) < WINDOW_SECONDS * RATE:
        raise MetricUndefinedError(f"shorter than {1000 * WINDOW_SECONDS:.0f} ms")
    tracks = [_pitch_track(wave.tobytes()) for wave in (reference, degraded)]
    if not tracks[0].any():
        raise MetricUndefinedError("no voiced speech found in the reference")
    return tracks


@lru_cache(maxsize=2)  # `VoicingError` follows `PitchError` on the same pair
def _pitch_track(wave: bytes) -> Track:
    """Track the pitch of float32 samples with Praat, with default settings except for the range.

    Praat's tracker (Boersma 1993: autocorrelation and the best path) finds a pitch whose
    fundamental is weak or missing, as listeners do. Codec2 attenuates frequencies below 150 Hz by
    6 to 11 dB; a tracker that looks for the fundamental itself (WORLD's DIO) then finds a third of
    the frames an octave too high.
    """
    import parselmouth

    sound = parselmouth.Sound(np.frombuffer(wave, np.float32).astype(float), RATE)
    pitch = sound.to_pitch_ac(time_step=HOP_SECONDS, pitch_floor=PITCH_MIN, pitch_ceiling=PITCH_MAX)
    track: Track = pitch.selected_array["frequency"]
    return track


class PitchError(Metric):
    """Pitch error in frames that are voiced in both signals; undefined if there are none.

    The error in cents is a median because octave errors in 1 % of the frames would dominate a mean
    square; those are counted by the gross pitch error.
    """

    rate = RATE
    packages = ("parselmouth",)
    outputs = (
        MetricInfo(
            name="f0_cents",
            title="F0 error",
            unit="cents",
            better="lower",
            digits=1,
            range=(0.0, None),
            about="Median absolute pitch difference over the frames that are voiced in both "
            "(Praat's autocorrelation method, Boersma 1993, hop 10 ms, 60 to 600 Hz).",
            needs_speech=True,
        ),
        MetricInfo(
            name="gpe",
            title="gross pitch error",
            unit="",
            better="lower",
            digits=3,
            range=(0.0, 1.0),
            about="Share of the frames voiced in both whose pitch differs by more than 20 % (Chu "
            "and Alwan 2009).",
            needs_speech=True,
        ),
    )

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        before, after = pitch_tracks(reference, degraded)
        voiced = (before > 0) & (after > 0)
        if not voiced.any():
            raise MetricUndefinedError("no frame is voiced in both")
        ratio = after[voiced] / before[voiced]
        return {
            "f0_cents": float(np.median(np.abs(1200 * np.log2(ratio)))),
            "gpe": float(np.mean(np.abs(ratio - 1) > GROSS_ERROR)),
        }


class VoicingError(Metric):
    """Share of frames that are voiced in one signal and unvoiced in the other.

    Separate from `PitchError` because it is defined even if no frame is voiced in both: a codec
    that turns voice into whisper gets a bad value rather than none.
    """

    rate = RATE
    packages = ("parselmouth",)
    outputs = (
        MetricInfo(
            name="vde",
            title="voicing error",
            unit="",
            better="lower",
            digits=3,
            range=(0.0, 1.0),
            about="Share of all frames that are voiced in only one of the two: voicing decision "
            "error (Chu and Alwan 2009).",
            needs_speech=True,
        ),
    )

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        before, after = pitch_tracks(reference, degraded)
        return {"vde": float(np.mean((before > 0) != (after > 0)))}
