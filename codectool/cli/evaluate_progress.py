"""How far an evaluation is: a bar for each step at a terminal, silence in pipes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from codectool.cli.console import at_terminal
from codectool.cli.progress import bar_with_words

if TYPE_CHECKING:
    from codectool.evaluation.run import Watcher


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
