"""Results of files and totals of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from codectool.errors import CodectoolError, memory_advice
from codectool.messages import to_json

EXIT_FAILED = 1
EXIT_CONCEALED = 3

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Result:
    """The outcome of one file.

    Attributes:
        source: the input.
        target: the output; None if there is none.
        status: ``skipped`` means that the output was already complete.
        seconds: length of the audio; 0 if unknown.
        bytes: size of the output.
        reason: reason of a failure, in one line without the name of the file.
        error: the exception of a failure.
        damage: one sentence for each piece of concealed damage.
        warnings: one sentence for each fault of the audio that was read anyway.
    """

    source: Path
    target: Path | None
    status: Status
    seconds: float = 0.0
    bytes: int | None = None
    reason: str | None = None
    error: Exception | None = None
    damage: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def failure(cls, source: Path, target: Path | None, error: Exception) -> Result:
        """Return the result of a file for which an exception was raised."""
        return cls(source, target, "failed", reason=_reason(source, error), error=error)

    def to_json(self, with_bitrate: bool) -> str:
        """Return one line of JSON, optionally with the bit rate of the output."""
        values: dict[str, Any] = {
            "source": str(self.source),
            "target": None if self.target is None else str(self.target),
            "status": self.status,
            "seconds": round(self.seconds, 6),
            "bytes": self.bytes,
        }
        if with_bitrate:
            values["kbps"] = _kbps(self.bytes, self.seconds)
        values["reason"] = self.reason
        if self.damage:
            values["damage"] = list(self.damage)
        if self.warnings:
            values["warnings"] = list(self.warnings)
        return to_json(values)


@dataclass
class Timing:
    """Time of the model threads, in seconds summed over all threads.

    Attributes:
        model: computing.
        reading: waiting for input.
        writing: waiting for writers.
    """

    model: float = 0.0
    reading: float = 0.0
    writing: float = 0.0

    def add(self, other: Timing) -> None:
        """Add the times of another thread."""
        self.model += other.model
        self.reading += other.reading
        self.writing += other.writing

    @property
    def total(self) -> float:
        """Return the sum of all times."""
        return self.model + self.reading + self.writing


@dataclass
class Report:
    """Totals of a run.

    Attributes:
        done: number of files made.
        skipped: number of files that were already complete.
        damaged: results of files made with concealed damage.
        warned: results of complete files whose audio has faults.
        failures: results of files that could not be made.
        untaken: number of input files by suffix that look like audio but were not taken.
        audio_seconds: length of the files made.
        bytes: size of the files made.
        wall_seconds: duration of the run.
        timing: time of the model threads.
    """

    done: int = 0
    skipped: int = 0
    damaged: list[Result] = field(default_factory=list)
    warned: list[Result] = field(default_factory=list)
    failures: list[Result] = field(default_factory=list)
    untaken: Mapping[str, int] = field(default_factory=dict)
    audio_seconds: float = 0.0
    bytes: int = 0
    wall_seconds: float = 0.0
    timing: Timing = field(default_factory=Timing)

    def add(self, result: Result) -> None:
        """Count a result."""
        if result.warnings:
            self.warned.append(result)
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
        """Return seconds of computation per second of audio; None without audio."""
        return self.wall_seconds / self.audio_seconds if self.audio_seconds else None

    @property
    def idle_share(self) -> float | None:
        """Return the share of time that the model waited; None if it had nothing to do."""
        return 1 - self.timing.model / self.timing.total if self.done else None

    @property
    def exit_code(self) -> int:
        """Return 0 if all files are complete, 1 if some failed, 3 if damage was concealed."""
        if self.failures:
            return EXIT_FAILED
        return EXIT_CONCEALED if self.damaged else 0

    def to_json(self, with_bitrate: bool) -> dict[str, Any]:
        """Return the totals, optionally with the mean bit rate of the outputs."""
        share, rtf = self.idle_share, self.rtf
        values: dict[str, Any] = {
            "done": self.done,
            "skipped": self.skipped,
            "failed": len(self.failures),
            "not_taken": sum(self.untaken.values()),
            "audio_seconds": round(self.audio_seconds, 3),
            "bytes": self.bytes,
        }
        if with_bitrate:
            values["kbps"] = _kbps(self.bytes, self.audio_seconds)
        values["wall_seconds"] = round(self.wall_seconds, 3)
        values["rtf"] = None if rtf is None else round(rtf, 6)
        values["idle_share"] = None if share is None else round(share, 4)
        return values

    def profile(self) -> str:
        """Return one line that says how long the model computed and waited."""
        if self.idle_share is None:
            return "model: nothing to do"
        busy, reading, writing = (
            f"{seconds / self.timing.total:.1%}"
            for seconds in (self.timing.model, self.timing.reading, self.timing.writing)
        )
        return f"model: busy {busy}; waiting for input {reading}, for writers {writing}"

    def __str__(self) -> str:
        text = f"{self.done} done, {self.skipped} skipped, {len(self.failures)} failed"
        if self.rtf is not None:
            text += f"; {self.audio_seconds:.1f} s of audio in {self.wall_seconds:.1f} s"
            text += f", RTF {self.rtf:.4f}"
        return text


def _kbps(num_bytes: int | None, seconds: float) -> float | None:
    if num_bytes is None or seconds <= 0:
        return None
    return round(8 * num_bytes / seconds / 1000, 4)


def _reason(source: Path, error: Exception) -> str:
    if isinstance(error, CodectoolError):
        return str(error).removeprefix(f"{source}: ")
    if advice := memory_advice(error):
        return advice
    if isinstance(error, OSError):
        where = "" if error.filename is None else f" ({os.fsdecode(error.filename)})"
        return f"{error.strerror or error}{where}"
    return f"unexpected {type(error).__name__}: {error}".splitlines()[0]
