"""Weights on this machine, and the folder that codectool keeps its own files in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

from codectool.checkpoints import registry
from codectool.checkpoints.registry import ModelEntry
from codectool.doctor.finding import Finding, anonymous, reason
from codectool.errors import CodectoolError
from codectool.files import file_sha256


def check_models() -> Iterator[Finding]:
    """Check bundled weights, the model registry and the folder that it is in."""
    own = []
    for entry in registry.entries().values():
        if (entry.source or "").startswith("repo:") or entry.remote:
            yield _known(entry)
        else:
            own.append(entry)
    if own:
        yield _own(own)
    yield _registry()
    yield _home()


def _known(entry: ModelEntry) -> Finding:
    """Check weights that others have, too: those of this project against their checksum."""
    path = entry.find()
    if path is None:
        if entry == registry.default(entry.family) and not entry.remote:
            advice = "reinstall codectool: its package is incomplete"
            return Finding("models", entry.name, "missing", "error", advice)
        if not entry.remote:  # previous weights, in the repository only
            return Finding("models", entry.name, "not on this machine")
        return Finding("models", entry.name, f"not on this machine: {entry.how_to_get()}", "note")
    if not entry.is_bundled:
        return Finding("models", entry.name, "on this machine")
    try:
        found = file_sha256(path)
    except OSError as error:
        return Finding("models", entry.name, reason(error), "error", "reinstall codectool")
    if found != entry.sha256:
        advice = "reinstall codectool, or run `git lfs pull` if this is a checkout"
        return Finding("models", entry.name, "damaged: wrong checksum", "error", advice)
    return Finding(
        "models", entry.name, f"bundled, {entry.fingerprint}, tokens {entry.token_fingerprint}"
    )


def _own(entries: list[ModelEntry]) -> Finding:
    """Count the user's own models, whose names and folders are private."""
    missing = sum(entry.find() is None for entry in entries)
    value = f"{len(entries)} recorded on this machine"
    if missing:
        advice = "`codectool models list` shows which; `codectool models remove` forgets them"
        return Finding("models", "others", f"{value}, {missing} missing", "note", advice)
    return Finding("models", "others", value)


def _registry() -> Finding:
    """Check that the user's part of the registry can be read."""
    try:
        registry.entries(strict=True)
    except (CodectoolError, OSError) as error:
        advice = "correct or delete the file"
        return Finding("models", "registry", reason(error), "warning", advice)
    return Finding("models", "registry", "readable")


def _home() -> Finding:
    """Check that the folder of the registry and of downloads can be written."""
    home = registry.home()
    value = anonymous(str(home))
    if os.environ.get("CODECTOOL_HOME"):
        value = "set by CODECTOOL_HOME"
    folder = home
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        advice = (
            "set CODECTOOL_HOME to a folder that can be written; without it, `decode` needs "
            "`--checkpoint` for weights that are not bundled"
        )
        return Finding("models", "home folder", f"{value}: {reason(error)}", "warning", advice)
    return Finding("models", "home folder", value)
