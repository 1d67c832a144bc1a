"""The `.hcd` container: tokens to bytes and back, see `docs/reference/file-format.md`.

Requires only NumPy and construct, so that `info` and `verify` need no model.
"""

from codectool.container.header import Header
from codectool.container.reader import Block, Reader, read
from codectool.container.writer import Writer, write

__all__ = ["Block", "Header", "Reader", "Writer", "read", "write"]
