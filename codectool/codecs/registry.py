"""The codec families by name. Adding a codec takes one folder and one line in this file."""

from __future__ import annotations

from importlib import import_module

from codectool.codecs.family import CodecFamily
from codectool.errors import UsageError

# Each package states its facts as `FAMILY`. The order is the order of help texts.
PACKAGES = (
    "codectool.codecs.hac",
    "codectool.codecs.bigcodec",
    "codectool.codecs.supercodec",
)


def _load() -> dict[str, CodecFamily]:
    families: list[CodecFamily] = [import_module(package).FAMILY for package in PACKAGES]
    return {family.name: family for family in families}


FAMILIES = _load()
DEFAULT_FAMILY = next(family for family in FAMILIES.values() if family.is_default)


def get_family(name: str) -> CodecFamily:
    """Return a codec family by name.

    Raises:
        UsageError: there is no family of this name.
    """
    if name not in FAMILIES:
        raise UsageError(f"no codec is called `{name}`; choose from {', '.join(FAMILIES)}")
    return FAMILIES[name]
