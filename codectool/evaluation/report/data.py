"""Data of the report, as JSON that is safe inside HTML."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from typing import Any

from codectool.evaluation.results import Evaluation, Score, SystemResult
from codectool.evaluation.tables import remarks
from codectool.messages import printable

# HTML parsers interpret these characters even in a script element.
ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}
SYSTEM_KEYS = ("name", "kbps", "kbps_file", "rtf_encode", "rtf_decode", "delay_ms", "version")


def page_data(evaluation: Evaluation, audio_url: str | None) -> str:
    """Convert an evaluation to JSON; keys are the names of the Python attributes.

    Args:
        evaluation: the results.
        audio_url: URL of the folder with audio and spectrograms; None if they are embedded.
    """
    data = {
        "audio_url": audio_url,
        "metrics": [asdict(metric) for metric in evaluation.metrics],
        "clips": [{"name": clip.name, "seconds": clip.seconds} for clip in evaluation.clips],
        "originals": evaluation.originals and _system(evaluation.originals),
        "systems": [_system(system) for system in evaluation.systems],
        "left_out": evaluation.left_out,
        "remarks": list(remarks(evaluation)),
        "problems": [problem._asdict() for problem in evaluation.problems],
    }
    return json.dumps(_cleaned(data), separators=(",", ":")).translate(ESCAPES)


def _system(system: SystemResult) -> dict[str, Any]:
    return {
        **{key: getattr(system, key) for key in SYSTEM_KEYS},
        "means": {name: asdict(mean) for name, mean in system.means.items()},
        "scores": [_score(score) for score in system.scores],
    }


def _score(score: Score) -> dict[str, Any]:
    return {
        "values": dict(score.values),
        "notes": dict(score.notes),
        "problem": score.problem,
        "has_audio": score.path is not None,
    }


def _cleaned(value: Any) -> Any:
    """Make text printable, replace infinity, which JSON lacks, by the largest number, NaN by null.

    Names may contain characters that reverse or hide the text after them.
    """
    if isinstance(value, dict):
        return {key: _cleaned(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(item) for item in value]
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float) and math.isinf(value):
        return math.copysign(sys.float_info.max, value)
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
