"""The graphs that the package contains: steps of its models, without the weights.

``python -m codectool.export.bundled`` writes them again after a change of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codectool.codecs.registry import get_family
from codectool.export.graphs import build_graph, describe, save_graph, without_weights
from codectool.export.run import trace
from codectool.loading import load
from codectool.onnx.load import BUNDLED

# Names in the checkpoint registry, one for each set of hyper-parameters; the default weights first.
BUNDLED_MODELS = ("hac", "hac-7391a4ee")


def write_bundled(folder: Path = BUNDLED, models: Sequence[str] = BUNDLED_MODELS) -> list[Path]:
    """Write the steps of models to ``folder``, named ``MODEL-PART.onnx``."""
    paths = []
    for name in models:
        codec = load(checkpoint=name, device="cpu", runtime="torch")
        tensors = codec.model.state_dict()
        for part in get_family(codec.model.family).export_parts(codec.model):
            if part.chunk_frames is not None:
                graph = build_graph(trace(codec, part), part, describe(codec, part))
                paths.append(folder / f"{name}-{part.name}.onnx")
                save_graph(without_weights(graph, tensors), paths[-1])
    return paths


if __name__ == "__main__":
    for written in write_bundled():
        print(written)
