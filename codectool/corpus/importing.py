"""`import_tokens`: records of ids to `.hcd` files or audio."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from codectool.container import Reader, write
from codectool.corpus.dataset import open_dataset
from codectool.corpus.formats import format_of
from codectool.corpus.formats.base import file_name
from codectool.corpus.layouts import LayoutOptions
from codectool.corpus.metadata import ExportMetadata
from codectool.corpus.plain import read_plain
from codectool.corpus.reading import SUFFIX
from codectool.corpus.records import Record, group_channels
from codectool.corpus.recovery import recover_codes
from codectool.errors import AudioError, ContainerError, TokensError, UsageError, naming
from codectool.files import atomic_output
from codectool.messages import printable
from codectool.tokens import Tokens

if TYPE_CHECKING:
    from codectool.codec import Codec

# More frames than this beyond `num_samples` are not padding; the longest is that of SuperCodec.
MAX_PADDING = 16
DISK_ERRORS = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)  # the next file would meet them, too


@dataclass(frozen=True)
class ImportOptions:
    """How ids become tokens, and how they are written.

    Attributes:
        on_bad_id: what to do about bad ids; see `recover_codes`.
        realign: find the codebooks again where ids are missing; see `recover_codes`.
        special_ids: ids to remove; see `recover_codes`.
        format: ``"hcd"``, ``"wav"`` or ``"flac"``.
        subtype: sample format of audio, a name of libsndfile; None is 16 bit.
        native_rate: write audio at the model's sampling rate.
        force: decode tokens of different weights.
        overwrite: replace existing files.
        skip_existing: leave out records whose file exists.
    """

    on_bad_id: str = "error"
    realign: bool = False
    special_ids: Collection[int] = ()
    format: str = "hcd"
    subtype: str | None = None
    native_rate: bool = False
    force: bool = False
    overwrite: bool = False
    skip_existing: bool = False


@dataclass
class ImportReport:
    """Totals of an import.

    Attributes:
        records: number of recordings written.
        skipped: number of recordings that existed.
        seconds: length of their audio, per channel.
        changes: id of each recording of which ids were changed or left out, and how.
        dropped_frames: frames that were left out, per channel.
        clamped_ids: ids that were clamped.
        failures: id of each recording that was not written, and the reason in one line.
    """

    records: int = 0
    skipped: int = 0
    seconds: float = 0.0
    changes: dict[str, str] = field(default_factory=dict)
    dropped_frames: int = 0
    clamped_ids: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, imported: Imported) -> None:
        """Add a recording that was written."""
        self.records += 1
        self.seconds += imported.tokens.duration
        self.dropped_frames += imported.dropped_frames
        self.clamped_ids += imported.clamped_ids
        if imported.changes:
            self.changes[imported.id] = "; ".join(imported.changes)

    def fail(self, record: str, reason: str) -> None:
        """Add a recording that was not written; of several with one id, the first reason counts."""
        self.failures.setdefault(record, reason)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return vars(self) | {"seconds": round(self.seconds, 3)}

    @property
    def exit_code(self) -> int:
        """Return 0 if all recordings were written, else 1."""
        return 1 if self.failures else 0


@dataclass(frozen=True)
class Imported:
    """The tokens of a recording, and how they differ from its ids.

    Attributes:
        id: name of the recording.
        tokens: the tokens.
        changes: what was changed, in a few words each.
        dropped_frames: frames that were left out, per channel.
        clamped_ids: ids that were clamped.
    """

    id: str
    tokens: Tokens
    changes: Sequence[str]
    dropped_frames: int
    clamped_ids: int


def to_tokens(
    channels: Sequence[Record], metadata: ExportMetadata, options: ImportOptions | None = None
) -> Imported:
    """Return the tokens of a recording.

    Its length is the one of the record. If frames are missing because they were dropped, or if
    there are more than the record says, it is that of all frames.

    Args:
        channels: the records of its channels.
        metadata: what the ids mean.
        options: see there.

    Raises:
        TokensError: ids or the values of a record are wrong; the message names the record.
    """
    options = options or ImportOptions()
    first = channels[0]
    codes, changes, dropped, clamped = [], [], 0, 0
    for record in channels:
        where = "" if record.num_channels == 1 else f"channel {record.channel}: "
        with naming(_where(record.id)):
            recovered = recover_codes(
                metadata.layout,
                record.tokens,
                on_bad_id=options.on_bad_id,
                realign=options.realign,
                special_ids=options.special_ids,
            )
        codes.append(recovered.codes)
        changes += [where + change for change in recovered.changes]
        dropped = max(dropped, recovered.dropped_frames)
        clamped += recovered.clamped
    with naming(_where(first.id)):
        frames = [item.shape[2] for item in codes]
        if len(set(frames)) > 1:
            raise TokensError(f"its channels have {' and '.join(map(str, frames))} frames")
        rate = first.sample_rate or metadata.model_sample_rate
        num_samples, change = _length(first, frames[0], rate, metadata, options)
        tokens = Tokens(
            codes=np.concatenate(codes),
            layout=metadata.token_layout,
            fingerprint=metadata.fingerprint,
            sample_rate=rate,
            num_samples=num_samples,
            segment_frames=first.segment_frames or None,
            gain_db=float(first.gain_db),
            tags=first.tags,
        )
    return Imported(first.id, tokens, [*changes, *change], dropped, clamped)


def _length(
    record: Record, frames: int, rate: int, metadata: ExportMetadata, options: ImportOptions
) -> tuple[int, list[str]]:
    """Return the number of samples of a recording, and what is odd about it."""
    hop, model_rate = metadata.hop_length, metadata.model_sample_rate
    most = frames * hop * rate // model_rate
    samples = record.num_samples
    if samples is None:
        return most, []
    needed = -(-metadata.token_layout.model_samples(samples, rate) // hop)
    if frames < needed:
        if options.on_bad_id == "error" and not options.realign:
            raise TokensError(
                f"has {frames} frames, but its {samples} samples need {needed}; "
                "`--on-bad-id drop-frame` makes it shorter"
            )
        return most, [f"{frames} of {needed} frames left"]
    if frames > needed + MAX_PADDING:
        return most, [f"longer than its {samples} samples: all {frames} frames are decoded"]
    return samples, []


def _where(record: str) -> str:
    return f"record {printable(record)}"


@dataclass(frozen=True)
class Importable:
    """Records that can be imported.

    Attributes:
        name: of the file or folder, in messages.
        metadata: what the ids mean.
        records: the records.
    """

    name: str
    metadata: ExportMetadata
    records: Iterable[Record]

    def recordings(self) -> Iterator[list[Record]]:
        """Yield the records of each recording, one per channel.

        Raises:
            TokensError: the file is damaged, or a channel is missing.
        """
        try:
            yield from group_channels(self.records)
        except ValueError as error:
            raise TokensError(
                f"{self.name}: {str(error).removeprefix(f'{self.name}: ')}"
            ) from error


def open_importable(
    source: Path | BinaryIO,
    *,
    like: Path | None = None,
    layout: LayoutOptions | None = None,
    codec: Codec | None = None,
    column: str | None = None,
) -> Importable:
    """Open an export, or ids that a program saved without metadata.

    What ids without metadata mean is stated by ``like``, or by ``codec`` and ``layout``.

    Args:
        source: an export, a file of ids (see `read_plain`), or a pipe with such a file.
        like: an export with the same metadata, or a `.hcd` file of the same codec.
        layout: how codes are arranged as ids; None: `frames`, or as the export says.
        codec: the codec.
        column: key of the ids in JSON objects.

    Raises:
        UsageError: nothing states what the ids mean, or two things do.
        TokensError, ConfigError: metadata are damaged.
    """
    if not isinstance(source, Path):
        name = str(getattr(source, "name", "<stdin>"))
        dataset = None
    else:
        name = str(source)
        is_dataset = source.is_dir() or format_of(source) is not None
        dataset = open_dataset(source) if is_dataset else None
    if dataset is not None and dataset.metadata is not None:
        if like is not None or layout is not None:
            raise UsageError(f"{name}: states what its ids mean; leave out `--like` and the layout")
        with naming(name):
            return Importable(name, ExportMetadata.from_json(dataset.metadata), dataset)
    if like is not None:
        metadata = read_metadata(like, layout)
    elif codec is not None:
        chosen = (layout or LayoutOptions()).make(codec.layout.bits_per_codebook)
        metadata = ExportMetadata.describe(codec.layout, codec.token_fingerprint, chosen)
    else:
        raise UsageError(
            f"{name}: does not say what its ids mean; give `--like` with an export or a .hcd file "
            "of the same codec, or `--model` or `--checkpoint`"
        )
    dimensions = 1 if metadata.layout.kind == "flat" else 2
    if dataset is not None and dataset.format.name not in ("jsonl", "npy"):
        return Importable(name, metadata, dataset)
    if not isinstance(source, Path):
        return Importable(name, metadata, read_plain(source, name, dimensions, column))
    files = [source] if dataset is None else dataset.shards
    folder = source if source.is_dir() else source.parent
    return Importable(name, metadata, _read_files(files, folder, dimensions, column))


def _read_files(
    files: Iterable[Path], folder: Path, dimensions: int, column: str | None
) -> Iterator[Record]:
    for path in files:
        stem = path.relative_to(folder).with_suffix("").as_posix()
        try:
            file = path.open("rb")
        except OSError as error:
            raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
        with file:
            yield from read_plain(file, str(path), dimensions, column, stem)


def read_metadata(like: Path, layout: LayoutOptions | None = None) -> ExportMetadata:
    """Return the metadata of an export, or of a `.hcd` file and a layout.

    Raises:
        UsageError: there are no metadata, or the layout is stated twice.
    """
    if like.suffix.lower() == SUFFIX:
        try:
            with like.open("rb") as file:
                header = Reader(file, str(like)).header
        except OSError as error:
            raise UsageError(f"{like}: {(error.strerror or str(error)).lower()}") from error
        chosen = (layout or LayoutOptions()).make(header.layout.bits_per_codebook)
        return ExportMetadata.describe(header.layout, header.fingerprint, chosen)
    values = open_dataset(like).metadata
    if values is None:
        raise UsageError(f"{like}: has no metadata of codectool; name an export or a .hcd file")
    if layout is not None:
        raise UsageError(f"{like}: states its layout; leave out `--layout` and its options")
    with naming(str(like)):
        return ExportMetadata.from_json(values)


def import_folder(
    source: Importable,
    folder: Path,
    options: ImportOptions | None = None,
    codec: Codec | None = None,
    on_progress: Callable[[int], object] = lambda _done: None,
) -> ImportReport:
    """Write a file per recording, named by its id.

    An id that would leave the folder is written with `%`, as `file_name` says.

    Args:
        source: the records.
        folder: made if it does not exist.
        options: see there.
        codec: decodes audio; needed unless the format is `hcd`.
        on_progress: called with the number of recordings done.

    Returns:
        Totals and failures; a record that fails does not stop the import.

    Raises:
        TokensError: the rest of the source is damaged. What was read before is written.
        UsageError: the folder cannot be written.
    """
    options, report = options or ImportOptions(), ImportReport()
    written: set[Path] = set()
    for done, channels in enumerate(source.recordings()):
        on_progress(done)
        record = channels[0].id
        path = folder / f"{file_name(record)}.{options.format}"
        if path in written:
            report.fail(record, "the id is there twice; only the first recording is taken")
            continue
        written.add(path)
        if options.skip_existing and path.exists():
            report.skipped += 1
            continue
        try:
            imported = to_tokens(channels, source.metadata, options)
        except TokensError as error:
            report.fail(record, str(error).removeprefix(_where(record) + ": "))
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_output(path, options.overwrite) as file:
                write_tokens(file, imported.tokens, options, codec)
        except (UsageError, ContainerError, AudioError, OSError) as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            report.fail(record, str(error))
            continue
        report.add(imported)
    return report


def import_file(source: Importable, options: ImportOptions | None = None) -> Imported:
    """Return the tokens of a source that holds one recording.

    Raises:
        UsageError: it holds none, or several.
        TokensError: it cannot be imported.
    """
    recordings = source.recordings()
    channels = next(recordings, None)
    if channels is None:
        raise UsageError(f"{source.name}: holds no ids")
    if next(recordings, None) is not None:
        raise UsageError(f"{source.name}: holds several recordings; name a folder as OUTPUT")
    with naming(source.name):
        return to_tokens(channels, source.metadata, options)


def write_tokens(
    file: BinaryIO, tokens: Tokens, options: ImportOptions, codec: Codec | None = None
) -> None:
    """Write tokens as `.hcd`, or decode them and write audio."""
    if options.format == "hcd":
        write(file, tokens)
        return
    from codectool.decoding import Decoding, write_audio

    assert codec is not None, "audio needs a codec"
    packed = io.BytesIO()
    write(packed, tokens)
    packed.seek(0)
    decoding = Decoding(
        codec,
        Reader(packed, "the tokens"),
        native_rate=options.native_rate,
        force=options.force,
    )
    write_audio(file, decoding, options.format, options.subtype)
