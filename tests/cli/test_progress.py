"""Progress: a bar on a terminal, lines in a log, silence in pipes."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from codectool.cli.console import warn
from codectool.cli.progress import BatchProgress, TrainingProgress, speed
from codectool.pipeline.report import Result
from codectool.training.run import Progress as State


class Terminal(io.StringIO):
    """A stderr that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def state(step: int, seconds: float = 0.0, **values: float) -> State:
    return State(step, 100, step / 100, seconds, values)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TERM", "xterm"), ("COLUMNS", "150"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)


def test_progress_prints_only_warnings_in_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress() as progress:
        progress.print("step 10: good")
        progress.show(state(100, loss=1.0))
        warn("x.wav: bad")
    assert capsys.readouterr() == ("", "warning: x.wav: bad\n")


def test_progress_of_other_processes_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress(shown=False, log=True) as progress:
        progress.print("step 10: good")
        progress.show(state(100, loss=1.0))
    assert capsys.readouterr() == ("", "")


def test_log_prints_a_line_every_interval(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with TrainingProgress(log=True, clock=lambda: now) as progress:
        for step in range(1, 101):
            now = 2.0 * step
            values = {"loss": 1 / step, "learning_rate": 3e-4, "steps_per_second": 0.5}
            progress.show(state(step, now, **values))
            if step == 20:
                progress.print("step 20: saved\nbest")
    lines = capsys.readouterr().err.splitlines()
    steps = [int(re.split(r"[ /:]+", line)[1]) for line in lines]
    assert steps == [15, 20, 30, 45, 60, 75, 90, 100]
    assert lines[0] == "step 15/100  loss 0.06667  lr 0.0003  2.0 s/step  0:02:50 left"
    assert lines[1] == r"step 20: saved\nbest"
    assert lines[-1] == "step 100/100  loss 0.01  lr 0.0003  2.0 s/step"


def test_messages_appear_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(
        sys, "stderr", terminal
    )  # not in a fixture: pytest replaces it before each test
    with TrainingProgress() as progress:
        progress.show(state(25, 50.0, loss=0.5, steps_per_second=4.0))
        progress.print("step 25: [bold]good[/bold] \x1b[2J")
        warn("x.wav: bad")
        progress.show(state(50, 100.0, loss=0.25))
    text = terminal.getvalue()
    printed, warned = (
        text.index(r"step 25: [bold]good[/bold] \x1b[2J"),
        text.index("warning: x.wav"),
    )
    assert printed < warned < text.rindex("step 50/100  loss 0.25  0:01:40 left")
    assert "training" in text
    assert text.endswith("\x1b[?25h")  # the cursor is back


def test_slow_speeds_are_in_seconds_per_step() -> None:
    assert [speed(s) for s in (12.34, 1.0, 0.25, 0.0)] == [
        "12.3 steps/s",
        "1.0 steps/s",
        "4.0 s/step",
        "0 steps/s",
    ]


def test_batch_progress_counts_files_audio_and_time() -> None:
    now = [0.0]
    progress = BatchProgress("encode", clock=lambda: now[0])
    progress.found(4)
    assert progress.status() == "0/4 files"
    now[0] = 10.0  # spent on headers
    progress.planned(100.0)
    progress.add(Result(Path("a"), Path("a.hcd"), "skipped", 50.0))
    progress.add(Result(Path("b"), None, "failed"))
    assert progress.status() == "2/4 files  1 failed  50.0/100.0 s"
    now[0] = 12.0
    progress.add(Result(Path("c"), Path("c.hcd"), "done", 20.0))
    assert progress.status() == "3/4 files  1 failed  70.0/100.0 s  RTF 0.1000  0:00:03 left"
