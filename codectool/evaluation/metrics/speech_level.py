"""Active speech level by ITU-T P.56, and the rule which clips contain speech."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from codectool.evaluation.metrics.base import Wave

# Constants of Method B in ITU-T P.56.
TIME_CONSTANT = 0.03  # of the two exponential averages of the envelope, in s
HANGOVER = 0.2  # pauses up to this length count as active, in s
MARGIN_DB = 15.9  # between the active level and the threshold of activity
THRESHOLDS = 2.0 ** np.arange(-15, 0)  # from one step of 16-bit samples to half of full scale

# Of clips with speech. A click and the hangover after it are active for less than 0.3 s.
MIN_LEVEL_DB = -60.0  # in dBov
MIN_SECONDS, MIN_ACTIVITY = 0.3, 0.5  # one of the two is enough: a clip may be a single word
BLOCK = 256  # samples that are smoothed by one matrix product

Array = npt.NDArray[np.float64]


class SpeechLevel(NamedTuple):
    """Active speech level of a signal.

    Attributes:
        level_db: level while speech is active, in dBov; None if there is no activity.
        activity: share of the time in which speech is active, 0 to 1.
        seconds: time in which speech is active.
    """

    level_db: float | None = None
    activity: float = 0.0
    seconds: float = 0.0

    @property
    def is_speech(self) -> bool:
        """Whether the signal contains speech: active at -60 dBov or more, and not for a moment."""
        if self.level_db is None or self.level_db < MIN_LEVEL_DB:
            return False
        return self.seconds >= MIN_SECONDS or self.activity >= MIN_ACTIVITY


def speech_level(wave: Wave, rate: int) -> SpeechLevel:
    """Measure the active speech level of ``(N,)`` samples in [-1, 1] at ``rate`` Hz.

    ITU-T Recommendation P.56 (12/2011), "Objective measurement of active speech level", Method B.
    The envelope is the magnitude, averaged exponentially twice. For each of 15 thresholds, the time
    in which the envelope exceeds it, or has within the last 0.2 s, is counted. The active level is
    the energy per active time at the threshold 15.9 dB below that level, interpolated in dB. A
    signal that never is 15.9 dB above the lowest threshold has no activity.

    0 dBov is the level of a full-scale square wave. The mean is removed, as it is not heard.
    """
    centred = wave - np.mean(wave, dtype=float)
    energy = float(centred @ centred)
    if energy == 0:
        return SpeechLevel()
    envelope = _smooth(_smooth(np.abs(centred), rate), rate)
    recent = _running_max(envelope, math.ceil(HANGOVER * rate) + 1)
    active = np.array([np.count_nonzero(recent >= threshold) for threshold in THRESHOLDS])
    active = active[active > 0]  # counts decrease
    levels = 10 * np.log10(energy / active)
    margins = levels - 20 * np.log10(THRESHOLDS[: len(active)])
    above = np.flatnonzero(margins <= MARGIN_DB)
    if len(margins) == 0 or margins[0] < MARGIN_DB:
        return SpeechLevel()
    if len(above) == 0:  # louder than the highest threshold allows
        level = float(levels[-1])
    else:
        after = max(1, int(above[0]))
        share = (margins[after - 1] - MARGIN_DB) / (margins[after - 1] - margins[after])
        level = float(levels[after - 1] + share * (levels[after] - levels[after - 1]))
    samples = min(float(len(wave)), energy / 10 ** (level / 10))
    return SpeechLevel(level, samples / len(wave), samples / rate)


def _smooth(wave: Array, rate: int) -> Array:
    """Average ``(N,)`` exponentially: ``y[n] = g y[n - 1] + (1 - g) x[n]``."""
    decay = math.exp(-1 / (rate * TIME_CONSTANT))
    lags = np.subtract.outer(np.arange(BLOCK), np.arange(BLOCK))
    response = np.where(lags >= 0, (1 - decay) * decay ** np.maximum(lags, 0), 0.0)
    blocks = np.pad(wave, (0, -len(wave) % BLOCK)).reshape(-1, BLOCK) @ response.T
    tail = decay ** np.arange(1, BLOCK + 1)
    last = 0.0
    for block in blocks:
        block += last * tail
        last = block[-1]
    return np.asarray(blocks.reshape(-1)[: len(wave)])


def _running_max(wave: Array, window: int) -> Array:
    """Return the maximum of the last ``window`` samples at each of ``(N,)`` samples."""
    # a window covers the end of one block and the beginning of the next (van Herk 1992)
    padded = np.pad(wave, (window - 1, -(len(wave) + window - 1) % window))
    blocks = padded.reshape(-1, window)
    before = np.maximum.accumulate(blocks[:, ::-1], axis=1)[:, ::-1].reshape(-1)
    after = np.maximum.accumulate(blocks, axis=1).reshape(-1)
    return np.asarray(np.maximum(before[: len(wave)], after[window - 1 :][: len(wave)]))
