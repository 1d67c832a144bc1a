"""The metrics log of a run: `metrics.jsonl`, and TensorBoard if it is installed.

One line of JSON per entry, written immediately; a number that is not finite is null:

    {"kind": "train", "step": 1200, "time": 1751234567.123, "loss": 3.25, "learning_rate": 0.0003}
    {"kind": "valid", "step": 2000, "time": 1751234667.456, "mel_db": 5.01, "stoi": null}
    {"kind": "event", "step": 2000, "time": 1751234668.789, "message": "stopped: ..."}
"""

from __future__ import annotations

import importlib
import json
import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import Self

from codectool.errors import TrainingError, UsageError
from codectool.files import atomic_output
from codectool.messages import to_json
from codectool.plots import spectrogram_pair

if TYPE_CHECKING:  # `codectool plot` reads logs without PyTorch
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

    from codectool.training.trainer import StepReport

METRICS_NAME = "metrics.jsonl"
TENSORBOARD_NAME = "tensorboard"
MAX_INTEGER = 1 << 53  # exact in float64
KINDS = ("train", "valid", "event")
RESERVED_KEYS = frozenset({"kind", "step", "time", "message"})
# Former names of metrics.
OLD_NAMES = {
    "gradient": "grad_norm",
    "judge_gradient": "discriminator_grad_norm",
    "waited": "data_wait_fraction",
    "si_sdr": "si_sdr_db",
    "bits_given_previous": "conditional_entropy",
    "coherence": "phase_coherence",
    "whiteness": "decorrelation",
}

Record = dict[str, Any]
Metrics = Mapping[str, float]


class MetricsLog:
    """Writer of `metrics.jsonl` in the folder of a run, and of the same for TensorBoard.

    Args:
        folder: folder of the run; made if it does not exist.
        resume_step: step of the checkpoint from which training continues; entries of later steps
            are dropped, because those steps are repeated. 0 for a new run: all are dropped.

    Attributes:
        notice: message for the user, or None: TensorBoard is not installed.

    Raises:
        UsageError: The existing file is no metrics log, or cannot be written.
    """

    def __init__(self, folder: Path, resume_step: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / METRICS_NAME
        if path.exists():
            if not path.is_file():  # reading a device may not end
                raise UsageError(f"{path}: is not a file; move it away")
            _rewind(path, resume_step)
        try:
            self._file = path.open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
        self.notice: str | None = None
        self._tensorboard = open_tensorboard(folder / TENSORBOARD_NAME, resume_step)
        if self._tensorboard is None:
            self.notice = (
                "TensorBoard is not installed, so spectrograms and audio are not logged; "
                "`pip install 'codectool[train]'` adds it"
            )

    def metrics(self, kind: Literal["train", "valid"], step: int, values: Metrics) -> None:
        """Log metrics of training or validation."""
        if taken := RESERVED_KEYS & values.keys():
            raise ValueError(f"no metric may be named {', '.join(sorted(taken))}")
        self._write(kind, step, {name: _json_number(value) for name, value in values.items()})
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(f"{kind}/{name}", float(value), step)

    def event(self, step: int, message: str) -> None:
        """Log a message, which may contain names of files."""
        self._write("event", step, {"message": message})
        if self._tensorboard is not None:
            # names of files may not be UTF-8
            text = message.encode(errors="backslashreplace").decode()
            self._tensorboard.add_text("events", text, step)

    def audio(self, step: int, name: str, samples: Tensor, rate: int) -> None:
        """Log samples ``(N,)`` in [-1, 1] at ``rate`` Hz to TensorBoard."""
        if self._tensorboard is not None:
            wave = samples.detach().float().cpu().clamp(-1, 1)
            self._tensorboard.add_audio(name, wave[None], step, sample_rate=rate)

    def spectrogram(
        self, step: int, name: str, reference: Tensor, output: Tensor, rate: int
    ) -> None:
        """Log the spectrograms of two signals ``(N,)`` to TensorBoard; see `spectrogram_pair`."""
        if self._tensorboard is not None:
            before, after = (wave.detach().float().cpu().numpy() for wave in (reference, output))
            image = spectrogram_pair(before, after, rate)
            self._tensorboard.add_image(name, image, step, dataformats="HWC")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _write(self, kind: str, step: int, content: Mapping[str, Any]) -> None:
        record = {"kind": kind, "step": int(step), "time": round(time.time(), 3), **content}
        try:
            self._file.write(to_json(record) + "\n")
            self._file.flush()
        except OSError as error:  # such as a full disk, which names no file
            raise TrainingError(
                f"{self._file.name}: cannot be written ({error.strerror or error})"
            ) from error


def open_tensorboard(folder: Path, resume_step: int) -> SummaryWriter | None:
    """Open a folder of event files, or return None if TensorBoard is not installed.

    TensorBoard then hides the entries of steps after `resume_step`; with 0, all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from the imports of TensorBoard
        try:
            importlib.import_module("tensorboard")
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
    purge_from = resume_step + 1 if resume_step else 0
    return SummaryWriter(str(folder), purge_step=purge_from if folder.is_dir() else None)


def read_metrics(path: Path) -> list[Record]:
    """Read all entries of a `metrics.jsonl` in order, under the present names of metrics.

    A last line that is incomplete, because of a crash or because it is being written, is left out.

    Raises:
        UsageError: The file cannot be read, or is no metrics log.
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
                break  # a crash of the machine leaves zeros or half a line at the end
            raise UsageError(
                f"{path}: line {number} is no entry of a metrics log; "
                "name the folder of a run, or move this file out of it"
            )
        records.append({OLD_NAMES.get(key, key): value for key, value in record.items()})
    return records


def _parse(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("kind") not in KINDS:
        return None
    valid = type(record.get("step")) is int and all(map(_is_value, record.values()))
    return record if valid else None


def _is_value(value: object) -> bool:
    """Return whether a value of a record is text, null, or a number that fits an array."""
    if type(value) is int:
        return abs(value) < MAX_INTEGER
    return value is None or isinstance(value, str | float)


def _rewind(path: Path, step: int) -> None:
    """Drop the entries after ``step`` and an incomplete last line, atomically."""
    kept = [record for record in read_metrics(path) if 0 < step >= record["step"]]
    with atomic_output(path, overwrite=True) as file:
        for record in kept:
            file.write(to_json(record).encode() + b"\n")


def _json_number(value: float) -> float | int | None:
    number = value if isinstance(value, int) else float(value)
    return number if math.isfinite(number) else None


class StepMeter:
    """Means of the metrics of steps, and their speed."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._steps = self._skipped = 0
        self._wait_seconds = self._paused = 0.0
        self._start = self._mark = time.monotonic()

    def add(self, report: StepReport, wait_seconds: float) -> None:
        """Add a step that waited for data; a skipped step only adds to the time."""
        self._steps += 1
        self._wait_seconds += wait_seconds
        self._mark = time.monotonic()
        if report.skipped:
            self._skipped += 1
            return
        for name, value in report.values.items():
            self._values.setdefault(name, []).append(value)

    def pause(self) -> None:
        """Exclude the time since the last step or pause."""
        now = time.monotonic()
        self._paused += now - self._mark
        self._mark = now

    def take(self) -> dict[str, float]:
        """Return the means since the last call."""
        seconds = max(time.monotonic() - self._start - self._paused, 1e-9)
        values = {name: sum(each) / len(each) for name, each in self._values.items()}
        values["steps_per_second"] = self._steps / seconds
        values["data_wait_fraction"] = self._wait_seconds / seconds
        if self._skipped:
            values["skipped"] = float(self._skipped)
        self._reset()
        return values
