"""codectool's own checkpoints: tensors as safetensors, hyper-parameters as JSON.

A checkpoint is a folder with ``model.safetensors`` and ``config.json``, or one ``.safetensors``
file with the same JSON in its metadata, under the key ``codectool``. The JSON is ``{"family":
"hac", "model": {...}}``. Optional are ``provenance``, a list with an object per conversion, and
``same_tokens_as``, a list of fingerprints; see `parse_same_tokens`. Other keys, such as a training
config, are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from codectool.checkpoints.published import canonical_name, read_port
from codectool.checkpoints.stored import (
    METADATA_KEY,
    SAME_TOKENS_KEY,
    TENSORS_NAME,
    check_dtypes,
    check_start,
    parse_same_tokens,
)
from codectool.codecs.base import CodecModel
from codectool.errors import CheckpointError, ConfigError
from codectool.files import atomic_output, write_all
from codectool.filetypes import START_BYTES
from codectool.messages import shorten
from codectool.nn.loading import TensorMismatchError
from codectool.schema import parse_json, read_json

CONFIG_NAME = "config.json"
DTYPES = {  # in the order in which the library stores their tensors
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}


def read_native(path: Path) -> tuple[str, dict[str, Tensor], Mapping[str, Any] | None]:
    """Read a folder or a file; also BigCodec's weights as others store them in safetensors.

    Returns:
        Family, tensors by canonical name, and the model config; None for files of others.

    Raises:
        CheckpointError: The file is damaged or not a safetensors file.
        ConfigError: The JSON is missing or incomplete.
    """
    file = path / TENSORS_NAME if path.is_dir() else path
    try:
        with file.open("rb") as opened:
            check_start(file, opened.read(START_BYTES))
        with safe_open(file, framework="pt", device="cpu") as tensors:
            metadata = tensors.metadata() or {}
            names = list(tensors.keys())
            check_dtypes(file, {name: tensors.get_slice(name).get_dtype() for name in names})
            state = {name: tensors.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: not a safetensors file, or a damaged one ({shorten(str(error))})"
        ) from error
    source, beside = f"{file} (metadata)", file.with_name(CONFIG_NAME)
    if METADATA_KEY in metadata:
        config = parse_json(metadata[METADATA_KEY], source)
    elif beside.is_file():
        config, source = read_json(beside), str(beside)
        if "family" not in config and (port := read_port(state)) is not None:
            return port
    elif (port := read_port(state)) is not None:
        return port
    else:
        raise ConfigError(
            f"{file}: no hyper-parameters: neither {CONFIG_NAME} beside it nor the metadata "
            f"key `{METADATA_KEY}`"
        )
    family, model = config.get("family"), config.get("model")
    if not isinstance(family, str) or not isinstance(model, Mapping):
        raise ConfigError(f"{source}: must hold `family` (a name) and `model` (an object)")
    return family, state, model


def read_provenance(path: Path) -> list[dict[str, Any]]:
    """Return the conversions that a checkpoint came from, oldest first; none for other layouts."""
    try:
        entries = _read_config(path).get("provenance")
    except ConfigError:
        return []
    return [dict(entry) for entry in entries or () if isinstance(entry, Mapping)]


def read_same_tokens(path: Path) -> tuple[str, ...]:
    """Return what `parse_same_tokens` finds in a checkpoint; nothing for other layouts.

    Raises:
        ConfigError: The list is invalid.
    """
    return parse_same_tokens(_read_config(path), str(path))


def _read_config(path: Path) -> Mapping[str, Any]:
    """Return the JSON of a checkpoint; an empty object for other layouts."""
    file = path / TENSORS_NAME if path.is_dir() else path
    try:
        with safe_open(file, framework="pt", device="cpu") as tensors:
            metadata = tensors.metadata() or {}
    except (SafetensorError, OSError):
        return {}
    if METADATA_KEY in metadata:
        return parse_json(metadata[METADATA_KEY], f"{file} (metadata)")
    beside = file.with_name(CONFIG_NAME)
    return read_json(beside) if beside.is_file() else {}


def write_native(
    path: Path,
    family: str,
    model_config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    dtype: torch.dtype | None = torch.float32,
    overwrite: bool = False,
    provenance: Sequence[Mapping[str, Any]] = (),
    same_tokens_as: Sequence[str] = (),
) -> None:
    """Write one self-contained ``.safetensors`` file.

    Args:
        path: the file.
        family: codec family.
        model_config: hyper-parameters, as `CodecModel.from_state` takes them.
        state: tensors by canonical name.
        dtype: type of the stored values; None keeps the tensors' own.
        overwrite: replace an existing file.
        provenance: see `read_provenance`.
        same_tokens_as: see `parse_same_tokens`.

    Raises:
        UsageError: The file exists or cannot be written.
    """
    config: dict[str, Any] = {"family": family, "model": model_config}
    if provenance:
        config["provenance"] = list(provenance)
    if same_tokens_as:
        config[SAME_TOKENS_KEY] = list(same_tokens_as)
    with atomic_output(path, overwrite) as file:
        write_safetensors(file, state, dtype, {METADATA_KEY: json.dumps(config)})


def write_safetensors(
    file: BinaryIO,
    state: Mapping[str, Tensor],
    dtype: torch.dtype | None,
    metadata: Mapping[str, str],
) -> None:
    """Write the bytes of `safetensors.torch.save` tensor by tensor, without two copies of all."""
    dtypes = {name: dtype or tensor.dtype for name, tensor in state.items()}
    order = list(DTYPES)
    names = sorted(state, key=lambda name: (order.index(dtypes[name]), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        start, end = end, end + state[name].numel() * dtypes[name].itemsize
        header[name] = {
            "dtype": DTYPES[dtypes[name]],
            "shape": list(state[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_all(file, len(text).to_bytes(8, "little") + text)
    for name in names:
        tensor = state[name].detach().cpu().to(dtypes[name]).contiguous()
        if tensor.numel():
            # via uint8, because NumPy has no bfloat16; all supported machines are little-endian
            write_all(file, tensor.view(-1).view(torch.uint8).numpy().data)


def write_model(
    path: Path,
    model: CodecModel,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
    same_tokens_as: Sequence[str] = (),
) -> None:
    """Write a model whose weight norm is not folded; other arguments as for `write_native`.

    For a decoder that was trained with the encoder of another checkpoint, ``same_tokens_as`` is
    `LoadedModel.token_names` of that checkpoint.

    Raises:
        CheckpointError: Weight norm is folded for inference.
        UsageError: The file exists or cannot be written.
    """
    try:
        type(model).from_state(model.state_dict(), model.hyper_parameters)
    except TensorMismatchError as error:
        raise CheckpointError(
            "a model folded for inference cannot be stored; store the model that was trained, "
            "or copy the checkpoint"
        ) from error
    state = {canonical_name(model.family, k): tensor for k, tensor in model.state_dict().items()}
    config = model.hyper_parameters
    write_native(path, model.family, config, state, dtype, overwrite, (), same_tokens_as)
