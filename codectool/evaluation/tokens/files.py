"""Tokens of many `.hcd` files, one after another; no model is needed, nor torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from codectool.audio.discovery import find_files
from codectool.container import io as hcd
from codectool.errors import ContainerError, UsageError
from codectool.tokens import Tokens

SUFFIX = ".hcd"

Complain = Callable[[str, str], None]


def tokens_of(source: Path | Sequence[Path], complain: Complain) -> Iterator[tuple[str, Tokens]]:
    """Read the `.hcd` files of a folder and the folders below it, or those of a list.

    Args:
        source: a folder, or files.
        complain: is told the name of every file that cannot be read, and why in one line; the file
            is left out.

    Yields:
        Name, for a folder as seen from it with `/`, and tokens.

    Raises:
        UsageError: the folder cannot be read, or holds no such file.
    """
    if isinstance(source, Path):
        files = {name: source / name for name in sorted(find_files(source, {SUFFIX}))}
        if not files:
            raise UsageError(f"{source}: holds no {SUFFIX} files; make some with `encode`")
    else:
        files = {str(path): path for path in source}
    for name, path in files.items():
        try:
            tokens = hcd.read(path)
        except ContainerError as error:
            complain(name, str(error).removeprefix(f"{path}: "))
            continue
        yield name, tokens
