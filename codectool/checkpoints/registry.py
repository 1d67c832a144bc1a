"""The checkpoint registry: where weights were last seen, so that `decode` finds them.

One JSON file, ``checkpoints.json`` in `home`, maps fingerprints to family, checkpoint and config.
Entries are checked when the weights are loaded, so an unreadable registry is no error.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from codectool.checkpoints import bundled
from codectool.files import atomic_output
from codectool.schema import Config, from_json, to_json

LIST_NAME = "checkpoints.json"


class RegisteredCheckpoint(Config, frozen=True):
    """Where weights were last seen."""

    family: str
    path: Annotated[str, Meta(min_length=1)]
    config: str | None = None


def home() -> Path:
    """Return the folder for codectool's own files: ``CODECTOOL_HOME`` or the user's data folder."""
    if folder := os.environ.get("CODECTOOL_HOME"):
        return Path(folder)
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(data) / "codectool"


def find(fingerprint: str) -> RegisteredCheckpoint | None:
    """Return where weights with this fingerprint are: bundled, or registered and still there."""
    if (weights := bundled.find_available(fingerprint)) is not None:
        return RegisteredCheckpoint(weights.family, str(weights.path))
    try:
        entry = from_json(RegisteredCheckpoint, _read().get(fingerprint))
        path = Path(entry.path)
        exists = path.is_file() or path.is_dir()  # not a pipe, which would block
    except (OSError, ValueError):  # the entry or its path is invalid
        return None
    return entry if exists else None


def register(fingerprint: str, entry: RegisteredCheckpoint) -> None:
    """Add or replace an entry.

    Raises:
        UsageError: The registry cannot be written.
        OSError: Its folder cannot be made.
    """
    entries = _read()
    if entries.get(fingerprint) == to_json(entry):
        return
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**entries, fingerprint: to_json(entry)}, indent=1, sort_keys=True)
    with atomic_output(folder / LIST_NAME, overwrite=True) as file:
        file.write(text.encode())


def _read() -> dict[str, Any]:
    path = home() / LIST_NAME
    try:
        entries = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}
