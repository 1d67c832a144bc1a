"""Fewer codebooks of a residual-VQ `.hcd` file, without its model.

The codes of the first codebooks do not depend on the later ones, so the result is the file that
encoding with fewer codebooks writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from codectool.container import Reader, Writer
from codectool.errors import ContainerError, UsageError, naming
from codectool.files import atomic_output
from codectool.runner import Codes


@dataclass(frozen=True)
class Thinned:
    """Summary of a thinned file.

    Attributes:
        seconds: length of the audio.
        num_bytes: size of the new file.
        warnings: what was left out, one sentence each.
    """

    seconds: float
    num_bytes: int
    warnings: tuple[str, ...] = ()


def thin(
    reader: Reader, file: BinaryIO, codebooks: int, check: Callable[[], None] | None = None
) -> Thinned:
    """Write the first codebooks of a file, block by block.

    Args:
        reader: has read no blocks yet.
        file: where to write; may be a pipe.
        codebooks: number of codebooks to keep.
        check: called before each block; may raise to stop.

    Raises:
        UsageError: the file has no more codebooks than that.
        ContainerError: the file is damaged.
    """
    header, layout = reader.header, reader.header.layout
    if not 0 < codebooks < layout.num_codebooks:
        has = f"{layout.num_codebooks} codebook{'s' if layout.num_codebooks > 1 else ''}"
        reason = (
            "the bits of a frame belong together, so none can be left out"
            if layout.num_codebooks == 1
            else f"choose 1 to {layout.num_codebooks - 1}"
        )
        raise UsageError(f"{reader.name}: {layout.family} has {has} here; {reason}")
    kept = replace(layout, bits_per_codebook=layout.bits_per_codebook[:codebooks])
    is_default = header.block_frames == header.default_block_frames
    block_frames = 0 if is_default else header.block_frames
    thin_header = replace(header, layout=kept, block_frames=block_frames)
    with naming(reader.name):
        writer = Writer(file, thin_header, reader.tags, reader.gain_db)
        for block in reader.blocks():
            if check is not None:
                check()
            writer.write(cast(Codes, block.codes)[:, :codebooks])
        num_samples = cast(int, reader.num_samples)
        writer.close(num_samples, writer.num_frames - header.frames_for(num_samples))
    skipped = reader.unknown_sections
    warning = f"{reader.name}: {skipped} sections of unknown type are left out"
    seconds = num_samples / header.sample_rate
    return Thinned(seconds, writer.num_bytes, (warning,) if skipped else ())


def thin_file(
    source: str | Path,
    target: str | Path,
    codebooks: int,
    *,
    overwrite: bool = False,
    check: Callable[[], None] | None = None,
) -> Thinned:
    """Write the first codebooks of a `.hcd` file to another one; see `thin`.

    Raises:
        UsageError: the file has no more codebooks, or the target exists or cannot be written.
        ContainerError: the file cannot be read, or is damaged.
    """
    source = Path(source)
    try:
        opened = source.open("rb")
    except OSError as error:
        raise ContainerError(f"{source}: {error.strerror or error}") from error
    with opened, atomic_output(Path(target), overwrite) as file:
        return thin(Reader(cast(BinaryIO, opened), str(source)), file, codebooks, check)
