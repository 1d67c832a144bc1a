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
    """An input file and its output.

    Attributes:
        source: the input.
        target: the output.
        source_name: ``source`` relative to the input folder, with `/` on every system.
        target_name: ``target`` relative to the output folder, with `/` on every system.
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
    earlier_outputs: Collection[str],
) -> tuple[list[Job], list[Rejected]]:
    """Return one job per output, in the order of the names.

    Args:
        names: inputs relative to ``in_dir``.
        in_dir: folder of the inputs.
        out_dir: folder of the outputs; either folder may contain the other.
        to_target: returns the name of the output for the name of an input.
        earlier_outputs: outputs of earlier runs relative to ``out_dir``; they are not inputs.

    Returns:
        The jobs, and the inputs whose output would replace an input or another output.
    """
    way = PurePath(os.path.relpath(os.path.realpath(in_dir), os.path.realpath(out_dir))).as_posix()
    inputs = {posixpath.normpath(f"{way}/{name}"): name for name in names}  # as outputs are named
    jobs: dict[str, Job] = {}
    rejected = []
    for name_in_outputs, name in inputs.items():
        if name_in_outputs in earlier_outputs:
            continue
        target_name = to_target(name)
        job = Job(in_dir / name, out_dir / target_name, name, target_name)
        if target_name in inputs and target_name not in earlier_outputs:
            reason = f"would replace {job.target}, which is an input; name another folder"
            rejected.append(Rejected(job.source, reason))
            continue
        first = jobs.setdefault(target_name, job)
        if first is not job:
            reason = f"would become {job.target}, as {first.source} does; rename one of them"
            rejected.append(Rejected(job.source, reason))
    return list(jobs.values()), rejected
