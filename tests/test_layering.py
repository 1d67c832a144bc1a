"""Imports follow the layers of docs/design/architecture.md; there are no cycles."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "codectool"

# Each layer, and the layers of codectool that it may import. All may import `errors`. The command
# line may import everything, and nothing imports it.
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "_version": set(),
    "deprecation": set(),
    "chunking": set(),
    "cores": set(),
    "files": set(),
    "schema": set(),
    "plots": {"files"},
    "tokens": {"deprecation"},
    "audio": {"files"},
    "nn": set(),
    "codecs": {"chunking", "nn", "schema", "tokens"},
    "container": {"chunking", "codecs", "files", "tokens"},
    "checkpoints": {"codecs", "files", "nn", "schema"},
    "streaming": {"audio", "codecs", "deprecation", "tokens"},
    "codec": {"audio", "checkpoints", "codecs", "deprecation", "streaming", "tokens"},
    "loading": {"checkpoints", "codec", "codecs", "deprecation", "streaming"},
    "encoding": {"audio", "codec", "container", "files", "streaming", "tokens"},
    "decoding": {"audio", "codec", "codecs", "container", "files", "streaming"},
    "pipeline": {
        *("audio", "checkpoints", "codec", "container", "cores", "decoding", "encoding", "files"),
        *("loading", "streaming", "tokens"),
    },
    "evaluation": {
        *("_version", "audio", "codec", "container", "cores", "files", "loading", "plots"),
        *("codecs", "streaming", "tokens"),
    },
    "training": {
        *("audio", "checkpoints", "codec", "codecs", "evaluation", "files", "nn", "plots"),
        *("schema", "streaming", "tokens"),
    },
}
# Third-party modules that only some layers may import.
GUARDED = {
    "torch": {"nn", "codecs", "checkpoints", "streaming", "codec", "loading", "training"},
    "torchaudio": {"training"},
    "transformers": {"training"},
    "tensorboard": {"training"},
    "ray": {"pipeline"},
    "matplotlib": {"plots", "evaluation", "training"},
    "pystoi": {"evaluation"},
    "pesq": {"evaluation"},
    "safetensors": {"checkpoints"},
    "soundfile": {"audio"},
    "soxr": {"audio"},
    "construct": {"container"},
    "click": {"cli"},
    "rich": {"cli"},
    "tqdm": {"cli"},
    "pickle": {"checkpoints"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, also under TYPE_CHECKING."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module))
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_layers(path: Path) -> None:
    layer, names = layer_of(path), imports_of(path)
    for name, layers in GUARDED.items():
        used = {found for found in names if found.partition(".")[0] == name}
        assert not used or layer in layers, f"{layer} must not import {name}"
    if layer in ("cli", "__init__", "__main__"):
        return
    ours = {name.split(".")[1] for name in names if name.startswith("codectool.")}
    assert ours <= LAYERS[layer] | {layer, "errors"}, f"{layer} must not import {ours}"


def test_there_are_no_import_cycles() -> None:
    modules = {module_name(path): path for path in FILES}
    graph = {
        name: {found for found in imports_of(path) if found in modules and found != name}
        for name, path in modules.items()
        if path.name != "__init__.py" or layer_of(path) != "__init__"
    }
    done: set[str] = set()

    def visit(name: str, stack: list[str]) -> None:
        assert name not in stack, " -> ".join([*stack[stack.index(name) :], name])
        if name in done:
            return
        for other in graph.get(name, ()):
            visit(other, [*stack, name])
        done.add(name)

    for name in graph:
        visit(name, [])


def test_container_uses_only_the_registry_of_codecs() -> None:
    for path in (PACKAGE / "container").rglob("*.py"):
        codecs = {n for n in imports_of(path) if n.startswith("codectool.codecs.")}
        allowed = ("codectool.codecs.registry", "codectool.codecs.family")
        assert all(name.startswith(allowed) for name in codecs), f"{path}: {codecs}"


def test_nn_holds_only_what_two_codecs_use() -> None:
    """A module of nn/ has users in two codec folders, or in one and in a shared layer."""
    for path in (PACKAGE / "nn").glob("*.py"):
        if path.name == "__init__.py":
            continue
        name = module_name(path)
        users = {
            str(other.relative_to(PACKAGE).parent) for other in FILES if name in imports_of(other)
        } - {"nn"}
        assert len(users) >= 2, f"{name} is used by {users} only"
