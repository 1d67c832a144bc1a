"""`evaluate`: recordings through systems, and what comes back before all judges.

    references --code--> outputs --correlate--> delay of each system --judge--> scores --> means

Each step runs on all cores. What systems give back lies in files, as do folders of coded audio that
somebody else has made: from the second step on both are treated alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from codectool.cores import cores
from codectool.errors import CodectoolError
from codectool.evaluation import alignment, tasks
from codectool.evaluation.alignment import Correlation, best_delay
from codectool.evaluation.metrics.base import Metric
from codectool.evaluation.pairs import Problem, find_partners, find_references, key_of
from codectool.evaluation.results import Clip, Evaluation, Score, summarise
from codectool.evaluation.systems.spec import SystemChoice, check_names
from codectool.evaluation.tasks import Coding, Cost, Judgement, Look, Named, Pair
from codectool.evaluation.workers import Workers

Align = Literal["system", "clip", "off"]
Task = TypeVar("Task", bound=Named)
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Contest:
    """What is compared.

    Attributes:
        references: folder of the recordings.
        systems: codecs to be run on them.
        folders: name and folder of audio that is coded already.
        judges: who judges.
        only: names of the metrics that are wanted of them; none is all.
        left_out: one line for each metric that cannot be had here.
        files: references of a list; None is all audio in the folder.
        align: take off the delay that a system has over all its clips, each clip's own, or none.
    """

    references: Path
    systems: Sequence[SystemChoice]
    folders: Sequence[tuple[str, Path]]
    judges: Sequence[type[Metric]]
    only: Sequence[str] = ()
    left_out: Sequence[str] = ()
    files: Sequence[str] | None = None
    align: Align = "system"


@dataclass(frozen=True)
class Watcher:
    """Whom to tell how far it is.

    Attributes:
        on_step: a step begins: what is done, and with how many clips.
        on_clip: it is done with one of them.
    """

    on_step: Callable[[str, int], object] = lambda *_: None
    on_clip: Callable[[], object] = lambda: None


def evaluate(
    contest: Contest, outputs: Path, jobs: int | None = None, watcher: Watcher | None = None
) -> Evaluation:
    """Run and judge.

    Args:
        contest: what is compared.
        outputs: folder where the systems' audio is put, a folder for each.
        jobs: processes; None is one per core.
        watcher: whom to tell.

    Returns:
        All scores; a clip that cannot be coded or read costs only its own, and is named.

    Raises:
        UsageError: there is nothing to compare, or a system of this name does not exist.
    """
    check_names([choice.name for choice in contest.systems] + [name for name, _ in contest.folders])
    judges = tuple(contest.judges)
    with Workers(jobs or cores()) as workers:
        steps = _Steps(workers, watcher or Watcher())
        clips = _look(contest, steps)
        costs, files = _code(contest.systems, clips, outputs, steps)
        files |= _match(contest.folders, clips, steps)
        pairs = [
            Pair(system, clip.name, clip.path, paths[clip.name], judges)
            for system, paths in files.items()
            for clip in clips
            if clip.name in paths
        ]
        delays = _delays(pairs, files, contest.align, steps)
        moved = [replace(pair, delay_seconds=delays[pair.system]) for pair in pairs]
        judged = {
            (pair.system, pair.clip): found
            for pair, found in steps.do("judging", tasks.judge, moved)
        }
    why = {(system, clip): reason for system, clip, reason in steps.problems}
    metrics = [
        metric
        for judge in judges
        for metric in judge.metrics
        if not contest.only or metric.name in contest.only
    ]
    systems = []
    for system, paths in files.items():
        scores = [_score(clip.name, paths, costs, judged, why, system) for clip in clips]
        delay = delays[system]
        delay_ms = None if delay is None else 1000 * delay
        systems.append(summarise(system, clips, scores, metrics, delay_ms))
    return Evaluation(
        tuple(clips),
        tuple(metrics),
        tuple(systems),
        tuple(contest.left_out),
        tuple(steps.problems),
    )


class _Steps:
    """Steps of an evaluation on all cores; what fails is remembered and left out of the next.

    Attributes:
        problems: of clips, and of clips in systems.
    """

    def __init__(self, workers: Workers, watcher: Watcher) -> None:
        self.problems: list[Problem] = []
        self._workers = workers
        self._watcher = watcher

    def do(
        self,
        title: str,
        function: Callable[[Task], Outcome],
        to_do: Sequence[Task],
        jobs: int | None = None,
    ) -> Iterator[tuple[Task, Outcome]]:
        """Yield each task that could be done, and what came of it."""
        failed = {(system, clip) for system, clip, _ in self.problems}
        to_do = [task for task in to_do if (task.system, task.clip) not in failed]
        self._watcher.on_step(title, len(to_do))
        for task, outcome in self._workers.run(function, to_do, jobs):
            self._watcher.on_clip()
            if isinstance(outcome, Exception):
                self.problems.append((task.system, task.clip, _reason(outcome, task)))
            else:
                yield task, outcome


def _reason(error: Exception, task: Named) -> str:
    """What went wrong, in one line without the name of the file."""
    if not isinstance(error, CodectoolError | OSError):
        return f"unexpected {type(error).__name__}: {error}".splitlines()[0]
    text = str(error)
    for value in vars(task).values():
        if isinstance(value, Path):
            text = text.removeprefix(f"{value}: ")
    return text


def _look(contest: Contest, steps: _Steps) -> list[Clip]:
    """The references that can be read."""
    folders = [folder for _, folder in contest.folders]
    names, problems = find_references(contest.references, contest.files, folders)
    steps.problems += problems
    looks = [Look(name, contest.references / name) for name in names]
    return [
        Clip(look.clip, look.path, seconds)
        for look, seconds in steps.do("reading", tasks.seconds_of, looks)
    ]


def _code(
    systems: Sequence[SystemChoice], clips: Sequence[Clip], outputs: Path, steps: _Steps
) -> tuple[dict[tuple[str, str], Cost], dict[str, dict[str, Path]]]:
    """Run the systems; what it took, and what came back, by system and clip."""
    costs: dict[tuple[str, str], Cost] = {}
    files: dict[str, dict[str, Path]] = {}
    for choice in systems:
        folder = outputs / folder_name(choice.name)
        codings = [
            Coding(choice, clip.name, clip.path, folder / key_of(clip.name)) for clip in clips
        ]
        files[choice.name] = {}
        # a device is one, however many cores there are
        jobs = None if choice.on_cpu else 1
        for coding, cost in steps.do(f"coding with {choice.name}", tasks.code, codings, jobs):
            costs[choice.name, coding.clip] = cost
            files[choice.name][coding.clip] = coding.target
    return costs, files


def _match(
    folders: Sequence[tuple[str, Path]], clips: Sequence[Clip], steps: _Steps
) -> dict[str, dict[str, Path]]:
    """Files of folders that are coded already, by system and clip."""
    files = {}
    bad = [clip for system, clip, _ in steps.problems if not system]
    for system, folder in folders:
        names = [clip.name for clip in clips]
        files[system], problems = find_partners(system, folder, names, bad)
        steps.problems += problems
    return files


def _delays(
    pairs: Sequence[Pair], systems: Iterable[str], align: Align, steps: _Steps
) -> dict[str, float | None]:
    """Seconds by which each system is late; None where each clip has a delay of its own."""
    if align != "system":
        return dict.fromkeys(systems, 0.0 if align == "off" else None)
    sums: dict[str, Correlation] = {}
    counts: Counter[str] = Counter()
    for pair, found in steps.do("aligning", tasks.correlation, pairs):
        sums[pair.system] = sums[pair.system] + found if pair.system in sums else found
        counts[pair.system] += 1
    delays = {name: best_delay(total, counts[name]) for name, total in sums.items()}
    return {name: delays.get(name, 0) / alignment.RATE for name in systems}


def _score(
    clip: str,
    paths: Mapping[str, Path],
    costs: Mapping[tuple[str, str], Cost],
    judged: Mapping[tuple[str, str], Judgement],
    why: Mapping[tuple[str, str], str],
    system: str,
) -> Score:
    found = judged.get((system, clip))
    if found is None:
        return Score(clip, problem=why.get((system, clip), "was not judged"))
    cost = costs.get((system, clip))
    return Score(
        clip,
        paths[clip],
        found.values,
        found.notes,
        1000 * found.delay_seconds,
        **({} if cost is None else vars(cost)),
    )


def folder_name(system: str) -> str:
    """A name for a folder made of the name of a system."""
    return re.sub(r"[^\w.@+-]", "_", system).lstrip(".") or "_"
