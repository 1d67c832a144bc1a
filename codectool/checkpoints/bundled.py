"""Weights trained by this project.

``codectool/weights/index.json`` lists them; the first of a family is its default, which is in the
package. Previous weights, which decode the files made with them, are in ``assets/weights`` of the
repository.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from codectool.errors import WeightsMissingError

PACKAGE_FOLDER = Path(str(files("codectool") / "weights"))
CHECKOUT_FOLDER = PACKAGE_FOLDER.parents[1] / "assets" / "weights"
INDEX_NAME = "index.json"


@dataclass(frozen=True)
class BundledWeights:
    """An entry of the index.

    Attributes:
        name: as in ``--checkpoint``.
        family: codec family.
        fingerprint: as in `.hcd` files, eight hexadecimal digits.
        file: file name.
        sha256: of the file.
        size: of the file, in bytes.
    """

    name: str
    family: str
    fingerprint: str
    file: str
    sha256: str
    size: int

    @property
    def path(self) -> Path:
        """Where the file is.

        Raises:
            WeightsMissingError: It is not on this machine; the message says where to get it.
        """
        path = self.find()
        if path is None:
            raise WeightsMissingError(
                f"the weights {self.name} are not on this machine: {where_to_get(self)}"
            )
        return path

    def find(self) -> Path | None:
        """Return where the file is, or None if it is not on this machine."""
        paths = (folder / self.file for folder in (PACKAGE_FOLDER, CHECKOUT_FOLDER))
        return next((path for path in paths if path.is_file()), None)


def where_to_get(weights: BundledWeights) -> str:
    """Return how to get weights that are not on this machine, for error messages."""
    return (
        f"get assets/weights/{weights.file} ({weights.size / 1e6:.1f} MB) from the codectool "
        "repository and name it with `--checkpoint PATH`"
    )


@cache
def all_bundled() -> tuple[BundledWeights, ...]:
    """Return the index, available or not."""
    entries = json.loads((PACKAGE_FOLDER / INDEX_NAME).read_text("utf-8"))
    return tuple(BundledWeights(**entry) for entry in entries)


def default(family: str) -> BundledWeights | None:
    """Return the default weights of a family, if it has any."""
    return next((weights for weights in all_bundled() if weights.family == family), None)


def find(fingerprint: str) -> BundledWeights | None:
    """Return the weights with this fingerprint, available or not."""
    return next((entry for entry in all_bundled() if entry.fingerprint == fingerprint), None)


def find_available(fingerprint: str) -> BundledWeights | None:
    """Return the weights with this fingerprint if they are on this machine."""
    weights = find(fingerprint)
    return weights if weights is not None and weights.find() else None


def named(name: str) -> BundledWeights | None:
    """Return the weights of this name, available or not."""
    return next((weights for weights in all_bundled() if weights.name == name), None)
