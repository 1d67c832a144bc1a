"""Weights on this machine, and the folder that codectool keeps its own files in."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator

from codectool.checkpoints import bundled, registry
from codectool.doctor.finding import Finding, anonymous, reason


def check_models() -> Iterator[Finding]:
    """Check bundled weights and the checkpoint registry."""
    for weights in bundled.all_bundled():
        yield _bundled(weights)
    yield _home()


def _bundled(weights: bundled.BundledWeights) -> Finding:
    """Check weights of this project against their checksum."""
    label = f"{weights.name}, {weights.fingerprint}"
    path = weights.find()
    if path is None:
        if weights == bundled.default(weights.family):
            advice = "reinstall codectool: its package is incomplete"
            return Finding("models", label, "missing", "error", advice)
        return Finding("models", label, "previous weights, not on this machine", "ok")
    try:
        data = path.read_bytes()
    except OSError as error:
        return Finding("models", label, reason(error), "error", "reinstall codectool")
    if hashlib.sha256(data).hexdigest() != weights.sha256:
        advice = "reinstall codectool, or run `git lfs pull` if this is a checkout"
        return Finding("models", label, "damaged: wrong checksum", "error", advice)
    return Finding("models", label, "bundled")


def _home() -> Finding:
    """Check that the folder of the checkpoint registry can be written."""
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
        return Finding("models", "registry", f"{value}: {reason(error)}", "warning", advice)
    return Finding("models", "registry", value)
