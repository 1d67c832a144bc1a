"""The graphs that the package contains: steps of its models, without the weights.

``python -m codectool.export.bundled`` writes them again after a change of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codectool import models
from codectool.codecs.registry import get_family
from codectool.export.graphs import build_graph, describe, save_graph, without_weights
from codectool.export.run import trace
from codectool.loading import load
from codectool.onnx.load import BUNDLED


def write_bundled(folder: Path = BUNDLED) -> list[Path]:
    """Write the steps of the default and the previous weights, named ``MODEL-PART.onnx``.

    Weights with the same hyper-parameters share the graphs of the first in the registry.
    """
    paths: list[Path] = []
    seen: list[Mapping[str, Any]] = []
    for entry in models.entries().values():
        if not entry.is_bundled:
            continue
        codec = load(checkpoint=entry.locate(), device="cpu", runtime="torch")
        if codec.model.hyper_parameters in seen:
            continue
        seen.append(codec.model.hyper_parameters)
        tensors = codec.model.state_dict()
        for part in get_family(codec.model.family).export_parts(codec.model):
            if part.chunk_frames is not None:
                graph = build_graph(trace(codec, part), part, describe(codec, part))
                paths.append(folder / f"{entry.name}-{part.name}.onnx")
                save_graph(without_weights(graph, tensors), paths[-1])
    return paths


if __name__ == "__main__":
    for written in write_bundled():
        print(written)
