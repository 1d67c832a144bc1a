"""The start of a run that trains the decoder alone: its encoder, quantizer and tokens stay.

The run's folder keeps the weights of the start in `start.safetensors`. What is saved is these
tensors, bit for bit, with the tensors of the decoder replaced. So only the decoder is in memory
during training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from codectool.checkpoints.fingerprint import fingerprint
from codectool.checkpoints.load import build_model, locate, read_weights
from codectool.checkpoints.native import read_native, read_provenance, write_native
from codectool.checkpoints.published import canonical_name, model_name
from codectool.codecs.base import CodecModel
from codectool.codecs.registry import get_family
from codectool.errors import CheckpointError, ConfigError
from codectool.schema import to_json
from codectool.training.checkpoint import START_NAME
from codectool.training.config import RunConfig, first_difference


@dataclass(frozen=True)
class FrozenStart:
    """The weights that a run started with.

    Attributes:
        path: of the weights.
        family: codec family.
        model_config: hyper-parameters.
        provenance: see `codectool.checkpoints.native.read_provenance`.
        fingerprint: of the weights.
        token_fingerprint: of everything that determines the tokens.
    """

    path: Path
    family: str
    model_config: Mapping[str, Any]
    provenance: tuple[Mapping[str, Any], ...]
    fingerprint: str
    token_fingerprint: str

    def read(self) -> dict[str, Tensor]:
        """Return all tensors by canonical name, without copying them to memory."""
        return read_native(self.path)[1]

    def merged(self, decoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return all tensors by canonical name, the decoder's replaced.

        Args:
            decoder: its tensors by the names of the model.
        """
        names = {canonical_name(self.family, name): tensor for name, tensor in decoder.items()}
        return {**self.read(), **names}

    def inference_model(self, decoder: Mapping[str, Tensor]) -> CodecModel:
        """Return a model for inference with this decoder."""
        state = {model_name(self.family, k): t for k, t in self.merged(decoder).items()}
        return get_family(self.family).model_class().from_state(state, self.model_config)

    def write(self, path: Path, decoder: Mapping[str, Tensor]) -> None:
        """Write weights with this decoder; all other tensors keep type and bits."""
        entry = {"operation": "train --freeze encoder", "fingerprint": self.fingerprint}
        write_native(
            *(path, self.family, self.model_config, self.merged(decoder)),
            dtype=None,
            overwrite=True,
            provenance=[*self.provenance, entry],
        )


def open_start(config: RunConfig, path: Path) -> tuple[FrozenStart, CodecModel]:
    """Read the weights that a run starts with.

    Args:
        config: config of the run.
        path: a checkpoint, or the name of a model.

    Returns:
        The start, and its model for inference.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        ConfigError: It is of another model than the config.
    """
    family, state, model_config = read_weights(path)
    if family != config.family:
        raise CheckpointError(
            f"{path}: is a {family} checkpoint, the config is for {config.family}"
        )
    parse = config.trainable.parse_config
    if model_config is not None:
        wanted, found = (to_json(parse(each)) for each in (config.model, model_config))
        difference = first_difference(found, wanted)
        if difference is not None:
            raise ConfigError(
                f"{path}: has `model.{difference[0]}` {difference[1]}, the config says "
                f"{difference[2]}; with a fixed encoder the model must be that of the checkpoint"
            )
    model = build_model(path, family, state, config.model, dict(config.model))
    hyper_parameters = model.hyper_parameters
    whole = fingerprint(family, hyper_parameters, state)
    provenance = tuple(read_provenance(locate(path)))
    tokens = token_fingerprint(family, hyper_parameters, state)
    return FrozenStart(path, family, hyper_parameters, provenance, whole, tokens), model


def token_fingerprint(
    family: str, hyper_parameters: Mapping[str, Any], state: Mapping[str, Tensor]
) -> str:
    """Return the fingerprint of everything that determines tokens."""
    return fingerprint(family, hyper_parameters, state)


def keep_start(start: FrozenStart, folder: Path) -> FrozenStart:
    """Copy the weights of a start to the folder of a run, bit for bit."""
    path = folder / START_NAME
    if start.path != path:
        _, state, _ = read_weights(start.path)
        write_native(
            *(path, start.family, start.model_config, state),
            dtype=None,
            overwrite=True,
            provenance=start.provenance,
        )
    values = {**vars(start), "path": path}
    return FrozenStart(**values)
