"""From options to a codec, and from a fingerprint to the weights last seen under it."""

from __future__ import annotations

import os
from pathlib import Path

from codectool.checkpoints import bundled, registry
from codectool.cli.console import warn, working
from codectool.codec import Codec, Padding
from codectool.errors import CodectoolError, WeightsMissingError
from codectool.loading import limit_threads, load


def load_codec(
    model: str | None,
    checkpoint: Path | None,
    config: Path | None,
    device: str,
    precision: str,
    padding: str = "lossless",
    codebooks: int | None = None,
) -> Codec:
    """Load what the options ask for, and remember where it lies."""
    mode: Padding = "reference" if padding == "reference" else "lossless"
    with working("loading the codec"):
        codec = load(
            model,
            checkpoint,
            config=config,
            device=device,
            precision=precision,
            padding=mode,
            quantizers=codebooks,
        )
    if bundled.find(codec.fingerprint) is None:
        _remember(codec, config)
    if "OMP_NUM_THREADS" not in os.environ:  # the user has not said how many
        limit_threads(codec)
    return codec


def load_known_codec(
    fingerprint: str, family: str, device: str, precision: str, name: str
) -> Codec:
    """Load the weights that a file names, if this machine has seen them.

    Raises:
        WeightsMissingError: it has not.
    """
    entry = registry.find(fingerprint)
    if entry is None:
        raise WeightsMissingError(
            f"{name}: made with {family} weights {fingerprint}, which this machine has not seen; "
            "give them with `--checkpoint PATH`"
        )
    config = Path(entry.config) if entry.config else None
    return load_codec(None, Path(entry.path), config, device, precision)


def _remember(codec: Codec, config: Path | None) -> None:
    entry = registry.RegisteredCheckpoint(
        family=codec.layout.family,
        path=str(codec.checkpoint.resolve()),
        config=str(config.resolve()) if config else None,
    )
    try:
        registry.register(codec.fingerprint, entry)
    except (OSError, CodectoolError) as error:
        warn(f"{registry.home()}: cannot remember this checkpoint ({error})")
