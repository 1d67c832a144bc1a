"""`load`: load a codec by name, checkpoint and device."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from codectool.checkpoints import bundled
from codectool.checkpoints.load import load_model
from codectool.codec import Codec
from codectool.codecs.isolation import isolated
from codectool.codecs.registry import DEFAULT_FAMILY, get_family
from codectool.deprecation import renamed_keywords
from codectool.errors import UsageError, WeightsMissingError
from codectool.streaming import Padding


@renamed_keywords(quantizers="codebooks", framing="padding")
def load(
    model: str | None = None,
    checkpoint: str | Path | None = None,
    *,
    config: str | Path | Mapping[str, Any] | None = None,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    padding: Padding = "lossless",
    codebooks: int | None = None,
) -> Codec:
    """Load a codec.

    Args:
        model: codec family, for example ``"hac"``; None for the family of the checkpoint.
        checkpoint: file or folder with the weights, in the format of the reference implementation
            or of codectool, or the name of bundled weights; None for the family's default weights.
        config: config of the model, or a JSON file with it; needed only if the checkpoint does
            not contain it.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"``, ``"mps"``, or ``"auto"`` for the fastest one.
        precision: ``"fp32"``, or ``"bf16"`` or ``"fp16"`` for the matrix products. Only fp32
            produces the tokens of the reference implementation. HAC at 1.35 kbps is faster in fp32
            on a CPU and ignores it there.
        padding: how signals are extended to whole frames. ``"lossless"`` keeps every sample and
            decodes to the exact length; ``"reference"`` does what the reference implementation
            does.
        codebooks: encode with only the first N codebooks; None for all.

    Raises:
        WeightsMissingError: no checkpoint was given and no weights are bundled for this family.
        CheckpointError: the checkpoint cannot be used.
        ConfigError: the config of the model is missing or wrong.
        UsageError: there is no such model, device, precision, padding or number of codebooks.
    """
    family = get_family(model or DEFAULT_FAMILY)
    where = find_device(device)
    if checkpoint is None:
        weights = bundled.default(family.name)
        if weights is None:
            hint = f"{family.weights_hint}; " if family.weights_hint else ""
            raise WeightsMissingError(
                f"no weights for {family.name}; pass `--checkpoint PATH` ({hint}see "
                "docs/guides/getting-started.md)"
            )
        checkpoint = weights.path
        if config is not None:
            raise UsageError("`--config` needs `--checkpoint`: bundled weights contain theirs")
    if isinstance(config, str):
        config = Path(config)
    with isolated(where.type, inference=False):
        loaded = load_model(Path(checkpoint), model, config)
        return Codec(loaded, where, precision, padding, codebooks)


def find_device(name: str | torch.device) -> torch.device:
    """Return the device of this name; raise a `UsageError` if this machine does not have it."""
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
        raise UsageError("device mps: this machine does not have it")
    return torch.device(name)


def limit_threads(codec: Codec) -> None:
    """Limit PyTorch to as many CPU threads as the model can use."""
    if codec.device.type == "cpu" and codec.model.cpu_threads is not None:
        torch.set_num_threads(min(codec.model.cpu_threads, torch.get_num_threads()))


@contextmanager
def sharing_threads(codec: Codec, workers: int) -> Iterator[None]:
    """Divide PyTorch's CPU threads among ``workers`` threads that run the codec concurrently."""
    before = torch.get_num_threads()
    if codec.device.type == "cpu":
        most = codec.model.cpu_threads or before
        torch.set_num_threads(max(1, min(most, before // workers)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
