"""Tensors of safetensors files as they are stored, without PyTorch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from codectool.errors import CheckpointError, ConfigError
from codectool.messages import shorten
from codectool.schema import parse_json

METADATA_KEY = "codectool"
FINGERPRINT_BYTES = 4
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
    """

    family: str
    model: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


def read_stored(path: Path) -> StoredWeights:
    """Read a `.safetensors` file with its config in the metadata, as codectool writes it.

    Raises:
        CheckpointError: it is damaged or another kind of file.
        ConfigError: it does not contain a config.
    """
    from safetensors import SafetensorError, deserialize, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        entries = cast(Any, deserialize)(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a safetensors file, or a damaged one ({shorten(str(error))})"
        ) from error
    config = parse_json(metadata.get(METADATA_KEY, "{}"), f"{path} (metadata)")
    family, model = config.get("family"), config.get("model")
    if not isinstance(family, str) or not isinstance(model, Mapping):
        raise ConfigError(f"{path}: no config in its metadata (key `{METADATA_KEY}`)")
    return StoredWeights(family, model, dict(_tensors(path, entries)))


def _tensors(path: Path, entries: Any) -> Iterator[tuple[str, StoredTensor]]:
    for name, entry in entries:
        dtype = DTYPES.get(entry["dtype"])
        if dtype is None:
            raise CheckpointError(f"{path}: tensor {shorten(name)} is {shorten(entry['dtype'])}")
        yield name, StoredTensor(dtype, tuple(entry["shape"]), entry["data"])


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


def _line(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
