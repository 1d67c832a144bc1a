"""A small evaluation with audio; some of its names try to be markup."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from codectool.evaluation.metrics.base import MetricInfo
from codectool.evaluation.metrics.speech_level import SpeechLevel
from codectool.evaluation.results import Clip, Evaluation, Mean, Problem, Score, SystemResult

RATE = 16000
SECONDS = 4.0
SPEECH = SpeechLevel(-26.0, 1.0, SECONDS)
DELAY_MS = 25.0
IMAGE = "<img src=x onerror=alert(1)>.wav"
SCRIPT = "</script><script>alert(2)</script>"
PLACEHOLDER = "$title ${data} <!-- audio -->.wav"
SEPARATORS = "b & \"c\" 'd' \\u003c\u2028e\u2029\u202ef.wav"  # line breaks, right-to-left mark
QUALITY = MetricInfo(
    "quality", "Quality", "MOS", "higher", 2, (1, 5), f"How good. {SCRIPT}", False, False
)
ERROR = MetricInfo("error", "Error", "", "lower", 3, (0, None), "How bad.")
# quality of each clip, error of each clip, kbps
SYSTEMS = {
    "good": ((4.0, 3.0, 3.5), (0.1, 0.3, 0.2), 6.0),
    SCRIPT: ((2.0, 2.5, 1.5), (0.5, 0.4, 0.9), 1.0),
    "unknown": ((3.0, None, 3.2), (0.3, None, 0.05), None),
}
ORIGINALS = (4.5, 4.25, 4.75)  # quality of the recordings
REASON = "it came back empty"


def evaluation_of(folder: Path) -> Evaluation:
    """Return three clips in three systems; the last system lacks the second clip."""
    clips = []
    for number, name in enumerate((IMAGE, PLACEHOLDER, SEPARATORS)):
        path = folder / name
        soundfile.write(path, reference(number), RATE)
        clips.append(Clip(name, path, SECONDS, SPEECH))
    systems = [_system(folder, number, clips) for number in range(len(SYSTEMS))]
    problems = (
        Problem("unknown", PLACEHOLDER, REASON),
        Problem("", "broken.wav", f"not audio {IMAGE}"),
    )
    left_out = (f"other: not installed {IMAGE}",)
    return Evaluation(
        tuple(clips), (QUALITY, ERROR), tuple(systems), left_out, problems, _originals(clips)
    )


def reference(number: int) -> npt.NDArray[np.float32]:
    """Return a tone that fades in, of a different frequency for each clip."""
    time = np.arange(round(RATE * SECONDS)) / RATE
    tone = 0.4 * np.sin(2 * np.pi * (400 + 200 * number) * time) * np.minimum(1, time * 4)
    return np.asarray(tone, np.float32)


def _originals(clips: list[Clip]) -> SystemResult:
    scores = tuple(
        Score(clip.name, clip.path, {"quality": quality})
        for clip, quality in zip(clips, ORIGINALS, strict=True)
    )
    return SystemResult("originals", scores, {"quality": _mean(ORIGINALS, clips, min)}, None)


def _system(folder: Path, number: int, clips: list[Clip]) -> SystemResult:
    name = list(SYSTEMS)[number]
    qualities, errors, kbps = SYSTEMS[name]
    delay = DELAY_MS if number == 0 else 0.0
    scores = []
    for index, (clip, quality, error) in enumerate(zip(clips, qualities, errors, strict=True)):
        if quality is None:
            scores.append(Score(clip.name, problem=REASON))
            continue
        noise = np.random.default_rng(number).normal(0, 0.01 * number, round(RATE * SECONDS))
        wave = np.pad(reference(index) + noise, (round(delay * RATE / 1000), 0))
        path = folder / f"system-{number}-{index}.wav"
        soundfile.write(path, wave, RATE, "FLOAT")
        scores.append(Score(clip.name, path, {"quality": quality, "error": error}, delay_ms=delay))
    means = {"quality": _mean(qualities, clips, min), "error": _mean(errors, clips, max)}
    return SystemResult(name, tuple(scores), means, delay, kbps, None, 0.5, 0.25)


def _mean(values, clips, worst) -> Mean:
    known = [(value, clip.name) for value, clip in zip(values, clips, strict=True) if value]
    mean = sum(value for value, _ in known) / len(known)
    return Mean(mean, mean - 0.2, mean + 0.2, *worst(known), len(known))
