"""Checkpoints as the authors of BigCodec and SuperCodec publish them.

No other file knows these layouts. Canonical names, over which fingerprints are computed, are the
names in the published files; a table maps them to the names in the models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codectool.checkpoints.pickles import read_torch_file
from codectool.errors import CheckpointError, UsageError
from codectool.files import atomic_output
from codectool.messages import shorten
from codectool.nn.weight_norm import to_new_name, to_old_name
from codectool.schema import read_json

State = dict[str, Tensor]


class TrainingStateError(CheckpointError):
    """The file is the state of a training run of codectool, not weights."""


FILE_NAMES = "g_XXXXXXXX, bigcodec.pt"  # as `find_published` knows them, for messages


def find_published(folder: Path) -> Path | None:
    """Return the checkpoint in a folder: SuperCodec's latest step, or BigCodec's file."""
    generators = [file for file in folder.iterdir() if re.fullmatch(r"g_\d{8}", file.name)]
    if generators:
        return max(generators, key=lambda file: file.name)
    path = folder / "bigcodec.pt"
    return path if path.is_file() else None


def read_published(path: Path) -> tuple[str, State, Mapping[str, Any] | None]:
    """Read ``bigcodec.pt``, a BigCodec checkpoint of Lightning, or SuperCodec's ``g_XXXXXXXX``.

    Returns:
        Family, tensors by canonical name, and the config beside the file, if any.

    Raises:
        CheckpointError: The layout is unknown; the message names the top-level keys.
        TrainingStateError: The file is the state of a training run.
    """
    content = read_torch_file(path)
    if {"CodecEnc", "generator"} <= content.keys():
        encoder = _tensors(path, content["CodecEnc"], "CodecEnc.")
        return "bigcodec", {**encoder, **_tensors(path, content["generator"], "generator.")}, None
    if "state_dict" in content:
        return "bigcodec", _lightning_tensors(path, content["state_dict"]), None
    if "generator" in content:
        beside = path.with_name("config.json")
        config = read_json(beside) if beside.is_file() else None
        return "supercodec", _tensors(path, content["generator"], ""), config
    if "trainer" in content:
        raise TrainingStateError(
            f"{path}: is the state of a training run; name its folder, or get the weights of this "
            "step with `codectool convert`"
        )
    if "optim_g" in content:
        raise CheckpointError(
            f"{path}: holds a discriminator and optimizers; "
            f"the model is in the file `g_{path.name.removeprefix('do_')}` beside it"
        )
    keys = shorten(", ".join(shorten(str(key), 40) for key in list(content)[:5])) or "none"
    raise CheckpointError(
        f"{path}: unknown layout (top-level keys: {keys}). Supported are BigCodec "
        "(`CodecEnc` and `generator`, or Lightning's `state_dict`), SuperCodec (`generator`), and "
        "safetensors"
    )


def write_published(
    path: Path, family: str, state: Mapping[str, Tensor], overwrite: bool = False
) -> None:
    """Write a file that `read_published` reads: plain tensors in the layout of the authors.

    A BigCodec file whose name ends in ``.ckpt`` gets the layout of Lightning.

    Raises:
        UsageError: The family has no such layout, or the file cannot be written.
    """
    check_published(family)
    # torch.save writes the whole storage of a view
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    for name, tensor in tensors.items():
        if tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size():
            tensors[name] = tensor.clone()
    content: dict[str, State]
    if family == "supercodec":
        content = {"generator": tensors}
    elif family == "bigcodec" and path.suffix == ".ckpt":
        content = {"state_dict": {f"model.{name}": tensor for name, tensor in tensors.items()}}
    else:
        content = {"CodecEnc": {}, "generator": {}}
        for name, tensor in tensors.items():
            section, _, key = name.partition(".")
            content[section][key] = tensor
    with atomic_output(path, overwrite) as file:
        torch.save(content, file)


def check_published(family: str) -> None:
    """Raise a `UsageError` if no authors of this family published a layout."""
    if family not in TENSOR_NAMES:
        raise UsageError(f"{family} has no published layout; name a file that ends in .safetensors")


def published_config_path(path: Path, family: str) -> Path:
    """Return where the config of a published checkpoint is, if it needs one."""
    return path.with_name("config.json") if family == "supercodec" else path.with_suffix(".json")


def _lightning_tensors(path: Path, state: Any) -> State:
    """Return the codec's tensors in a training checkpoint, without discriminators and losses."""
    codec = {
        name.removeprefix("model."): tensor
        for name, tensor in _tensors(path, state, "").items()
        if name.startswith(("model.CodecEnc.", "model.generator."))
    }
    if not codec:
        raise CheckpointError(
            f"{path}: a Lightning checkpoint, but not of BigCodec "
            "(no tensors under `model.CodecEnc.` and `model.generator.`)"
        )
    return codec


def _tensors(path: Path, state: Any, prefix: str) -> State:
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path}: `{prefix.rstrip('.') or 'state'}` is not a dictionary")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: entry {shorten(f'{prefix}{name}')} is not a named tensor"
            )
        if not value.is_floating_point():
            raise CheckpointError(
                f"{path}: tensor {shorten(prefix + name)} is {value.dtype}, not float"
            )
        if value.untyped_storage().nbytes() < value.numel() * value.element_size():
            # With a stride of zero, one stored value can stand for any number of values.
            raise CheckpointError(
                f"{path}: tensor {shorten(prefix + name)} claims {value.numel()} values, "
                "more than the file holds"
            )
    return {prefix + name: tensor for name, tensor in state.items()}


# First parts of names in copies of BigCodec's weights as safetensors, and canonical ones
PORT_PREFIXES = {
    "CodecEnc": "CodecEnc.",
    "encoder": "CodecEnc.",
    "generator": "generator.",
    "decoder": "generator.",
    "quantizer": "generator.quantizer.",
}


def read_port(state: State) -> tuple[str, State, None] | None:
    """Recognize BigCodec's weights that others stored as safetensors.

    Such files, which `PyTorchModelHubMixin` writes, have the module names of the reference
    implementation under ``encoder`` and ``decoder`` or its own names, and no config of codectool.

    Returns:
        Family, tensors by canonical name, and no config; None for other tensors.
    """
    found = {}
    for name, tensor in state.items():
        first, _, rest = name.removeprefix("module.").removeprefix("model.").partition(".")
        if first not in PORT_PREFIXES:
            return None
        found[PORT_PREFIXES[first] + to_old_name(rest)] = tensor
    parts = ("CodecEnc.block.0.", "generator.model.0.", "generator.quantizer.layers.0.")
    complete = all(any(name.startswith(part) for name in found) for part in parts)
    return ("bigcodec", found, None) if complete and len(found) == len(state) else None


# Parts of names: canonical, and in the model. `nn.weight_norm` maps the names of weight norm.
TENSOR_NAMES = {
    "bigcodec": [
        ("CodecEnc.", "encoder."),
        ("generator.quantizer.", "quantizer."),
        ("generator.model.", "decoder.model."),
        (".act.alpha", ".alpha"),
        (".act.beta", ".beta"),
        (".upsample.filter", ".up_taps"),
        (".downsample.lowpass.filter", ".down_taps"),
        ("._codebook.", ".codebook."),
    ],
    "supercodec": [
        ("._codebook.initted", ".initted"),
        ("._codebook.cluster_size", ".cluster_size"),
        ("._codebook.embed", ".embed"),
        (".skn.fc.0.", ".fuse.squeeze."),
        (".skn.fcs.0.", ".fuse.select_a."),
        (".skn.fcs.1.", ".fuse.select_b."),
        (".res_four.convs1.", ".res_four.convs."),
    ],
}


def model_name(family: str, canonical: str) -> str:
    """Return a model's own name of a tensor."""
    for published, own in TENSOR_NAMES.get(family, ()):
        canonical = canonical.replace(published, own)
    return to_new_name(canonical)


def canonical_name(family: str, name: str) -> str:
    """Undo `model_name`."""
    name = to_old_name(name)
    for published, own in TENSOR_NAMES.get(family, ()):
        name = name.replace(own, published)
    return name
