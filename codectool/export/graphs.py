"""Traced programs to ONNX graphs with operators of the standard domain only."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace
from torch.export import ExportedProgram

from codectool.codec import Codec
from codectool.codecs.exportable import ExportPart
from codectool.codecs.family import import_object
from codectool.errors import UsageError
from codectool.onnx.metadata import (
    AUDIO,
    CODES,
    FORMAT_VERSION,
    METADATA_KEY,
    GraphMetadata,
    StateTensor,
    StepMetadata,
    parse_metadata,
)

MAX_FILE_BYTES = 2_000_000_000  # of weights; protobuf ends at 2 GiB
OPSET = 18  # the version that PyTorch's exporter implements; newer ones are converted from it
INSTALL = "run `pip install 'codectool[export]'`"


def describe(codec: Codec, part: ExportPart) -> GraphMetadata:
    """Return the metadata of a graph of this part."""
    model = codec.model
    context, latency = model.decode_context, model.latency
    step = None
    if part.chunk_frames is not None:
        step = StepMetadata(
            chunk_frames=part.chunk_frames,
            delay_frames=part.delay_frames,
            states=tuple(
                StateTensor(f"state.{name}", f"next_state.{name}", shape)
                for name, shape in part.states.items()
            ),
        )
    probe = 100 * model.hop_length + 1
    drops = model.reference_frames(probe) < model.num_frames(probe)
    return GraphMetadata(
        format_version=FORMAT_VERSION,
        part=part.name,
        family=model.family,
        fingerprint=codec.fingerprint,
        model=model.hyper_parameters,
        sample_rate=model.sample_rate,
        hop_length=model.hop_length,
        codebook_sizes=tuple(model.codebook_sizes),
        min_frames=model.min_frames,
        min_padding=model.min_padding,
        extra_frames=model.extra_frames,
        segment_frames=model.segment_frames,
        reference_padding="drop" if drops else "same",
        decode_context=(context.before, context.after),
        decode_steps=(context.start_step, context.stop_step),
        latency=(latency.encoder, latency.decoder),
        versions=_versions(),
        step=step,
        token_fingerprint=codec.token_fingerprint,
        same_tokens_as=tuple(sorted(codec.same_tokens_as)),
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "onnx", "onnxscript")}


def build_graph(program: ExportedProgram, part: ExportPart, metadata: GraphMetadata) -> Any:
    """Translate a traced program to an `onnx_ir.Model`; its initializers are the model's tensors.

    Raises:
        UsageError: the package onnxscript is missing.
    """
    try:
        import onnxscript  # noqa: F401
        import onnxscript.optimizer as optimizer
        from onnx_ir.passes.common import IdentityEliminationPass
    except ImportError as error:
        raise UsageError(f"ONNX graphs need the package onnxscript; {INSTALL}") from error
    states = metadata.step.states if metadata.step else ()
    x, y = (AUDIO, CODES) if part.is_encoder else (CODES, AUDIO)
    with quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[x, *(state.input for state in states)],
            output_names=[y, *(state.output for state in states)],
            custom_translation_table={
                operator: import_object(path) for operator, path in part.translations.items()
            },
            optimize=False,
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    model = exported.model
    with quiet(), _weights_as_inputs(model.graph):
        # Folding first leaves few nodes, which the patterns of the optimizer are matched against.
        optimizer.fold_constants_ir(model)
        optimizer.remove_unused_nodes(model)
        optimizer.optimize_ir(model, num_iterations=1)
        IdentityEliminationPass()(model)
    _remove_traces(model)
    _name_axes(model, x, y, metadata)
    model.producer_name, model.producer_version = "codectool", None
    model.metadata_props[METADATA_KEY] = metadata.to_text()
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Hide messages about optional packages and internals of the exporter."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _weights_as_inputs(graph: Any) -> Iterator[None]:
    """Turn initializers into inputs, so that the optimizer does not compute others from them."""
    count = len(graph.inputs)
    weights = {name: value.const_value for name, value in graph.initializers.items()}
    values = list(graph.initializers.values())
    graph.initializers.clear()
    for value in values:
        value.const_value = None
        graph.inputs.append(value)
    yield
    del graph.inputs[count:]
    for value in values:
        if value.uses() or value.is_graph_output():
            value.const_value = weights[value.name]
            graph.initializers[value.name] = value


def _remove_traces(model: Any) -> None:
    """Remove the stack traces and internal names that the exporter stores with every node."""
    model.metadata_props.clear()
    model.doc_string = None
    graph = model.graph
    graph.metadata_props.clear()
    graph.doc_string = None
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()


def _name_axes(model: Any, x: str, y: str, metadata: GraphMetadata) -> None:
    """Name the dynamic axes of the input and the output."""
    import onnx_ir as ir

    samples = f"{metadata.hop_length}*frames"
    for value, name in ((model.graph.inputs[0], x), (model.graph.outputs[0], y)):
        axes: list[Any] = (
            [1, 1, samples] if name == AUDIO else [1, len(metadata.codebook_sizes), "frames"]
        )
        value.shape = ir.Shape(axes)
    for state, value in zip(
        metadata.step.states if metadata.step else (), model.graph.outputs[1:], strict=True
    ):
        value.shape = ir.Shape(state.shape)


def operators(model: Any) -> dict[str, int]:
    """Return how often each operator occurs in a graph, by name; others with their domain."""
    names = (
        node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
        for node in model.graph.all_nodes()
    )
    return dict(sorted(Counter(names).items()))


def save_graph(model: Any, path: Path, external_data: bool = False) -> None:
    """Write a graph, with its weights beside it if they do not fit into the file."""
    import onnx_ir as ir

    initializers = model.graph.initializers.values()
    size = sum(value.const_value.nbytes for value in initializers)
    external = f"{path.name}.data" if external_data or size > MAX_FILE_BYTES else None
    ir.save(model, path, external_data=external)


def without_weights(model: Any, names: Container[str]) -> Any:
    """Make the initializers with these names external, so that the file does not contain them.

    The graph then fits all weights of the same hyper-parameters; its fingerprints are null.
    """
    import onnx_ir as ir

    for name, value in model.graph.initializers.items():
        if name in names:
            tensor = value.const_value
            value.const_value = ir.ExternalTensor(
                "weights", 0, tensor.nbytes, tensor.dtype, shape=tensor.shape, name=name
            )
    metadata = parse_metadata(model.metadata_props[METADATA_KEY], "graph")
    model.metadata_props[METADATA_KEY] = replace(
        metadata, fingerprint=None, token_fingerprint=None, same_tokens_as=()
    ).to_text()
    return model
