"""Old public names, which keep working with a `DeprecationWarning`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

RENAMED_VALUES = {"whole": "lossless", "upstream": "reference"}  # of `framing`, now `padding`


def warn_renamed(old: str, new: str) -> None:
    """Warn the caller of the calling function that it uses an old name."""
    warnings.warn(f"`{old}` is deprecated; use `{new}`", DeprecationWarning, stacklevel=3)


def renamed_keywords(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Accept old keyword arguments, given as ``old="new"``, and old values of them."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in names.items():
                if old in kwargs:
                    if new in kwargs:
                        raise TypeError(f"`{old}` is the old name of `{new}`; give only `{new}`")
                    warn_renamed(old, new)
                    value: Any = kwargs.pop(old)
                    renamed = RENAMED_VALUES.get(value) if isinstance(value, str) else None
                    kwargs[new] = renamed or value
            return function(*args, **kwargs)

        return call

    return decorate
