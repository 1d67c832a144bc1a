"""Progress on a terminal, silence in pipes. One bar for every command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from typing_extensions import Self

from codectool.cli.console import at_terminal, message
from codectool.messages import printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from codectool.evaluation.run import ProgressCallback
    from codectool.pipeline.report import Result
    from codectool.training.run import Progress as TrainingState
    from codectool.training.tokens import TokenProgress

Clock = Callable[[], float]
LOG_SECONDS = 30.0  # between lines of a training log


class ProgressBar:
    """A bar with a status text on stderr; shows nothing if stderr is not a terminal.

    Messages that are printed meanwhile appear above the bar.
    """

    def __init__(self, title: str, shown: bool = True) -> None:
        self._title = title
        self._shown = shown
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self._shown and at_terminal():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[status]}", markup=False),
                console=Console(stderr=True),
                expand=True,
            )
            self._task = self._bar.add_task(self._title, total=None, status="starting")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def update(self, share: float | None, status: str, title: str | None = None) -> None:
        """Set the completed share of the work, 0 to 1, and the text after and before the bar.

        Share None is unknown.
        """
        if self._bar is not None:
            from rich.markup import escape

            self._bar.update(
                self._task,
                total=None if share is None else 1.0,
                completed=share,
                status=printable(status),
                description=None if title is None else escape(printable(title)),
            )


class TrainingProgress(ProgressBar):
    """Step, loss, learning rate, speed and remaining time of a training run.

    Args:
        shown: set to False in all processes but one.
        log: without a terminal, print a line every `LOG_SECONDS`.
    """

    def __init__(
        self, shown: bool = True, log: bool = False, clock: Clock = time.monotonic
    ) -> None:
        super().__init__("training", shown)
        self._log = log
        self._clock = clock
        self._logged_at = clock()

    def show(self, state: TrainingState) -> None:
        """Show the current state of the run."""
        if self._bar is not None:
            self.update(state.share, training_status(state), "training")
        elif self._clock() - self._logged_at >= LOG_SECONDS or state.share >= 1:
            self._logged_at = self._clock()
            self.print(training_status(state))

    def show_tokens(self, state: TokenProgress) -> None:
        """Show how much of the training data is encoded."""
        share = state.seconds_done / state.seconds if state.seconds else None
        self.update(share, f"{state.num_done}/{state.num_files} files", "tokens")

    def print(self, line: str) -> None:
        """Print a line above the bar, or to the log."""
        if self._bar is not None or (self._shown and self._log):
            message(printable(line))


def training_status(state: TrainingState) -> str:
    """Return ``step 1200/60000  loss 5.905  lr 0.0003  3.2 steps/s  0:12:00 left``."""
    parts = [f"step {state.step}/{state.max_steps}"]
    for name, label, style in (("loss", "loss", ".4g"), ("learning_rate", "lr", ".2g")):
        if name in state.values:
            parts.append(f"{label} {state.values[name]:{style}}")
    if "steps_per_second" in state.values:
        parts.append(speed(state.values["steps_per_second"]))
    if 0 < state.share < 1:
        # by share, because a run may be limited by time instead of steps
        parts.append(f"{_duration(state.seconds * (1 / state.share - 1))} left")
    return "  ".join(parts)


def speed(steps_per_second: float) -> str:
    """Return ``3.2 steps/s``, or ``4.0 s/step`` for slow steps."""
    if steps_per_second >= 1:
        return f"{steps_per_second:.1f} steps/s"
    return f"{1 / steps_per_second:.1f} s/step" if steps_per_second > 0 else "0 steps/s"


class BatchProgress(ProgressBar):
    """Files, seconds of audio, real-time factor and remaining time of a folder run."""

    def __init__(self, title: str, clock: Clock = time.monotonic) -> None:
        super().__init__(title)
        self._clock = clock
        self._num_files = self._finished = self._failed = 0
        self._seconds = self._finished_seconds = self._computed_seconds = 0.0
        self._started = clock()

    def found(self, num_files: int) -> None:
        """Set the number of files."""
        self._num_files = num_files
        self._show()

    def planned(self, seconds: float) -> None:
        """Set the total length of the files; work on them starts now."""
        self._seconds = seconds
        self._started = self._clock()
        self._show()

    def add(self, result: Result) -> None:
        """Count a finished file."""
        self._finished += 1
        self._failed += result.status == "failed"
        self._finished_seconds += result.seconds
        if result.status == "done":
            self._computed_seconds += result.seconds
        self._show()

    def _show(self) -> None:
        share = self._finished_seconds / self._seconds if self._seconds else 0.0
        self.update(share, self.status())

    def status(self) -> str:
        """Return ``12/40 files  96.1/325.9 s  RTF 0.0121  0:00:03 left``."""
        parts = [f"{self._finished}/{self._num_files} files"]
        if self._failed:
            parts.append(f"{self._failed} failed")
        if self._seconds:
            parts.append(f"{self._finished_seconds:.1f}/{self._seconds:.1f} s")
        if self._computed_seconds:
            rtf = (self._clock() - self._started) / self._computed_seconds
            parts.append(f"RTF {rtf:.4f}")
            left = max(0.0, self._seconds - self._finished_seconds) * rtf
            parts.append(f"{_duration(left)} left")
        return "  ".join(parts)


class FileProgress(ProgressBar):
    """Files, speed and remaining time."""

    def __init__(self, title: str, clock: Clock = time.monotonic) -> None:
        super().__init__(title)
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def show(self, done: int, total: int) -> None:
        """Show the number of files done; those of the first call took no time."""
        now = self._clock()
        self._first = self._first or (now, done)
        started, skipped = self._first
        status = f"{done:,}/{total:,} files"
        if done > skipped and now > started:
            rate = (done - skipped) / (now - started)
            status += f"  {rate:,.0f} files/s  {_duration((total - done) / rate)} left"
        self.update(done / max(1, total), status)


@contextmanager
def evaluation_progress() -> Iterator[ProgressCallback]:
    """Yield the callbacks that `codectool.evaluation.run.evaluate` reports to."""
    from codectool.evaluation.run import ProgressCallback

    finished, total = 0, 1
    with ProgressBar("") as bar:

        def start(step: str, num_clips: int) -> None:
            nonlocal finished, total
            finished, total = 0, num_clips
            bar.update(0.0, f"0/{total} clips", step)

        def advance() -> None:
            nonlocal finished
            finished += 1
            bar.update(finished / max(1, total), f"{finished}/{total} clips")

        yield ProgressCallback(start, advance)


def _duration(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))
