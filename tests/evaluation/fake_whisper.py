"""A package `faster_whisper` for tests, which understands levels instead of words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The signatures are those of faster-whisper 1.2.1, as far as codectool uses them.
SOURCE = """
import os
from types import SimpleNamespace

import numpy as np

LOUD = " The quick brown fox jumps over the lazy dog."
SOFT = " The quick crown fox, jumps over lazy dog"


class WhisperModel:
    def __init__(self, model_size_or_path, device="auto", device_index=0,
                 compute_type="default", cpu_threads=0, num_workers=1):
        if not os.path.isdir(model_size_or_path):
            raise ValueError(f"Invalid model size '{model_size_or_path}', expected one of: tiny")
        assert (device, compute_type, cpu_threads) == ("cpu", "int8", 1)

    def transcribe(self, audio, language=None, task="transcribe", log_progress=False, beam_size=5,
                   best_of=5, temperature=(0.0, 0.2, 0.4), condition_on_previous_text=True):
        assert audio.dtype == np.float32 and audio.ndim == 1
        assert (temperature, condition_on_previous_text) == (0.0, False)
        text = LOUD if np.abs(audio).mean() > 0.05 else SOFT
        words = text.split(" ", 4)
        segments = (SimpleNamespace(text=part) for part in (" ".join(words[:4]), " " + words[4]))
        return segments, SimpleNamespace(language=language or "en")
"""
TEXT = "The quick brown fox jumps over the lazy dog"


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the package to a folder, put it on `sys.path`, and return the folder of a model."""
    package = folder / "packages" / "faster_whisper"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(SOURCE)
    monkeypatch.delitem(sys.modules, "faster_whisper", raising=False)
    monkeypatch.syspath_prepend(str(package.parent))
    model = folder / "model"
    model.mkdir()
    return model
