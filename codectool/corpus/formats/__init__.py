"""Formats of token data sets: one file each, imported when it is used."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from codectool.corpus.formats.base import Format
from codectool.errors import UsageError

# Name, and the suffixes that choose it.
FORMATS = {
    "parquet": (".parquet",),
    "webdataset": (".tar",),
    "jsonl": (".jsonl", ".jsonl.gz"),
    "npy": (".npy",),
    "lhotse": (),
    "memmap": (".bin",),
}


def get_format(name: str) -> Format:
    """Return the format of this name.

    Raises:
        UsageError: a package that it needs is not installed.
    """
    module = import_module(f"codectool.corpus.formats.{name}")
    found = module.FORMAT
    assert isinstance(found, Format)
    return found


def format_of(path: Path) -> str | None:
    """Return the name of the format that the suffix of a path chooses; None if it chooses none."""
    for name, suffixes in FORMATS.items():
        if path.name.lower().endswith(suffixes or ("\0",)):
            return name
    return None


def missing_package(package: str) -> UsageError:
    """Return the error for a package of the extra that is not installed."""
    return UsageError(f"{package} is not installed; `pip install 'codectool[tokens]'`")
