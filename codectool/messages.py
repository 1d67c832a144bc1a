"""Text for messages and reports: names from outside made printable, long lists made short."""

from __future__ import annotations

from collections.abc import Sequence

MAX_LISTED = 5


def printable(text: str) -> str:
    r"""Return ``text`` on one line, with control, bidirectional and invisible characters escaped.

    Examples:
        >>> print(printable("a\nb\u202egnp.wav"))
        a\nb\u202egnp.wav
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_few(items: Sequence[str], see: str = "") -> list[str]:
    """Return the first five items and, if there are more, how many, and where to ``see`` them.

    Examples:
        >>> first_few("abcdefgh", see="the log")
        ['a', 'b', 'c', 'd', 'e', 'and 3 more, see the log']
    """
    left = len(items) - MAX_LISTED
    rest = f"and {left:,} more" + (f", see {see}" if see else "")
    return [*items[:MAX_LISTED], *([rest] if left > 0 else [])]
