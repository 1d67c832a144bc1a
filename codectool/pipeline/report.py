"""What became of the files: one result each, and what they come to together."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

EXIT_FAILED = 1
EXIT_CONCEALED = 3

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Result:
    """What became of one file.

    Attributes:
        source: the input.
        target: the output; None if it has none.
        status: ``skipped`` is an output that was there already, as it should be.
        seconds: of audio; 0 if nobody knows.
        bytes: size of the output.
        reason: of a failure, in one line without the name of the file.
        error: what was raised.
        damage: one sentence for each thing that had to be concealed.
    """

    source: Path
    target: Path | None
    status: Status
    seconds: float = 0.0
    bytes: int | None = None
    reason: str | None = None
    error: Exception | None = None
    damage: tuple[str, ...] = ()

    def to_json(self, rate: bool) -> str:
        """One line of JSON; ``rate`` tells the bit rate of the output, too."""
        values: dict[str, Any] = {
            "source": str(self.source),
            "target": None if self.target is None else str(self.target),
            "status": self.status,
            "seconds": round(self.seconds, 6),
            "bytes": self.bytes,
        }
        if rate:
            known = self.bytes is not None and self.seconds > 0
            values["kbps"] = _kbps(self.bytes or 0, self.seconds) if known else None
        values["reason"] = self.reason
        if self.damage:
            values["damage"] = list(self.damage)
        return json.dumps(values)


def failure(source: Path, target: Path | None, error: Exception) -> Result:
    """The result of a file on which an error was raised."""
    return Result(source, target, "failed", reason=_reason(source, error), error=error)


@dataclass
class Timing:
    """Where the time of the threads that run the model went, in seconds of all of them together.

    Attributes:
        model: the model worked.
        reading: no input was ready.
        writing: too many outputs waited to be written.
    """

    model: float = 0.0
    reading: float = 0.0
    writing: float = 0.0

    def add(self, other: Timing) -> None:
        """Count another thread in."""
        self.model += other.model
        self.reading += other.reading
        self.writing += other.writing

    @property
    def total(self) -> float:
        """All of it."""
        return self.model + self.reading + self.writing


@dataclass
class Report:
    """Results of a run.

    Attributes:
        done: files that were made.
        skipped: files that were there.
        damaged: files that were made, what was damaged in their inputs being concealed.
        failures: files that could not be made.
        audio_seconds: of the files that were made.
        bytes: of the files that were made.
        wall_seconds: from the first look into the folder to the last file.
        timing: where the model's time went.
    """

    done: int = 0
    skipped: int = 0
    damaged: list[Result] = field(default_factory=list)
    failures: list[Result] = field(default_factory=list)
    audio_seconds: float = 0.0
    bytes: int = 0
    wall_seconds: float = 0.0
    timing: Timing = field(default_factory=Timing)

    def add(self, result: Result) -> None:
        """Count a result in."""
        if result.status == "done":
            self.done += 1
            self.audio_seconds += result.seconds
            self.bytes += result.bytes or 0
            if result.damage:
                self.damaged.append(result)
        elif result.status == "skipped":
            self.skipped += 1
        else:
            self.failures.append(result)

    @property
    def rtf(self) -> float | None:
        """Seconds of work per second of audio; None if there was none."""
        return self.wall_seconds / self.audio_seconds if self.audio_seconds else None

    @property
    def idle_share(self) -> float | None:
        """Share of the time in which the model did not work; None if it had nothing to do."""
        return 1 - self.timing.model / self.timing.total if self.done else None

    @property
    def exit_code(self) -> int:
        """0 all is there; 1 some files failed; 3 none did, but damage was concealed."""
        if self.failures:
            return EXIT_FAILED
        return EXIT_CONCEALED if self.damaged else 0

    def to_json(self, rate: bool) -> dict[str, Any]:
        """Totals; ``rate`` tells the mean bit rate of the outputs, too."""
        share, rtf = self.idle_share, self.rtf
        values: dict[str, Any] = {
            "done": self.done,
            "skipped": self.skipped,
            "failed": len(self.failures),
            "audio_seconds": round(self.audio_seconds, 3),
            "bytes": self.bytes,
        }
        if rate:
            seconds = self.audio_seconds
            values["kbps"] = _kbps(self.bytes, seconds) if seconds else None
        values["wall_seconds"] = round(self.wall_seconds, 3)
        values["rtf"] = None if rtf is None else round(rtf, 6)
        values["idle_share"] = None if share is None else round(share, 4)
        return values

    def profile(self) -> str:
        """Where the time of the model's threads went, in one line."""
        if self.idle_share is None:
            return "the model had nothing to do"
        timing = self.timing
        parts = {"at work": timing.model, "no input": timing.reading, "writers": timing.writing}
        shares = [f"{name} {value / timing.total:.1%}" for name, value in parts.items()]
        return f"the model: {shares[0]}; waiting: {shares[1]}, {shares[2]}"

    def __str__(self) -> str:
        parts = [f"{self.done} done", f"{self.skipped} skipped", f"{len(self.failures)} failed"]
        text = ", ".join(parts)
        if self.rtf is not None:
            text += f"; {self.audio_seconds:.1f} s of audio in {self.wall_seconds:.1f} s"
            text += f", RTF {self.rtf:.4f}"
        return text


def _kbps(num_bytes: int, seconds: float) -> float:
    return round(8 * num_bytes / seconds / 1000, 4)


def _reason(source: Path, error: Exception) -> str:
    from codectool.errors import CodectoolError

    if isinstance(error, CodectoolError):
        return str(error).removeprefix(f"{source}: ")
    if isinstance(error, OSError):
        where = "" if error.filename is None else f" ({os.fsdecode(error.filename)})"
        return f"{error.strerror or error}{where}"
    if isinstance(error, MemoryError):
        return "not enough memory for this file"
    return f"unexpected {type(error).__name__}: {error}".splitlines()[0]
