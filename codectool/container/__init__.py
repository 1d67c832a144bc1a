"""The `.hcd` container: tokens to bytes and back, see `docs/reference/file-format.md`.

Requires only NumPy and construct, so that `info` and `verify` need no model.
"""

from codectool.container.header import Header
from codectool.container.reader import Block, Reader, read_tokens
from codectool.container.writer import Writer, write_tokens

__all__ = ["Block", "Header", "Reader", "Writer", "read_tokens", "write_tokens"]
