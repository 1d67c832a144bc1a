"""The start of a run that trains the decoder alone: its encoder, quantizer and tokens stay.

The run's folder keeps the weights of the start in `start.safetensors`. What is saved is the encoder
and the quantizer of this file, bit for bit, and the trained decoder. So only the decoder is in
memory during training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from codectool.checkpoints.load import LoadedModel, load_model, locate, read_weights
from codectool.checkpoints.native import read_native, read_provenance, write_native
from codectool.checkpoints.published import model_name
from codectool.codecs.base import CodecModel
from codectool.codecs.registry import get_family
from codectool.errors import CheckpointError, ConfigError
from codectool.schema import to_json
from codectool.training.checkpoint import START_NAME, with_decoder
from codectool.training.config import RunConfig, first_difference


@dataclass(frozen=True)
class FrozenStart:
    """The weights that a run started with.

    Attributes:
        path: of the weights.
        family: codec family.
        start_config: hyper-parameters of the start.
        model_config: hyper-parameters of the run, whose decoder may be another.
        provenance: see `codectool.checkpoints.native.read_provenance`.
        same_tokens_as: other fingerprints of the start's tokens.
        token_names: all fingerprints of the start's tokens.
    """

    path: Path
    family: str
    start_config: Mapping[str, Any]
    model_config: Mapping[str, Any]
    provenance: tuple[Mapping[str, Any], ...]
    same_tokens_as: tuple[str, ...]
    token_names: tuple[str, ...]

    def keep(self, folder: Path) -> FrozenStart:
        """Copy the weights to the folder of a run, bit for bit."""
        path = folder / START_NAME
        if self.path != path:
            _, state, _ = read_weights(self.path)
            write_native(
                *(path, self.family, self.start_config, state),
                dtype=None,
                overwrite=True,
                provenance=self.provenance,
                same_tokens_as=self.same_tokens_as,
            )
        return replace(self, path=path)

    def inference_model(self, decoder: Mapping[str, Tensor]) -> CodecModel:
        """Return a model for inference with a decoder, given by the names of the model."""
        state = with_decoder(self.family, read_native(self.path)[1], decoder)
        named = {model_name(self.family, name): tensor for name, tensor in state.items()}
        return get_family(self.family).model_class().from_state(named, self.model_config)

    def write(self, path: Path, decoder: Mapping[str, Tensor]) -> None:
        """Write weights with a decoder; all other tensors keep type and bits."""
        write_native(
            *(path, self.family, self.model_config),
            with_decoder(self.family, read_native(self.path)[1], decoder),
            dtype=None,
            overwrite=True,
            provenance=self.provenance,
            same_tokens_as=self.token_names,
        )


def open_start(config: RunConfig, path: Path) -> tuple[FrozenStart, LoadedModel]:
    """Read the weights that a run starts with.

    Args:
        config: config of the run.
        path: a checkpoint, or the name of a model.

    Returns:
        The start, and its model for inference.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        ConfigError: It makes other tokens than a model of the config.
    """
    family, _, found = read_weights(path)
    if family != config.family:
        raise CheckpointError(
            f"{path}: is a {family} checkpoint, the config is for {config.family}"
        )
    wanted = to_json(config.trainable.parse_config(config.model))
    loaded = load_model(path, config=wanted if found is None else None)
    start_config = loaded.model.hyper_parameters
    parts = get_family(family).token_parts
    pair = (
        (start_config, wanted)
        if parts is None
        else map(parts.select_config, (start_config, wanted))
    )
    difference = first_difference(*pair)
    if difference is not None:
        key, old, new = difference
        raise ConfigError(
            f"{path}: has `model.{key}` {old}, the config says {new}; with a fixed encoder, all "
            "that makes tokens must be as in the checkpoint"
        )
    start = FrozenStart(
        path=path,
        family=family,
        start_config=start_config,
        model_config=wanted,
        provenance=tuple(read_provenance(locate(path))),
        same_tokens_as=loaded.same_tokens_as,
        token_names=loaded.token_names,
    )
    return start, loaded
