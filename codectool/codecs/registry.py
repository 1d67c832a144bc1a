"""The codec families by name. Adding a codec takes one folder and one line in this file."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from codectool.errors import UsageError
from codectool.messages import shorten

if TYPE_CHECKING:
    from codectool.codecs.family import CodecFamily

# Where each family states its metadata: paths, so that `--help` imports neither PyTorch nor NumPy.
# The first is the default. The order is the order of help texts.
FAMILIES = {
    "hac": "codectool.codecs.hac:FAMILY",
    "bigcodec": "codectool.codecs.bigcodec:FAMILY",
    "supercodec": "codectool.codecs.supercodec:FAMILY",
}
DEFAULT_FAMILY = next(iter(FAMILIES))


def get_family(name: str) -> CodecFamily:
    """Return a codec family by name.

    Raises:
        UsageError: there is no family of this name.
    """
    from codectool.codecs.family import import_object

    if name not in FAMILIES:
        raise UsageError(f"no codec is called `{shorten(name)}`; choose from {', '.join(FAMILIES)}")
    return cast("CodecFamily", import_object(FAMILIES[name]))


def all_families() -> list[CodecFamily]:
    """Return the codec families in the order of `FAMILIES`."""
    return [get_family(name) for name in FAMILIES]
