"""How far a training run is: a bar at a terminal, silence or lines of a log in pipes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from codectool.cli.console import at_terminal, printable, warn

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from codectool.evaluation.run import Watcher
    from codectool.pipeline.report import Result
    from codectool.training.run import Progress as State


class Progress:
    """Shows step, loss, learning rate, speed and the time that is left, on standard error.

    A context manager. At a terminal there is a bar that stays below everything else. In pipes
    there is silence but for warnings, or with ``log`` a line now and then.

    Args:
        shown: show anything at all; of several processes only one should.
        log: write lines where there is no terminal.
        every: seconds between these lines.
        clock: tells seconds.
    """

    def __init__(
        self,
        shown: bool = True,
        log: bool = False,
        every: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shown = shown
        self.log = log
        self.every = every
        self._clock = clock
        self._told_at = clock()
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        self._told_at = self._clock()
        if self.shown and at_terminal():
            self._bar = bar_with_words()
            self._task = self._bar.add_task("training", total=1.0, told="starting")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def update(self, state: State) -> None:
        """Show how far the run is now."""
        if self._bar is not None:
            self._bar.update(self._task, completed=state.share, told=self._describe(state))
        elif self.shown and self.log:
            now = self._clock()
            if now - self._told_at >= self.every or state.share >= 1:
                self._told_at = now
                self.say(self._describe(state))

    def say(self, line: str) -> None:
        """Tell something in one line, which stays: above the bar, or in the log."""
        if self._bar is not None:
            from rich.text import Text

            self._bar.console.print(Text(printable(line)), soft_wrap=True)
        elif self.shown and self.log:
            click.echo(printable(line), err=True)

    def warn(self, message: str) -> None:
        """Tell something that a person should know, in pipes too."""
        if self._bar is not None:
            from rich.text import Text

            line = Text.assemble(("warning", "yellow"), f": {printable(message)}")
            self._bar.console.print(line, soft_wrap=True)
        elif self.shown:
            warn(message)

    def _describe(self, state: State) -> str:
        """``step 1200/60000  loss 5.905  lr 0.0003  3.2 steps/s  0:12:00 left``."""
        parts = [f"step {state.step}/{state.max_steps}"]
        for name, label, style in (("loss", "loss", ".4g"), ("learning_rate", "lr", ".2g")):
            if name in state.values:
                parts.append(f"{label} {state.values[name]:{style}}")
        if "steps_per_second" in state.values:
            parts.append(speed(state.values["steps_per_second"]))
        if 0 < state.share < 1:
            # by the share, since a run may be limited in time instead of in steps
            left = timedelta(seconds=round(state.seconds * (1 / state.share - 1)))
            parts.append(f"{left} left")
        return "  ".join(parts)


def speed(steps_per_second: float) -> str:
    """``3.2 steps/s``, or ``4.0 s/step`` where steps are slow.

    Examples:
        >>> speed(0.25)
        '4.0 s/step'
    """
    if steps_per_second >= 1:
        return f"{steps_per_second:.1f} steps/s"
    return f"{1 / steps_per_second:.1f} s/step" if steps_per_second > 0 else "0 steps/s"


def bar_with_words() -> Bar:
    """A bar with a description before it and ``told`` behind."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[told]}", markup=False),
        console=Console(stderr=True),
        expand=True,
    )


class BatchProgress:
    """Shows files, seconds of audio, speed and the time that is left, on standard error.

    A context manager.

    Args:
        verb: what is being done.
        clock: tells seconds.
    """

    def __init__(self, verb: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._verb = verb
        self._clock = clock
        self._bar: Bar | None = None
        self._files = self._seen = self._failed = 0
        self._seconds = self._seen_seconds = self._done_seconds = 0.0
        self._started = clock()

    def __enter__(self) -> BatchProgress:
        if at_terminal():
            self._bar = bar_with_words()
            self._task = self._bar.add_task(self._verb, total=None, told="looking for files")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def found(self, files: int) -> None:
        """So many files there are."""
        self._files = files
        self._show()

    def planned(self, seconds: float) -> None:
        """They last so long, and work on them begins now."""
        self._seconds = seconds
        self._started = self._clock()
        self._show()

    def add(self, result: Result) -> None:
        """This became of one of them."""
        self._seen += 1
        self._failed += result.status == "failed"
        self._seen_seconds += result.seconds
        if result.status == "done":
            self._done_seconds += result.seconds
        self._show()

    def _show(self) -> None:
        if self._bar is not None:
            share = self._seen_seconds / self._seconds if self._seconds else 0.0
            self._bar.update(self._task, total=1.0, completed=share, told=self.describe())

    def describe(self) -> str:
        """``12/40 files  96.1/325.9 s  RTF 0.0121  0:00:03 left``."""
        parts = [f"{self._seen}/{self._files} files"]
        if self._failed:
            parts.append(f"{self._failed} failed")
        if self._seconds:
            parts.append(f"{self._seen_seconds:.1f}/{self._seconds:.1f} s")
        if self._done_seconds:
            rtf = (self._clock() - self._started) / self._done_seconds
            left = max(0.0, self._seconds - self._seen_seconds) * rtf
            parts.append(f"RTF {rtf:.4f}")
            parts.append(f"{timedelta(seconds=round(left))} left")
        return "  ".join(parts)


@contextmanager
def progress() -> Iterator[Watcher]:
    """Whom `codectool.evaluation.run.evaluate` tells."""
    from codectool.evaluation.run import Watcher

    if not at_terminal():
        yield Watcher()
        return
    with bar_with_words() as bar:
        task = bar.add_task("", told="")
        counts = {"done": 0, "all": 0}

        def step(title: str, clips: int) -> None:
            counts.update({"done": 0, "all": clips})
            bar.reset(task, total=max(1, clips), description=title, told=f"0/{clips} clips")

        def clip() -> None:
            counts["done"] += 1
            bar.update(task, advance=1, told=f"{counts['done']}/{counts['all']} clips")

        yield Watcher(step, clip)
