"""Write `.hcd` files and pipes: all tokens with `write`, or block by block with `Writer`."""

from __future__ import annotations

import dataclasses
import os
from binascii import crc_hqx
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from codectool.chunking import Chunker
from codectool.container.bitpack import pack_codes
from codectool.container.header import Header, block_check, build_fields
from codectool.container.layout import (
    CHECK16,
    CHECK32,
    CRC16_START,
    FINAL_FIELDS,
    FINAL_RECORD,
    FULL_BLOCK,
)
from codectool.container.sections import Sections, build_sections
from codectool.errors import ContainerError
from codectool.files import atomic_output, write_all
from codectool.tokens import Tokens, check_codes, check_gain


class Writer:
    """Write one `.hcd` file.

    A block is written as soon as it is full; the first one comes with the header, which holds its
    check. The bytes do not depend on how the codes are divided into calls of `write`. The file
    object may be a pipe and stays open. Without `close`, readers report a truncated file.

    Args:
        file: file object to write to; it needs ``write`` and may have ``flush``.
        header: description of the tokens. If ``num_samples`` is None, the length is passed to
            `close` and the file is a stream.
        tags: text tags to store.
        gain_db: gain that was applied before encoding, to store.

    Attributes:
        header: as given, or with the length if the file ended within its first block.
        num_frames: frames received so far.
        num_bytes: bytes written so far.

    Raises:
        ContainerError: the tags do not fit.
    """

    def __init__(
        self,
        file: BinaryIO,
        header: Header,
        tags: Mapping[str, str] | None = None,
        gain_db: float = 0.0,
    ) -> None:
        self.header = header
        self.num_frames = 0
        self.num_bytes = 0
        self._file = file
        check_gain(gain_db)
        self._sections = Sections(dict(tags or {}), gain_db)
        build_sections(self._sections, 0)  # raise for bad tags before anything is written
        self._fields = b""
        self._first_check = 0
        self._num_blocks = 0
        self._chunker: Chunker[npt.NDArray[np.int32]] = Chunker(header.block_frames, axis=2)
        self._closed = False

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, exception: type[BaseException] | None, *_: object) -> None:
        # After an exception the end is not written, so that readers report a truncated file.
        if exception is None and not self._closed:
            self.close()

    def write(self, codes: npt.NDArray[np.integer]) -> None:
        """Write any number of frames.

        Args:
            codes: integers ``(C, K, F)``.

        Raises:
            ContainerError: the codes do not fit the header, or exceed the length in it.
        """
        codes = np.asarray(codes)
        if self._closed:
            raise ContainerError("the file is already closed")
        try:
            check_codes(codes, self.header.layout.bits_per_codebook)
        except ValueError as error:
            raise ContainerError(str(error)) from error
        if codes.shape[0] != self.header.channels:
            raise ContainerError(
                f"codes have {codes.shape[0]} channels, the header has {self.header.channels}"
            )
        promised = self.header.num_frames
        if promised is not None and self.num_frames + codes.shape[2] > promised:
            raise ContainerError(f"more frames than the {promised} in the header")
        self.num_frames += codes.shape[2]
        for block in self._chunker.push(codes.astype(np.int32, copy=False)):
            self._write_block(block)
        if self.num_frames == promised and self._chunker.waiting:
            self._write_block(self._chunker.flush())

    def close(self, num_samples: int | None = None, extra_frames: int = 0) -> None:
        """Write the remaining frames and the end of the file.

        Args:
            num_samples: samples per channel; required if the header does not state them.
            extra_frames: frames beyond those that ``num_samples`` needs.

        Raises:
            ContainerError: the length does not match the frames that were written.
        """
        if self._closed:
            raise ContainerError("the file is already closed")
        header = self.header
        if num_samples is None:
            num_samples, extra_frames = header.num_samples, header.extra_frames
        if num_samples is None:
            raise ContainerError("the number of samples must be given when a stream is closed")
        try:
            known = dataclasses.replace(header, num_samples=num_samples, extra_frames=extra_frames)
        except ValueError as error:
            raise ContainerError(str(error)) from error
        if header.num_samples is not None and known != header:
            raise ContainerError(
                f"{num_samples} samples and {extra_frames} extra frames at the end, but the "
                f"header says {header.num_samples} and {header.extra_frames}"
            )
        if known.num_frames != self.num_frames:
            raise ContainerError(
                f"{num_samples} samples and {extra_frames} extra frames make {known.num_frames} "
                f"frames, but {self.num_frames} were written"
            )
        if self._num_blocks == 0:
            # The header is not written yet, so it can state the length.
            self.header = known
            self._write_block(self._chunker.flush())
        elif header.num_samples is None:
            fields = FINAL_FIELDS.build({"num_samples": num_samples, "extra_frames": extra_frames})
            self._write_block(self._chunker.flush(), FINAL_RECORD + fields)
        self._closed = True

    def _write_block(self, codes: npt.NDArray[np.int32] | None, final: bytes = b"") -> None:
        """Write a block, with the header before the first one.

        Args:
            codes: ``(C, K, F)``; None if there are no frames.
            final: start of the final record of a stream, if this is one.
        """
        layout = self.header.layout
        if codes is None:
            codes = np.zeros((self.header.channels, layout.num_codebooks, 0), np.int32)
        payload = final + pack_codes(codes, layout.bits_per_codebook)
        marker = FULL_BLOCK if self.header.num_samples is None and not final else b""
        if self._num_blocks == 0:
            self._fields = build_fields(self.header, sections=bool(self._sections))
            self._first_check = block_check(self._fields, 0, 0, payload)
            head = self._fields + CHECK32.build(self._first_check)
            head += CHECK16.build(crc_hqx(head, CRC16_START))
            if self._sections:
                head += build_sections(self._sections, self._first_check)
            data = head + marker + payload
        else:
            check = block_check(self._fields, self._first_check, self._num_blocks, payload)
            data = marker + payload + CHECK32.build(check)
        self._num_blocks += 1
        write_all(self._file, data)
        self.num_bytes += len(data)
        # A reader may wait for this block at the other end of a pipe.
        if flush := getattr(self._file, "flush", None):
            flush()


def write(
    target: str | os.PathLike[str] | BinaryIO,
    tokens: Tokens,
    tags: Mapping[str, str] | None = None,
    *,
    block_frames: int | None = None,
) -> int:
    """Write the tokens of one signal as a file of known length.

    Args:
        target: a path, whose file is replaced atomically, or a binary file object or pipe, which
            stays open and is not moved back.
        tokens: tokens to write.
        tags: text tags to store in addition to ``tokens.tags``.
        block_frames: frames per block; None is the default, about 24 s.

    Returns:
        The number of bytes written.

    Raises:
        ContainerError: the tokens or tags do not fit the format.
        UsageError: the file cannot be created.
    """
    if isinstance(target, str | os.PathLike):
        with atomic_output(Path(target), overwrite=True) as file:
            return write(file, tokens, tags, block_frames=block_frames)
    if tags:
        tokens = dataclasses.replace(tokens, tags={**tokens.tags, **tags})
    try:
        header = Header(
            layout=tokens.layout,
            fingerprint=tokens.fingerprint,
            sample_rate=tokens.sample_rate,
            channels=tokens.codes.shape[0],
            segment_frames=tokens.segment_frames,
            block_frames=block_frames or 0,
        )
        extra = tokens.codes.shape[2] - header.frames_for(tokens.num_samples)
        header = dataclasses.replace(header, num_samples=tokens.num_samples, extra_frames=extra)
    except ValueError as error:
        raise ContainerError(str(error)) from error
    writer = Writer(target, header, tokens.tags, tokens.gain_db)
    writer.write(tokens.codes)
    writer.close()
    return writer.num_bytes
