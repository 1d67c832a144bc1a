"""Checkpoints of a run, and weights and optimizer states of other trainings.

Files of a run::

    last.ckpt            the newest checkpoint
    best.ckpt            the best checkpoint by validation
    step_00012000.ckpt   the newest few
    model.safetensors    weights for `encode --checkpoint RUN_DIR`
    config.json          the config
    start.safetensors    with a fixed encoder, the weights that the run started with

A checkpoint holds tensors and plain values only, and is read like an untrusted file.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codectool.checkpoints.load import load_model
from codectool.checkpoints.native import read_native
from codectool.checkpoints.pickles import read_torch_file
from codectool.checkpoints.published import canonical_name, model_name
from codectool.codecs.registry import get_family
from codectool.codecs.trainable import TrainableCodec
from codectool.errors import CheckpointError, ConfigError, UsageError
from codectool.files import atomic_output
from codectool.messages import shorten_repr
from codectool.nn.loading import TensorMismatchError, copy_tensors, skip_init
from codectool.schema import to_json

FORMAT = 2
OLD_FORMAT = 1  # other names of the same
OLD_NAMES = {
    "trainee": "model",
    "judges": "discriminators",
    "judge_optimizer": "discriminator_optimizer",
}
START_NAME = "start.safetensors"
LAST, BEST = "last.ckpt", "best.ckpt"
MAX_STEPS = 1 << 40


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically; an existing file is replaced."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    with atomic_output(path, overwrite=True) as file:
        file.write(buffer.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU.

    Raises:
        CheckpointError: The file is missing, damaged, or no checkpoint of a run.
    """
    state = read_torch_file(path)
    if not isinstance(state.get("trainer"), dict):
        raise CheckpointError(f"{path}: not a checkpoint of a training run")
    if state.get("format") == OLD_FORMAT:
        trainer = {OLD_NAMES.get(key, key): value for key, value in state["trainer"].items()}
        trainer["balancer"] = {
            key.replace("norms.coherence.", "norms.phase_coherence."): norm
            for key, norm in (trainer.get("balancer") or {}).items()
        }
        return {**state, "format": FORMAT, "trainer": trainer}
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: a checkpoint of format {shorten_repr(state.get('format'), 20)}; "
            f"this version of codectool reads format {FORMAT}"
        )
    return state


def read_weights_of_run(path: Path) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Read from a checkpoint of a run what `model.safetensors` holds at that step.

    Returns:
        Family, tensors by canonical name (averaged, if the run averages weights), and the model
        config.

    Raises:
        CheckpointError: The file is damaged, no checkpoint of a run, or its tensors do not fit.
        ConfigError: The config in it is invalid.
    """
    trainer = read_checkpoint(path)["trainer"]
    config, state = trainer.get("config"), trainer.get("model")
    average = (trainer.get("average") or {}).get("tensors") or {}
    if not isinstance(config, Mapping) or not isinstance(state, Mapping):
        raise CheckpointError(f"{path}: lacks the config or the weights of its model")
    family, model_config = config.get("family"), config.get("model")
    if not isinstance(family, str) or not isinstance(model_config, Mapping):
        raise CheckpointError(f"{path}: its config lacks `family` or `model`")
    state = {name: t for name, t in {**state, **average}.items() if isinstance(t, Tensor)}
    training = config.get("training")
    frozen = isinstance(training, Mapping) and training.get("freeze") is not None
    start: dict[str, Tensor] = {}
    if frozen:
        if not path.with_name(START_NAME).is_file():
            raise CheckpointError(
                f"{path}: the encoder is in {START_NAME} of the run, which is not beside this file"
            )
        start = read_native(path.with_name(START_NAME))[1]
    try:
        with skip_init({**state, **start}):
            model = get_family(family).trainable_class().from_config(model_config)
        if frozen:
            model.freeze_encoder()
        copy_tensors(model, state)
    except (CheckpointError, ConfigError, UsageError) as error:  # no such family is a usage error
        raise CheckpointError(f"{path}: {error}") from error
    if frozen:
        tensors = with_decoder(family, start, model.decoder_state())
        return family, tensors, to_json(model.parse_config(model_config))
    stored = model.stored_model()
    tensors = {canonical_name(family, k): t.detach() for k, t in stored.state_dict().items()}
    return family, tensors, stored.hyper_parameters


def tokens_of_start(path: Path) -> tuple[str, ...]:
    """Return the fingerprints whose tokens a checkpoint of a run with a fixed encoder decodes.

    There are none for checkpoints of other runs.
    """
    start = path.with_name(START_NAME)
    return load_model(start).token_names if start.is_file() else ()


def with_decoder(
    family: str, state: Mapping[str, Tensor], decoder: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint with another decoder.

    Args:
        family: codec family.
        state: tensors by canonical name.
        decoder: tensors of the decoder by the names of the model.

    Returns:
        Tensors by canonical name.
    """
    kept = {k: t for k, t in state.items() if not model_name(family, k).startswith("decoder.")}
    return kept | {canonical_name(family, k): tensor.detach() for k, tensor in decoder.items()}


def keep_checkpoint(folder: Path, step: int, count: int) -> None:
    """Keep the newest checkpoint under its step's number; delete all but the newest ``count``."""
    newest, kept = folder / LAST, folder / f"step_{step:08d}.ckpt"
    kept.unlink(missing_ok=True)
    try:
        kept.hardlink_to(newest)
    except OSError:  # the file system has no hard links
        with atomic_output(kept) as file, newest.open("rb") as source:
            shutil.copyfileobj(source, file)
    checkpoints = sorted(folder.glob("step_????????.ckpt"))
    for path in checkpoints[: max(0, len(checkpoints) - count)]:
        path.unlink(missing_ok=True)


def load_weights(
    model: TrainableCodec, family: str, state: Mapping[str, Tensor], frozen: bool = False
) -> list[str]:
    """Load tensors by canonical name into a model, and return the model's names in their order.

    A model whose encoder is ``frozen`` gets only its decoder and quantizer.

    Raises:
        CheckpointError: The tensors do not fit the model.
    """
    named = {model_name(family, name): tensor for name, tensor in state.items()}
    try:
        (model.load_decoder if frozen else model.load_weights)(named)
    except TensorMismatchError as error:
        text = error.describe(lambda name: canonical_name(family, name))
        raise CheckpointError(
            f"{text}; set `model` in the config to the values of the checkpoint"
        ) from error
    return list(named)


@dataclass(frozen=True)
class OptimizerState:
    """Contents of a ``do_XXXXXXXX`` file of a published training."""

    path: Path
    steps: int  # number of steps done
    discriminator: list[Tensor]  # its tensors in order
    generator_moments: Mapping[str, Any]  # state of the codec's Adam
    discriminator_moments: Mapping[str, Any]


def read_optimizer_state(weights: Path) -> OptimizerState | None:
    """Read the ``do_XXXXXXXX`` beside a ``g_XXXXXXXX``; return None if there is none.

    Raises:
        CheckpointError: The file is damaged, or of another layout.
    """
    if not re.fullmatch(r"g_\d{8}", weights.name):
        return None
    path = weights.with_name("do_" + weights.name.removeprefix("g_"))
    if not path.exists():
        return None
    content = read_torch_file(path)
    steps = content.get("steps")
    parts = [content.get(key) for key in ("discriminator", "optim_g", "optim_d")]
    states = [part for part in parts if isinstance(part, Mapping)]
    if type(steps) is not int or not 0 <= steps < MAX_STEPS or len(states) < len(parts):
        raise CheckpointError(f"{path}: lacks `steps`, `discriminator`, `optim_g` or `optim_d`")
    discriminator, generator_moments, discriminator_moments = states
    tensors = [
        tensor
        for name, tensor in discriminator.items()
        if isinstance(tensor, Tensor) and not str(name).endswith("window")  # of an STFT
    ]
    return OptimizerState(path, steps, tensors, generator_moments, discriminator_moments)


@torch.no_grad()
def load_parameters(parameters: Sequence[nn.Parameter], tensors: Sequence[Tensor]) -> None:
    """Copy tensors into parameters of the same shapes.

    Raises:
        CheckpointError: The number of tensors or their shapes differ.
    """
    if [p.shape for p in parameters] != [tensor.shape for tensor in tensors]:
        raise CheckpointError("the discriminator has another shape than the config describes")
    for parameter, tensor in zip(parameters, tensors, strict=True):
        parameter.copy_(tensor)


def load_moments(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], state: Mapping[str, Any]
) -> None:
    """Load the state of an Adam of another program, which numbers the parameters in their order.

    Raises:
        CheckpointError: The state does not fit the parameters.
    """
    wrong_model = CheckpointError("an optimizer's state is of another model")
    moments = state.get("state")
    if not isinstance(moments, Mapping):
        raise wrong_model
    for number, values in moments.items():
        if type(number) is not int or not 0 <= number < len(parameters):
            raise wrong_model
        parameter = parameters[number]
        try:
            step = float(values.get("step", 0))
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise wrong_model from error
        loaded = {"step": torch.tensor(step, device=parameter.device)}
        for name in ("exp_avg", "exp_avg_sq"):
            moment = values.get(name)
            if not isinstance(moment, Tensor) or moment.shape != parameter.shape:
                raise wrong_model
            loaded[name] = moment.to(parameter)
        optimizer.state[parameter] = loaded
