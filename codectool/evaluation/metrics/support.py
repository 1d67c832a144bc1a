"""Signals that no judge of speech has a value for.

Letters used in shapes: N samples.
"""

from __future__ import annotations

from codectool.evaluation.metric import CannotJudgeError, Wave


def require_sound(reference: Wave, degraded: Wave) -> None:
    """Refuse two signals ``(N,)`` of which one never changes: silence, or a constant.

    Levels are made equal before speech is compared, which such a signal would divide by zero.

    Raises:
        CannotJudgeError: names the one that is silent.
    """
    for name, wave in (("reference", reference), ("degraded clip", degraded)):
        if is_silent(wave):
            raise CannotJudgeError(f"the {name} is silent")


def is_silent(wave: Wave) -> bool:
    """Whether all of ``(N,)`` are the same."""
    return not (wave != wave[0]).any()
