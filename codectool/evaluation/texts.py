"""Texts of recordings, to count the words that a recogniser gets wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from codectool.audio.discovery import AUDIO_SUFFIXES, find_files, strip_suffix
from codectool.errors import UsageError

TEXT_SUFFIX = ".txt"


def read_texts(path: Path) -> dict[str, str]:
    """Read what is said in recordings.

    Args:
        path: a folder with a ``.txt`` file for each recording, in the same tree; or a list with a
            name and a text per line, separated by a tab, by ``|`` (the text is the last column, as
            in LJ Speech), or by the first space (as in LibriSpeech).

    Returns:
        Texts by name of the recording, without suffix.

    Raises:
        UsageError: the path cannot be read, is not UTF-8, or contains no texts; or a name has two.
    """
    texts: dict[str, str] = {}
    if path.is_dir():
        for name in sorted(find_files(path, {TEXT_SUFFIX})):
            texts[name.removesuffix(name[-len(TEXT_SUFFIX) :])] = " ".join(
                _read(path / name).split()
            )
    else:
        for number, line in enumerate(_read(path).splitlines(), 1):
            if not line.strip():
                continue
            name, text = _split(line, f"{path}, line {number}")
            if name in texts:
                raise UsageError(f"{path}, line {number}: {name} has a text already")
            texts[name] = text
    if not texts:
        raise UsageError(f"{path}: contains no texts; give a folder with .txt files, or a list")
    return texts


def match_texts(texts: Mapping[str, str], clips: Iterable[str]) -> dict[str, str]:
    """Return the text of each clip that has one, by name of the clip.

    A text belongs to the clip with the same path without suffix or, if no text has that path, with
    the same file name, where one text and one clip have it.
    """
    stems = {clip: strip_suffix(clip, AUDIO_SUFFIXES) for clip in clips}
    by_file = _unique(texts)
    clip_of_file = _unique(stems.values())
    found = {}
    for clip, stem in stems.items():
        file = PurePosixPath(stem).name
        if stem in texts:
            found[clip] = texts[stem]
        elif file in by_file and file in clip_of_file:
            found[clip] = texts[by_file[file]]
    return found


def _unique(names: Iterable[str]) -> dict[str, str]:
    """Return the names by their last part, without those that share it."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(PurePosixPath(name).name, []).append(name)
    return {last: same[0] for last, same in found.items() if len(same) == 1}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not a text in UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def _split(line: str, where: str) -> tuple[str, str]:
    """Return the name of the recording without suffix, and the text."""
    if "\t" in line:
        name, *columns = line.split("\t")
        if len(columns) > 1:
            raise UsageError(f"{where}: has {len(columns) + 1} columns; write NAME, a tab, TEXT")
    elif "|" in line:
        name, *columns = line.split("|")
    else:
        name, *columns = line.split(maxsplit=1)
    if not columns:
        raise UsageError(f"{where}: has no text; write NAME, a tab, TEXT")
    posix = PurePosixPath(name.strip().replace("\\", "/")).as_posix()
    return strip_suffix(posix, AUDIO_SUFFIXES), columns[-1].strip()
