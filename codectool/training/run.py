"""A whole training run: data, steps, validation, and a folder in which all of it is kept.

The folder is the run: `start` makes it, `resume` goes on where its last snapshot stands. What the
loop does in a step is in `loop`, what a snapshot holds in `snapshot`.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch
from msgspec.structs import replace
from torch import Tensor

from codectool.audio.discovery import read_list
from codectool.checkpoints.load import locate, read_weights
from codectool.checkpoints.native import write_model
from codectool.errors import AudioError, CheckpointError, ConfigError, TrainingError, UsageError
from codectool.files import atomic_output
from codectool.nn.distributed import world_size
from codectool.training import parallel
from codectool.training.checkpoint import (
    BEST,
    LAST,
    keep_snapshot,
    read_rest,
    read_snapshot,
    write_snapshot,
)
from codectool.training.config import TrainingConfig
from codectool.training.data import CropDataset, CropLoader, CropSettings, reading_errors
from codectool.training.filelist import Clip, scan
from codectool.training.metrics_log import Journal
from codectool.training.models import model_rate
from codectool.training.trainer import StepReport, Trainer
from codectool.training.validation import ValidationClip, ValidationResult, load_clips, validate

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
SHOWN_CLIPS = 3  # of the validation clips, to listen to
MEASURED_CROPS = 64  # for what a checkpoint does not say
ONE_WISH = 1.0  # seconds in which several signals mean the same


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step: done so far.
        max_steps: length of the run.
        share: done share of the run, by steps or by time, whichever is ahead.
        seconds: of training, over all sessions.
        values: means since the last report: losses, learning rate, ``steps_per_second``,
            ``waited`` (share of time spent waiting for data).
    """

    step: int
    max_steps: int
    share: float
    seconds: float
    values: dict[str, float]


@dataclass
class Observer:
    """Who is told what happens; every function may be replaced."""

    on_step: Callable[[Progress], None] = lambda progress: None
    on_message: Callable[[str], None] = lambda message: None
    on_warning: Callable[[str], None] = lambda message: None


@dataclass(frozen=True)
class Outcome:
    """How a run, or this session of it, ended.

    Attributes:
        step: done in all.
        finished: the run is complete; else it was stopped and can be resumed.
        signal: number of the signal that stopped it, or None.
        valid: figures of the last validation.
    """

    step: int
    finished: bool
    signal: int | None
    valid: dict[str, float]


@dataclass
class Run:
    """A run in its folder.

    Args:
        config: what to train, and how.
        folder: made if it is not there.
        clips: to train on.
        valid: to validate on; none is allowed.
        device: where to train.
        max_hours: of training, over all sessions; schedules that last to the end of the run then
            go by time where time is ahead of the steps.
        observer: who is told what happens.
    """

    config: TrainingConfig
    folder: Path
    clips: Sequence[Clip]
    valid: Sequence[ValidationClip]
    device: torch.device
    max_hours: float | None = None
    observer: Observer = field(default_factory=Observer)

    def __post_init__(self) -> None:
        ranks = world_size()
        recipe = self.config.training
        if recipe.batch_size % (ranks * recipe.accumulation):
            raise UsageError(
                f"batch_size {recipe.batch_size} does not divide over {ranks} processes "
                f"with accumulation {recipe.accumulation}"
            )
        dataset = CropDataset(self.clips, self._crops())
        self.recipe = self.config.training.in_steps(dataset.items_per_epoch)
        self.trainer = Trainer(replace(self.config, training=self.recipe), self.device)
        self.writes = parallel.rank() == 0
        self.best: float | None = None
        self.seconds = 0.0
        self.last_valid: dict[str, float] = {}

    def resume(self, path: Path) -> None:
        """Take over the state of a snapshot.

        Raises:
            CheckpointError: no snapshot.
            ConfigError: one of another model.
        """
        state = read_snapshot(path)
        try:
            self.trainer.load_state(state["trainer"])
        except (CheckpointError, ConfigError) as error:
            raise type(error)(f"{path}: {error}") from error
        self.best, self.seconds = state.get("best"), float(state.get("seconds", 0.0))
        self.last_valid = state.get("valid", {})
        if not parallel.agree(self.trainer.steps):
            raise CheckpointError(
                f"{path}: not the same for all processes; the folder of a run must be one that "
                "all machines share"
            )

    def start_from(self, path: Path) -> None:
        """Begin with the weights of a checkpoint, the authors' or ours.

        Raises:
            CheckpointError: it cannot be read, or is one of another model.
        """
        family, state, _ = read_weights(path)
        if family != self.config.family:
            raise CheckpointError(
                f"{path}: is a {family} checkpoint, the config is for {self.config.family}"
            )
        rest = read_rest(locate(path))
        try:
            self.trainer.start_from(state, self._first_crops, rest)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        if rest is not None:
            self.observer.on_message(f"begun at step {rest.steps} of {rest.path.name}")

    def go(self) -> Outcome:
        """Train until the end of the run, or until a signal asks to stop.

        Raises:
            TrainingError: it cannot go on; what was reached is saved.
        """
        with stop_signals() as stop, self._journal() as journal:
            try:
                with reading_errors():
                    return self._steps(stop, journal)
            except (AudioError, TrainingError) as error:  # they come between two steps
                self._save()
                if journal is not None:
                    journal.event(self.trainer.steps, str(error))
                raise

    def _steps(self, stop: StopFlag, journal: Journal | None) -> Outcome:
        trainer, recipe = self.trainer, self.recipe
        batches = iter(self._loader(trainer.steps))
        before, begin = self.seconds, time.monotonic()
        meter = Meter()
        signalled, share = 0, self._share()
        while share < 1 and not signalled:
            batch = next(batches)
            for problem in batch.problems:
                self.observer.on_warning(f"{problem}; left out")
            report = trainer.step(batch.audio.to(self.device, non_blocking=True), share)
            meter.add(report, batch.waited)
            # all ranks act upon the same clock and the same wish to stop
            seen = parallel.largest(float(stop.signal or 0), before + time.monotonic() - begin)
            signalled, self.seconds = int(seen[0]), seen[1]
            share = self._share()
            over = share >= 1 or signalled > 0
            if over or trainer.steps % recipe.log_every == 0:
                values = meter.take()
                self._tell_skipped(values)
                self.observer.on_step(self._progress(share, values))
                if journal is not None:
                    journal.train(trainer.steps, values)
            if trainer.steps % recipe.validate_every == 0 or share >= 1:
                self._validate(journal)
                meter.pause()
            if not over and trainer.steps % recipe.save_every == 0:
                self._save()
                meter.pause()
        self._save()
        finished = share >= 1
        stopped_by = None if finished else signalled or None
        return Outcome(trainer.steps, finished, stopped_by, self.last_valid)

    def _tell_skipped(self, values: dict[str, float]) -> None:
        if "skipped" in values and self.recipe.precision != "fp16":  # which finds its scale so
            self.observer.on_warning(
                f"step {self.trainer.steps}: {values['skipped']:.0f} of the last steps left out, "
                "as a loss or gradient was not finite"
            )

    def _progress(self, share: float, values: dict[str, float]) -> Progress:
        assert self.recipe.max_steps is not None, "lengths are in steps by now"
        return Progress(self.trainer.steps, self.recipe.max_steps, share, self.seconds, values)

    def _share(self) -> float:
        assert self.recipe.max_steps is not None, "lengths are in steps by now"
        share = self.trainer.steps / self.recipe.max_steps
        if self.max_hours is not None:
            share = max(share, self.seconds / (3600 * self.max_hours))
        return min(share, 1.0)

    def _crops(self) -> CropSettings:
        recipe = self.config.training
        return CropSettings(
            sample_rate=model_rate(self.config),
            segment_size=recipe.segment_size,
            seed=recipe.seed,
            by_seconds=recipe.sampling == "seconds",
            gain_db=recipe.gain_db,
            early_start=recipe.early_start,
            silence=recipe.silence,
        )

    def _first_crops(self) -> Tensor:
        dataset = CropDataset(self.clips, self._crops())
        return torch.stack([dataset[number].audio for number in range(MEASURED_CROPS)])

    def _loader(self, first_batch: int) -> CropLoader:
        return CropLoader(
            self.clips,
            self._crops(),
            self.recipe.batch_size,
            num_workers=self.recipe.num_workers,
            rank=parallel.rank(),
            world_size=world_size(),
            first_batch=first_batch,
        )

    def _validate(self, journal: Journal | None) -> None:
        """Measure the averaged weights on the clips; rank 0 does it, the others wait in a step."""
        if not self.valid or journal is None:
            return
        with self._weights():
            result = validate(self.trainer.trainee.codec(), self.valid)
        step = self.trainer.steps
        self.last_valid = result.values
        journal.valid(step, result.values)
        self._show(result, journal)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in result.values.items())
        self.observer.on_message(f"step {step}: {figures}")
        score = result.values["mel_db"]
        if math.isfinite(score) and (self.best is None or score < self.best):
            self.best = score
            self._write(BEST)

    def _show(self, result: ValidationResult, journal: Journal) -> None:
        rate = self.trainer.trainee.sample_rate
        for number, clip in enumerate(self.valid[:SHOWN_CLIPS]):
            output, step = result.samples(number), self.trainer.steps
            journal.audio(step, clip.name, output, rate)
            journal.spectrogram(step, clip.name, clip.audio[0], output, rate)

    def _save(self) -> None:
        """Write the snapshots and the weights for use; rank 0 alone."""
        if not self.writes:
            return
        self._write(LAST)
        if self.recipe.keep:
            keep_snapshot(self.folder, self.trainer.steps, self.recipe.keep)
        if self.trainer.steps == self.trainer.skipped:
            return  # nothing was learned yet, and SuperCodec has no codewords
        with self._weights():
            write_model(
                self.folder / WEIGHTS_NAME, self.trainer.trainee.stored_codec(), overwrite=True
            )

    def _write(self, name: str) -> None:
        state = {
            "trainer": self.trainer.state(),
            "best": self.best,
            "seconds": self.seconds,
            "valid": self.last_valid,
        }
        write_snapshot(self.folder / name, state)

    @contextmanager
    def _weights(self) -> Iterator[None]:
        """The weights that count: the averaged ones where there are any.

        Building a model from them may draw random numbers. Those of training stay what they are,
        or a run that is resumed from here would draw others than this one.
        """
        average = self.trainer.average
        devices = [self.device] if self.device.type == "cuda" else []
        with (
            torch.random.fork_rng(devices),
            nullcontext() if average is None else average.applied(),
        ):
            yield

    def _journal(self) -> AbstractContextManager[Journal | None]:
        if not self.writes:
            return nullcontext()
        journal = Journal(self.folder, self.trainer.steps)
        if journal.notice:
            self.observer.on_message(journal.notice)
        return journal


def train(
    config: TrainingConfig,
    folder: Path,
    device: torch.device | None = None,
    max_hours: float | None = None,
    resume: bool = False,
    start_from: Path | None = None,
    threads: int | None = None,
    observer: Observer | None = None,
) -> Outcome:
    """Train a codec; the whole of `codectool train`.

    Started by ``torchrun``, every process calls this alike.

    Args:
        config: what to train, how, and on what (`TrainingConfig.data`).
        folder: of the run.
        device: where to train; None is the CPU.
        max_hours: of training, over all sessions of the run.
        resume: go on where the run in the folder stands; begin if there is none yet.
        start_from: a checkpoint whose weights a new run begins with.
        threads: of a CPU; None is torch's choice, as many as there are cores.
        observer: who is told what happens.

    Raises:
        UsageError: the folder holds a run already, or there is nothing to train on.
        ConfigError: the config is not that of the run to be resumed.
        CheckpointError: a snapshot or checkpoint cannot be used.
        TrainingError: training cannot go on.
    """
    observer = observer or Observer()
    if threads is not None:
        torch.set_num_threads(threads)
    if device is None:
        device = torch.device("cpu")
    last = folder / LAST
    if last.exists() and not resume:
        raise UsageError(
            f"{folder}: holds a run already; go on with `--resume`, or choose another --run-dir"
        )
    with parallel.process_group(device):
        # all processes find the same, one says it
        clips, valid = _speech(config, observer if parallel.rank() == 0 else Observer())
        run = Run(config, folder, clips, valid, device, max_hours, observer)
        if run.writes and run.recipe.schedule.warmup_steps >= (run.recipe.max_steps or 0):
            observer.on_warning(
                f"the warm-up of {run.recipe.schedule.warmup_steps} steps is as long as the run: "
                "the learning rate never reaches its full value"
            )
        if resume and last.exists():
            run.resume(last)
            observer.on_message(f"resumed at step {run.trainer.steps}")
        elif start_from is not None:
            run.start_from(start_from)
        if run.writes:
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(config.to_json(), indent=2) + "\n"
            with atomic_output(folder / CONFIG_NAME, overwrite=True) as file:
                file.write(text.encode())
        return run.go()


def _speech(config: TrainingConfig, observer: Observer) -> tuple[list[Clip], list[ValidationClip]]:
    if config.data is None:
        raise UsageError("nothing to train on: give --train-files a folder or a list of files")
    clips, problems = scan(read_list(Path(config.data.train)))
    for problem in problems:
        observer.on_warning(f"{problem}; left out")
    if not clips:
        raise UsageError(f"{config.data.train}: holds no audio that can be read")
    if config.data.valid is None:
        observer.on_warning("no --valid-files: nothing will tell how good the codec gets")
        return clips, []
    entries = read_list(Path(config.data.valid))
    wanted = min(config.training.valid_clips, len(entries))
    spread = [entries[i * len(entries) // wanted] for i in range(wanted)]
    paths = [entry.path for entry in spread]
    return clips, load_clips(paths, model_rate(config), complain=observer.on_warning)


class Meter:
    """Means of what the steps report, and how long they take."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._steps = self._skipped = 0
        self._waited = self._paused = 0.0
        self._start = self._mark = time.monotonic()

    def add(self, report: StepReport, waited: float) -> None:
        """Take in one step; those that were skipped count as time alone."""
        self._steps += 1
        self._waited += waited
        self._mark = time.monotonic()
        if report.skipped:
            self._skipped += 1
            return
        for name, value in report.values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def pause(self) -> None:
        """What was done since the last step, or the last pause, was no training."""
        now = time.monotonic()
        self._paused += now - self._mark
        self._mark = now

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        seconds = max(time.monotonic() - self._start - self._paused, 1e-9)
        values = {name: total / self._counts[name] for name, total in self._sums.items()}
        values["steps_per_second"] = self._steps / seconds
        values["waited"] = self._waited / seconds
        if self._skipped:
            values["skipped"] = float(self._skipped)
        self._begin()
        return values


class StopFlag:
    """Remembers that a signal asked to stop.

    Attributes:
        signal: its number, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0

    def raise_(self, number: int, frame: FrameType | None) -> None:
        """Take note; at another signal after that, stop at once.

        What comes within moments is the same wish: a terminal sends Ctrl-C to all processes, and
        ``torchrun`` passes it on to them once more.
        """
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._since = number, now
        elif now - self._since > ONE_WISH:
            raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Let SIGINT and SIGTERM end the run after the step that is being done."""
    flag = StopFlag()
    watched = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, flag.raise_) for number in watched]
    try:
        yield flag
    finally:
        for number, handler in zip(watched, before, strict=True):
            signal.signal(number, handler)
