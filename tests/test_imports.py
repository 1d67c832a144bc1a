"""Data flow one way: which room of the house may look into which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "codectool"

# Each room, and the rooms of ours that it may import from. Everything may import `errors`.
ROOMS = {
    "errors": set(),
    "_version": set(),
    "tokens": set(),
    "files": set(),
    "cores": set(),
    "chunking": set(),
    "container": {"chunking", "codecs", "files", "tokens"},  # of codecs, the torch-free registry
    "audio": {"files"},
    "nn": set(),
    "codecs": {"nn", "tokens"},
    "checkpoints": {"codecs", "nn", "files"},
    "streams": {"audio", "codecs"},
    "codec": {"audio", "checkpoints", "codecs", "streams", "tokens"},
    "exact": {"audio", "codec", "streams"},
    "loading": {"codec", "checkpoints", "codecs"},
    "encoding": {"audio", "codec", "container", "exact", "files", "streams", "tokens"},
    "decoding": {"audio", "codec", "container", "exact", "files", "streams"},
    "pipeline": {
        *("audio", "checkpoints", "codec", "container", "cores", "decoding", "encoding", "files"),
        *("loading", "tokens"),
    },
    "evaluation": {
        *(
            "audio",
            "codec",
            "cores",
            "container",
            "files",
            "loading",
            "pipeline",
            "tokens",
            "_version",
        ),
    },
    "training": {"audio", "nn", "codecs", "checkpoints", "codec", "evaluation", "files", "tokens"},
}
# What only some rooms may bring in from outside.
GUARDED = {
    "torch": {"nn", "codecs", "checkpoints", "streams", "codec", "exact", "loading", "training"},
    "torchaudio": {"training"},
    "transformers": {"training"},
    "ray": {"pipeline"},
    "matplotlib": {"evaluation", "training"},
    "pystoi": {"evaluation", "training"},
    "pesq": {"evaluation"},
    "PIL": {"evaluation"},
    "safetensors": {"checkpoints"},
    "soundfile": {"audio"},
    "soxr": {"audio"},
    "construct": {"container"},
    "click": {"cli"},
    "rich": {"cli"},
    "tqdm": {"cli"},
    "pickle": {"checkpoints"},
}


def imports_of(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module))
    return names


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_house(path: Path) -> None:
    room = room_of(path)
    names = imports_of(path)
    for name, rooms in GUARDED.items():
        used = {found for found in names if found.partition(".")[0] == name}
        assert not used or room in rooms, f"{room} must not import {name}"
    if room in ("cli", "__init__", "__main__"):
        return  # they may import everything, and nothing imports them
    ours = {name.split(".")[1] for name in names if name.startswith("codectool.")}
    assert ours <= ROOMS[room] | {room, "errors"}, f"{room} must not import {ours}"
    assert "cli" not in ours
