"""Which recordings are compared: clips by their path below the folder of the references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codectool.audio.discovery import AUDIO_SUFFIXES, find_names, strip_suffix
from codectool.errors import UsageError

Problem = tuple[str, str, str]  # system or nothing, clip, reason


def find_references(
    folder: Path, files: Sequence[str] | None, others: Sequence[Path]
) -> tuple[list[str], list[Problem]]:
    """Names of the clips, as seen from their folder.

    Args:
        folder: of the references.
        files: those of a list; None is all audio that is there.
        others: folders of what is compared with them; what lies there is no reference.

    Returns:
        sorted names, and those that cannot take part.

    Raises:
        UsageError: there is no folder, or nothing in it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder; name one with recordings")
    names, rejected = find_names(folder, AUDIO_SUFFIXES, files)
    problems = [("", str(bad.source), bad.reason) for bad in rejected]
    inside = [other.resolve() for other in others if other.resolve() != folder.resolve()]
    taken: dict[str, str] = {}
    for name in names:
        if any(other in (folder / name).resolve().parents for other in inside):
            continue
        first = taken.setdefault(key_of(name), name)
        if first != name:
            problems.append(("", name, f"is left out: {first} has the same name but for its end"))
    if not taken and not problems:
        raise UsageError(f"{folder}: holds no audio")
    return list(taken.values()), problems


def find_partners(
    system: str, folder: Path, names: Sequence[str], bad: Sequence[str] = ()
) -> tuple[dict[str, Path], list[Problem]]:
    """The file of each clip in another folder: same path, whatever the suffix.

    Args:
        system: whose folder it is.
        folder: of coded audio.
        names: of the clips.
        bad: references that cannot take part; nobody misses their partners.

    Returns:
        paths by name of the clip, and a problem for each file of either folder that is alone.

    Raises:
        UsageError: there is no folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder; name one with coded recordings")
    found = {key_of(name): folder / name for name in find_names(folder, AUDIO_SUFFIXES)[0]}
    pairs = {name: found[key_of(name)] for name in names if key_of(name) in found}
    problems = [(system, name, "is missing") for name in names if name not in pairs]
    expected = {key_of(name) for name in (*names, *bad)}
    problems += [
        (system, str(path.relative_to(folder)), "has no reference")
        for key, path in found.items()
        if key not in expected
    ]
    return pairs, problems


def key_of(name: str) -> str:
    """What two files of one clip have in common."""
    return strip_suffix(name, AUDIO_SUFFIXES) + ".wav"
