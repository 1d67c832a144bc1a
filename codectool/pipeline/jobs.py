"""From a folder, or a list of files in it, to jobs: which file becomes which."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from codectool.errors import UsageError

DirectoryId = tuple[int, int] | None  # device and inode; None if it is not there


@dataclass(frozen=True)
class Job:
    """One file to be made of another.

    Attributes:
        source: what is read.
        target: what is written.
        source_name: ``source`` as seen from the input folder, with `/` on every system.
        target_name: ``target`` as seen from the output folder.
    """

    source: Path
    target: Path
    source_name: str
    target_name: str


@dataclass(frozen=True)
class Rejected:
    """A file that cannot become a job, and why."""

    source: Path
    reason: str


@dataclass(frozen=True)
class Naming:
    """How outputs are called.

    Attributes:
        suffixes: of files that are taken from a folder, in lower case; an output loses them.
        suffix: what an output ends in.
    """

    suffixes: frozenset[str]
    suffix: str

    def takes(self, name: str) -> bool:
        """Whether a file of this name is an input; hidden files are none."""
        return not name.startswith(".") and os.path.splitext(name)[1].lower() in self.suffixes

    def target(self, source_name: str) -> str:
        """Name of the output.

        Examples:
            >>> Naming(frozenset({".wav"}), ".hcd").target("a/talk.v2.WAV")
            'a/talk.v2.hcd'
            >>> Naming(frozenset({".wav"}), ".hcd").target("a/talk.v2")
            'a/talk.v2.hcd'
        """
        stem, suffix = posixpath.splitext(source_name)
        return (stem if suffix.lower() in self.suffixes else source_name) + self.suffix


def find_names(
    in_dir: Path, out_dir: Path, naming: Naming, files: Sequence[str] | None
) -> tuple[list[str], list[Rejected]]:
    """Names of the inputs as seen from their folder: all that are there, or those of a list.

    Returns:
        sorted names, and the listed files that do not lie in the folder.
    """
    if files is None:
        return sorted(search(in_dir, naming, out_dir)), []
    names, rejected = names_of(files, in_dir)
    return sorted(names), rejected


def search(folder: Path, naming: Naming, leave_out: Path) -> Iterator[str]:
    """Names of the inputs below a folder, as seen from it.

    Links to folders are followed, but never back to a folder that one is in already.

    Args:
        folder: where to begin.
        naming: says what is an input.
        leave_out: a folder that is not entered: that of the outputs.

    Raises:
        UsageError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise UsageError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from error

    above: dict[str, frozenset[DirectoryId]] = {}
    outputs = _identity(leave_out)
    begin = _identity(folder)
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        here = above.pop(place, frozenset()) | {_identity(place)}
        entered = []
        for name in folders:
            path = os.path.join(place, name)
            identity = _identity(path)
            if not name.startswith(".") and identity not in here | ({outputs} - {begin}):
                above[path] = here
                entered.append(name)
        folders[:] = entered
        for name in names:
            path = os.path.join(place, name)
            # a pipe would be waited for; a link to nothing is kept, so that someone is told
            if naming.takes(name) and (os.path.isfile(path) or not os.path.exists(path)):
                yield PurePath(os.path.relpath(path, folder)).as_posix()


def names_of(paths: Iterable[str], folder: Path) -> tuple[list[str], list[Rejected]]:
    """Names of listed files as seen from a folder.

    Args:
        paths: relative ones are seen from the folder, or from where the program runs.
        folder: of the inputs.

    Returns:
        names without repetition, and the files that do not lie in the folder.
    """
    root = os.path.abspath(folder)
    names: dict[str, None] = {}
    rejected = []
    for path in paths:
        places = [os.path.abspath(os.path.join(root, path)), os.path.abspath(path)]
        likely = [place for place in reversed(places) if _below(place, root)] or places
        place = next(filter(os.path.lexists, places), likely[0])
        name = PurePath(os.path.relpath(place, root)).as_posix()
        if not _below(place, root):
            rejected.append(Rejected(Path(path), f"does not lie in {folder}"))
        else:
            names[name] = None
    return list(names), rejected


def make_jobs(
    names: Iterable[str], in_dir: Path, out_dir: Path, naming: Naming, made: Collection[str]
) -> tuple[list[Job], list[Rejected]]:
    """Jobs in the order of the names; each output has one.

    Args:
        names: inputs as seen from ``in_dir``.
        in_dir: folder of the inputs.
        out_dir: folder of the outputs, which may lie in the other, or the other way round.
        naming: how outputs are called.
        made: names of such outputs of earlier runs, which are no inputs.

    Returns:
        jobs, and the files whose output would replace an input, or that of another one.
    """
    way = PurePath(os.path.relpath(os.path.realpath(in_dir), os.path.realpath(out_dir))).as_posix()
    from_outputs = {posixpath.normpath(f"{way}/{name}"): name for name in names}
    jobs: dict[str, Job] = {}
    rejected = []
    for seen_name, name in from_outputs.items():
        if seen_name in made:
            continue
        target_name = naming.target(name)
        job = Job(in_dir / name, out_dir / target_name, name, target_name)
        if target_name in from_outputs and target_name not in made:
            reason = f"would replace {job.target}, which is an input; name another folder"
            rejected.append(Rejected(job.source, reason))
            continue
        first = jobs.setdefault(target_name, job)
        if first is not job:
            reason = f"would become {job.target} as {first.source} does; rename one of them"
            rejected.append(Rejected(job.source, reason))
    return list(jobs.values()), rejected


def _below(path: str, folder: str) -> bool:
    return os.path.relpath(path, folder).split(os.sep)[0] != os.pardir


def _identity(path: str | Path) -> DirectoryId:
    try:
        status = os.stat(path)
    except OSError:
        return None  # a link to nothing, or just deleted
    return status.st_dev, status.st_ino
