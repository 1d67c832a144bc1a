"""`load`: from a model's name and a checkpoint to a codec on a device."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from codectool.checkpoints import bundled
from codectool.checkpoints.load import load_model
from codectool.codec import Codec, Padding
from codectool.codecs.family import CodecFamily
from codectool.codecs.registry import DEFAULT_FAMILY, get_family
from codectool.errors import UsageError, WeightsMissingError


def load(
    model: str | None = None,
    checkpoint: str | Path | None = None,
    *,
    config: str | Path | Mapping[str, Any] | None = None,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    padding: Padding = "lossless",
    quantizers: int | None = None,
) -> Codec:
    """Load a codec.

    Args:
        model: ``"hac"``, ``"bigcodec"`` or ``"supercodec"``; None takes what the checkpoint is.
        checkpoint: file or folder with the weights, in the authors' layout or ours, or the name of
            some that come with codectool (``"hac-1110df23"``); None takes the model's default ones,
            which HAC has.
        config: hyper-parameters, or a JSON file with them; needed only where the checkpoint does
            not say them.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"``, ``"mps"``, or ``"auto"``, the best there is.
        precision: ``"fp32"``, or ``"bf16"`` or ``"fp16"`` for the matrix products; only fp32 gives
            the tokens of the published code.
        padding: what happens at the ends of a file. ``"lossless"`` loses nothing; ``"reference"`` does
            what the paper's script does, for comparison.
        quantizers: encode with the first so many codebooks only; None takes all.

    Raises:
        WeightsMissingError: no checkpoint was given and none ships for this model.
        CheckpointError: the checkpoint cannot be used.
        ConfigError: hyper-parameters are missing or wrong.
        UsageError: there is no such model, device or precision.
    """
    family = get_family(model or DEFAULT_FAMILY)
    where = find_device(device)
    if checkpoint is None:
        checkpoint = _default_weights(family)
        if config is not None:
            raise UsageError("--config without --checkpoint: the shipped weights have their own")
    if isinstance(config, str):
        config = Path(config)
    loaded = load_model(Path(checkpoint), model, config)
    return Codec(loaded, where, precision, padding, quantizers)


def _default_weights(family: CodecFamily) -> Path:
    weights = bundled.default(family.name)
    if weights is not None:
        return weights.path
    hint = f" ({family.weights_hint})" if family.weights_hint else ""
    raise WeightsMissingError(f"no weights for {family.name}: give `--checkpoint PATH`{hint}")


def find_device(name: str | torch.device) -> torch.device:
    """The device of this name.

    Raises:
        UsageError: there is none here.
    """
    name = str(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    match = re.fullmatch(r"(cpu|mps|cuda)|cuda:([0-9]{1,4})", name)
    if not match:
        raise UsageError(f"no device is called `{name}`; use cpu, cuda, cuda:N, mps or auto")
    if name.startswith("cuda") and int(match[2] or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name}: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    if name == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device mps: this machine has none")
    return torch.device(name)


def limit_threads(codec: Codec) -> None:
    """Let PyTorch use no more threads of this process than the model gains from on a CPU."""
    if codec.device.type == "cpu" and codec.model.cpu_threads is not None:
        torch.set_num_threads(min(codec.model.cpu_threads, torch.get_num_threads()))


@contextmanager
def sharing_threads(codec: Codec, parts: int) -> Iterator[None]:
    """Meanwhile let each of so many threads that run the codec side by side have its share.

    On a CPU they share the threads that PyTorch would use for one of them.
    """
    before = torch.get_num_threads()
    if codec.device.type == "cpu":
        most = codec.model.cpu_threads or before
        torch.set_num_threads(max(1, min(most, before // parts)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
