"""Join the rows of manifests, such as transcripts and speakers, to the files of a corpus.

Manifests are UTF-8:

    .csv .tsv               with a header line; a comma, semicolon, tab or `|` separates columns
    id|text                 without a header, as in LJSpeech: also id|text|normalized text,
    id|path|text            path|text and path|speaker|text
    .jsonl .jsonl.gz        an object per line
    lhotse                  cuts, recordings or supervisions as .jsonl or .jsonl.gz

A row belongs to the file of its path, which may be that of the audio, or else to the file of its
id. A path starts at the folder of the manifest or of the files; if there is no such file, the end
of the path decides, provided that it fits only one file.
"""

from __future__ import annotations

import csv
import gzip
import math
import os
import posixpath
import unicodedata
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from codectool.audio.discovery import AUDIO_SUFFIXES, UTF8_MARK, UTF16_MARKS, strip_suffix
from codectool.corpus.records import FIXED_COLUMNS, TOKENS, ColumnType, Value
from codectool.errors import ConfigError, UsageError
from codectool.messages import encodable, first_few, shorten

SUFFIXES = AUDIO_SUFFIXES | {".hcd", ".npy"}
# Other names of columns, as in Common Voice, NeMo, Hugging Face and VITS.
NAMES = {
    "id": ("id", "utt_id", "utterance_id", "utt", "key"),
    "path": (
        *("path", "file", "file_name", "filename", "file_path", "filepath", "audio_filepath"),
        *("audio", "audio_path", "audio_file", "wav", "wav_path"),
    ),
    "text": ("text", "transcript", "transcription", "sentence"),
    "speaker": ("speaker", "speaker_id", "spk", "spk_id", "client_id"),
    "language": ("language", "lang", "locale"),
    "duration": ("duration",),
}
ALWAYS_TEXT = {"id", "path", "text", "normalized_text", "speaker", "language", "gender"}
CUTS = {"MonoCut", "MultiCut", "DataCut", "Cut"}
MAX_LINE_BYTES = 1 << 24
MAX_RATIO = 200  # of compressed text
MIN_LIMIT = 1 << 26
MAX_INT = 1 << 63


@dataclass(frozen=True)
class Row:
    """A row of a manifest.

    Attributes:
        where: the manifest and the line.
        ids: names that its file may have, the most likely first.
        paths: paths of its file.
        values: its columns.
        typed: whether numbers are written in another way than texts, as in JSON.
    """

    where: str
    ids: Sequence[str]
    paths: Sequence[str]
    values: Mapping[str, Value]
    typed: bool = True

    @property
    def name(self) -> str:
        """Return what names the row in messages."""
        return shorten((*self.ids, *self.paths, "")[0], 80)


@dataclass
class Join:
    """How rows and files fit together.

    Attributes:
        rows: columns of the rows of each file, by name of the file.
        columns: type of each column.
        num_rows: number of rows.
        unmatched_rows: manifest, line and name of the rows that no file belongs to.
        unmatched_files: files without a row.
    """

    rows: dict[str, dict[str, Value]] = field(default_factory=dict)
    columns: dict[str, ColumnType] = field(default_factory=dict)
    num_rows: int = 0
    unmatched_rows: list[str] = field(default_factory=list)
    unmatched_files: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        values = dict(vars(self))
        return values | {"rows": self.num_rows, "matched": len(self.rows)}

    def problems(self) -> list[str]:
        """Return a sentence for rows without a file and one for files without a row."""
        sentences = []
        for items, one, many in (
            (self.unmatched_rows, "row has no file", "rows have no file"),
            (self.unmatched_files, "file has no row", "files have no row"),
        ):
            if items:
                shown = "; ".join(first_few(items, see="`--json`"))
                what = one if len(items) == 1 else many
                sentences.append(f"manifest: {len(items):,} {what}: {shown}")
        return sentences

    def check(self, strict: bool) -> None:
        """Raise if nothing fits or, with ``strict``, if something does not."""
        problems = self.problems()
        if not self.rows:
            raise UsageError(
                f"no row of the manifest belongs to a file: {'; '.join(problems)}; rows need the "
                "path of their file, or its name as an id"
            )
        if strict and problems:
            raise UsageError(f"{'; '.join(problems)} (`--strict`)")


def join_manifests(manifests: Sequence[Path], folder: Path, names: Sequence[str]) -> Join:
    """Find the rows of files.

    Args:
        manifests: the manifests; where two have the same column, the later one counts.
        folder: folder of the files.
        names: names of the files, relative to the folder.

    Raises:
        UsageError: a manifest cannot be opened.
        ConfigError: a manifest cannot be read, or several rows belong to one file.
    """
    join = Join()
    finder = _Finder(folder, names)
    untyped: set[str] = set()
    for manifest in manifests:
        first: dict[str, Row] = {}
        for row in read_manifest(manifest):
            join.num_rows += 1
            name = finder.find(row, manifest.parent)
            if name is None:
                join.unmatched_rows.append(f"{row.where} ({row.name})")
                continue
            earlier = first.setdefault(name, row)
            if earlier is not row:
                if earlier.values == row.values:
                    continue
                raise ConfigError(
                    f"{row.where}: belongs to {name}, as does {earlier.where.rpartition(': ')[2]}; "
                    "a file has one row"
                )
            join.rows.setdefault(name, {}).update(row.values)
            if not row.typed:
                untyped |= row.values.keys()
    join.unmatched_files = [name for name in names if name not in join.rows]
    join.columns = _type_columns(join.rows, untyped)
    return join


def read_manifest(manifest: Path) -> Iterator[Row]:
    """Yield the rows of a manifest; see the module for its formats."""
    try:
        with manifest.open("rb") as raw:
            name = manifest.name.lower()
            file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if name.endswith(".gz") else raw
            limit = max(MIN_LIMIT, MAX_RATIO * os.fstat(raw.fileno()).st_size)
            name = name.removesuffix(".gz")
            lines = _lines(file, str(manifest), limit)
            if name.endswith((".jsonl", ".ndjson")):
                yield from _read_objects(lines)
            else:
                yield from _read_table(lines, str(manifest), name)
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise ConfigError(f"{manifest}: is not gzip: {error}") from error
        raise UsageError(f"{manifest}: {(error.strerror or str(error)).lower()}") from error
    except (EOFError, zlib.error) as error:
        raise ConfigError(f"{manifest}: its gzip data are damaged or cut off") from error


def _lines(file: BinaryIO, name: str, limit: int) -> Iterator[tuple[str, str]]:
    """Yield where each line stands, and its text with the line break."""
    number = size = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        size += len(line)
        where = f"{name}: line {number}"
        if number == 1:
            if line.startswith(UTF16_MARKS):
                raise ConfigError(f"{name}: is UTF-16 text; save the manifest as UTF-8")
            line = line.removeprefix(UTF8_MARK)
        if size > limit:
            raise ConfigError(f"{name}: expands to more than {MAX_RATIO} times its size")
        if b"\0" in line or len(line) == MAX_LINE_BYTES:
            raise ConfigError(f"{where} is not text")
        try:
            yield where, line.decode()
        except UnicodeDecodeError as error:
            byte = line[error.start]
            raise ConfigError(
                f"{where} is not UTF-8 (byte {byte:#04x}); save the manifest as UTF-8"
            ) from error


# Tables


def _read_table(lines: Iterator[tuple[str, str]], name: str, lower_name: str) -> Iterator[Row]:
    first = next(lines, None)
    if first is None:
        raise ConfigError(f"{name}: is empty")
    lines = _chain(first, lines)
    separator = _separator(first[1], lower_name)
    if separator == "|" and _header(first[1].strip("\r\n").split("|")) is None:
        yield from _read_bars(lines, first[1])
        return
    rows = _parse_lines(lines, separator) if separator in "\t|" else _parse_csv(lines, separator)
    where, header = next(rows)
    roles = _header(header)
    if roles is None:
        raise ConfigError(
            f"{where}: has no column with a path or an id; the first line names the columns, "
            f"such as `path` or `id`, not {shorten(', '.join(header))}"
        )
    names = [title.strip() for title in header]
    if twice := {title for title in names if title and names.count(title) > 1}:
        raise ConfigError(f"{where}: names the column {sorted(twice)[0]} twice")
    for where, fields in rows:
        if len(fields) > len(names):
            raise ConfigError(f"{where}: has {len(fields)} columns, but the header {len(names)}")
        if any(fields):
            row = _make_row(where, dict(zip(names, fields, strict=False)), roles)
            yield replace(row, typed=False)


def _chain(first: tuple[str, str], lines: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    yield first
    yield from lines


def _separator(header: str, lower_name: str) -> str:
    """Return what separates columns."""
    if lower_name.endswith(".tsv"):
        return "\t"
    counts = {mark: header.count(mark) for mark in "\t|,;"}
    return max(counts, key=lambda mark: counts[mark]) if any(counts.values()) else ","


def _header(titles: Sequence[str]) -> dict[str, str] | None:
    """Return the column of each known role; None if no column names files."""
    lower = {title.strip().lower(): title.strip() for title in reversed(titles)}
    roles = {}
    for role, names in NAMES.items():
        if role not in lower and role != "path":  # the column of this name takes precedence
            names = names[1:]
        for name in names:
            if name in lower:
                roles[role] = lower[name]
                break
    return roles if roles.keys() & {"id", "path"} else None


def _parse_lines(
    lines: Iterable[tuple[str, str]], separator: str
) -> Iterator[tuple[str, list[str]]]:
    """Split lines; quotes count only around a whole column, since texts may begin with one."""
    for where, line in lines:
        text = line.strip("\r\n")
        if text.strip():
            yield where, [_unquote(column) for column in text.split(separator)]


def _unquote(text: str) -> str:
    inner = text[1:-1]
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return text


def _parse_csv(lines: Iterator[tuple[str, str]], separator: str) -> Iterator[tuple[str, list[str]]]:
    place = ""

    def texts() -> Iterator[str]:
        nonlocal place
        for place, line in lines:  # noqa: B007
            yield line

    reader = csv.reader(texts(), delimiter=separator, strict=True)
    try:
        for fields in reader:
            if fields:
                yield place, fields
    except csv.Error as error:
        raise ConfigError(
            f"{place}: is not CSV: {error}; a quote that does not end makes one column of all "
            "lines after it"
        ) from error


def _read_bars(lines: Iterable[tuple[str, str]], first: str) -> Iterator[Row]:
    """Read lines of two or three columns without a header; the last one may contain `|`."""
    columns = first.strip("\r\n").split("|", 2)
    paths = [posixpath.splitext(column)[1].lower() in SUFFIXES for column in columns]
    if paths[0]:
        titles = ["path", "text"] if len(columns) == 2 else ["path", "speaker", "text"]
    elif len(columns) > 2 and paths[1]:
        titles = ["id", "path", "text"]
    else:
        titles = ["id", "text", "normalized_text"][: len(columns)]
    roles = {title: title for title in titles}
    for where, line in lines:
        text = line.strip("\r\n")
        if not text.strip():
            continue
        fields = text.split("|", len(titles) - 1)
        if len(fields) < len(titles):
            raise ConfigError(
                f"{where}: has {len(fields)} columns instead of {'|'.join(titles)}, as the first "
                "line has"
            )
        yield _make_row(where, dict(zip(titles, fields, strict=True)), roles)


def _make_row(where: str, values: dict[str, Any], roles: Mapping[str, str]) -> Row:
    """Make a row of its columns, those with a known role renamed."""
    found: dict[str, Value] = {}
    for role, title in roles.items():
        value = values.pop(title, None)
        if value in (None, ""):
            found[role] = None
        else:
            found[role] = value if role == "duration" else str(value)
    path = found.pop("path", None)
    for title, value in values.items():
        if title:
            reserved = title in FIXED_COLUMNS or title in (TOKENS, *found)
            found[f"manifest_{title}" if reserved else title] = None if value == "" else value
    identifier = found.get("id")
    if identifier is None:
        found.pop("id", None)
    ids = [] if identifier is None else [str(identifier)]
    if not ids and path is None:
        raise ConfigError(f"{where}: has neither an id nor a path")
    return Row(where, ids, [] if path is None else [str(path)], encodable(found))


# Objects


def _read_objects(lines: Iterable[tuple[str, str]]) -> Iterator[Row]:
    supervisions: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for where, line in lines:
        if not line.strip():
            continue
        try:
            values = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ConfigError(f"{where}: is not JSON: {shorten(str(error))}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{where}: is not a JSON object")
        if values.get("type") in CUTS and isinstance(values.get("id"), str):
            yield _read_cut(where, values)
        elif isinstance(values.get("recording_id"), str) and "start" in values:
            supervisions.setdefault(values["recording_id"], []).append((where, values))
        elif isinstance(values.get("sources"), list) and "sampling_rate" in values:
            yield _read_recording(where, values)
        else:
            roles = _header(list(values))
            if roles is None:
                raise ConfigError(
                    f"{where}: has no key with a path or an id, such as `path` or `id`"
                )
            if isinstance(audio := values.get(roles.get("path", "")), dict):  # Hugging Face
                values[roles["path"]] = audio.get("path")
            yield _make_row(where, values, roles)
    for recording, items in supervisions.items():
        yield Row(items[0][0], [recording], [], _supervised([item for _, item in items]))


def _read_cut(where: str, cut: Mapping[str, Any]) -> Row:
    recording = cut.get("recording")
    recording = recording if isinstance(recording, dict) else {}
    custom = cut.get("custom")
    values: dict[str, Value] = {"id": cut["id"]}
    values |= _supervised(cut.get("supervisions") or [])
    for name, value in (custom if isinstance(custom, dict) else {}).items():
        is_array = isinstance(value, dict) and {"array", "storage_type"} & value.keys()
        if name not in values and name not in FIXED_COLUMNS and name != TOKENS and not is_array:
            values[name] = value
    if isinstance(cut.get("duration"), int | float):
        values["duration"] = cut["duration"]
    ids = [cut["id"], *([str(recording["id"])] if "id" in recording else [])]
    return Row(where, ids, _source_paths(recording), encodable(values))


def _read_recording(where: str, recording: Mapping[str, Any]) -> Row:
    identifier = str(recording.get("id"))
    values: dict[str, Value] = {"id": identifier}
    if isinstance(recording.get("duration"), int | float):
        values["duration"] = recording["duration"]
    return Row(where, [identifier], _source_paths(recording), values)


def _source_paths(recording: Mapping[str, Any]) -> list[str]:
    sources = recording.get("sources") or []
    paths = [source.get("source") for source in sources if isinstance(source, dict)]
    return [path for path in paths if isinstance(path, str)]


def _supervised(supervisions: Sequence[Any]) -> dict[str, Value]:
    """Return the columns of the supervisions of a recording: texts are joined in order of time."""
    items = [item for item in supervisions if isinstance(item, dict)]
    items.sort(key=lambda item: item["start"] if isinstance(item.get("start"), int | float) else 0)
    found: dict[str, Value] = {}
    texts = [item["text"] for item in items if isinstance(item.get("text"), str)]
    if texts:
        found["text"] = " ".join(texts)
    for name in ("speaker", "language", "gender"):
        different = {str(item[name]) for item in items if item.get(name) is not None}
        if different:
            found[name] = ", ".join(sorted(different))
    if len(items) == 1 and isinstance(custom := items[0].get("custom"), dict):
        found |= {k: v for k, v in custom.items() if k not in (*found, *FIXED_COLUMNS, TOKENS)}
    return found


# Files


class _Finder:
    """Finds the file of a row."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._root = os.path.abspath(folder).replace(os.sep, "/")
        self._by_name = {_stem(name): name for name in names}
        self._by_base: dict[str, str | None] = {}
        for stem, name in self._by_name.items():
            base = posixpath.basename(stem)
            self._by_base[base] = None if base in self._by_base else name

    def find(self, row: Row, manifest_folder: Path) -> str | None:
        """Return the name of the file; None if there is none, or more than one."""
        for path in row.paths:
            for candidate in self._candidates(path, manifest_folder):
                if candidate in self._by_name:
                    return self._by_name[candidate]
        for name in row.ids:
            stem = _stem(name)
            if stem in self._by_name:
                return self._by_name[stem]
        for name in (*row.paths, *row.ids):
            found = self._by_base.get(posixpath.basename(_stem(name)))
            if found is not None:
                return found
        return None

    def _candidates(self, path: str, manifest_folder: Path) -> Iterator[str]:
        """Yield names that a path may stand for, the most likely first."""
        start = os.path.abspath(manifest_folder).replace(os.sep, "/")
        whole = _stem(posixpath.join(start, path))
        root = unicodedata.normalize("NFC", self._root)
        if whole.startswith(f"{root}/"):
            yield whole[len(root) + 1 :]
        stem = _stem(path)
        yield stem
        parts = stem.split("/")
        for first in range(1, len(parts)):
            yield "/".join(parts[first:])


def _stem(name: str) -> str:
    """Return a name without suffix, in the Unicode form of most systems but macOS."""
    stem = strip_suffix(posixpath.normpath(name.strip().replace("\\", "/")), SUFFIXES)
    return unicodedata.normalize("NFC", stem)


# Columns


def _type_columns(
    rows: Mapping[str, dict[str, Value]], untyped: Collection[str]
) -> dict[str, ColumnType]:
    """Return the type of each column, and convert its values to it.

    Texts become numbers only in columns of tables, ``untyped``.
    """
    kinds: dict[str, set[ColumnType]] = {}
    for row in rows.values():
        for name, value in row.items():
            kinds.setdefault(name, set())
            if value is not None:
                kinds[name].add(_kind(value))
    columns = {name: _common(found) for name, found in kinds.items() if name != "id"}
    for name, kind in columns.items():
        if name in ALWAYS_TEXT:
            columns[name] = "string"
        elif kind == "string" and kinds[name] and name in untyped:
            columns[name] = _number_type(row.get(name) for row in rows.values())
    for row in rows.values():
        for name, kind in columns.items():
            row[name] = _convert(row.get(name), kind)
    columns.pop("duration", None)  # that of the file counts
    return columns


def _kind(value: Value) -> ColumnType:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -MAX_INT <= value < MAX_INT else "string"
    if isinstance(value, float):
        return "float"
    return "string" if isinstance(value, str) else "json"


def _common(kinds: set[ColumnType]) -> ColumnType:
    if len(kinds) == 1:
        return next(iter(kinds))
    if kinds == {"int", "float"}:
        return "float"
    return "json" if "json" in kinds else "string"


def _number_type(values: Iterable[Value]) -> ColumnType:
    """Return the type of a column of texts that are all written as numbers, else ``"string"``."""
    kind: ColumnType = "int"
    for value in values:
        if value is None:
            continue
        text = str(value)
        if kind == "int" and not _is_int(text):
            kind = "float"
        if kind == "float" and not _is_float(text):
            return "string"
    return kind


def _is_int(text: str) -> bool:
    digits = text.removeprefix("-")
    plain = digits.isascii() and digits.isdecimal() and len(digits) < 19
    return plain and (digits[0] != "0" or text == "0")  # 007 is a name


def _is_float(text: str) -> bool:
    has_zeros = text[:2].isdecimal() and text.startswith("0")
    if not set(text) <= set("0123456789.+-eE") or (has_zeros and len(text) > 1):
        return False
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _convert(value: Value, kind: ColumnType) -> Value:
    if value is None or kind == "json":
        return value
    if kind == "string":
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if kind == "bool":
        return value
    assert isinstance(value, int | float | str)
    return int(value) if kind == "int" else float(value)
