"""The trained weights that come with codectool.

``codectool/weights/index.json`` lists them by name. The first of a family is its default; earlier
ones stay, so that files made with them can be decoded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

FOLDER = Path(str(files("codectool") / "weights"))
INDEX_NAME = "index.json"


@dataclass(frozen=True)
class BundledWeights:
    """Weights in the package.

    Attributes:
        name: for people.
        family: codec family.
        fingerprint: what `.hcd` files call them.
        file: name of the file.
    """

    name: str
    family: str
    fingerprint: str
    file: str

    @property
    def path(self) -> Path:
        """Where they lie."""
        return FOLDER / self.file


@cache
def all_bundled() -> tuple[BundledWeights, ...]:
    """All of them, the defaults first."""
    entries = json.loads((FOLDER / INDEX_NAME).read_text("utf-8"))
    return tuple(BundledWeights(**entry) for entry in entries)


def default(family: str) -> BundledWeights | None:
    """The weights of a family that serve where none are named."""
    return next((weights for weights in all_bundled() if weights.family == family), None)


def find(fingerprint: str) -> BundledWeights | None:
    """The weights of this fingerprint, if they are among the shipped ones."""
    found = (weights for weights in all_bundled() if weights.fingerprint == fingerprint)
    return next(found, None)


def named(name: str) -> BundledWeights | None:
    """The weights of this name."""
    return next((weights for weights in all_bundled() if weights.name == name), None)
