"""Signals that no judge of speech has a value for.

Letters used in shapes: N samples.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from codectool.evaluation.metrics.base import MetricUndefinedError, Wave


def require_sound(reference: Wave, degraded: Wave) -> None:
    """Refuse two signals ``(N,)`` of which one never changes: silence, or a constant.

    Levels are made equal before speech is compared, which such a signal would divide by zero.

    Raises:
        MetricUndefinedError: names the one that is silent.
    """
    for name, wave in (("reference", reference), ("degraded clip", degraded)):
        if is_silent(wave):
            raise MetricUndefinedError(f"the {name} is silent")


def is_silent(wave: Wave) -> bool:
    """Whether all of ``(N,)`` are the same."""
    return not (wave != wave[0]).any()


@contextmanager
def no_warnings() -> Iterator[None]:
    """Python's warnings go nowhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def silent() -> Iterator[None]:
    """Neither warnings nor anything on standard error, not even from C.

    What others write there meanwhile is lost as well: for short moments, such as loading.
    """
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        with no_warnings():
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
