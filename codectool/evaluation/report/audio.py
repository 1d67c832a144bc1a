"""What is heard and seen of one clip: the reference and every system, cut alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from codectool.audio.mel import RATE as PICTURE_RATE
from codectool.audio.sink import audio_bytes
from codectool.errors import AudioError
from codectool.evaluation.metrics.base import Wave
from codectool.evaluation.results import Clip, Score
from codectool.evaluation.signals import Signal, advance, read_signal
from codectool.plots import spectrogram_png

MIN_RATE, MAX_RATE = 16000, 48000  # in Hz: what every browser plays as it is


class Sound(NamedTuple):
    """One recording, ready for a browser.

    Attributes:
        audio: a FLAC file.
        image: a PNG file, its spectrogram.
    """

    audio: bytes | memoryview
    image: bytes


def clip_sounds(clip: Clip, scores: list[Score]) -> Iterator[Sound | None]:
    """The reference, then each system, in order; None for what is not there or cannot be read.

    All have the rate of the reference, so that what is held to be the original is played as it is;
    the systems are moved by their delay, and have its length. Nothing is made louder or softer.
    """
    reference = _read(clip, None)
    if reference is None:
        yield from [None] * (1 + len(scores))
        return
    rate = min(max(reference.rate, MIN_RATE), MAX_RATE)
    length = len(reference.at(rate))
    yield _sound(reference.at(rate), rate)
    for score in scores:
        degraded = _read(clip, score)
        if degraded is None:
            yield None
        else:
            late = round(score.delay_ms * rate / 1000)
            yield _sound(advance(degraded.at(rate), late, length), rate)


def _read(clip: Clip, score: Score | None) -> Signal | None:
    """None where there is no file, or where it went away since it was judged."""
    path = clip.path if score is None else score.path
    if path is None:
        return None
    try:
        return read_signal(path)
    except AudioError:
        return None


def _sound(wave: Wave, rate: int) -> Sound:
    wave = np.clip(wave, -1, 1)
    seen = Signal(wave, rate).at(PICTURE_RATE)
    return Sound(audio_bytes(wave[None], rate, "flac"), spectrogram_png(seen))
