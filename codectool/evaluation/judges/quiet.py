"""Packages that talk, kept quiet."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


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
