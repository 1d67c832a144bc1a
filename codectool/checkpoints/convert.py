"""Convert checkpoints: other layouts to one safetensors file, and back; change the type of values.

Tensors keep their names and, unless another type is asked for, every bit. So the fingerprint is the
same, and files made with the weights decode with the converted ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from codectool._version import __version__
from codectool.checkpoints.fingerprint import fingerprint, token_fingerprint
from codectool.checkpoints.load import build_model, locate, read_weights
from codectool.checkpoints.native import (
    read_provenance,
    read_same_tokens,
    write_native,
)
from codectool.checkpoints.published import (
    check_published,
    published_config_path,
    write_published,
)
from codectool.checkpoints.stored import TENSORS_NAME
from codectool.errors import CheckpointError, ConfigError, UsageError
from codectool.files import atomic_output, check_writable, file_sha256
from codectool.messages import shorten

Layout = Literal["safetensors", "published"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PUBLISHED_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin"}


@dataclass(frozen=True)
class Weights:
    """What a checkpoint stores.

    Attributes:
        path: the file.
        family: codec family.
        config: hyper-parameters.
        state: tensors by canonical name, as they are stored.
        fingerprint: of all weights, eight hexadecimal digits.
        token_fingerprint: of the parts that make tokens.
        same_tokens_as: other fingerprints whose tokens mean the same.
        provenance: conversions that the file came from, oldest first.
    """

    path: Path
    family: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]
    fingerprint: str
    token_fingerprint: str
    same_tokens_as: Sequence[str] = ()
    provenance: Sequence[Mapping[str, Any]] = ()

    @property
    def num_bytes(self) -> int:
        """Size of the tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state.values())

    @property
    def tensors(self) -> list[dict[str, Any]]:
        """Name, shape and type of each tensor, by name."""
        return [
            {
                "name": name,
                "shape": list(tensor.shape),
                "dtype": str(tensor.dtype).removeprefix("torch."),
            }
            for name, tensor in sorted(self.state.items())
        ]

    def cast(self, dtype: torch.dtype) -> Weights:
        """Return these weights with values of another type, and thus another fingerprint.

        The token fingerprint changes only if values of the encoder or the quantizer are rounded.

        Raises:
            CheckpointError: A value is too large for the type.
        """
        state = {name: tensor.to(dtype) for name, tensor in self.state.items()}
        for name, tensor in state.items():
            if tensor.numel() and not all(extreme.isfinite() for extreme in tensor.aminmax()):
                largest = float(self.state[name].abs().max())
                raise CheckpointError(
                    f"{self.path}: tensor {shorten(name)} holds {largest:.3g}, too large for "
                    "fp16; use bf16"
                )
        described = self.family, self.config, state
        cast, tokens = fingerprint(*described), token_fingerprint(*described)
        same: Sequence[str] = ()
        if tokens == self.token_fingerprint:
            same = sorted({self.fingerprint, *self.same_tokens_as} - {cast})
        return Weights(self.path, *described, cast, tokens, same, self.provenance)


def read(path: str | Path, config: str | Path | Mapping[str, Any] | None = None) -> Weights:
    """Read a checkpoint of any layout that `codectool.load` takes, and check that it is complete.

    Args:
        path: a file or a folder, or the name of bundled weights.
        config: hyper-parameters or a JSON file with them, if the checkpoint does not contain them.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        ConfigError: The hyper-parameters are missing or invalid.
    """
    path = locate(Path(path))
    family, state, found = read_weights(path)
    file = path / TENSORS_NAME if path.is_dir() else path
    return describe(file, family, state, found, Path(config) if isinstance(config, str) else config)


def describe(
    path: Path,
    family: str,
    state: Mapping[str, Tensor],
    model_config: Mapping[str, Any] | None,
    config: Path | Mapping[str, Any] | None = None,
) -> Weights:
    """Return tensors as `Weights`; arguments and errors as for `build_model`."""
    model_config = build_model(path, family, state, model_config, config).hyper_parameters
    described = family, model_config, state
    names = fingerprint(*described), token_fingerprint(*described)
    return Weights(path, *described, *names, read_same_tokens(path), read_provenance(path))


def choose_layout(target: Path) -> Layout:
    """Return the layout for a file name.

    Raises:
        UsageError: The name does not say.
    """
    if target.suffix == ".safetensors":
        return "safetensors"
    if target.suffix in PUBLISHED_SUFFIXES or re.fullmatch(r"g_\d{8}", target.name):
        return "published"
    raise UsageError(
        f"{target}: name a file that ends in .safetensors, .pt or .ckpt, or g_XXXXXXXX, or use "
        "`--to`"
    )


@dataclass(frozen=True)
class Conversion:
    """A conversion that can be carried out.

    Attributes:
        source: from `read`.
        sha256: of the source file.
        weights: what is written; its fingerprint differs if the type of the values does.
        target: the file.
        layout: of the file.
        config_path: file for the hyper-parameters, if the layout needs one and it is not there.
        provenance: stored in a safetensors file.
    """

    source: Weights
    sha256: str
    weights: Weights
    target: Path
    layout: Layout
    config_path: Path | None
    provenance: Sequence[Mapping[str, Any]]

    def write(self, overwrite: bool = False) -> None:
        """Write the files.

        Raises:
            UsageError: A file exists or cannot be written.
        """
        family, config, state = self.weights.family, self.weights.config, self.weights.state
        if self.layout == "safetensors":
            same = self.weights.same_tokens_as
            write_native(self.target, family, config, state, None, overwrite, self.provenance, same)
            return
        if self.config_path is not None:
            with atomic_output(self.config_path, overwrite) as file:
                file.write((json.dumps(config, indent=2) + "\n").encode())
        write_published(self.target, family, state, overwrite)


def plan(
    source: Weights,
    target: str | Path,
    layout: Layout | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Check a conversion of what `read` returned, and return it.

    What it writes depends only on the source and the version of codectool.

    Args:
        source: the weights.
        target: file to write.
        layout: None chooses it by the name of the file.
        dtype: type of the values, fp32, bf16 or fp16; None keeps every bit.
        overwrite: replace existing files.

    Raises:
        CheckpointError: A value is too large for the type.
        UsageError: A file exists or cannot be written, or the family has no published layout.
    """
    target = Path(target)
    layout = layout or choose_layout(target)
    if target.exists() and source.path.exists() and target.samefile(source.path):
        raise UsageError(f"{target}: is the source itself; name another file")
    check_writable(target, overwrite)
    weights = source if dtype is None else source.cast(DTYPES[dtype])
    digest = file_sha256(source.path)
    config_path, provenance = None, source.provenance
    if layout == "published":
        check_published(source.family)
        config_path = _missing_config(target, weights, overwrite)
    else:
        origin = {
            "source": source.path.name,
            "sha256": digest,
            "fingerprint": source.fingerprint,
            "token_fingerprint": source.token_fingerprint,
            "dtype": dtype or "unchanged",
            "codectool": __version__,
        }
        provenance = [*provenance, origin]
    return Conversion(source, digest, weights, target, layout, config_path, provenance)


def _missing_config(target: Path, weights: Weights, overwrite: bool) -> Path | None:
    """Return where the config of a published checkpoint must be written; None if nowhere."""
    if _reads_as(weights, target, None):
        return None
    path = published_config_path(target, weights.family)
    if path.is_file() and _reads_as(weights, target, path):
        return None
    try:
        check_writable(path, overwrite)
    except UsageError as error:
        raise UsageError(f"{error} (the config of {target.name} belongs there)") from error
    return path


def _reads_as(weights: Weights, target: Path, config: Path | None) -> bool:
    """Return whether the tensors with this config are a model with these hyper-parameters."""
    try:
        model = build_model(target, weights.family, weights.state, None, config)
    except (CheckpointError, ConfigError):
        return False
    return model.hyper_parameters == weights.config
