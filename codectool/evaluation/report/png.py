"""Pictures with a palette as PNG files: so little of the format that no library is worth asking.

Letters used in shapes: H rows, W columns, P colours of the palette.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PALETTE_IMAGE = 3  # colour type: each pixel is an index into the palette

Bytes = npt.NDArray[np.uint8]


def png_bytes(pixels: Bytes, palette: Bytes) -> bytes:
    """A PNG file.

    Args:
        pixels: ``(H, W)``, indices into the palette, the top row first.
        palette: ``(P, 3)``, red, green and blue; at most 256 colours.
    """
    height, width = pixels.shape
    # One byte before each row names its filter; for indices into a palette, none (0) packs best.
    rows = np.pad(pixels, ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, PALETTE_IMAGE, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
