"""Read and write `.hcd` files by path or file object: `codectool.read` and `codectool.write`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from codectool.container import read_tokens, write_tokens
from codectool.errors import ContainerError
from codectool.files import atomic_output
from codectool.tokens import Tokens

PathOrFile = str | os.PathLike[str] | BinaryIO


def write(
    target: PathOrFile,
    tokens: Tokens,
    tags: Mapping[str, str] | None = None,
    *,
    block_frames: int | None = None,
) -> None:
    """Write tokens as a `.hcd` file; an existing file is replaced atomically.

    Args:
        target: a path, or a binary file object or pipe, which stays open.
        tokens: tokens to write.
        tags: text tags to store in addition to ``tokens.tags``.
        block_frames: frames per block; None is about 24 s.

    Raises:
        ContainerError: the tokens or tags do not fit the format.
        UsageError: the file cannot be created.
    """
    tokens = dataclasses.replace(tokens, tags={**tokens.tags, **(tags or {})})
    if isinstance(target, str | os.PathLike):
        with atomic_output(Path(target), overwrite=True) as file:
            write_tokens(file, tokens, block_frames)
    else:
        write_tokens(target, tokens, block_frames)


def read(source: PathOrFile) -> Tokens:
    """Read a `.hcd` file.

    Args:
        source: a path, or a binary file object or pipe that stands at the start of the file.

    Raises:
        ContainerError: the file cannot be read, or is damaged anywhere.
    """
    if not isinstance(source, str | os.PathLike):
        return read_tokens(source, str(getattr(source, "name", "<stream>")))
    path = Path(source)
    try:
        with path.open("rb") as file:
            return read_tokens(file, str(path))
    except OSError as error:
        raise ContainerError(f"{path}: {error.strerror or error}") from error
