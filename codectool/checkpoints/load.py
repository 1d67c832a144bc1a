"""Load a model for inference from a checkpoint of any known layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from codectool.checkpoints import registry
from codectool.checkpoints.fingerprint import fingerprint, token_fingerprint
from codectool.checkpoints.native import read_native, read_provenance, read_same_tokens
from codectool.checkpoints.pickles import is_torch_file
from codectool.checkpoints.published import (
    FILE_NAMES,
    canonical_name,
    find_published,
    model_name,
    read_published,
)
from codectool.checkpoints.stored import TENSORS_NAME
from codectool.codecs.base import CodecModel
from codectool.codecs.registry import get_family
from codectool.errors import CheckpointError, ConfigError, UsageError
from codectool.messages import shorten
from codectool.nn.loading import TensorMismatchError
from codectool.schema import read_json


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights.

    Attributes:
        model: the model for inference.
        fingerprint: of the weights, eight hexadecimal digits.
        token_fingerprint: of the parts that make tokens, which `.hcd` files name.
        path: of the checkpoint.
        converted_from: fingerprints, of all weights and of tokens, that these were converted from.
        same_tokens_as: other fingerprints whose tokens mean the same.
    """

    model: CodecModel
    fingerprint: str
    token_fingerprint: str
    path: Path
    converted_from: tuple[str, ...] = ()
    same_tokens_as: tuple[str, ...] = ()

    @property
    def token_names(self) -> tuple[str, ...]:
        """All fingerprints by which `.hcd` files name its tokens.

        Weights with the same encoder and quantizer, and another decoder, are stored with them as
        ``same_tokens_as``.
        """
        names = (self.fingerprint, self.token_fingerprint, *self.same_tokens_as)
        return tuple(dict.fromkeys(names))


def load_model(
    path: Path, family: str | None = None, config: Path | Mapping[str, Any] | None = None
) -> LoadedModel:
    """Load a model for inference.

    Args:
        path: a published checkpoint, a file or folder written by codectool, or the name of a model
            of the registry.
        family: expected codec family; None accepts any.
        config: hyper-parameters or a JSON file with them; None takes those beside the checkpoint
            or derives them from the shapes of the tensors.

    Raises:
        CheckpointError: The file cannot be used; the message names every wrong tensor.
        WeightsMissingError: The model of this name is not on this machine.
        ConfigError: The hyper-parameters are missing or invalid.
    """
    path = locate(path)
    found, state, model_config = read_weights(path)
    if family is not None and found != family:
        raise CheckpointError(
            f"{path}: is a {shorten(found)} checkpoint; use `--model {shorten(found)}`"
        )
    model = build_model(path, found, state, model_config, config)
    return LoadedModel(
        model,
        fingerprint(found, model.hyper_parameters, state),
        token_fingerprint(found, model.hyper_parameters, state),
        path,
        tuple(
            str(entry[key])
            for entry in read_provenance(path)
            for key in ("fingerprint", "token_fingerprint")
            if key in entry
        ),
        read_same_tokens(path),
    )


def read_weights(path: Path) -> tuple[str, dict[str, Tensor], Mapping[str, Any] | None]:
    """Read the tensors of a checkpoint, given as for `load_model`, without building a model.

    Returns:
        Family, tensors by canonical name, and the model config beside them, if any.

    Raises:
        CheckpointError: The file cannot be used.
        ConfigError: Its JSON is invalid.
    """
    path = locate(path)
    if path.is_dir():
        return read_native(path)
    try:
        with path.open("rb") as file:
            is_torch = is_torch_file(file)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    return read_published(path) if is_torch else read_native(path)


def locate(path: Path) -> Path:
    """Return the checkpoint that a path or the name of a model stands for.

    Raises:
        CheckpointError: There is none.
        WeightsMissingError: The model of this name is not on this machine.
    """
    if not path.exists():
        entry = registry.named(str(path))
        if entry is None:
            hint = "; `codectool models list` prints the models that are known by name"
            looks_like_name = registry.NAME.fullmatch(str(path)) and not path.suffix
            raise CheckpointError(
                f"{path}: no such file or folder{hint if looks_like_name else ''}"
            )
        path = entry.locate()
    if not path.is_dir() or (path / TENSORS_NAME).is_file():
        return path
    if (published := find_published(path)) is not None:
        return published
    raise CheckpointError(
        f"{path}: no checkpoint in this folder (looked for {TENSORS_NAME}, {FILE_NAMES})"
    )


def build_model(
    path: Path,
    family: str,
    state: Mapping[str, Tensor],
    model_config: Mapping[str, Any] | None,
    config: Path | Mapping[str, Any] | None = None,
) -> CodecModel:
    """Build the model for inference of what `read_weights` returned.

    Args:
        path: of the checkpoint, for messages.
        family: codec family.
        state: tensors by canonical name.
        model_config: hyper-parameters beside the tensors, if any.
        config: hyper-parameters or a JSON file with them that replace these.

    Raises:
        CheckpointError: The tensors do not fit; the message names every wrong one.
        ConfigError: The hyper-parameters are missing or invalid.
    """
    config_path = config if isinstance(config, Path) else path
    if config is not None:
        values = read_json(config) if isinstance(config, Path) else config
        model_config = values["model"] if isinstance(values.get("model"), Mapping) else values
    for name, tensor in state.items():
        # NaN and infinity show in the extremes, which are faster to compute than `isfinite`.
        if tensor.numel() and not all(extreme.isfinite() for extreme in tensor.aminmax()):
            raise CheckpointError(f"{path}: tensor {shorten(name)} holds NaN or infinite values")
    named = {model_name(family, name): tensor for name, tensor in state.items()}
    try:
        return get_family(family).model_class().from_state(named, model_config)
    except TensorMismatchError as error:
        text = error.describe(lambda name: canonical_name(family, name))
        raise CheckpointError(f"{path}: {text}") from error
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{config_path}: {error}") from error
    except UsageError as error:  # unknown family
        raise CheckpointError(f"{path}: {error}") from error
    except (RuntimeError, ValueError) as error:  # PyTorch rejects the hyper-parameters
        raise ConfigError(f"{path}: no such model can be built ({shorten(str(error))})") from error
