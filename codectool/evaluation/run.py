"""Run an evaluation: code the clips, align the results, compute metrics and their means.

    references --code--> outputs --align--> delay of each system --score--> scores --> means

Each step runs on all cores. Systems write their outputs to files, so that from the second step on
they are treated like folders of audio that was coded elsewhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from codectool.cores import cores
from codectool.errors import CodectoolError, UsageError
from codectool.evaluation.alignment import RATE, Correlation, best_delay
from codectool.evaluation.metrics.registry import Selection
from codectool.evaluation.pairs import find_partners, find_references, key_of
from codectool.evaluation.results import Clip, Evaluation, Problem, Score, summarise
from codectool.evaluation.systems.spec import SystemSpec, check_names
from codectool.evaluation.systems.system import CodecCost
from codectool.evaluation.tasks import correlate_files, measure_clip, run_codec, score_files
from codectool.evaluation.texts import match_texts
from codectool.evaluation.workers import Workers

ORIGINALS = "originals"  # name of the recordings among the systems
Align = Literal["system", "clip", "off"]
Key = tuple[str, str]  # names of a system (empty for the reference itself) and a clip
Result = TypeVar("Result")


@dataclass(frozen=True)
class EvaluationConfig:
    """Systems and folders to compare, and how.

    Attributes:
        references: folder of the recordings.
        systems: systems to run on the recordings.
        folders: name and folder of audio that is already coded.
        selection: metrics to compute; see `select_metrics`.
        files: references to use, as paths; None for all audio in the folder.
        align: compensate one delay per system, one per clip, or none.
        texts: what is said, by name of the recording; see `read_texts`. None to compare what is
            recognised in the coded audio with what is recognised in the original.
    """

    references: Path
    systems: Sequence[SystemSpec]
    folders: Sequence[tuple[str, Path]]
    selection: Selection
    files: Sequence[str] | None = None
    align: Align = "system"
    texts: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        """Accept paths that are given as text."""
        object.__setattr__(self, "references", Path(self.references))
        folders = [(name, Path(folder)) for name, folder in self.folders]
        object.__setattr__(self, "folders", folders)


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
    outputs: str | Path,
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
        UsageError: there is nothing to compare, two systems have the same name, or an external
            codec is not installed.
    """
    outputs = Path(outputs)
    names = [spec.name for spec in config.systems] + [name for name, _ in config.folders]
    metrics, settings = config.selection.metrics, config.selection.settings
    infos = tuple(
        replace(info, needs_reference=info.needs_reference and not info.takes_text)
        if config.texts is not None
        else info
        for info in config.selection.infos
    )
    without_reference = [info for info in infos if not info.needs_reference]
    check_names([*names, ORIGINALS] if without_reference else names)
    versions = {spec.name: spec.version for spec in config.systems}
    with Workers(jobs or cores()) as workers:
        runner = _TaskRunner(workers, progress or ProgressCallback())
        clips = _find_clips(config, outputs, runner)
        texts = _find_texts(config, clips)
        coded = _find_coded(config.folders, clips, runner)
        costs, files = _run_systems(config.systems, clips, outputs, runner)
        files |= coded
        references = {clip.name: clip.path for clip in clips}
        pairs = {key: (references[key[1]], file) for key, file in files.items()}
        delays = _find_delays(names, pairs, config.align, runner)
        tasks = [
            (
                (system, clip),
                partial(score_files, clip, *pair, metrics, settings, texts[clip], delays[system]),
            )
            for (system, clip), pair in pairs.items()
        ]
        if without_reference:
            of_originals = [m for m in metrics if m.names() & {i.name for i in without_reference}]
            tasks += [
                (
                    (ORIGINALS, clip),
                    partial(
                        score_files, clip, path, path, of_originals, settings, texts[clip], 0.0
                    ),
                )
                for clip, path in references.items()
            ]
        scores = dict(runner.run("scoring", tasks))
    reasons = {(problem.system, problem.clip): problem.reason for problem in runner.problems}

    def score(key: Key) -> Score:
        if key not in scores:
            return Score(key[1], problem=reasons.get(key, "was not scored"))
        return replace(scores[key], **vars(costs[key])) if key in costs else scores[key]

    systems = []
    for system in names:
        delay = delays[system]
        delay_ms = None if delay is None else 1000 * delay
        own = [score((system, clip.name)) for clip in clips]
        found = summarise(system, clips, own, infos, delay_ms)
        systems.append(replace(found, version=versions.get(system, "")))
    originals = None
    if without_reference:
        own = [score((ORIGINALS, clip.name)) for clip in clips]
        originals = summarise(ORIGINALS, clips, own, without_reference, None)
    left_out, problems = config.selection.left_out, tuple(runner.problems)
    return Evaluation(tuple(clips), infos, tuple(systems), left_out, problems, originals)


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
        self, title: str, tasks: Iterable[tuple[Key, partial[Result]]], jobs: int | None = None
    ) -> Iterator[tuple[Key, Result]]:
        """Yield the key and the result of each task that succeeds."""
        failed = {(problem.system, problem.clip) for problem in self.problems}
        remaining = {key: task for key, task in tasks if key not in failed}
        self._progress.on_step(title, len(remaining))
        for key, result in self._workers.run(remaining.items(), jobs):
            self._progress.on_clip()
            if isinstance(result, Exception):
                self.problems.append(Problem(*key, _reason(result, remaining[key].args)))
            else:
                yield key, result


def _reason(error: Exception, arguments: Sequence[object]) -> str:
    """Return the message of an error in one line, without the file name."""
    if not isinstance(error, CodectoolError | OSError):
        return f"unexpected {type(error).__name__}: {error}".splitlines()[0]
    text = str(error)
    for value in arguments:
        if isinstance(value, Path):
            text = text.removeprefix(f"{value}: ")
    return text


def _find_clips(config: EvaluationConfig, outputs: Path, runner: _TaskRunner) -> list[Clip]:
    """Return the references that can be read."""
    folders = [outputs, *(folder for _, folder in config.folders)]
    names, problems = find_references(config.references, config.files, folders)
    runner.problems += problems
    paths = {name: config.references / name for name in names}
    tasks = [(("", name), partial(measure_clip, name, path)) for name, path in paths.items()]
    clips = [clip for _, clip in runner.run("reading", tasks)]
    if (
        clips
        and all(info.needs_speech for info in config.selection.infos)
        and not any(clip.speech.is_speech for clip in clips)
    ):
        raise UsageError(
            f"{config.references}: none of its {len(clips)} clips contains speech, which the "
            "metrics need; name a folder of speech, or a metric such as mel_db"
        )
    return clips


def _find_texts(config: EvaluationConfig, clips: Sequence[Clip]) -> dict[str, str | None]:
    """Return the text of each clip, empty where there is none; None if no texts are given."""
    names = [clip.name for clip in clips]
    if config.texts is None:
        return dict.fromkeys(names)
    found = match_texts(config.texts, names)
    if clips and not found:
        raise UsageError(
            f"{config.references}: none of its {len(clips)} clips has a text; the names of texts "
            f"and clips must be the same, such as {next(iter(config.texts), '')} and {names[0]}"
        )
    return {name: found.get(name, "") for name in names}


def _run_systems(
    systems: Sequence[SystemSpec], clips: Sequence[Clip], outputs: Path, runner: _TaskRunner
) -> tuple[dict[Key, CodecCost], dict[Key, Path]]:
    """Run the systems; return the costs and the decoded files."""
    costs: dict[Key, CodecCost] = {}
    files: dict[Key, Path] = {}
    for spec in systems:
        folder = outputs / folder_name(spec.name)
        targets = {(spec.name, clip.name): folder / key_of(clip.name) for clip in clips}
        tasks = [
            (key, partial(run_codec, spec, clip.path, target))
            for clip, (key, target) in zip(clips, targets.items(), strict=True)
        ]
        jobs = None if spec.on_cpu else 1  # processes would share one GPU
        for key, cost in runner.run(f"coding with {spec.name}", tasks, jobs):
            costs[key] = cost
            files[key] = targets[key]
    return costs, files


def _find_coded(
    folders: Sequence[tuple[str, Path]], clips: Sequence[Clip], runner: _TaskRunner
) -> dict[Key, Path]:
    """Return the files of the folders of coded audio."""
    files: dict[Key, Path] = {}
    bad = [problem.clip for problem in runner.problems if not problem.system]
    for system, folder in folders:
        found, problems = find_partners(system, folder, [clip.name for clip in clips], bad)
        files |= {(system, clip): path for clip, path in found.items()}
        runner.problems += problems
    return files


def _find_delays(
    systems: Sequence[str],
    pairs: Mapping[Key, tuple[Path, Path]],
    align: Align,
    runner: _TaskRunner,
) -> dict[str, float | None]:
    """Return the delay of each system in seconds; None where each clip has its own."""
    if align != "system":
        return dict.fromkeys(systems, 0.0 if align == "off" else None)
    sums: dict[str, Correlation] = {}
    counts: Counter[str] = Counter()
    tasks = [(key, partial(correlate_files, *pair)) for key, pair in pairs.items()]
    for (system, _), found in runner.run("aligning", tasks):
        sums[system] = sums[system] + found if system in sums else found
        counts[system] += 1
    delays = {name: best_delay(total, counts[name]) for name, total in sums.items()}
    return {name: delays.get(name, 0) / RATE for name in systems}


def folder_name(system: str) -> str:
    """Return the name of a system as a safe folder name."""
    return re.sub(r"[^\w.@+-]", "_", system).lstrip(".") or "_"
