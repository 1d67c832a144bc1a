"""What the page's scripts know of an evaluation, as JSON that is safe within HTML."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from codectool.evaluation.results import Evaluation, Mean, Score, SystemResult

# The parser of HTML looks for these even within a script; JSON may spell them another way.
ESCAPES = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}


def facts_json(evaluation: Evaluation, folder: str | None) -> str:
    """All but sounds and pictures.

    Args:
        evaluation: what was found.
        folder: where sounds and pictures lie, as a link; None if they are within the page.
    """
    facts = {
        "folder": folder,
        "metrics": [asdict(metric) for metric in evaluation.metrics],
        "clips": [{"name": clip.name, "seconds": clip.seconds} for clip in evaluation.clips],
        "systems": [_system(system) for system in evaluation.systems],
        "leftOut": evaluation.left_out,
        "problems": [
            {"system": system, "clip": clip, "reason": reason}
            for system, clip, reason in evaluation.problems
        ],
    }
    return json.dumps(_finite(facts), separators=(",", ":")).translate(ESCAPES)


def _system(system: SystemResult) -> dict[str, Any]:
    return {
        "name": system.name,
        "kbps": system.kbps,
        "kbpsFile": system.kbps_file,
        "rtfEncode": system.rtf_encode,
        "rtfDecode": system.rtf_decode,
        "delay": system.delay_ms,
        "means": {name: _mean(mean) for name, mean in system.means.items()},
        "scores": [_score(score) for score in system.scores],
    }


def _mean(mean: Mean) -> dict[str, Any]:
    return {
        "mean": mean.mean,
        "low": mean.low,
        "high": mean.high,
        "worst": mean.worst,
        "worstClip": mean.worst_clip,
        "clips": mean.clips,
    }


def _score(score: Score) -> dict[str, Any]:
    return {
        "values": dict(score.values),
        "notes": dict(score.notes),
        "delay": score.delay_ms,
        "problem": score.problem,
        "heard": score.path is not None,
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity: the largest number stands for it; what is not a number is null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return math.copysign(sys.float_info.max, value)
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
