"""What a training run writes down for people: `metrics.jsonl`, and TensorBoard where it is there.

One line of strict JSON per entry, written at once:

    {"kind": "train", "step": 1200, "time": 1751234567.123, "loss": 3.25, "learning_rate": 0.0003}
    {"kind": "valid", "step": 2000, "time": 1751234667.456, "mel_db": 5.01, "stoi": null}
    {"kind": "event", "step": 2000, "time": 1751234668.789, "message": "saved best.ckpt"}

A number that is NaN or infinite is written as null.
"""

from __future__ import annotations

import importlib
import json
import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codectool.errors import UsageError
from codectool.files import atomic_output
from codectool.plots import spectrogram_pair

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

METRICS_NAME = "metrics.jsonl"
BOARD_NAME = "tensorboard"
KINDS = ("train", "valid", "event")
OWN_KEYS = frozenset({"kind", "step", "time", "message"})

Record = dict[str, Any]


class Journal:
    """Writes `metrics.jsonl` in a run's folder, and the same for TensorBoard.

    A run that was killed has written entries after the checkpoint from which it goes on. They are
    removed first, since those steps are about to happen again.

    Attributes:
        path: the file of JSON lines.
        notice: what a person should be told once, or None: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, resume_step: int = 0) -> None:
        """Open the journal of a run.

        Args:
            folder: of the run; made if it is not there.
            resume_step: step of the checkpoint that training goes on from: entries of later steps
                are dropped. 0 is a new run: all are.

        Raises:
            UsageError: the file that is there is no journal, or cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / METRICS_NAME
        if self.path.exists():
            _rewind(self.path, resume_step)
        try:
            self._file = self.path.open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written ({error.strerror})") from error
        self.notice: str | None = None

        self._board = open_board(folder / BOARD_NAME, resume_step)
        if self._board is None:
            self.notice = (
                "TensorBoard is not installed, so there are no pictures and no sound to look at; "
                "`pip install 'codectool[train]'` adds it"
            )

    def train(self, step: int, values: Mapping[str, float]) -> None:
        """Write down figures of training, such as losses."""
        self._scalars("train", step, values)

    def valid(self, step: int, values: Mapping[str, float]) -> None:
        """Write down figures of validation."""
        self._scalars("valid", step, values)

    def event(self, step: int, message: str) -> None:
        """Write down something that happened, in words."""
        self._write("event", step, {"message": message})
        if self._board is not None:
            self._board.text(step, message)

    def audio(self, step: int, name: str, samples: Tensor, rate: int) -> None:
        """Let TensorBoard play samples ``(N,)`` in [-1, 1] at ``rate`` Hz."""
        if self._board is not None:
            self._board.audio(step, name, samples, rate)

    def spectrogram(
        self, step: int, name: str, reference: Tensor, output: Tensor, rate: int
    ) -> None:
        """Let TensorBoard show log-mel spectrograms of two signals ``(N,)``, one above the other.

        Above is the reference; both have one colour scale.
        """
        if self._board is not None:
            self._board.spectrogram(step, name, reference, output, rate)

    def close(self) -> None:
        """Write all that is pending and close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        if taken := OWN_KEYS & values.keys():
            raise ValueError(f"a figure cannot be called {', '.join(sorted(taken))}")
        self._write(kind, step, {name: _json_number(value) for name, value in values.items()})
        if self._board is not None:
            self._board.scalars(step, {f"{kind}/{name}": float(v) for name, v in values.items()})

    def _write(self, kind: str, step: int, content: Mapping[str, Any]) -> None:
        record = {"kind": kind, "step": int(step), "time": round(time.time(), 3), **content}
        self._file.write(json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n")
        self._file.flush()


def read_journal(path: Path) -> list[Record]:
    """All entries of a `metrics.jsonl`, in the order they were written.

    A last line that was cut off, as by a crash or because it is being written, is left out.

    Raises:
        UsageError: the file cannot be read, or is no journal.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    *lines, torn = raw.split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is None:
            if number == len(lines) and not torn:
                break  # a crash of the machine leaves blocks of zeros or half a line at the end
            raise UsageError(
                f"{path}: line {number} is no entry of a training journal; "
                "name the folder of a run, or move this file out of it"
            )
        records.append(record)
    return records


def _parse(line: bytes) -> Record | None:
    """An entry, or None where the line is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = (
        isinstance(record, dict)
        and record.get("kind") in KINDS
        and isinstance(record.get("step"), int)
    )
    return record if whole else None


def _rewind(path: Path, step: int) -> None:
    """Drop the entries after ``step`` and a torn last line, all at once or not at all."""
    kept = [record for record in read_journal(path) if 0 < step >= record["step"]]
    with atomic_output(path, overwrite=True) as file:
        for record in kept:
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def _json_number(value: float) -> float | int | None:
    number = value if isinstance(value, int) else float(value)
    return number if math.isfinite(number) else None


def open_board(folder: Path, resume_step: int = 0) -> Board | None:
    """Open a folder of event files, or return None where TensorBoard is not installed.

    Args:
        folder: of the event files.
        resume_step: TensorBoard is told to forget what it was shown of later steps; with 0, of
            all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn of things that are not ours
        try:
            importlib.import_module("tensorboard")
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
    forget_from = resume_step + 1 if resume_step else 0
    return Board(SummaryWriter(str(folder), purge_step=forget_from if folder.is_dir() else None))


class Board:
    """Writes TensorBoard's event files."""

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Points of curves; ``group/name`` puts curves of a group together."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def text(self, step: int, message: str) -> None:
        """Words."""
        self._writer.add_text("events", message, step)

    def audio(self, step: int, name: str, samples: Tensor, rate: int) -> None:
        """Sound to play: ``(N,)`` in [-1, 1] at ``rate`` Hz."""
        wave = samples.detach().float().cpu().clamp(-1, 1)
        self._writer.add_audio(name, wave[None], step, sample_rate=rate)

    def spectrogram(
        self, step: int, name: str, reference: Tensor, output: Tensor, rate: int
    ) -> None:
        """Spectrograms of two signals ``(N,)``; see `spectrogram_pair`."""
        before, after = (wave.detach().float().cpu().numpy() for wave in (reference, output))
        image = spectrogram_pair(before, after, rate)
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Write all that is pending."""
        self._writer.close()
