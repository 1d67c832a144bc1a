"""Load exported models, and the bundled graphs with the weights of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import get_args

from codectool.checkpoints import registry
from codectool.checkpoints.stored import (
    TENSORS_NAME,
    StoredWeights,
    fingerprint_stored,
    read_stored,
    token_fingerprint_stored,
)
from codectool.errors import CheckpointError
from codectool.messages import shorten
from codectool.onnx.graph import Graph
from codectool.onnx.metadata import GraphMetadata, Part
from codectool.onnx.runner import OnnxRunner

PARTS: tuple[str, ...] = get_args(Part)
BUNDLED = Path(str(files("codectool") / "weights"))  # graphs without weights


@dataclass(frozen=True)
class LoadedExport:
    """A model for ONNX Runtime; see `codectool.checkpoints.load.LoadedModel`."""

    runner: OnnxRunner
    fingerprint: str
    token_fingerprint: str
    path: Path
    same_tokens_as: tuple[str, ...] = ()


def is_export(path: Path) -> bool:
    """Return whether a path is a folder that `codectool export` wrote, or one of its graphs."""
    return path.suffix == ".onnx" or any((path / f"{part}.onnx").is_file() for part in PARTS)


def load_exported(path: Path, family: str | None = None) -> LoadedExport:
    """Load a model for ONNX Runtime.

    Args:
        path: a folder that `codectool export` wrote, a checkpoint that the bundled graphs fit, or
            the name of one.
        family: expected codec family; None accepts any.

    Raises:
        CheckpointError: it cannot be used.
        WeightsMissingError: the model of this name is not on this machine.
    """
    if not path.exists() and (entry := registry.named(str(path))) is not None:
        path = entry.locate()
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    if is_export(path):
        path = path.parent if path.suffix == ".onnx" else path
        graphs = {part: Graph(file) for part in PARTS if (file := path / f"{part}.onnx").is_file()}
        metadata = _check_graphs(path, graphs)
        assert metadata.fingerprint is not None
        names = metadata.fingerprint, metadata.token_fingerprint or metadata.fingerprint
        same_tokens_as = metadata.same_tokens_as
    else:
        stored = _read_checkpoint(path)
        graphs = _bundled_graphs(path, stored)
        metadata = next(iter(graphs.values())).metadata
        described = stored.family, metadata.model, stored.tensors
        names = fingerprint_stored(*described), token_fingerprint_stored(*described)
        same_tokens_as = stored.same_tokens_as
    found = metadata.family
    if family is not None and found != family:
        raise CheckpointError(f"{path}: is a {found} model; use `--model {found}`")
    return LoadedExport(OnnxRunner(graphs), *names, path, same_tokens_as)


def _check_graphs(folder: Path, graphs: dict[str, Graph]) -> GraphMetadata:
    """Return the metadata of one of the graphs; raise if they do not belong together."""
    for kind in ("encoder", "decoder"):
        if not {kind, f"{kind}_step"} & graphs.keys():
            raise CheckpointError(f"{folder}: {kind}.onnx is missing; export the model again")
    found = set()
    for part, graph in graphs.items():
        metadata = graph.metadata
        if metadata.part != part:
            raise CheckpointError(f"{graph.path}: contains the part {metadata.part}; rename it")
        if metadata.fingerprint is None:
            raise CheckpointError(f"{graph.path}: has no weights; export the model again")
        found.add((metadata.family, metadata.fingerprint, metadata.layout))
    if len(found) > 1:
        raise CheckpointError(f"{folder}: its graphs have different weights; export them again")
    return metadata


def _read_checkpoint(path: Path) -> StoredWeights:
    file = path / TENSORS_NAME if path.is_dir() else path
    if file.suffix != ".safetensors" or not file.is_file():
        raise CheckpointError(f"{path}: {_advice(path)}")
    return read_stored(file)


def _advice(path: Path) -> str:
    return (
        f"ONNX Runtime needs an exported model; run `codectool export {shorten(str(path))} FOLDER` "
        "where PyTorch is installed, and pass `--checkpoint FOLDER`"
    )


def _bundled_graphs(path: Path, stored: StoredWeights) -> dict[str, Graph]:
    """Return the bundled graphs for these hyper-parameters, with the weights of a checkpoint."""
    bundled = [Graph(file, stored.tensors) for file in sorted(BUNDLED.glob("*.onnx"))]
    graphs: dict[str, Graph] = {
        graph.metadata.part: graph
        for graph in bundled
        if (graph.metadata.family, graph.metadata.model) == (stored.family, stored.model)
    }
    if not graphs:
        raise CheckpointError(f"{path}: {_advice(path)}")
    return graphs
