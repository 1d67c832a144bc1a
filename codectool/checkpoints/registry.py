"""A small local list of checkpoints seen, so that `decode` finds the weights a file was made with.

One JSON file, ``checkpoints.json`` in `home`: fingerprint -> family, path of the checkpoint, path
of its config where one was given. The list is a convenience: what it says is checked again when the
weights are loaded, and a list that cannot be read or written is worth a warning, not a failure.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codectool.checkpoints import bundled
from codectool.files import atomic_output

LIST_NAME = "checkpoints.json"


@dataclass(frozen=True)
class RegisteredCheckpoint:
    """Where weights were last seen."""

    family: str
    path: str
    config: str | None = None


def home() -> Path:
    """Folder of codectool's own files: ``CODECTOOL_HOME``, or the user's data folder."""
    if folder := os.environ.get("CODECTOOL_HOME"):
        return Path(folder)
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(data) / "codectool"


def find(fingerprint: str) -> RegisteredCheckpoint | None:
    """Where weights of this fingerprint are: in the package, or where they were last seen."""
    if (weights := bundled.find(fingerprint)) is not None:
        return RegisteredCheckpoint(weights.family, str(weights.path))
    known = _parse(_read().get(fingerprint))
    try:
        there = known and (Path(known.path).is_file() or Path(known.path).is_dir())
    except (OSError, ValueError):  # whatever it says, it is no path
        there = False
    return known if there else None


def register(fingerprint: str, known: RegisteredCheckpoint) -> None:
    """Add or renew an entry.

    Raises:
        OSError: the list cannot be written.
    """
    entries = _read()
    if entries.get(fingerprint) == asdict(known):
        return
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**entries, fingerprint: asdict(known)}, indent=1, sort_keys=True)
    with atomic_output(folder / LIST_NAME, overwrite=True) as file:
        file.write(text.encode())


def _read() -> dict[str, Any]:
    path = home() / LIST_NAME
    try:
        entries = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _parse(entry: Any) -> RegisteredCheckpoint | None:
    if not isinstance(entry, Mapping):
        return None
    family, path, config = (entry.get(key) for key in ("family", "path", "config"))
    if not isinstance(family, str) or not isinstance(path, str) or not path:
        return None
    return RegisteredCheckpoint(family, path, config if isinstance(config, str) else None)
