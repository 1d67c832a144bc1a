"""Tokens to bytes and back: the `.hcd` container, as `docs/reference/file-format.md` describes it.

Needs numpy and construct only: `info` and `verify` work where no model does.
"""

from codectool.container.header import Header
from codectool.container.reader import Reader, read_tokens
from codectool.container.records import Block
from codectool.container.writer import Writer, write_tokens

__all__ = ["Block", "Header", "Reader", "Writer", "read_tokens", "write_tokens"]
