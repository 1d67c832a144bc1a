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


def first_few(items: Sequence[str], limit: int = MAX_LISTED) -> list[str]:
    """Return the first items and, if there are more, ``and 2,996 more`` as the last.

    Examples:
        >>> first_few(["a", "b", "c", "d"], 2)
        ['a', 'b', 'and 2 more']
    """
    left = len(items) - limit
    return [*items[:limit], *([f"and {left:,} more"] if left > 0 else [])]
