"""Read the tokens of many `.hcd` files, one after another; needs no model and no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from codectool.audio.discovery import find_files, names_in
from codectool.container import read
from codectool.errors import ContainerError, UsageError
from codectool.tokens import Tokens

SUFFIX = ".hcd"


def read_tokens(
    folder: Path, files: Sequence[str] | None, on_error: Callable[[str, str], None]
) -> Iterator[Tokens]:
    """Yield the tokens of the `.hcd` files of a folder and its subfolders, or of ``files``.

    Args:
        folder: a folder.
        files: files to read, as paths; None for all in the folder.
        on_error: called with the name of each file that cannot be read, and the reason in one line.

    Raises:
        UsageError: the folder cannot be read, or contains no such file.
    """
    if files is None:
        names = sorted(find_files(folder, {SUFFIX}))
        if not names:
            raise UsageError(f"{folder}: contains no {SUFFIX} files; make some with `encode`")
    else:
        names, rejected = names_in(folder, files)
        for bad in rejected:
            on_error(str(bad.source), bad.reason)
    for name in names:
        path = folder / name
        try:
            yield read(path)
        except ContainerError as error:
            on_error(name, str(error).removeprefix(f"{path}: "))
