"""The graphs that the package contains: steps of its weights, without the weights.

``python -m codectool.export.bundled`` writes them again after a change of the model.
"""

from __future__ import annotations

from pathlib import Path

from codectool.codecs.registry import DEFAULT_FAMILY, get_family
from codectool.export.graphs import build_graph, describe, save_graph, without_weights
from codectool.export.run import trace
from codectool.loading import load
from codectool.onnx.load import BUNDLED


def write_bundled(folder: Path = BUNDLED, family: str = DEFAULT_FAMILY) -> list[Path]:
    """Write the steps of a family's default weights to ``folder``, named ``FAMILY-PART.onnx``."""
    codec = load(family, device="cpu")
    names = codec.model.state_dict()
    paths = []
    for part in get_family(family).export_parts(codec.model):
        if part.chunk_frames is not None:
            graph = build_graph(trace(codec, part), part, describe(codec, part))
            path = folder / f"{family}-{part.name}.onnx"
            save_graph(without_weights(graph, names), path)
            paths.append(path)
    return paths


if __name__ == "__main__":
    for written in write_bundled():
        print(written)
