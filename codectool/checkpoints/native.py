"""codectool's own checkpoints: tensors as safetensors, hyper-parameters as JSON.

A checkpoint is a folder with ``model.safetensors`` and ``config.json``, or one ``.safetensors``
file with the same JSON in its metadata, under the key ``codectool``. The JSON is ``{"family":
"hac", "model": {...}}``; other keys, such as a training config, are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from codectool.checkpoints.published import canonical_name
from codectool.codecs.base import CodecModel
from codectool.errors import CheckpointError, ConfigError
from codectool.files import atomic_output
from codectool.filetypes import START_BYTES, describe_foreign
from codectool.messages import shorten
from codectool.nn.loading import TensorMismatchError
from codectool.schema import parse_json, read_json

TENSORS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
METADATA_KEY = "codectool"
DTYPES = {"F64", "F32", "F16", "BF16"}
MAX_HEADER_BYTES = 1 << 23
MAX_TENSORS = 1 << 16


def read_native(path: Path) -> tuple[str, dict[str, Tensor], Mapping[str, Any]]:
    """Read a folder or a file.

    Returns:
        Family, tensors by canonical name, and the model config.

    Raises:
        CheckpointError: The file is damaged or not a safetensors file.
        ConfigError: The JSON is missing or incomplete.
    """
    file = path / TENSORS_NAME if path.is_dir() else path
    try:
        with file.open("rb") as opened:
            _check_start(file, opened.read(START_BYTES))
        with safe_open(file, framework="pt", device="cpu") as tensors:
            metadata = tensors.metadata() or {}
            names = list(tensors.keys())
            _check_dtypes(file, {name: tensors.get_slice(name).get_dtype() for name in names})
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
    else:
        raise ConfigError(
            f"{file}: no hyper-parameters: neither {CONFIG_NAME} beside it nor the metadata "
            f"key `{METADATA_KEY}`"
        )
    family, model = config.get("family"), config.get("model")
    if not isinstance(family, str) or not isinstance(model, Mapping):
        raise ConfigError(f"{source}: must hold `family` (a name) and `model` (an object)")
    return family, state, model


def _check_start(file: Path, start: bytes) -> None:
    if (what := describe_foreign(start)) is not None:
        raise CheckpointError(f"{file}: is {what}")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{file}: not a safetensors file, or its header is larger than {MAX_HEADER_BYTES} bytes"
        )


def _check_dtypes(file: Path, dtypes: Mapping[str, str]) -> None:
    if len(dtypes) > MAX_TENSORS:
        raise CheckpointError(f"{file}: more than {MAX_TENSORS} tensors")
    for name, dtype in dtypes.items():
        if dtype not in DTYPES:
            raise CheckpointError(
                f"{file}: tensor {shorten(name)} is {dtype}, not float32, float16, bfloat16 or "
                "float64; convert it to float32"
            )


def write_native(
    path: Path,
    family: str,
    model_config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> None:
    """Write one self-contained ``.safetensors`` file.

    Args:
        path: the file.
        family: codec family.
        model_config: hyper-parameters, as `CodecModel.from_state` takes them.
        state: tensors by canonical name.
        dtype: type of the stored values, float32 or bfloat16.
        overwrite: replace an existing file.

    Raises:
        UsageError: The file exists or cannot be written.
    """
    metadata = {METADATA_KEY: json.dumps({"family": family, "model": model_config})}
    tensors = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in state.items()}
    with atomic_output(path, overwrite) as file:
        file.write(save(tensors, metadata))


def write_model(
    path: Path, model: CodecModel, dtype: torch.dtype = torch.float32, overwrite: bool = False
) -> None:
    """Write a model whose weight norm is not folded; other arguments as for `write_native`.

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
    write_native(path, model.family, model.hyper_parameters, state, dtype, overwrite)
