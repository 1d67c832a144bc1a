"""Pitch of training crops, by Praat: what a decoder's source of harmonics is trained on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codectool.errors import UsageError

PITCH_MIN, PITCH_MAX = 60.0, 500.0  # in Hz
WINDOW_SECONDS = 3 / PITCH_MIN  # Praat's window: three periods
LONGEST_PERIOD = 1.1 / PITCH_MIN  # in seconds; pulses farther apart belong to two voiced sounds

Array = npt.NDArray[np.float32]


def require_praat() -> None:
    """Raise `UsageError` if Praat is not installed."""
    try:
        import parselmouth  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "the pitch loss needs Praat (parselmouth): run `pip install 'codectool[eval]'`"
        ) from error


def track_pitch(wave: Array, sample_rate: int, frame: int) -> Array:
    """Track pitch and pulses of a signal ``(N,)`` with Praat (Boersma 1993).

    Args:
        wave: the signal.
        sample_rate: in Hz.
        frame: samples from one value to the next, the first at the start.

    Returns:
        ``(N / frame, 2)``: pitch in Hz, 0 if unvoiced; and the phase of the pulses in turns, 0 at a
        pulse, NaN where there are none. Both are NaN where Praat's window reaches beyond the
        signal.
    """
    import parselmouth

    count = len(wave) // frame
    track = np.full((count, 2), np.nan, np.float32)
    times = np.arange(count) * frame / sample_rate
    if len(wave) <= WINDOW_SECONDS * sample_rate:
        return track
    sound = parselmouth.Sound(wave.astype(np.float64), sample_rate)
    pitch = sound.to_pitch_ac(
        time_step=frame / sample_rate, pitch_floor=PITCH_MIN, pitch_ceiling=PITCH_MAX
    )
    values, at = pitch.selected_array["frequency"], pitch.xs()
    nearest = np.clip(np.rint((times - at[0]) * sample_rate / frame).astype(int), 0, len(at) - 1)
    known = np.abs(times - at[nearest]) <= frame / sample_rate
    track[known, 0] = values[nearest[known]]
    points = parselmouth.praat.call([sound, pitch], "To PointProcess (cc)")
    numbers = range(1, parselmouth.praat.call(points, "Get number of points") + 1)
    pulses = np.array([parselmouth.praat.call(points, "Get time from index", n) for n in numbers])
    after = np.searchsorted(pulses, times, "right")
    between = (after > 0) & (after < len(pulses)) & (track[:, 0] > 0)
    start, end = pulses[after[between] - 1], pulses[after[between]]
    turns = (times[between] - start) / (end - start)
    track[between, 1] = np.where(end - start < LONGEST_PERIOD, turns, np.nan)
    return track
