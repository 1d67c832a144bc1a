"""Tensors of safetensors files as they are stored, without PyTorch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from codectool.codecs.registry import get_family
from codectool.errors import CheckpointError, ConfigError
from codectool.filetypes import START_BYTES, describe_foreign
from codectool.messages import shorten
from codectool.schema import parse_json

TENSORS_NAME = "model.safetensors"
METADATA_KEY = "codectool"
SAME_TOKENS_KEY = "same_tokens_as"
MAX_SAME_TOKENS = 64
MAX_HEADER_BYTES = 1 << 23
MAX_TENSORS = 1 << 16
FINGERPRINT_BYTES = 4
FINGERPRINT = re.compile("[0-9a-f]{8}")
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its bytes, little-endian, in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview

    def to_float32(self) -> npt.NDArray[np.float32]:
        """Return the values as float32."""
        if self.dtype == "bfloat16":  # NumPy has no such type: they are the upper halves of float32
            halves = np.frombuffer(self.data, "<u2").astype(np.uint32)
            values = (halves << 16).view(np.float32)
        else:
            values = np.frombuffer(self.data, self.dtype).astype(np.float32, copy=False)
        return values.reshape(self.shape)


@dataclass(frozen=True)
class StoredWeights:
    """The content of a safetensors file.

    Attributes:
        family: codec family.
        model: config of the model.
        tensors: by canonical name.
        same_tokens_as: see `parse_same_tokens`.
    """

    family: str
    model: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    same_tokens_as: tuple[str, ...] = ()


def read_stored(path: Path) -> StoredWeights:
    """Read a `.safetensors` file with its config in the metadata, as codectool writes it.

    Raises:
        CheckpointError: it is damaged or another kind of file.
        ConfigError: it does not contain a config.
    """
    from safetensors import SafetensorError, deserialize, safe_open

    try:
        data = path.read_bytes()
        check_start(path, data[:START_BYTES])
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        entries = cast(Any, deserialize)(data)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a safetensors file, or a damaged one ({shorten(str(error))})"
        ) from error
    check_dtypes(path, {name: entry["dtype"] for name, entry in entries})
    config = parse_json(metadata.get(METADATA_KEY, "{}"), f"{path} (metadata)")
    family, model = config.get("family"), config.get("model")
    if not isinstance(family, str) or not isinstance(model, Mapping):
        raise ConfigError(f"{path}: no config in its metadata (key `{METADATA_KEY}`)")
    tensors = {
        name: StoredTensor(DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data"])
        for name, entry in entries
    }
    same_tokens_as = parse_same_tokens(config, f"{path} (metadata)")
    return StoredWeights(family, model, tensors, same_tokens_as)


def parse_same_tokens(config: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the fingerprints in the JSON of a checkpoint whose tokens it decodes, too.

    They are whole fingerprints of other checkpoints with the same encoder and quantizer, which
    `.hcd` files of version 0.1 name, or token fingerprints.

    Args:
        config: the JSON with ``family`` and ``model``; the list is under ``same_tokens_as``.
        name: where it stands, for messages.

    Raises:
        ConfigError: They are not a list of at most 64 fingerprints.
    """
    values = config.get(SAME_TOKENS_KEY, [])
    if (
        not isinstance(values, list)
        or len(values) > MAX_SAME_TOKENS
        or not all(isinstance(value, str) and FINGERPRINT.fullmatch(value) for value in values)
    ):
        raise ConfigError(
            f"{name}: `{SAME_TOKENS_KEY}` must be a list of at most {MAX_SAME_TOKENS} "
            "fingerprints, each eight hexadecimal digits"
        )
    return tuple(values)


def check_start(file: Path, start: bytes) -> None:
    """Raise a `CheckpointError` if the first bytes are those of another kind of file."""
    if (what := describe_foreign(start)) is not None:
        raise CheckpointError(f"{file}: is {what}")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{file}: not a safetensors file, or its header is larger than {MAX_HEADER_BYTES} bytes"
        )


def check_dtypes(file: Path, dtypes: Mapping[str, str]) -> None:
    """Raise a `CheckpointError` for too many tensors, or types that are not in `DTYPES`."""
    if len(dtypes) > MAX_TENSORS:
        raise CheckpointError(f"{file}: more than {MAX_TENSORS} tensors")
    for name, dtype in dtypes.items():
        if dtype not in DTYPES:
            raise CheckpointError(
                f"{file}: tensor {shorten(name)} is {dtype}, not float32, float16, bfloat16 or "
                "float64; convert it to float32"
            )


def fingerprint_stored(
    family: str, hyper_parameters: Mapping[str, Any], tensors: Mapping[str, StoredTensor]
) -> str:
    """Compute the fingerprint of weights.

    It is the start of a SHA-256 over one JSON line with the family and the hyper-parameters (keys
    sorted), followed by, for every tensor in the order of the names, one JSON line ``[name, dtype,
    shape]`` and its bytes, little-endian, in C order.

    Args:
        family: codec family.
        hyper_parameters: JSON values.
        tensors: by canonical name, weight norm not folded.

    Returns:
        Eight hexadecimal digits.
    """
    digest = hashlib.sha256(_line({"family": family, "model": hyper_parameters}))
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(_line([name, tensor.dtype, list(tensor.shape)]))
        digest.update(tensor.data)
    return digest.digest()[:FINGERPRINT_BYTES].hex()


def token_fingerprint_stored(
    family: str, hyper_parameters: Mapping[str, Any], tensors: Mapping[str, StoredTensor]
) -> str:
    """Compute the fingerprint of what makes tokens: the `TokenParts` of the family.

    It is the start of a SHA-256 over one JSON line with the family and the selected keys (sorted),
    followed by, for every selected tensor in the order of the names, one JSON line ``[name,
    shape]`` and its values as float32, little-endian, in C order. So neither the decoder nor the
    type of the stored values matters.

    Args:
        family: codec family.
        hyper_parameters: JSON values.
        tensors: by canonical name, weight norm not folded.

    Returns:
        Eight hexadecimal digits.
    """
    parts = get_family(family).token_parts
    config = hyper_parameters if parts is None else parts.select_config(hyper_parameters)
    digest = hashlib.sha256(_line({"family": family, "tokens": config}))
    for name in sorted(tensors):
        if parts is None or parts.has_tensor(name):
            digest.update(_line([name, list(tensors[name].shape)]))
            digest.update(tensors[name].to_float32().reshape(-1).data)
    return digest.digest()[:FINGERPRINT_BYTES].hex()


def _line(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
