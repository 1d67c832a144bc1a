"""Active speech level against the recommendation's algorithm, and what counts as speech."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.evaluation.metrics.speech_level import SpeechLevel, speech_level

RATE = 16000
SPEECH = Path(__file__).parents[3] / "assets" / "speech_espeak.flac"


def method_b(wave: np.ndarray, rate: int) -> tuple[float, float]:
    """Active level and activity, sample by sample as in P.56, sec. 7 and appendix."""
    g, hangover = math.exp(-1 / (rate * 0.03)), math.ceil(0.2 * rate)
    thresholds = [2.0**k for k in range(-15, 0)]
    active, silent = [0] * 15, [hangover] * 15
    p = q = energy = 0.0
    for sample in wave:
        energy += sample * sample
        p = g * p + (1 - g) * abs(sample)
        q = g * q + (1 - g) * p
        for j, threshold in enumerate(thresholds):
            if q >= threshold:
                active[j], silent[j] = active[j] + 1, 0
            elif silent[j] < hangover:
                active[j], silent[j] = active[j] + 1, silent[j] + 1
    levels = [10 * math.log10(energy / a) if a else -100 for a in active]
    margins = [
        level - 20 * math.log10(threshold)
        for level, threshold in zip(levels, thresholds, strict=True)
    ]
    for j in range(1, 15):
        if margins[j] <= 15.9:
            share = (margins[j - 1] - 15.9) / (margins[j - 1] - margins[j])
            level = levels[j - 1] + share * (levels[j] - levels[j - 1])
            return level, energy / len(wave) / 10 ** (level / 10)
    raise AssertionError("no threshold is near the level")


def speech(level_db: float = -26.0, seconds: float = 3.0) -> np.ndarray:
    """A synthetic voice with the given active level."""
    wave, rate = soundfile.read(SPEECH, dtype="float32")
    wave = wave[: round(seconds * rate)]
    found = speech_level(wave, rate).level_db
    assert found is not None
    return np.asarray(wave * 10 ** ((level_db - found) / 20), np.float32)


@pytest.mark.parametrize("level", [-16.0, -26.0, -50.0])
def test_level_equals_the_algorithm_of_p56(level: float) -> None:
    wave = speech(level, seconds=1.5)[::2]
    wave = np.concatenate([wave, np.zeros(9000, np.float32), 0.3 * wave])
    wave -= wave.mean()
    found = speech_level(wave, 11025)
    expected, activity = method_b(wave.astype(float), 11025)
    assert found.level_db == pytest.approx(expected, abs=1e-3)
    assert found.activity == pytest.approx(activity, abs=1e-4)
    assert found.seconds == pytest.approx(activity * len(wave) / 11025, abs=1e-3)


def test_pauses_do_not_change_the_level() -> None:
    wave = speech()
    with_pauses = np.concatenate([np.zeros(80_000, np.float32), wave, np.zeros(80_000, np.float32)])
    found, alone = speech_level(with_pauses, 22050), speech_level(wave, 22050)
    assert found.level_db == pytest.approx(alone.level_db, abs=0.5)
    assert found.activity == pytest.approx(alone.seconds / (len(with_pauses) / 22050), abs=0.05)


@pytest.mark.parametrize("level", [-10.0, -26.0, -40.0, -50.0, -58.0])
def test_quiet_speech_is_speech(level: float) -> None:
    steps = np.round(speech(level) * 32768) / 32768
    assert speech_level(steps.astype(np.float32), 22050).is_speech


def test_one_word_is_speech() -> None:
    word = speech()[22050 : 22050 + 5500]  # 0.25 s
    assert speech_level(word, 22050).is_speech
    alone = np.concatenate([np.zeros(110_250, np.float32), word, np.zeros(110_250, np.float32)])
    assert speech_level(alone, 22050).is_speech


def speechless(kind: str, seconds: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    count = round(seconds * RATE)
    dither = rng.integers(-1, 2, count) / 32768
    if kind == "click":
        dither[count // 2 : count // 2 + 16] = 0.9
    waves = {
        "silence": np.zeros(count),
        "dither": dither,
        "click": dither,
        "constant": 0.25 + dither,
        "noise": rng.normal(0, 10 ** (-66 / 20), count),
        "hum": 10 ** (-62 / 20) * np.sin(2 * np.pi * 50 * np.arange(count) / RATE),
        "one sample": np.full(1, 0.5),
    }
    return waves[kind].astype(np.float32)


@pytest.mark.parametrize(
    "kind", ["silence", "dither", "click", "constant", "noise", "hum", "one sample"]
)
def test_clips_without_speech(kind: str) -> None:
    assert not speech_level(speechless(kind), RATE).is_speech


def test_activity_is_at_most_one() -> None:
    square = np.sign(np.sin(np.arange(RATE) * 0.1)).astype(np.float32)
    found = speech_level(square, RATE)
    assert found.level_db == pytest.approx(0, abs=0.1)
    assert 0.9 < found.activity <= 1
    assert speech_level(np.zeros(10, np.float32), RATE) == SpeechLevel(None, 0.0, 0.0)
