"""Match references and coded files by their path without suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codectool.audio.discovery import AUDIO_SUFFIXES, find_files, find_names, strip_suffix
from codectool.errors import UsageError
from codectool.evaluation.results import Problem


def find_references(
    folder: Path, files: Sequence[str] | None, others: Sequence[Path]
) -> tuple[list[str], list[Problem]]:
    """Return the sorted names of the references in a folder, and the files that cannot be used.

    Args:
        folder: folder of the references.
        files: references to use, as paths; None for all audio in the folder.
        others: folders of coded audio, which contain no references.

    Raises:
        UsageError: the folder does not exist, or contains no audio.
    """
    require_folder(folder)
    names, rejected = find_names(folder, AUDIO_SUFFIXES, files)
    problems = [Problem("", str(bad.source), bad.reason) for bad in rejected]
    inside = [other.resolve() for other in others if other.resolve() != folder.resolve()]
    taken: dict[str, str] = {}
    for name in names:
        if any(other in (folder / name).resolve().parents for other in inside):
            continue
        first = taken.setdefault(key_of(name), name)
        if first != name:
            problems.append(Problem("", name, f"is left out: {first} differs only in its suffix"))
    if not taken and not problems:
        raise UsageError(f"{folder}: contains no audio{_decode_first(folder)}")
    return list(taken.values()), problems


def find_partners(
    system: str, folder: Path, names: Sequence[str], bad: Sequence[str] = ()
) -> tuple[dict[str, Path], list[Problem]]:
    """Find the coded file of each clip: the same relative path with any suffix, or the same one.

    Coded files of ``bad`` references, which cannot be used, are ignored.

    Returns:
        Paths by name of the clip, and a problem for each unmatched file of either side.

    Raises:
        UsageError: the folder does not exist, or contains no audio.
    """
    require_folder(folder)
    found: dict[str, list[str]] = {}
    for name in find_names(folder, AUDIO_SUFFIXES)[0]:
        found.setdefault(key_of(name), []).append(name)
    if not found:
        raise UsageError(f"{folder}: contains no audio{_decode_first(folder)}")
    pairs = {}
    problems = []
    for name in names:
        candidates = found.get(key_of(name), [])
        if not candidates:
            problems.append(Problem(system, name, "is missing"))
            continue
        chosen = name if name in candidates else candidates[0]
        pairs[name] = folder / chosen
        problems += [
            Problem(system, other, f"is left out: {chosen} differs only in its suffix")
            for other in candidates
            if other != chosen
        ]
    expected = {key_of(name) for name in (*names, *bad)}
    problems += [
        Problem(system, name, "has no reference")
        for key, unmatched in found.items()
        if key not in expected
        for name in unmatched
    ]
    return pairs, problems


def key_of(name: str) -> str:
    """Return a name that is the same for all files of a clip: its path with suffix ``.wav``."""
    return strip_suffix(name, AUDIO_SUFFIXES) + ".wav"


def require_folder(folder: Path) -> None:
    """Raise `UsageError` if a folder of audio does not exist."""
    if folder.is_file():
        raise UsageError(f"{folder}: is a file; `codectool compare` compares two files")
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder; name a folder of recordings")


def _decode_first(folder: Path) -> str:
    if next(find_files(folder, {".hcd"}), None) is not None:
        return "; decode its .hcd files with `codectool decode` first"
    return "; name a folder of recordings"
