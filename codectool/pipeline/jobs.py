"""Jobs: which input file becomes which output file."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from codectool.audio.discovery import Rejected


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


def make_jobs(
    names: Iterable[str],
    in_dir: Path,
    out_dir: Path,
    to_target: Callable[[str], str],
    made: Collection[str],
) -> tuple[list[Job], list[Rejected]]:
    """Jobs in the order of the names; each output has one.

    Args:
        names: inputs as seen from ``in_dir``.
        in_dir: folder of the inputs.
        out_dir: folder of the outputs, which may lie in the other, or the other way round.
        to_target: returns the name of an output, given that of its input.
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
        target_name = to_target(name)
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
