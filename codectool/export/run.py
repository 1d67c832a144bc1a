"""`export_codec`: write the parts of a codec as files, after comparing them with the model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.export import ExportedProgram

from codectool.codec import Codec
from codectool.codecs.exportable import ExportPart
from codectool.codecs.registry import get_family
from codectool.errors import UsageError
from codectool.export.check import CheckResult, Run, check_clips, check_part
from codectool.export.graphs import (
    INSTALL,
    OPSET,
    build_graph,
    describe,
    operators,
    quiet,
    save_graph,
)
from codectool.files import temporary_path
from codectool.onnx.graph import Graph
from codectool.onnx.metadata import AUDIO, CODES, METADATA_KEY, GraphMetadata

Format = Literal["onnx", "torch-export"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch-export": ()}


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written.

    Attributes:
        name: file name.
        size: in bytes, with external data.
        check: comparison with the model.
        opset: version of the ONNX operators; None for other formats.
        operators: how often each operator occurs, by name.
    """

    name: str
    size: int
    check: CheckResult
    opset: int | None
    operators: Mapping[str, int]


def export_codec(
    codec: Codec,
    folder: Path,
    format: Format = "onnx",
    *,
    clips: Sequence[Path] = (),
    overwrite: bool = False,
    external_data: bool = False,
    on_part: Callable[[str], None] = lambda name: None,
) -> list[ExportedFile]:
    """Export all parts of a codec to a folder, and compare them with the model.

    Args:
        codec: a codec on the CPU.
        folder: where the files go; created if it does not exist.
        format: ``"onnx"`` or ``"torch-export"``.
        clips: recordings for the comparison; none: a synthetic signal.
        overwrite: replace files of the same names.
        external_data: write the weights of ONNX graphs to files beside them, as is always done for
            graphs of more than 2 GB.
        on_part: called with the name of each file before it is made.

    Raises:
        UsageError: a package is missing, or the files exist or cannot be written.
        ExportCheckError: an exported part does not agree with the model; nothing is written.
    """
    if format not in get_args(Format):
        raise UsageError(f"no format is called `{format}`; use {' or '.join(get_args(Format))}")
    require_packages(format)
    parts = get_family(codec.model.family).export_parts(codec.model)
    names = [part.name + SUFFIXES[format] for part in parts]
    compared = check_clips(codec, clips)
    exported = []
    with _staged(folder, names, overwrite) as staging:
        for part, name in zip(parts, names, strict=True):
            on_part(name)
            metadata = describe(codec, part)
            program = trace(codec, part)
            path = staging / name
            if format == "onnx":
                graph = build_graph(program, part, metadata)
                save_graph(graph, path, external_data)
                used = operators(graph)
                run = open_graph(path)
            else:
                save_program(program, part, metadata, path)
                used = program_operators(program)
                run = open_program(path)
            result = check_part(metadata, run, compared)
            result.require(name)
            size = sum(file.stat().st_size for file in staging.glob(f"{name}*"))
            opset = OPSET if format == "onnx" else None
            exported.append(ExportedFile(name, size, result, opset, used))
    return exported


def require_packages(format: Format) -> None:
    """Raise a `UsageError` that says how to install a package that the format needs."""
    for name in PACKAGES[format]:
        try:
            import_module(name)
        except ImportError as error:
            raise UsageError(f"`--format {format}` needs the package {name}; {INSTALL}") from error


def trace(codec: Codec, part: ExportPart) -> ExportedProgram:
    """Trace a part; steps take any number of frames, others at least the model's minimum."""
    model = codec.model
    min_frames = model.min_frames if part.chunk_frames is None else 1
    return part.trace(model.hop_length, len(model.codebook_sizes), min_frames)


def save_program(
    program: ExportedProgram, part: ExportPart, metadata: GraphMetadata, path: Path
) -> None:
    """Write a `torch.export` program, with the metadata as an extra file."""
    for node in program.graph_module.graph.nodes:
        node.target = part.substitutes.get(node.target, node.target)
    program.graph_module.recompile()
    with path.open("wb") as file, quiet():
        torch.export.save(program, file, extra_files={METADATA_KEY: metadata.to_text()})


def program_operators(program: ExportedProgram) -> dict[str, int]:
    """Return how often each operator occurs in a program, by name."""
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    return {name: names.count(name) for name in sorted(set(names))}


def open_graph(path: Path) -> Run:
    """Load a graph in ONNX Runtime."""
    graph = Graph(path)
    metadata = graph.metadata
    states = metadata.step.states if metadata.step else ()
    names = [AUDIO if metadata.part.startswith("encoder") else CODES, *(s.input for s in states)]
    return lambda inputs: graph.run(1, dict(zip(names, inputs, strict=True)))


def open_program(path: Path) -> Run:
    """Load a program with `torch.export.load`."""
    with path.open("rb") as file, quiet():
        module = torch.export.load(file).module()

    @torch.no_grad()
    def run(inputs: Sequence[Any]) -> Sequence[Any]:
        outputs = module(*(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs))
        outputs = outputs if isinstance(outputs, tuple | list) else [outputs]
        return [output.numpy() for output in outputs]

    return run


@contextmanager
def _staged(folder: Path, names: Sequence[str], overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder; move its files to ``folder`` if the body raises no exception."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder")
    for name in names:
        if (folder / name).exists() and not overwrite:
            raise UsageError(f"{folder / name}: exists; give `--overwrite` to replace it")
    final = folder.resolve()
    if not final.parent.is_dir():
        raise UsageError(f"{folder}: there is no folder {folder.parent}")
    staging = temporary_path(final)
    try:
        staging.mkdir()
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror or error})") from error
    try:
        yield staging
        final.mkdir(exist_ok=True)
        for file in sorted(staging.iterdir()):
            os.replace(file, final / file.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
