"""The codec families, by name. A new codec is one module and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from codectool.errors import UsageError

if TYPE_CHECKING:
    from codectool.codecs.base import CodecModel

# Dotted paths, not classes: listing the families must not import torch.
FAMILIES = {
    "hac": "codectool.codecs.hac.codec:HacCodec",
    "bigcodec": "codectool.codecs.bigcodec.model:BigCodec",
    "supercodec": "codectool.codecs.supercodec.model:SuperCodec",
}


def model_class(family: str) -> type[CodecModel]:
    """The class of a codec family.

    Raises:
        UsageError: there is no family of this name.
    """
    if family not in FAMILIES:
        raise UsageError(f"no codec is called `{family}`; there are {', '.join(FAMILIES)}")
    module, _, name = FAMILIES[family].partition(":")
    return cast("type[CodecModel]", getattr(import_module(module), name))
