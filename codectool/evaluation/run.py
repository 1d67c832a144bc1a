"""Run an evaluation: code the clips, align the results, compute metrics and their means.

    references --code--> outputs --align--> delay of each system --score--> scores --> means

Each step runs on all cores. Systems write their outputs to files, so that from the second step on
they are treated like folders of audio that was coded elsewhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from codectool.cores import cores
from codectool.errors import CodectoolError
from codectool.evaluation import alignment, tasks
from codectool.evaluation.alignment import Correlation, best_delay
from codectool.evaluation.metrics.registry import Selection
from codectool.evaluation.pairs import find_partners, find_references, key_of
from codectool.evaluation.results import Clip, Evaluation, Problem, Score, summarise
from codectool.evaluation.systems.spec import SystemSpec, check_names
from codectool.evaluation.systems.system import CodecCost
from codectool.evaluation.tasks import CodecTask, PairTask, ProbeTask, Task
from codectool.evaluation.workers import Workers

Align = Literal["system", "clip", "off"]
AnyTask = TypeVar("AnyTask", bound=Task)
Result = TypeVar("Result")


@dataclass(frozen=True)
class EvaluationConfig:
    """What to compare, and how.

    Attributes:
        references: folder of the recordings.
        systems: systems to run on the recordings.
        folders: name and folder of audio that is already coded.
        selection: metrics to compute; see `select_metrics`.
        files: references to use, as paths; None for all audio in the folder.
        align: compensate one delay per system, one per clip, or none.
    """

    references: Path
    systems: Sequence[SystemSpec]
    folders: Sequence[tuple[str, Path]]
    selection: Selection
    files: Sequence[str] | None = None
    align: Align = "system"


@dataclass(frozen=True)
class ProgressCallback:
    """Functions that are called as the work proceeds.

    Attributes:
        on_step: called at the start of a step with its title and number of clips.
        on_clip: called after each clip.
    """

    on_step: Callable[[str, int], object] = lambda *_: None
    on_clip: Callable[[], object] = lambda: None


def evaluate(
    config: EvaluationConfig,
    outputs: Path,
    jobs: int | None = None,
    progress: ProgressCallback | None = None,
) -> Evaluation:
    """Run the systems and compute the metrics.

    A clip that cannot be read or coded does not stop the evaluation; it is listed in the result.

    Args:
        config: what to compare.
        outputs: folder for the decoded audio, with a subfolder for each system.
        jobs: number of processes; None for one per core.
        progress: called as the work proceeds.

    Raises:
        UsageError: there is nothing to compare, or two systems have the same name.
    """
    check_names([spec.name for spec in config.systems] + [name for name, _ in config.folders])
    with Workers(jobs or cores()) as workers:
        runner = _TaskRunner(workers, progress or ProgressCallback())
        clips = _probe(config, runner)
        costs, files = _code(config.systems, clips, outputs, runner)
        files |= _match(config.folders, clips, runner)
        pairs = [
            PairTask(system, clip.name, clip.path, paths[clip.name], config.selection.metrics)
            for system, paths in files.items()
            for clip in clips
            if clip.name in paths
        ]
        delays = _delays(pairs, files, config.align, runner)
        aligned = [replace(pair, delay_seconds=delays[pair.system]) for pair in pairs]
        scores = {
            (pair.system, pair.clip): found
            for pair, found in runner.run("scoring", tasks.score_pair, aligned)
        }
    reasons = {(problem.system, problem.clip): problem.reason for problem in runner.problems}
    systems = []
    for system in files:
        delay = delays[system]
        results = []
        for clip in clips:
            key = system, clip.name
            cost = vars(costs[key]) if key in costs else {}
            if key in scores:
                results.append(replace(scores[key], **cost))
            else:
                results.append(Score(clip.name, problem=reasons.get(key, "was not scored")))
        delay_ms = None if delay is None else 1000 * delay
        systems.append(summarise(system, clips, results, config.selection.infos, delay_ms))
    return Evaluation(
        tuple(clips),
        config.selection.infos,
        tuple(systems),
        config.selection.left_out,
        tuple(runner.problems),
    )


class _TaskRunner:
    """Runs tasks on all cores, collects problems, and skips clips that have one.

    Attributes:
        problems: problems so far.
    """

    def __init__(self, workers: Workers, progress: ProgressCallback) -> None:
        self.problems: list[Problem] = []
        self._workers = workers
        self._progress = progress

    def run(
        self,
        title: str,
        function: Callable[[AnyTask], Result],
        tasks: Iterable[AnyTask],
        jobs: int | None = None,
    ) -> Iterator[tuple[AnyTask, Result]]:
        """Yield each task that succeeds, with its result."""
        failed = {(problem.system, problem.clip) for problem in self.problems}
        tasks = [task for task in tasks if (task.system, task.clip) not in failed]
        self._progress.on_step(title, len(tasks))
        for task, result in self._workers.run(function, tasks, jobs):
            self._progress.on_clip()
            if isinstance(result, Exception):
                self.problems.append(Problem(task.system, task.clip, _reason(result, task)))
            else:
                yield task, result


def _reason(error: Exception, task: Task) -> str:
    """Return the message of an error in one line, without the file name."""
    if not isinstance(error, CodectoolError | OSError):
        return f"unexpected {type(error).__name__}: {error}".splitlines()[0]
    text = str(error)
    for value in vars(task).values():
        if isinstance(value, Path):
            text = text.removeprefix(f"{value}: ")
    return text


def _probe(config: EvaluationConfig, runner: _TaskRunner) -> list[Clip]:
    """Return the references that can be read."""
    folders = [folder for _, folder in config.folders]
    names, problems = find_references(config.references, config.files, folders)
    runner.problems += problems
    probes = [ProbeTask("", name, config.references / name) for name in names]
    return [
        Clip(task.clip, task.path, seconds)
        for task, seconds in runner.run("reading", tasks.probe, probes)
    ]


def _code(
    systems: Sequence[SystemSpec], clips: Sequence[Clip], outputs: Path, runner: _TaskRunner
) -> tuple[dict[tuple[str, str], CodecCost], dict[str, dict[str, Path]]]:
    """Run the systems.

    Returns:
        Costs by (system, clip), and decoded files by system and clip.
    """
    costs: dict[tuple[str, str], CodecCost] = {}
    files: dict[str, dict[str, Path]] = {}
    for spec in systems:
        folder = outputs / folder_name(spec.name)
        codec_tasks = [
            CodecTask(spec.name, clip.name, spec, clip.path, folder / key_of(clip.name))
            for clip in clips
        ]
        files[spec.name] = {}
        jobs = None if spec.on_cpu else 1  # processes would share one GPU
        title = f"coding with {spec.name}"
        for task, cost in runner.run(title, tasks.run_codec, codec_tasks, jobs):
            costs[spec.name, task.clip] = cost
            files[spec.name][task.clip] = task.target
    return costs, files


def _match(
    folders: Sequence[tuple[str, Path]], clips: Sequence[Clip], runner: _TaskRunner
) -> dict[str, dict[str, Path]]:
    """Return the files of folders that are already coded, by system and clip."""
    files = {}
    bad = [problem.clip for problem in runner.problems if not problem.system]
    for system, folder in folders:
        names = [clip.name for clip in clips]
        files[system], problems = find_partners(system, folder, names, bad)
        runner.problems += problems
    return files


def _delays(
    pairs: Sequence[PairTask], systems: Iterable[str], align: Align, runner: _TaskRunner
) -> dict[str, float | None]:
    """Return the delay of each system in seconds; None where each clip has its own."""
    if align != "system":
        return dict.fromkeys(systems, 0.0 if align == "off" else None)
    sums: dict[str, Correlation] = {}
    counts: Counter[str] = Counter()
    for pair, found in runner.run("aligning", tasks.correlate_pair, pairs):
        sums[pair.system] = sums[pair.system] + found if pair.system in sums else found
        counts[pair.system] += 1
    delays = {name: best_delay(total, counts[name]) for name, total in sums.items()}
    return {name: delays.get(name, 0) / alignment.RATE for name in systems}


def folder_name(system: str) -> str:
    """Return the name of a system as a safe folder name."""
    return re.sub(r"[^\w.@+-]", "_", system).lstrip(".") or "_"
