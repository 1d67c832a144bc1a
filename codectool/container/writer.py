"""`Writer`: tokens to a file or a pipe, block by block, without ever going back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from codectool.container.bitpack import pack_codes
from codectool.container.header import Header, build_checks, build_fields
from codectool.container.layout import (
    CHECK32,
    FINAL_FIELDS,
    FINAL_RECORD,
    FULL_BLOCK,
    block_check,
    first_block_check,
)
from codectool.container.sections import build_sections
from codectool.errors import ContainerError
from codectool.tokens import Tokens, check_codes


class Writer:
    """Write one `.hcd` file.

    A block goes out as soon as it is whole, the header together with the first one, because the
    header holds that block's check. The same tokens give the same bytes, however they are cut
    into calls of `write`. The file object is neither closed nor moved back, so a pipe will do.

    Args:
        file: where to write; only ``write`` and, if there is one, ``flush`` are used.
        header: what to say about the tokens. With ``num_samples`` None the length is told at
            `close`, and the file is a stream.
        tags: text to go with the file.

    Raises:
        ContainerError: the tags do not fit.
    """

    def __init__(
        self, file: BinaryIO, header: Header, tags: Mapping[str, str] | None = None
    ) -> None:
        self.header = header
        self._file = file
        self._tags = dict(tags or {})
        build_sections(self._tags, 0)  # refuse bad tags before anything is written
        self._fields = b""
        self._first_check = 0
        self._index = 0
        self._written = 0
        self._waiting: list[npt.NDArray[np.int32]] = []
        self._waiting_frames = 0
        self._closed = False

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After an error the end stays away, so that readers see a file that was cut off.
        if kind is None and not self._closed:
            self.close()

    @property
    def num_frames(self) -> int:
        """Frames taken so far."""
        return self._written + self._waiting_frames

    def write(self, codes: npt.NDArray[np.integer]) -> None:
        """Take any number of frames.

        Args:
            codes: integers ``(C, K, F)``.

        Raises:
            ContainerError: the codes do not fit the header, or are more than it promised.
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
            raise ContainerError(f"more frames than the {promised} that the header promises")
        while codes.shape[2]:
            part = codes[:, :, : self.header.block_frames - self._waiting_frames]
            codes = codes[:, :, part.shape[2] :]
            self._waiting.append(part.astype(np.int32))  # a copy: the caller may reuse its array
            self._waiting_frames += part.shape[2]
            if self._waiting_frames == self.header.block_frames:
                self._put_block()
        if self._waiting and self.num_frames == promised:
            self._put_block()

    def close(self, num_samples: int | None = None, extra_frames: int = 0) -> None:
        """Write what is left, and the end.

        Args:
            num_samples: samples per channel; needed if the header does not know them.
            extra_frames: frames beyond those that ``num_samples`` asks for, told with it.

        Raises:
            ContainerError: the length does not go with the frames that were written.
        """
        if self._closed:
            raise ContainerError("the file is already closed")
        header = self.header
        if header.num_samples is not None:
            if num_samples is None:
                num_samples, extra_frames = header.num_samples, header.extra_frames
            if (num_samples, extra_frames) != (header.num_samples, header.extra_frames):
                raise ContainerError(
                    f"{num_samples} samples and {extra_frames} extra frames at the end, but the "
                    f"header says {header.num_samples} and {header.extra_frames}"
                )
        if num_samples is None:
            raise ContainerError("the number of samples must be given when a stream is closed")
        try:
            known = dataclasses.replace(header, num_samples=num_samples, extra_frames=extra_frames)
        except ValueError as error:
            raise ContainerError(str(error)) from error
        if known.num_frames != self.num_frames:
            raise ContainerError(
                f"{num_samples} samples and {extra_frames} extra frames make {known.num_frames} "
                f"frames, but {self.num_frames} were written"
            )
        if self._index == 0:
            # Nothing is out yet: now the length is known, whatever was said at the start.
            self.header = known
            self._put_block()
        elif header.num_samples is None:
            self._put_final(num_samples, extra_frames)
        self._closed = True

    def _payload(self) -> bytes:
        """Packed tokens of the frames that wait, which wait no longer."""
        layout = self.header.layout
        empty = np.zeros((self.header.channels, layout.num_codebooks, 0), np.int32)
        codes = np.concatenate([empty, *self._waiting], axis=2)
        self._written += codes.shape[2]
        self._waiting = []
        self._waiting_frames = 0
        return pack_codes(codes, layout.bits_per_codebook)

    def _put_block(self) -> None:
        """Write a whole block, after the header if it is the first."""
        payload = self._payload()
        marker = FULL_BLOCK if self.header.num_samples is None else b""
        if self._index == 0:
            self._fields = build_fields(self.header, sections=bool(self._tags))
            self._first_check = first_block_check(self._fields, payload)
            head = self._fields + build_checks(self._fields, self._first_check)
            if self._tags:
                head += build_sections(self._tags, self._first_check)
            self._put(head + marker + payload)
        else:
            check = block_check(self._fields, self._first_check, self._index, payload)
            self._put(marker + payload + CHECK32.build(check))
        self._index += 1

    def _put_final(self, num_samples: int, extra_frames: int) -> None:
        """Write the record that ends a stream."""
        fields = FINAL_FIELDS.build({"num_samples": num_samples, "extra_frames": extra_frames})
        record = FINAL_RECORD + fields + self._payload()
        check = block_check(self._fields, self._first_check, self._index, record)
        self._put(record + CHECK32.build(check))

    def _put(self, data: bytes) -> None:
        """Write all of ``data`` and send it on its way: someone may be listening."""
        left = memoryview(data)
        while left:
            # An unbuffered pipe may take less than it is given; some objects do not say.
            taken = self._file.write(left)
            left = left[len(left) if taken is None else taken :]
        flush = getattr(self._file, "flush", None)
        if flush is not None:
            flush()


def write_tokens(file: BinaryIO, tokens: Tokens, block_frames: int | None = None) -> None:
    """Write all tokens of one signal as a file of known length.

    Args:
        file: where to write; never moved back.
        tokens: what to write.
        block_frames: frames per block; None for the default, about 24 s.

    Raises:
        ContainerError: the tokens do not fit the format.
    """
    try:
        header = Header(
            layout=tokens.layout,
            fingerprint=tokens.fingerprint,
            sample_rate=tokens.sample_rate,
            channels=tokens.num_channels,
            segment_frames=tokens.segment_frames,
            block_frames=block_frames or 0,
        )
        extra = tokens.num_frames - header.frames_for(tokens.num_samples)
        header = dataclasses.replace(header, num_samples=tokens.num_samples, extra_frames=extra)
    except ValueError as error:
        raise ContainerError(str(error)) from error
    with Writer(file, header, tokens.tags) as writer:
        writer.write(tokens.codes)
