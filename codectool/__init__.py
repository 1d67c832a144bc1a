"""Neural speech codecs at about 1 kbps: one command, one library, one file format.

    import codectool

    codec = codectool.load("bigcodec", checkpoint="bigcodec.pt")
    tokens = codec.encode(samples, sample_rate)
    codectool.write("speech.hcd", tokens, tags={"speaker": "p253"})
    audio = codec.decode(codectool.read("speech.hcd"))

Names are imported on first use (PEP 562), so that reading a container does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from codectool._version import __version__

if TYPE_CHECKING:
    from codectool import models
    from codectool.codec import Codec
    from codectool.container import read, write
    from codectool.errors import CodectoolError, CodectoolWarning, WeightsMissingError
    from codectool.loading import load
    from codectool.tokens import TokenLayout, Tokens

__all__ = [
    "Codec",
    "CodectoolError",
    "CodectoolWarning",
    "TokenLayout",
    "Tokens",
    "WeightsMissingError",
    "__version__",
    "load",
    "models",
    "read",
    "write",
]

_MODULES = {
    "Codec": "codec",
    "load": "loading",
    "read": "container",
    "write": "container",
    "CodectoolError": "errors",
    "CodectoolWarning": "errors",
    "WeightsMissingError": "errors",
    "TokenLayout": "tokens",
    "Tokens": "tokens",
}


def __getattr__(name: str) -> Any:
    if name == "models":
        return import_module("codectool.models")
    if name not in _MODULES:
        raise AttributeError(f"module 'codectool' has no attribute {name!r}")
    return getattr(import_module(f"codectool.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
