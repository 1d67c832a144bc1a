"""Find audio files: search folders and read list files.

One syntax for all lists, of `--files-from`, `--train-files`, `--valid-files` and `filelist`:

    path                          blank lines and lines that start with # are skipped
    path TAB samples TAB rate     written by `codectool filelist`; saves reading the headers
    id|path                       lists of BigCodec
    name|text                     lists of SuperCodec; the suffix .wav may be missing
    {"path": ..., "num_samples": ..., "sample_rate": ...}        in files named .jsonl

A list in which each path ends with a NUL byte, as `find -print0` writes it, contains only paths, in
which every character counts. Lists are UTF-8, and paths may contain any other bytes.

A relative path starts at the folder of the list. `--files-from` also tries INPUT, which takes
precedence, and the current directory, and ignores the columns after the path.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from codectool.audio.ffmpeg import INSTALL, ffmpeg_is_installed
from codectool.audio.samples import MAX_RATE, MAX_SAMPLES, MIN_RATE
from codectool.errors import ConfigError, UsageError
from codectool.messages import shorten_repr

SNDFILE_SUFFIXES = frozenset(
    {".aif", ".aifc", ".aiff", ".au", ".bwf", ".caf", ".flac", ".mp2", ".mp3", ".mpga", ".nist"}
    | {".oga", ".ogg", ".opus", ".rf64", ".snd", ".sph", ".voc", ".w64", ".wav", ".wave"}
)
FFMPEG_SUFFIXES = frozenset(  # searched for if PyAV is installed
    {".3g2", ".3gp", ".aac", ".ac3", ".amr", ".ape", ".asf", ".awb", ".dsf", ".dts", ".eac3"}
    | {".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp4", ".mpc", ".ra", ".rm", ".spx", ".tak"}
    | {".tta", ".webm", ".wma", ".wv"}
)
AUDIO_SUFFIXES = SNDFILE_SUFFIXES | FFMPEG_SUFFIXES
# Raw samples, which state neither format nor rate, and formats that only their programs read.
UNREADABLE_SUFFIXES = frozenset(
    {".al", ".alaw", ".ds2", ".dss", ".g722", ".g729", ".gsm", ".pcm", ".qcp", ".raw", ".shn"}
    | {".sln", ".ul", ".ulaw", ".vox"}
)
MAX_LINE_BYTES = 1 << 20  # a longer line means that the file is not a list
MAX_PATH_BYTES = 4096  # of Linux, where it is larger than elsewhere
UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

DirectoryId = tuple[int, int] | None  # device and inode; None if the folder does not exist


@dataclass(frozen=True)
class ListEntry:
    """A file that a list names.

    Attributes:
        path: path of the file, which may not exist.
        num_samples: length in samples per channel; None if the list does not give it.
        sample_rate: sampling rate in Hz; None if the list does not give it.
    """

    path: Path
    num_samples: int | None = None
    sample_rate: int | None = None


@dataclass(frozen=True)
class Rejected:
    """A file that cannot be used, and the reason."""

    source: Path
    reason: str


def find_files(
    folder: Path, suffixes: Collection[str], *, exclude: Path | None = None, once: bool = False
) -> Iterator[str]:
    """Search a folder and its subfolders, skipping hidden files and folders.

    Links to folders are followed, but not back to a folder above them. Files that only FFmpeg
    reads are skipped if PyAV is not installed; see `count_untaken`.

    Args:
        folder: the folder to search.
        suffixes: suffixes to accept, in lower case.
        exclude: a subfolder to skip.
        once: search each folder only once, even if several links lead to it.

    Yields:
        Names relative to ``folder``, with `/` on every system; the files of a folder come before
        its subfolders, both sorted.

    Raises:
        UsageError: a folder cannot be read.
    """
    accepted = suffixes if ffmpeg_is_installed() else set(suffixes) - FFMPEG_SUFFIXES
    return _walk(folder, accepted, exclude, once)


def count_untaken(folder: Path, *, exclude: Path | None = None) -> Counter[str]:
    """Count the files of a folder that look like audio but that `find_files` does not take.

    Returns:
        Number of files by suffix.
    """
    untaken = UNREADABLE_SUFFIXES | (frozenset() if ffmpeg_is_installed() else FFMPEG_SUFFIXES)
    return Counter(map(_suffix, _walk(folder, untaken, exclude, once=True)))


def describe_untaken(folder: Path, counts: Mapping[str, int]) -> str:
    """Return a sentence about the files of `count_untaken`, with what to do."""
    total = sum(counts.values())
    groups = ((FFMPEG_SUFFIXES, f"`{INSTALL}`"), (UNREADABLE_SUFFIXES, "convert them to wav"))
    texts = []
    for suffixes, remedy in groups:
        found = [f"{counts[suffix]} {suffix}" for suffix in sorted(counts) if suffix in suffixes]
        if found:
            texts.append(f"{', '.join(found)} ({remedy})")
    files = "1 file looks" if total == 1 else f"{total} files look"
    taken = "was" if total == 1 else "were"
    return f"{folder}: {files} like audio but {taken} not taken: {', '.join(texts)}"


def _walk(
    folder: Path, suffixes: Collection[str], exclude: Path | None, once: bool
) -> Iterator[str]:
    """Yield the files of a folder with the given suffixes; see `find_files`."""

    def fail(error: OSError) -> None:
        raise UsageError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from error

    excluded = None if exclude is None else _directory_id(exclude)
    above: dict[str, set[DirectoryId]] = {}
    seen: set[DirectoryId] = set()
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        ancestors = above.pop(place, set())
        here = _directory_id(place)
        if here in (seen if once else ancestors) or (ancestors and here == excluded):
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            above[os.path.join(place, name)] = ancestors | {here}
        prefix = PurePath(os.path.relpath(place, folder)).as_posix()
        for name in sorted(names):
            path = os.path.join(place, name)
            accepted = not name.startswith(".") and _suffix(name) in suffixes
            # opening a pipe would block; a broken link is kept so that it is reported
            if accepted and (os.path.isfile(path) or not os.path.exists(path)):
                yield posixpath.normpath(f"{prefix}/{name}")


def find_names(
    folder: Path,
    suffixes: Collection[str],
    files: Iterable[str] | None = None,
    *,
    exclude: Path | None = None,
) -> tuple[list[str], list[Rejected]]:
    """Return the sorted names of all input files of a folder, or of the given ``files``.

    See `find_files` for the search and `names_in` for given files.
    """
    if files is None:
        return sorted(find_files(folder, suffixes, exclude=exclude)), []
    names, rejected = names_in(folder, files)
    return sorted(names), rejected


def names_in(folder: Path, files: Iterable[str]) -> tuple[list[str], list[Rejected]]:
    """Return the names of files relative to a folder, each once, and the files outside it.

    Relative paths start at ``folder`` or at the current directory.
    """
    root = os.path.abspath(folder)
    names: dict[str, None] = {}
    rejected = []
    for file in files:
        path = _locate([file], [root, os.getcwd()])
        if _is_below(path, root):
            names[PurePath(os.path.relpath(path, root)).as_posix()] = None
        else:
            rejected.append(Rejected(Path(file), f"is not inside {folder}"))
    return list(names), rejected


def strip_suffix(name: str, suffixes: Collection[str]) -> str:
    """Return a file name without its suffix, if that is one of ``suffixes``.

    Examples:
        >>> strip_suffix("a/talk.v2.WAV", {".wav"})
        'a/talk.v2'
        >>> strip_suffix("a/talk.v2", {".wav"})
        'a/talk.v2'
    """
    return posixpath.splitext(name)[0] if _suffix(name) in suffixes else name


def read_list(source: Path) -> list[ListEntry]:
    """Return the audio files of a folder, a list or a manifest.

    Args:
        source: a folder, which is searched, or a file with the syntax described above.

    Raises:
        UsageError: the source cannot be read.
        ConfigError: a line cannot be parsed; the message names file and line.
    """
    if source.is_dir():
        return [ListEntry(source / name) for name in find_files(source, AUDIO_SUFFIXES, once=True)]
    try:
        with source.open("rb") as file:
            return parse_list(file, str(source), [source.parent])
    except OSError as error:
        raise UsageError(f"{source}: {(error.strerror or str(error)).lower()}") from error


def parse_list(
    file: BinaryIO, name: str, folders: Sequence[Path], *, lengths: bool = True
) -> list[ListEntry]:
    """Parse a list.

    Args:
        file: the list.
        name: its name in messages; a manifest is recognized by the suffix `.jsonl`.
        folders: where relative paths may start, in order of precedence.
        lengths: whether to check and return lengths and sampling rates.

    Raises:
        ConfigError: a line cannot be parsed.
    """
    start = file.read(MAX_LINE_BYTES)
    ends_with_nul = start.endswith(b"\0") or (b"\0" in start and len(start) == MAX_LINE_BYTES)
    if start.startswith(UTF16_MARKS):
        raise ConfigError(f"{name}: is UTF-16 text; save the list as UTF-8")
    start = start.removeprefix(UTF8_MARK)
    if ends_with_nul:
        parse, lines = _parse_path, _nul_separated(file, name, start)
    else:
        parse = _parse_object if _suffix(name) == ".jsonl" else _parse_line
        lines = _numbered_lines(file, name, start)
    entries = []
    for number, line in lines:
        try:
            spellings, columns = parse(line)
            length = _check_length(columns) if lengths else ()
            path = _locate(spellings, folders)
            if len(os.fsencode(path)) > MAX_PATH_BYTES:
                raise ValueError("is too long for a path")
            entries.append(ListEntry(Path(path), *length))
        except ValueError as error:
            raise ConfigError(f"{name}: line {number}: {error}") from error
    return entries


def _numbered_lines(file: BinaryIO, name: str, start: bytes) -> Iterator[tuple[int, str]]:
    """Yield line number and text of all lines but blank ones and comments."""
    for number, line in enumerate(_split(file, start, b"\n"), 1):
        if b"\0" in line or len(line) >= MAX_LINE_BYTES:
            raise _not_text(f"{name}: line {number}")
        text = os.fsdecode(line).rstrip("\r")  # keeps the bytes of names that are not UTF-8
        if text.strip() and not text.lstrip().startswith("#"):
            yield number, text


def _nul_separated(file: BinaryIO, name: str, start: bytes) -> Iterator[tuple[int, str]]:
    """Yield number and text of paths that end with a NUL byte.

    Text in UTF-16 and binary files also contain NUL bytes, but next to each other or to single
    bytes.
    """
    for number, path in enumerate(_split(file, start, b"\0"), 1):
        if not 1 < len(path) < MAX_LINE_BYTES:
            raise _not_text(f"{name}:")
        yield number, os.fsdecode(path)


def _split(file: BinaryIO, start: bytes, separator: bytes) -> Iterator[bytes]:
    """Yield what ``separator`` ends in ``start`` and the rest of a file, in bounded memory."""
    *parts, rest = start.split(separator)
    yield from parts
    while data := file.read(MAX_LINE_BYTES):
        *parts, rest = (rest + data).split(separator)
        yield from parts
        if len(rest) >= MAX_LINE_BYTES:
            break
    if rest:
        yield rest


def _not_text(where: str) -> ConfigError:
    return ConfigError(f"{where} is not text; give a folder or a list of audio files")


def _parse_path(line: str) -> tuple[list[str], Sequence[object]]:
    return [line], []


def _parse_line(line: str) -> tuple[list[str], Sequence[object]]:
    """Return the possible paths in a line, the most likely last, and the columns after it."""
    if "\t" in line:
        path, *columns = line.split("\t")
        return [path], [int(column) if column.isdecimal() else column for column in columns]
    stripped = line.strip()
    spellings = [line, stripped] if line != stripped else [line]
    if "|" in stripped:
        name, rest = stripped.split("|", 1)
        wav = f"{name}.wav"
        spellings += [name, wav, rest] if _suffix(rest) in AUDIO_SUFFIXES else [name, rest, wav]
    return spellings, []


def _parse_object(line: str) -> tuple[list[str], Sequence[object]]:
    try:
        values = json.loads(line)
    except RecursionError:
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("path"), str):
        raise ValueError('is not a JSON object with a "path"')
    try:
        possible = b"\0" not in os.fsencode(values["path"])
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise ValueError("its path cannot be the name of a file")
    columns = (values.get("num_samples"), values.get("sample_rate"))
    return [values["path"]], [] if columns == (None, None) else columns


def _check_length(columns: Sequence[object]) -> tuple[int, int] | tuple[()]:
    """Return the number of samples and the sampling rate; nothing if there are no columns."""
    if not columns:
        return ()
    if len(columns) != 2:
        raise ValueError(f"has {len(columns) + 1} columns instead of path, samples, rate")
    num_samples, rate = columns
    if type(num_samples) is not int or type(rate) is not int:
        raise ValueError(
            f"samples ({shorten_repr(num_samples, 30)}) and rate ({shorten_repr(rate, 30)}) "
            "must be whole numbers"
        )
    if not 0 < num_samples <= MAX_SAMPLES:
        raise ValueError(f"{shorten_repr(num_samples, 30)} is not a length in samples")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(f"{shorten_repr(rate, 30)} is not a sampling rate in Hz")
    return num_samples, rate


def _locate(spellings: Sequence[str], folders: Sequence[Path | str]) -> str:
    """Return the first path that is a file, or else the most likely path."""
    paths = [os.path.join(folder, name) for name in spellings for folder in folders]
    if len(paths) == 1:  # needs no disk access
        return paths[0]
    likely = [os.path.join(folder, spellings[-1]) for folder in folders]
    inside = [path for path in reversed(likely) if _is_below(path, folders[0])]
    return next(filter(os.path.isfile, paths), (inside or likely)[0])


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_below(path: str, folder: Path | str) -> bool:
    return os.path.relpath(path, folder).split(os.sep)[0] != os.pardir


def _directory_id(path: str | Path) -> DirectoryId:
    try:
        status = os.stat(path)
    except OSError:
        return None  # a broken link, or deleted meanwhile
    return status.st_dev, status.st_ino
