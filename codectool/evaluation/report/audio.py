"""Audio of a clip for the report: the reference and all systems, aligned and of one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from codectool.audio.mel import RATE as SPECTROGRAM_RATE
from codectool.audio.sink import audio_bytes
from codectool.errors import AudioError
from codectool.evaluation.metrics.base import Wave
from codectool.evaluation.results import Clip, Score
from codectool.evaluation.signals import Signal, advance, read_signal
from codectool.plots import spectrogram_png

MIN_RATE, MAX_RATE = 16000, 48000  # in Hz; all browsers play these rates


class ClipAudio(NamedTuple):
    """Audio of one clip in one system, as files for a browser.

    Attributes:
        flac: the audio.
        png: its spectrogram.
    """

    flac: bytes | memoryview
    png: bytes


def read_clip(clip: Clip, scores: Sequence[Score]) -> Iterator[ClipAudio | None]:
    """Yield the reference, then each system; None for audio that is missing or unreadable.

    All have the sampling rate of the reference, from 16 to 48 kHz. The delay of a system is
    removed, and its audio is cut or zero-padded to the length of the reference. Levels are kept.
    """
    reference = _read(clip.path)
    if reference is None:
        yield from [None] * (1 + len(scores))
        return
    rate = min(max(reference.rate, MIN_RATE), MAX_RATE)
    wave = reference.at(rate)
    yield _to_files(wave, rate)
    for score in scores:
        degraded = _read(score.path)
        if degraded is None:
            yield None
        else:
            delay = round(score.delay_ms * rate / 1000)
            yield _to_files(advance(degraded.at(rate), delay, len(wave)), rate)


def _read(path: Path | None) -> Signal | None:
    if path is None:
        return None
    try:
        return read_signal(path)
    except AudioError:  # the file has changed since it was scored
        return None


def _to_files(wave: Wave, rate: int) -> ClipAudio:
    wave = np.clip(wave, -1, 1)
    spectrogram = spectrogram_png(Signal(wave, rate).at(SPECTROGRAM_RATE))
    return ClipAudio(audio_bytes(wave[None], rate, "flac"), spectrogram)
