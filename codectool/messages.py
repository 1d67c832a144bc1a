"""Text for messages and reports: names from outside made printable, long lists made short."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Sequence
from typing import Any

MAX_LISTED = 5
SURROGATE = re.compile(r"[\ud800-\udfff]")
MAX_SHOWN = 200  # characters of a file's text in a message


def printable(text: str) -> str:
    r"""Return ``text`` on one line, with control, bidirectional and invisible characters escaped.

    Bytes of a file name that are not UTF-8 become ``\xNN``.

    Examples:
        >>> print(printable("a\nb\u202egnp.wav"))
        a\nb\u202egnp.wav
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def to_json(value: Any, indent: int | None = None) -> str:
    r"""Return JSON in ASCII, in which bytes of a file name that are not UTF-8 become ``\xNN``.

    JSON itself can write them only as half of a pair of characters, which many readers reject.

    Examples:
        >>> print(to_json({"file": "\udcff.wav"}))
        {"file": "\\xff.wav"}
    """
    return json.dumps(encodable(value), indent=indent)


def encodable(value: Any) -> Any:
    r"""Return JSON values in which bytes of a file name that are not UTF-8 are ``\xNN``."""
    if isinstance(value, str):
        return SURROGATE.sub(lambda match: _escaped(match[0]), value)
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encodable(item) for item in value]
    return value


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python represents a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def first_few(items: Sequence[str], see: str = "") -> list[str]:
    """Return the first five items and, if there are more, how many, and where to ``see`` them.

    Examples:
        >>> first_few("abcdefgh", see="the log")
        ['a', 'b', 'c', 'd', 'e', 'and 3 more, see the log']
    """
    left = len(items) - MAX_LISTED
    rest = f"and {left:,} more" + (f", see {see}" if see else "")
    return [*items[:MAX_LISTED], *([rest] if left > 0 else [])]


def shorten(text: str, limit: int = MAX_SHOWN) -> str:
    """Return text from a file for a message: printable, and at most ``limit`` characters."""
    text = printable(text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."


def shorten_repr(value: object, limit: int = MAX_SHOWN) -> str:
    """Return a `repr` for a message, at most ``limit`` characters, with long and deep values cut.

    A few bytes of a file can make an object whose own `repr` takes hours.
    """
    return shorten(_REPR.repr(value), limit)


class _Repr(reprlib.Repr):
    """A `repr` that is short and fast for every value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = MAX_SHOWN

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print more than 4300 digits, and took long before it did.
        return repr(x) if x.bit_length() <= 4096 else f"an integer of {x.bit_length()} bits"

    def repr_str(self, x: str, level: int) -> str:
        return repr(x if len(x) <= self.maxstring else x[: self.maxstring - 3] + "...")


_REPR = _Repr()
