"""Load the codec that options or a file ask for."""

from __future__ import annotations

import os
from pathlib import Path

from codectool.checkpoints import bundled, registry
from codectool.cli.console import warn, working
from codectool.codec import Codec
from codectool.errors import CodectoolError, WeightsMissingError
from codectool.loading import limit_threads, load
from codectool.streaming import Padding


def load_codec(
    model: str | None,
    checkpoint: Path | None,
    config: Path | None,
    device: str,
    precision: str,
    padding: str = "lossless",
    codebooks: int | None = None,
) -> Codec:
    """Load the codec that the options ask for, and add it to the checkpoint registry."""
    mode: Padding = "reference" if padding == "reference" else "lossless"
    with working("loading the codec"):
        codec = load(
            model,
            checkpoint,
            config=config,
            device=device,
            precision=precision,
            padding=mode,
            codebooks=codebooks,
        )
    if bundled.find_available(codec.fingerprint) is None:
        _register(codec, config)
    if "OMP_NUM_THREADS" not in os.environ:
        limit_threads(codec)
    return codec


def load_known_codec(
    fingerprint: str, family: str, device: str, precision: str, name: str
) -> Codec:
    """Load the weights that a file was made with.

    Args:
        fingerprint: fingerprint in the file.
        family: codec family in the file.
        device: device to run on.
        precision: precision of matrix products.
        name: name of the file, for messages.

    Raises:
        WeightsMissingError: They are neither bundled nor in the checkpoint registry.
    """
    entry = registry.find(fingerprint)
    if entry is None:
        if (weights := bundled.find(fingerprint)) is not None:
            raise WeightsMissingError(
                f"{name}: made with the weights {weights.name}, which are not on this machine: "
                f"{bundled.where_to_get(weights)}"
            )
        raise WeightsMissingError(
            f"{name}: made with {family} weights {fingerprint}, which were not found on this "
            "machine; name them with `--checkpoint PATH`"
        )
    config = Path(entry.config) if entry.config else None
    return load_codec(None, Path(entry.path), config, device, precision)


def _register(codec: Codec, config: Path | None) -> None:
    entry = registry.RegisteredCheckpoint(
        family=codec.layout.family,
        path=str(codec.checkpoint.resolve()),
        config=str(config.resolve()) if config else None,
    )
    try:
        registry.register(codec.fingerprint, entry)
    except (OSError, CodectoolError) as error:
        warn(f"{registry.home()}: cannot register this checkpoint ({error})")
