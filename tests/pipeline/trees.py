"""Small folders of audio, and their contents after a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

# name, channels, sampling rate in Hz, samples
FILES = [
    ("a/one.wav", 1, 16000, 4000),
    ("a/two.flac", 2, 22050, 5512),
    ("a/deep/er/three.ogg", 1, 8000, 1600),
    ("b/four.WAV", 1, 24000, 9000),
    ("b/five.aiff", 1, 16000, 801),
    ("six.wav", 3, 48000, 3000),
    ("seven.wav", 1, 16000, 1),
    ("eight.wav", 1, 16000, 16000),
]


def write_audio(path: Path, channels: int, rate: int, length: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, length])
    kind = {".ogg": "VORBIS"}.get(path.suffix.lower())
    soundfile.write(path, rng.normal(0, 0.1, (length, channels)), rate, kind)


def make_tree(folder: Path) -> Path:
    for name, channels, rate, length in FILES:
        write_audio(folder / name, channels, rate, length)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of all files of a tree, including hidden ones."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def outputs(folder: Path) -> dict[str, bytes]:
    """Return the content of all files of a tree that are not hidden."""
    return {name: data for name, data in contents(folder).items() if not name.startswith(".")}
