"""From a path to a model that is ready to run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from codectool.checkpoints import bundled
from codectool.checkpoints.fingerprint import fingerprint
from codectool.checkpoints.native import TENSORS_NAME, read_native
from codectool.checkpoints.pickles import looks_like_torch_file
from codectool.checkpoints.published import canonical_name, model_name, read_published
from codectool.codecs.base import CodecModel
from codectool.codecs.registry import get_family
from codectool.errors import CheckpointError, ConfigError, UsageError
from codectool.nn.loading import TensorMismatchError
from codectool.schema import read_json


@dataclass(frozen=True)
class LoadedModel:
    """A model and the name of its weights."""

    model: CodecModel
    fingerprint: str
    path: Path


def load_model(
    path: Path, family: str | None = None, config: Path | Mapping[str, Any] | None = None
) -> LoadedModel:
    """Read a checkpoint of any layout that we know.

    Args:
        path: a released or training checkpoint of the authors, our own file or folder, or the name
            of weights that come with codectool.
        family: what the user thinks it is; None takes what the file says.
        config: hyper-parameters, or the JSON file that holds them; None takes what lies beside the
            file or is read off the tensors.

    Raises:
        CheckpointError: the file cannot be used; the message names it and every offending tensor.
        ConfigError: the hyper-parameters are missing or wrong.
    """
    path = locate(path)
    found, state, beside = _read(path)
    if family is not None and found != family:
        raise CheckpointError(f"{path}: is a {found} checkpoint; use `--model {found}`")
    model = _build(path, found, state, beside if config is None else _model_part(config))
    return LoadedModel(model, fingerprint(found, model.hyper_parameters, state), path)


def read_weights(
    path: Path,
) -> tuple[str, dict[str, Tensor], Mapping[str, Any] | None]:
    """Read tensors without building a model: what training begins with.

    Args:
        path: as for `load_model`.

    Returns:
        Family, tensors by canonical name, and the model config that lies beside them, if any.

    Raises:
        CheckpointError: the file cannot be used.
        ConfigError: its JSON is wrong.
    """
    return _read(locate(path))


def locate(path: Path) -> Path:
    """The file that a folder means, or the folder itself if it is one of ours.

    What is no path may be the name of weights that come with codectool: ``hac-1110df23``.
    """
    if not path.exists():
        weights = bundled.named(str(path))
        if weights is None:
            raise CheckpointError(f"{path}: no such file or folder")
        return weights.path
    if not path.is_dir() or (path / TENSORS_NAME).is_file():
        return path
    generators = [file for file in path.iterdir() if re.fullmatch(r"g_\d{8}", file.name)]
    if generators:
        return max(generators, key=lambda file: file.name)  # the latest step
    if (path / "bigcodec.pt").is_file():
        return path / "bigcodec.pt"
    raise CheckpointError(
        f"{path}: no checkpoint in this folder (looked for {TENSORS_NAME}, g_XXXXXXXX, bigcodec.pt)"
    )


def _read(path: Path) -> tuple[str, dict[str, Tensor], Mapping[str, Any] | None]:
    if path.is_dir():
        return read_native(path)
    try:
        with path.open("rb") as file:
            is_torch = looks_like_torch_file(file)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    return read_published(path) if is_torch else read_native(path)


def _model_part(config: Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """The hyper-parameters in a config; ours have them under ``model``, beside other things."""
    values = read_json(config) if isinstance(config, Path) else config
    model = values.get("model")
    return model if isinstance(model, Mapping) else values


def _all_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite: the extremes tell, sooner than `isfinite`."""
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return True
    return all(bool(extreme.isfinite()) for extreme in tensor.aminmax())


def _build(
    path: Path, family: str, state: Mapping[str, Tensor], config: Mapping[str, Any] | None
) -> CodecModel:
    for name, tensor in state.items():
        if not _all_finite(tensor):
            raise CheckpointError(f"{path}: tensor {name:.80} holds NaN or infinite values")
    named = {model_name(family, name): tensor for name, tensor in state.items()}
    try:
        return get_family(family).model_class().from_state(named, config)
    except TensorMismatchError as error:
        text = error.describe(lambda name: canonical_name(family, name))
        raise CheckpointError(f"{path}: {text}") from error
    except (CheckpointError, ConfigError) as error:
        raise type(error)(f"{path}: {error}") from error
    except UsageError as error:  # a family that we do not have
        raise CheckpointError(f"{path}: {error}") from error
    except (RuntimeError, ValueError) as error:  # PyTorch's own opinion of the hyper-parameters
        raise ConfigError(f"{path}: no such model can be built ({error})") from error
