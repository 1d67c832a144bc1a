"""`export_tokens`: write the tokens of a corpus as a data set.

The files are divided into shards in the order of their names. The name of a shard ends with a hash
of everything that it depends on: names, sizes and times of its files, their rows of the manifests,
and the options. A repeated export therefore keeps the shards that are complete and current, and no
journal is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codectool.audio.discovery import AUDIO_SUFFIXES, find_files, names_in, strip_suffix
from codectool.checkpoints import registry
from codectool.container import Reader
from codectool.corpus.dataset import (
    METADATA_NAME,
    find_shards,
    read_sidecar,
    shard_name,
    sidecar_of,
)
from codectool.corpus.formats import format_of, get_format
from codectool.corpus.formats.base import METADATA_KEY, Format, Schema
from codectool.corpus.layouts import LayoutOptions, SequenceLayout
from codectool.corpus.manifest import Join, join_manifests, read_manifest
from codectool.corpus.metadata import ExportMetadata
from codectool.corpus.reading import SUFFIX, Expected, Failure, Source, read_sources
from codectool.corpus.records import Value
from codectool.errors import ContainerError, UsageError
from codectool.files import atomic_output, check_writable
from codectool.messages import encodable, first_few, shorten, to_json
from codectool.tokens import TokenLayout

if TYPE_CHECKING:
    from codectool.codec import Codec
    from codectool.pipeline.report import Result
    from codectool.pipeline.run import Callbacks

PLAN_VERSION = 1  # of the hashes in names of shards


@dataclass(frozen=True)
class ExportOptions:
    """What an export writes and how it is carried out.

    Attributes:
        format: one of `FORMATS`; None to choose by the suffix of the target.
        layout: how codes become ids.
        files: the files to export, all inside the source; None for all files in it.
        manifests: files whose rows are joined to the files.
        shard_records: records per shard; None for the default of the format.
        shard_bytes: size of a shard, approximately; None for no limit.
        workers: number of processes that read files; None to choose by the number of files.
        overwrite: replace what another export wrote.
        strict: raise if a row of a manifest has no file or a file has no row.
    """

    format: str | None = None
    layout: LayoutOptions = field(default_factory=LayoutOptions)
    files: Sequence[str] | None = None
    manifests: Sequence[Path] = ()
    shard_records: int | None = None
    shard_bytes: int | None = None
    workers: int | None = None
    overwrite: bool = False
    strict: bool = False


@dataclass
class ExportReport:
    """Totals of an export.

    Attributes:
        format: name of the format.
        path: the data set.
        shards: number of shards.
        kept: number of shards that were already complete and current.
        records: number of records written now.
        seconds: length of their audio, added up over channels.
        ids: number of their ids.
        bytes: size of the data set.
        failures: name of each file that is not in the data set, and the reason in one line.
        join: how the rows of the manifests fit; None without manifests.
        mismatches: files written now whose length is not the one in the manifest.
        warnings: other sentences to show.
        wall_seconds: duration of the export.
    """

    format: str
    path: Path
    shards: int = 0
    kept: int = 0
    records: int = 0
    seconds: float = 0.0
    ids: int = 0
    bytes: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    join: Join | None = None
    mismatches: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    wall_seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """Return 0 if all files are in the data set, else 1."""
        return 1 if self.failures else 0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        values = {name: value for name, value in vars(self).items() if name not in ("path", "join")}
        values |= {"seconds": round(self.seconds, 3), "wall_seconds": round(self.wall_seconds, 3)}
        join = None if self.join is None else self.join.to_json()
        return {"path": str(self.path), **values, "manifest": join}


@dataclass(frozen=True)
class _Shard:
    """A shard of the plan: its main file and what it is made of."""

    path: Path
    sources: Sequence[Source]


def export_tokens(
    source: str | Path,
    target: str | Path,
    options: ExportOptions | None = None,
    on_progress: Callable[[int, int], object] = lambda _done, _total: None,
    root: Path | None = None,
) -> ExportReport:
    """Write the tokens of `.hcd` files as a data set; needs no model.

    To continue an export that was interrupted, call it again: complete shards are kept.

    Args:
        source: a folder, which is searched, or a file.
        target: folder of the data set, or a file whose suffix chooses the format.
        options: see there.
        on_progress: called with the number of files done and of all files.
        root: folder where relative paths in manifests may start; None for that of the source.

    Returns:
        Totals and failures; a file that fails does not stop the export.

    Raises:
        UsageError: there are no files, the target is something else, or a manifest does not fit
            (``strict``).
        TokensError: the files were made with different weights.
        ConfigError: a manifest cannot be read, or the layout is impossible.
    """
    started = time.perf_counter()
    source, target, options = Path(source), Path(target), options or ExportOptions()
    found, single = choose_format(target, options.format)
    folder = source if source.is_dir() else source.parent
    names, failures = _find_names(source, folder, target, options.files)
    report = ExportReport(found.name, target, failures=failures)
    sources = _stat(folder, names, failures)
    expected, token_layout, fingerprint = _read_first(folder, sources, failures)
    layout = options.layout.make(token_layout.bits_per_codebook)
    metadata = ExportMetadata.describe(token_layout, fingerprint, layout).to_json()
    if options.manifests:
        join = join_manifests(options.manifests, root or folder, [s.name for s in sources])
        join.check(options.strict)
        no_row: dict[str, Value] = dict.fromkeys(join.columns)
        sources = [replace(s, row=join.rows.get(s.name, no_row)) for s in sources]
        report.join = join
    _check_ids(sources)
    schema = Schema(
        metadata,
        dtype=layout.dtype,
        shape=_shape(layout),
        frame_rate=token_layout.frame_rate * (layout.ids_per_frame if layout.kind == "flat" else 1),
        columns=report.join.columns if report.join else {},
    )
    writer = _Writer(found, target, schema, options, report, on_progress)
    if single:
        writer.write_file(folder, sources, expected, layout)
    else:
        writer.write_folder(folder, sources, expected, layout)
    report.wall_seconds = time.perf_counter() - started
    return report


def export_audio(
    codec: Codec,
    source: str | Path,
    target: str | Path,
    options: ExportOptions | None = None,
    on_progress: Callable[[int, int], object] = lambda _done, _total: None,
    callbacks: Callbacks | None = None,
) -> ExportReport:
    """Encode audio, and write its tokens as a data set; see `export_tokens`.

    The `.hcd` files are kept in the folder `.hcd` of the data set, so that a repeated export
    encodes only what has changed.

    Args:
        codec: the codec.
        source: a folder, which is searched for audio, or an audio file.
        target: folder of the data set, or a file whose suffix chooses the format.
        options: see there.
        on_progress: called with the number of files exported and of all files.
        callbacks: functions to call while files are encoded.
    """
    from codectool.pipeline.run import Callbacks, RunOptions, encode_tree

    started = time.perf_counter()
    source, target, options = Path(source), Path(target), options or ExportOptions()
    _, single = choose_format(target, options.format)
    if not source.exists():
        raise UsageError(f"{source}: there is no such file or folder")
    if single:
        check_writable(target, options.overwrite)
    options.layout.make(codec.layout.bits_per_codebook)  # fails before anything is encoded
    for manifest in options.manifests:
        for _ in read_manifest(manifest):
            pass
    work = target.with_name(f".{target.name}{SUFFIX}") if single else target / SUFFIX
    folder = source if source.is_dir() else source.parent
    files = options.files if source.is_dir() else [source.name]
    given = callbacks or Callbacks()
    encoded: list[str] = []
    failures: dict[str, str] = {}
    warnings: list[str] = []

    def on_result(result: Result) -> None:
        if result.status == "failed" or result.target is None:
            failures[os.path.relpath(result.source, folder)] = result.reason or "failed"
        else:
            encoded.append(str(result.target.relative_to(work)))
            warnings.extend(result.warnings)
        given.on_result(result)

    run_options = RunOptions(files, options.workers, strict=options.strict)
    extended = replace(given, on_result=on_result)
    is_new = not work.exists()
    try:
        encode_tree(codec, folder, work, run_options=run_options, callbacks=extended)
        if not encoded:
            reasons = [f"{folder / name}: {reason}" for name, reason in failures.items()]
            raise UsageError(f"{source}: nothing could be encoded: {'; '.join(first_few(reasons))}")
    finally:
        if is_new and not encoded:
            shutil.rmtree(work, ignore_errors=True)
            with suppress(OSError):
                target.rmdir()  # unless it was there before, with other files
    options = replace(options, files=encoded)
    report = export_tokens(work, target, options, on_progress, root=folder)
    report.failures = failures | report.failures
    report.warnings = warnings + report.warnings
    if single:
        shutil.rmtree(work)
    report.wall_seconds = time.perf_counter() - started
    return report


class _Writer:
    """Writes the shards of one export."""

    def __init__(
        self,
        found: Format,
        target: Path,
        schema: Schema,
        options: ExportOptions,
        report: ExportReport,
        on_progress: Callable[[int, int], object],
    ) -> None:
        self._format = found
        self._target = target
        self._schema = schema
        self._options = options
        self._report = report
        self._on_progress = on_progress

    def write_file(
        self, folder: Path, sources: Sequence[Source], expected: Expected, layout: SequenceLayout
    ) -> None:
        """Write a data set that is one file."""
        if self._options.shard_records or self._options.shard_bytes:
            raise UsageError(f"{self._target}: is one file; name a folder to write shards")
        check_writable(self._target, self._options.overwrite)
        shard = _Shard(self._target, sources)
        self._write_shards([shard], folder, expected, layout, 0, len(sources))
        if not self._format.has_metadata and self._format.name != "npy":
            self._write_sidecar(sidecar_of(self._target), complete=True, key="")
        files = [self._target, *self._format.files(self._target)]
        self._report.shards = 1
        self._report.bytes = sum(file.stat().st_size for file in files)

    def write_folder(
        self, folder: Path, sources: Sequence[Source], expected: Expected, layout: SequenceLayout
    ) -> None:
        """Write a data set in a folder, or what is missing of it."""
        place = self._target / self._format.folder
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{place}: cannot be created ({error.strerror})") from error
        settings = self._settings()
        shards = self._plan(place, sources, settings, expected)
        key = _digest([os.path.abspath(folder), settings])
        planned = {shard.path for shard in shards}
        present = set(find_shards(self._target, self._format))
        sidecar = self._target / METADATA_NAME
        earlier = read_sidecar(sidecar)
        self._check_target(sidecar, earlier, key)
        kept = present & planned
        if stale := present - planned:
            self._report.warnings.append(
                f"{self._target}: inputs or options have changed: {len(kept)} of {len(shards)} "
                "shards are current, the others are written again"
            )
        if earlier is not None:
            _keep_failures(earlier, shards, kept, self._report.failures)
        self._write_sidecar(sidecar, complete=False, key=key)
        for path in stale:
            _remove(path, self._format)
        _remove_temporary_files(place)
        missing = [shard for shard in shards if shard.path not in kept]
        done = sum(len(shard.sources) for shard in shards) - sum(len(s.sources) for s in missing)
        self._report.shards, self._report.kept = len(shards), len(kept)

        def on_written() -> None:
            self._write_sidecar(sidecar, complete=False, key=key)

        self._write_shards(missing, folder, expected, layout, done, len(sources), on_written)
        files = [file for shard in shards for file in self._files(shard.path)]
        self._report.bytes = sum(file.stat().st_size for file in files)
        self._write_sidecar(sidecar, complete=True, key=key)

    def _files(self, path: Path) -> list[Path]:
        return [path, *self._format.files(path)]

    def _settings(self) -> str:
        """Return everything that shards depend on besides their files."""
        metadata = {k: v for k, v in self._schema.metadata.items() if k != "codectool_version"}
        columns = dict(self._schema.columns)
        return json.dumps([PLAN_VERSION, self._format.name, metadata, columns], sort_keys=True)

    def _plan(
        self, place: Path, sources: Sequence[Source], settings: str, expected: Expected
    ) -> list[_Shard]:
        shards = []
        for number, group in enumerate(self._groups(sources, expected)):
            parts = (f"{s.name}\0{s.size}\0{s.mtime_ns}\0{json.dumps(s.row)}" for s in group)
            name = shard_name(self._format, number, _digest([settings, *parts]))
            shards.append(_Shard(place / name, group))
        return shards

    def _groups(self, sources: Sequence[Source], expected: Expected) -> Iterator[list[Source]]:
        records, most_bytes = self._options.shard_records, self._options.shard_bytes
        if records is None and most_bytes is None:
            records = self._format.records_per_shard
        growth = expected.growth(self._schema.dtype, self._schema.metadata)
        group: list[Source] = []
        size = 0.0
        for source in sources:
            grown = source.size * growth
            if group and (len(group) == records or (most_bytes and size + grown > most_bytes)):
                yield group
                group, size = [], 0.0
            group.append(source)
            size += grown
        if group:
            yield group

    def _check_target(self, sidecar: Path, earlier: Mapping[str, Any] | None, key: str) -> None:
        """Raise if the folder holds another data set, unless it may be replaced."""
        if self._options.overwrite:
            return
        if earlier is not None and earlier.get("key") != key:
            raise UsageError(
                f"{self._target}: holds the tokens of another folder or with other options; "
                "name another folder, or give `--overwrite` to replace them"
            )
        if earlier is None and (sidecar.exists() or find_shards(self._target, self._format)):
            raise UsageError(
                f"{self._target}: holds other files named as those of an export; name another "
                "folder, or give `--overwrite` to replace them"
            )

    def _write_shards(
        self,
        shards: Sequence[_Shard],
        folder: Path,
        expected: Expected,
        layout: SequenceLayout,
        done: int,
        total: int,
        on_failures: Callable[[], None] = lambda: None,
    ) -> None:
        """Write shards one after another, while processes read files ahead."""
        report = self._report
        groups = [shard.sources for shard in shards]
        self._on_progress(done, total)
        with read_sources(folder, groups, expected, layout, self._options.workers) as results:
            for shard in shards:
                failed = False
                with self._format.open_shard(shard.path, self._schema) as write:
                    left = len(shard.sources)
                    while left:
                        for result in next(results):
                            left -= 1
                            done += 1
                            if isinstance(result, Failure):
                                report.failures[result.name] = result.reason
                                failed = True
                                continue
                            if result.warning:
                                report.mismatches.append(result.warning)
                            for record in result.records:
                                write(record)
                                report.records += 1
                                report.ids += record.tokens.size
                                report.seconds += record.duration or 0
                        self._on_progress(done, total)
                    if failed:  # known before the shard appears, even if this program is killed
                        on_failures()

    def _write_sidecar(self, path: Path, complete: bool, key: str) -> None:
        report = self._report
        values = {
            METADATA_KEY: self._schema.metadata,
            "format": self._format.name,
            "columns": self._schema.columns,
            "key": key,
            "complete": complete,
            "failures": report.failures,
        }
        with atomic_output(path, overwrite=True) as file:
            file.write(to_json(values, indent=1).encode() + b"\n")


def choose_format(target: Path, name: str | None) -> tuple[Format, bool]:
    """Return the format of a data set, and whether it is one file instead of a folder."""
    by_suffix = None if target.is_dir() else format_of(target)
    if name is None and by_suffix is None:
        raise UsageError(f"{target}: its suffix chooses no format; give `--format`")
    if name is not None and by_suffix not in (None, name):
        raise UsageError(f"{target}: its suffix means {by_suffix}, not {name}; rename it")
    if by_suffix is None and target.exists() and not target.is_dir():
        raise UsageError(f"{target}: is a file; name a folder for the data set")
    found = get_format(name or by_suffix or "")
    return found, by_suffix is not None


def holds_tokens(source: Path, target: Path, files: Sequence[str] | None) -> bool:
    """Return whether the files to export are `.hcd` files instead of audio."""
    if files is not None:
        return any(file.lower().endswith(SUFFIX) for file in files)
    if source.is_dir():
        return any(True for _ in find_files(source, {SUFFIX}, exclude=target))
    return posixpath.splitext(source.name)[1].lower() not in AUDIO_SUFFIXES


def _shape(layout: SequenceLayout) -> tuple[int | None, ...]:
    if layout.kind == "flat":
        return (None,)
    return (None, layout.ids_per_frame) if layout.kind == "frames" else (layout.ids_per_frame, None)


def _find_names(
    source: Path, folder: Path, target: Path, files: Sequence[str] | None
) -> tuple[list[str], dict[str, str]]:
    """Return the names of the `.hcd` files relative to the folder, and of files that are not."""
    if not source.exists():
        raise UsageError(f"{source}: there is no such file or folder")
    if not source.is_dir():
        if files is not None:
            raise UsageError(f"{source}: is not a folder; `--files-from` needs a folder")
        return [source.name], {}
    if files is None:
        names = sorted(find_files(source, {SUFFIX}, exclude=target))
        failures = {}
    else:
        listed, rejected = names_in(source, files)
        names = sorted(
            name if name.lower().endswith(SUFFIX) else strip_suffix(name, AUDIO_SUFFIXES) + SUFFIX
            for name in listed
        )
        failures = {str(bad.source): bad.reason for bad in rejected}
    if not names:
        raise UsageError(f"{source}: contains no {SUFFIX} files; make some with `codectool encode`")
    return names, failures


def _stat(folder: Path, names: Sequence[str], failures: dict[str, str]) -> list[Source]:
    sources = []
    for name in names:
        try:
            status = os.stat(folder / name)
        except OSError as error:
            failures[name] = (error.strerror or str(error)).lower()
        else:
            sources.append(Source(name, status.st_size, status.st_mtime_ns))
    return sources


def _check_ids(sources: Sequence[Source]) -> None:
    """Raise if two files have the same id."""
    owners: dict[str, str] = {}
    for source in sources:
        other = owners.setdefault(source.id, source.name)
        if other != source.name:
            raise UsageError(
                f"{source.name} and {other} would both have the id {shorten(source.id)}; "
                "ids must differ"
            )


def _read_first(
    folder: Path, sources: Sequence[Source], failures: dict[str, str]
) -> tuple[Expected, TokenLayout, str]:
    """Return what all files must have in common, from the first one that can be read."""
    unreadable: list[str] = []
    for source in sources:
        path = folder / source.name
        try:
            with path.open("rb") as file:
                header = Reader(file, str(path)).header
        except (ContainerError, OSError) as error:
            unreadable.append(str(error))
            continue
        tokens = registry.token_fingerprint(header.fingerprint)
        names = frozenset({header.fingerprint, *registry.token_names(tokens)})
        return Expected(source.name, header.layout, tokens, names), header.layout, tokens
    reasons = unreadable or [f"{folder / name}: {reason}" for name, reason in failures.items()]
    raise UsageError(f"{folder}: none of its files can be read: {'; '.join(first_few(reasons))}")


def _keep_failures(
    earlier: Mapping[str, Any], shards: Sequence[_Shard], kept: set[Path], failures: dict[str, str]
) -> None:
    """Add the failures of shards that are kept."""
    reasons = earlier.get("failures")
    if not isinstance(reasons, dict):
        return
    for shard in shards:
        if shard.path in kept:
            names = (source.name for source in shard.sources)
            failures |= {n: str(reasons[encodable(n)]) for n in names if encodable(n) in reasons}


def _remove(path: Path, found: Format) -> None:
    """Remove a shard, its main file first, so that no half shard stays."""
    others: list[Path] = []
    with suppress(OSError, ValueError):
        others = found.files(path)
    for file in (path, *others):
        file.unlink(missing_ok=True)


def _remove_temporary_files(place: Path) -> None:
    """Remove the temporary files of exports that were killed."""
    pattern = re.compile(r"\.(tokens|cuts|metadata)[.\-].*\.[0-9a-f]{8}\.part", re.DOTALL)
    for path in place.iterdir():
        if pattern.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _digest(parts: Sequence[str]) -> str:
    """Return eight hexadecimal digits that differ if the texts do."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part.encode(errors="surrogatepass") + b"\n")
    return hashed.hexdigest()[:8]
