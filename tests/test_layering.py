"""Layering: which parts of codectool may import which, and that imports have no cycles."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "codectool"

# Each file or folder of the package, and the ones it may import. All may import `errors`.
LAYERS = {
    "errors": set(),
    "_version": set(),
    "deprecation": set(),
    "files": set(),
    "messages": set(),
    "filetypes": set(),
    "cores": set(),
    "allocator": set(),
    "chunking": set(),
    "schema": {"filetypes", "messages"},
    "plots": {"audio"},
    "doctor": {
        "_version",
        "checkpoints",
        "cores",
        "files",
        "messages",
    },  # imports the others by name
    "nn": {"messages"},
    "tokens": {"deprecation", "messages"},
    "audio": {"chunking", "files", "filetypes", "messages"},
    "codecs": {"chunking", "messages", "nn", "schema", "tokens"},
    "container": {
        "chunking",
        "codecs",
        "files",
        "filetypes",
        "tokens",
    },  # of codecs only what needs no torch
    "checkpoints": {"_version", "codecs", "files", "filetypes", "messages", "nn", "schema"},
    "runner": {"codecs"},
    "torch_runner": {"codecs", "nn", "runner"},
    "onnx": {
        *("checkpoints", "codecs", "cores", "filetypes", "messages", "runner", "schema"),
        *("segments", "tokens"),
    },
    "export": {
        "audio",
        "codec",
        "codecs",
        "files",
        "loading",
        "models",
        "onnx",
        "runner",
        "segments",
    },
    "segments": {"runner"},
    "streaming": {"audio", "codecs", "runner", "segments", "tokens"},
    "codec": {"audio", "codecs", "deprecation", "runner", "segments", "streaming", "tokens"},
    "models": {"checkpoints", "codec", "codecs", "files", "messages", "onnx", "tokens"},
    "loading": {
        *("checkpoints", "codec", "codecs", "deprecation", "onnx", "streaming", "torch_runner"),
    },
    "encoding": {"audio", "codec", "container", "files", "runner", "streaming", "tokens"},
    "decoding": {"audio", "codec", "codecs", "container", "files", "runner", "streaming"},
    "thinning": {"container", "files", "runner"},
    "pipeline": {
        *("allocator", "thinning"),
        *("audio", "checkpoints", "codec", "container", "cores", "decoding", "deprecation"),
        *("encoding", "files", "loading", "messages", "streaming", "tokens"),
    },
    "corpus": {
        *("_version", "audio", "checkpoints", "codec", "container", "cores", "decoding", "files"),
        *("filetypes", "loading", "messages", "pipeline", "schema", "tokens"),
    },
    "evaluation": {
        *("_version", "audio", "checkpoints", "codec", "container", "cores", "files", "loading"),
        *("messages", "plots", "schema", "tokens", "torch_runner"),
    },
    "training": {
        *(
            "audio",
            "checkpoints",
            "codec",
            "codecs",
            "container",
            "evaluation",
            "files",
            "messages",
        ),
        *("nn", "pipeline", "plots", "schema", "tokens", "torch_runner"),
    },
}
FREE = ("__init__", "__main__", "cli")  # may import everything; nothing imports them

# Packages that only some parts may import.
EXTERNAL = {
    # evaluation: networks of metrics, loaded when the metric is used
    "torch": {"nn", "codecs", "checkpoints", "evaluation", "export", "torch_runner", "training"},
    "torchaudio": {"training"},
    "transformers": {"training"},
    "onnxruntime": {"evaluation", "onnx"},
    "ray": {"pipeline"},
    "matplotlib": {"evaluation", "plots", "training"},
    "pystoi": {"evaluation"},
    "pesq": {"evaluation"},
    "distillmos": {"evaluation"},
    "pocketsphinx": {"evaluation"},
    "PIL": {"evaluation"},
    "safetensors": {"checkpoints"},
    "soundfile": {"audio"},
    "soxr": {"audio"},
    "construct": {"container"},
    "msgspec": {
        *("checkpoints", "codecs", "corpus", "export", "onnx", "pipeline", "schema", "training")
    },
    "onnxscript": {"export"},
    "onnx_ir": {"export"},
    "click": {"cli"},
    "rich": {"cli"},
    "tqdm": {"cli"},
    "pickle": {"checkpoints"},
    "pyarrow": {"corpus"},
    "filelock": {"checkpoints", "models"},
    "huggingface_hub": {"checkpoints"},
    "pooch": {"checkpoints"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Dotted names of the modules that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = str(node.module)
            inner = {f"{module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= inner or {module}
    return names


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_layers(path: Path) -> None:
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    names = imports_of(path)
    for name, layers in EXTERNAL.items():
        used = {found for found in names if found.partition(".")[0] == name}
        assert not used or layer in layers, f"{layer} must not import {name}"
    if layer not in FREE:
        inner = {name.split(".")[1] for name in names if name.startswith("codectool.")}
        forbidden = inner - LAYERS[layer] - {layer, "errors"}
        assert not forbidden, f"{layer} must not import {forbidden}"


def test_layers_have_no_cycle() -> None:
    TopologicalSorter(LAYERS).prepare()


def test_modules_have_no_import_cycle() -> None:
    """Imports inside functions and for type checking count, too."""
    graph = {name: imports_of(path) & MODULES.keys() - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


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
        name = module_of(path)
        users = {
            str(other.relative_to(PACKAGE).parent) for other in FILES if name in imports_of(other)
        } - {"nn"}
        assert len(users) >= 2, f"{name} is used by {users} only"
