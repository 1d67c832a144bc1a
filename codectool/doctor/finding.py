"""`Finding`: one fact about this installation, as checks yield them and `doctor` prints them."""

from __future__ import annotations

import getpass
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from codectool.messages import shorten

STATES = ("ok", "note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One fact about this installation.

    Attributes:
        section: heading that it is listed under, such as ``devices``.
        name: what was looked at, such as ``cuda:0``.
        value: what was found.
        state: ``ok``; ``note``: works, but something optional is absent; ``warning``: works, but
            slowly or not in every case; ``error``: broken.
        advice: what the user can do about it.
    """

    section: str
    name: str
    value: str
    state: str = "ok"
    advice: str | None = None


def reason(error: BaseException) -> str:
    """Return the first line of an exception for a finding, without names of the user's folders."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return shorten(anonymous(lines[0]))


def anonymous(text: str) -> str:
    """Return text in which folders that may name the user or a project are abbreviated."""
    folders = [(sys.prefix, "<prefix>"), (sys.base_prefix, "<python>"), (str(Path.cwd()), ".")]
    with suppress(RuntimeError):  # there is no home folder
        folders.append((str(Path.home()), "~"))
    for folder, name in folders:
        if len(folder) > 1:
            text = text.replace(folder, name)
    with suppress(OSError, KeyError, ImportError):  # a user without a name
        user = getpass.getuser()
        for separator in {"/", os.sep}:
            text = text.replace(f"{separator}{user}{separator}", f"{separator}<user>{separator}")
    return text
