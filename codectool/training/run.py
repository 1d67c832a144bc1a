"""A training run: data, steps, validation, and a folder that holds its state.

`train` is all of `codectool train`. The step is in `trainer`, the files of the folder are described
in `checkpoint`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor

from codectool.audio.discovery import ListEntry, count_untaken, describe_untaken, read_list
from codectool.checkpoints.load import locate, read_weights
from codectool.checkpoints.native import write_model
from codectool.codec import Codec
from codectool.codecs.trainable import CropTokens
from codectool.errors import AudioError, CheckpointError, ConfigError, TrainingError, UsageError
from codectool.files import atomic_output
from codectool.messages import MAX_LISTED, first_few
from codectool.nn.distributed import world_size
from codectool.tokens import TokenLayout
from codectool.torch_runner import TorchRunner
from codectool.training import parallel
from codectool.training.checkpoint import (
    BEST,
    LAST,
    START_NAME,
    keep_checkpoint,
    read_checkpoint,
    read_optimizer_state,
    write_checkpoint,
)
from codectool.training.config import RunConfig, first_difference
from codectool.training.data import CropDataset, read_batches, reading_errors
from codectool.training.filelist import Clip, scan
from codectool.training.frozen import FrozenStart, open_start
from codectool.training.metrics_log import METRICS_NAME, MetricsLog, StepMeter
from codectool.training.pitch import require_praat
from codectool.training.stop_signals import StopFlag, stop_signals
from codectool.training.tokens import ClipTokens, TokenProgress, cache_tokens, token_name
from codectool.training.trainer import Trainer, to_device
from codectool.training.validation import ValidationClip, encode_clip, load_clips, validate

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
LOGGED_CLIPS = 3  # validation clips whose audio and spectrograms are logged
CALIBRATION_CROPS = 64


@dataclass(frozen=True)
class Progress:
    """Progress of a run; `values` are means since the last report, as in the metrics log."""

    step: int  # number of steps done
    max_steps: int
    share: float  # fraction of the run done, by steps or by time, whichever is larger
    seconds: float  # training time over all sessions
    values: dict[str, float]


@dataclass
class Callbacks:
    """Functions that a run calls."""

    on_step: Callable[[Progress], None] = lambda progress: None
    on_message: Callable[[str], None] = lambda message: None
    on_warning: Callable[[str], None] = lambda message: None
    on_tokens: Callable[[TokenProgress], None] = lambda progress: None


@dataclass(frozen=True)
class RunResult:
    """How a run, or this session of it, ended; a run that is not finished can be resumed."""

    step: int  # number of steps done
    finished: bool
    signal: int | None  # the signal that stopped it
    valid: dict[str, float]  # metrics of the last validation


def train(
    config: RunConfig,
    folder: Path,
    device: torch.device | None = None,
    max_hours: float | None = None,
    resume: bool = False,
    start_from: Path | None = None,
    threads: int | None = None,
    callbacks: Callbacks | None = None,
) -> RunResult:
    """Train a codec; if ``torchrun`` started the processes, each calls this.

    Args:
        config: the model, how it is trained, and the data.
        folder: folder of the run.
        device: where to train; None for the CPU.
        max_hours: limit of the training time over all sessions of the run.
        resume: continue the run in the folder; start it if there is none.
        start_from: checkpoint whose weights a new run starts with.
        threads: CPU threads; None for torch's default, one per core.
        callbacks: functions that the run calls.

    Raises:
        UsageError: The folder holds a run already, or there is no training data.
        ConfigError: The config does not fit the run to be resumed.
        CheckpointError: A checkpoint cannot be used.
        TrainingError: Training cannot continue.
    """
    callbacks, device = callbacks or Callbacks(), device or torch.device("cpu")
    if threads is not None:
        torch.set_num_threads(threads)
    last = folder / LAST
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UsageError(f"{existing}: is a file; name a folder for the run")
    if not os.access(existing, os.W_OK):
        raise UsageError(f"{folder}: cannot be written; name another folder for the run")
    if last.exists() and not resume:
        raise UsageError(
            f"{folder}: holds a run already; continue it with `--resume`, or choose another "
            "--run-dir"
        )
    with parallel.process_group(device):
        # all processes find the same problems, one reports them
        reporting = callbacks if parallel.is_main_process() else Callbacks()
        clips, valid = _read_clips(config, reporting)
        frozen = None
        if config.training.freeze is not None:
            path = folder / START_NAME if last.exists() else start_from
            frozen, clips, valid = _freeze(
                config, folder, path, clips, valid, device, threads, reporting
            )
        run = Run(config, folder, clips, valid, device, max_hours, callbacks, frozen)
        if resume and last.exists():
            run.resume(last)
            callbacks.on_message(f"resumed at step {run.trainer.steps}")
        elif start_from is not None:
            run.start_from(start_from)
        return run.go()


def _read_clips(config: RunConfig, callbacks: Callbacks) -> tuple[list[Clip], list[ValidationClip]]:
    if config.data is None:
        raise UsageError("no training data: give --train-files a folder or a list of files")
    warnings: list[str] = []
    clips, problems = scan(_list_files(Path(config.data.train), callbacks), warnings=warnings)
    for lines in ([f"{problem}; left out" for problem in problems], warnings):
        for line in first_few(lines, see="`codectool filelist --json`"):
            callbacks.on_warning(line)
    if not clips:
        raise UsageError(f"{config.data.train}: holds no audio that can be read")
    if config.data.valid is None:
        callbacks.on_warning("no --valid-files: the quality of the codec is not measured")
        return clips, []
    entries = _list_files(Path(config.data.valid), callbacks)
    count = min(config.training.valid_clips, len(entries))
    paths = [entries[i * len(entries) // count].path for i in range(count)]
    rate = config.crop_spec().sample_rate
    unusable: list[str] = []
    try:
        return clips, load_clips(paths, rate, on_error=unusable.append, name=config.data.valid)
    finally:
        for problem in first_few(unusable):
            callbacks.on_warning(problem)


@dataclass(frozen=True)
class Frozen:
    """What a run with a fixed encoder needs besides the decoder: its start, and the tokens."""

    start: FrozenStart
    folder: Path  # of the tokens
    layout: TokenLayout


def _freeze(
    config: RunConfig,
    folder: Path,
    path: Path | None,
    clips: list[Clip],
    valid: list[ValidationClip],
    device: torch.device,
    threads: int | None,
    callbacks: Callbacks,
) -> tuple[Frozen, list[Clip], list[ValidationClip]]:
    """Encode the data with the weights that the run starts with.

    Returns:
        What the run needs of them, the clips that have tokens, and the validation clips with
        theirs.
    """
    if path is None:
        raise UsageError(
            "with a fixed encoder a run needs weights to start with: give `--start-from`, such as "
            f"`--start-from {config.family}` or a checkpoint"
        )
    if path == folder / START_NAME and not path.exists():
        raise UsageError(
            f"{folder}: the run in it was started without `--freeze`, or its {START_NAME} is "
            "missing; choose another --run-dir"
        )
    start, loaded = open_start(config, path)
    if (difference := first_difference(start.start_config, start.model_config)) is not None:
        callbacks.on_warning(
            "the decoder is not that of {}: `model.{}` is {} there, the config says {}".format(
                path, *difference
            )
        )
    if parallel.is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        start = start.keep(folder)
    runner = TorchRunner(loaded.model, device)
    codec = Codec(*(runner, loaded.fingerprint, path), token_fingerprint=loaded.token_fingerprint)
    cache = folder / "tokens"
    if config.data is not None and config.data.token_cache is not None:
        cache = Path(config.data.token_cache)
    place, report = cache_tokens(codec, clips, cache, threads, callbacks.on_tokens)
    for line in first_few([f"{each.source}: {each.reason}; left out" for each in report.failures]):
        callbacks.on_warning(line)
    callbacks.on_message(
        f"tokens of {report.done} files computed, of {report.skipped} in the cache"
    )
    clips = [clip for clip in clips if (place / token_name(clip.path)).exists()]
    if not clips:
        raise UsageError("no training audio could be encoded")
    valid = [dataclasses.replace(clip, tokens=encode_clip(codec, clip)) for clip in valid]
    return Frozen(start, place, codec.layout), clips, valid


def _list_files(source: Path, callbacks: Callbacks) -> list[ListEntry]:
    """Read a folder or a list; warn about files of a folder that look like audio only."""
    entries = read_list(source)
    if source.is_dir() and (untaken := count_untaken(source)):
        callbacks.on_warning(describe_untaken(source, untaken))
    return entries


class Run:
    """A run in its folder.

    With a limit of the training time, schedules follow the time where it is ahead of the steps.

    Raises:
        UsageError: The batch cannot be split evenly over the processes.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        clips: Sequence[Clip],
        valid: Sequence[ValidationClip],
        device: torch.device,
        max_hours: float | None,
        callbacks: Callbacks,
        frozen: Frozen | None = None,
    ) -> None:
        num_processes, training = world_size(), config.training
        if training.batch_size % (num_processes * training.accumulation):
            raise UsageError(
                f"batch_size {training.batch_size} cannot be split evenly over {num_processes} "
                f"processes with accumulation {training.accumulation}"
            )
        self.config, self.folder, self.valid = config, folder, valid
        self.device, self.max_hours, self.callbacks = device, max_hours, callbacks
        self.dataset = CropDataset(clips, training, config.crop_spec().sample_rate)
        self.dataset.pitch_frame = config.pitch_frame
        if config.pitch_frame is not None:
            require_praat()
        self.training = training.in_steps(self.dataset.items_per_epoch)
        assert self.training.max_steps is not None, "lengths are in steps"
        self.max_steps = self.training.max_steps
        self.trainer = Trainer(replace(config, training=self.training), device)
        self.frozen = frozen
        if frozen is not None:
            context = self.trainer.model.crop_context()
            self.dataset.tokens = ClipTokens(frozen.folder, frozen.layout, *context)
        self.is_main = parallel.rank() == 0
        self.best: float | None = None
        self.seconds = 0.0
        self.last_valid: dict[str, float] = {}
        self._log: MetricsLog | None = None  # in the main process, while it trains
        self._data_changed: str | None = None  # message for the log
        self._problems = 0  # files with problems that appeared in this session
        self._first_skip: str | None = None  # message on the first skipped step since a report
        digest = self.dataset.digest
        if not parallel.agree(float(int(digest[:12], 16))):
            raise UsageError(
                "the training files differ between processes; all machines must see the same ones"
            )
        self.data = {"clips": len(clips), "hours": self.dataset.seconds / 3600, "digest": digest}

    def resume(self, path: Path) -> None:
        """Load the state of a checkpoint.

        Raises:
            CheckpointError: The checkpoint cannot be read.
            ConfigError: The checkpoint is of another model.
        """
        state = read_checkpoint(path)
        try:
            self.trainer.load_state(state["trainer"])
        except (CheckpointError, ConfigError) as error:
            raise type(error)(f"{path}: {error}") from error
        try:
            self.best, self.seconds = state.get("best"), float(state.get("seconds", 0.0))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: not a checkpoint of a training run") from error
        self.last_valid = state.get("valid", {})
        self._require_finite_weights(path)
        self._compare_data(state.get("data", self.data))
        if not parallel.agree(self.trainer.steps):
            raise CheckpointError(
                f"{path}: differs between processes; all machines must share the folder of the run"
            )

    def start_from(self, path: Path) -> None:
        """Load the weights of a checkpoint, published or of a run.

        Raises:
            CheckpointError: The checkpoint cannot be read, or is of another model.
        """
        if path.suffix == ".ckpt" and (path.parent / WEIGHTS_NAME).exists():
            raise CheckpointError(
                f"{path}: is the state of a run; give its folder {path.parent} to start with its "
                "weights"
            )
        family, state, _ = read_weights(path)
        if family != self.config.family:
            raise CheckpointError(
                f"{path}: is a {family} checkpoint, the config is for {self.config.family}"
            )
        optimizers = read_optimizer_state(locate(path))

        def crops() -> tuple[Tensor, CropTokens | None]:
            batch = next(read_batches(self.dataset, CALIBRATION_CROPS))
            return batch.audio, batch.tokens

        try:
            self.trainer.start_from(state, crops, optimizers)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        self._require_finite_weights(path)
        if optimizers is not None:
            self.callbacks.on_message(
                f"started at step {optimizers.steps} of {optimizers.path.name}"
            )

    def _require_finite_weights(self, path: Path) -> None:
        if (name := self.trainer.not_finite_weight()) is not None:
            raise CheckpointError(
                f"{path}: {name} is not finite; start from an earlier checkpoint of the run"
            )

    def _compare_data(self, before: Mapping[str, Any]) -> None:
        """Warn if the training audio changed since the run was started."""
        if before["digest"] == self.data["digest"]:
            return
        (old, new) = (f"{d['clips']:,} files, {d['hours']:.2f} h" for d in (before, self.data))
        self._data_changed = (
            f"the training audio changed since the run was started ({old}; now {new}): crops are "
            "drawn as in a new run with these files"
        )
        if self.is_main:
            self.callbacks.on_warning(self._data_changed)

    def go(self) -> RunResult:
        """Train until the end of the run, or until a signal requests to stop.

        Raises:
            TrainingError: Training cannot continue; the last state is saved.
        """
        self._write_config()
        log = MetricsLog(self.folder, self.trainer.steps) if self.is_main else None
        if log is not None and log.notice:
            self.callbacks.on_message(log.notice)
        with stop_signals() as stop, log or nullcontext():
            self._log = log
            if self._data_changed is not None:
                self._log_event(self._data_changed)
            try:
                with reading_errors():
                    return self._steps(stop)
            except (AudioError, OSError, TrainingError) as error:  # raised between two steps
                if isinstance(error, OSError) and error.filename is None:
                    error.filename = str(self.folder)  # "no space left on device" names no file
                if self.trainer.not_finite_weight() is None:
                    self._save()
                with suppress(TrainingError):  # the log may be what cannot be written
                    self._log_event(str(error))
                raise

    def _log_event(self, message: str) -> None:
        if self._log is not None:
            self._log.event(self.trainer.steps, message)

    def _write_config(self) -> None:
        if not self.is_main:
            return
        warmup = self.training.schedule.warmup_steps
        if warmup >= self.max_steps:
            self.callbacks.on_warning(
                f"the warm-up of {warmup} steps is as long as the run: the learning rate never "
                "reaches its full value"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.config.to_json(), indent=2) + "\n"
        with atomic_output(self.folder / CONFIG_NAME, overwrite=True) as file:
            file.write(text.encode())

    def _steps(self, stop: StopFlag) -> RunResult:
        trainer, training = self.trainer, self.training
        batches = read_batches(
            self.dataset,
            training.batch_size,
            num_workers=training.num_workers,
            rank=parallel.rank(),
            world_size=world_size(),
            first_batch=trainer.steps,
        )
        seconds_before, start = self.seconds, time.monotonic()
        meter = StepMeter()
        signal, share = 0, self._share()
        if share >= 1 and self.is_main:
            self.callbacks.on_warning(
                f"the run has already ended at step {trainer.steps}; continue it with a higher "
                "`--max-steps` or `--max-hours`"
            )
        while share < 1 and not signal:
            batch = next(batches)
            self._report_problems(batch.problems)
            audio, tokens = to_device(batch.audio, batch.tokens, self.device)
            pitch = None if batch.pitch is None else batch.pitch.to(self.device, non_blocking=True)
            report = trainer.step(audio, share, tokens, pitch)
            meter.add(report, batch.wait_seconds)
            if report.skipped:
                self._note_skip(report.not_finite, batch.paths)
            # all processes act on the same clock and the same request to stop
            elapsed = seconds_before + time.monotonic() - start
            agreed = parallel.largest(float(stop.signal or 0), elapsed)
            signal, self.seconds = int(agreed[0]), agreed[1]
            share = self._share()
            over = share >= 1 or signal > 0
            if over or trainer.steps % training.log_every == 0:
                self._report(share, meter.take())
            if trainer.steps % training.validate_every == 0 or share >= 1:
                self._validate()
                meter.pause()
            if not over and trainer.steps % training.save_every == 0:
                self._save()
                meter.pause()
        self._save()
        finished = share >= 1
        stopped_by = None if finished else signal or None
        return RunResult(trainer.steps, finished, stopped_by, self.last_valid)

    def _report_problems(self, problems: Sequence[str]) -> None:
        """Log problems of files; warn of the first ones."""
        for problem in problems:
            self._log_event(problem)
            self._problems += 1
            if self._problems <= MAX_LISTED:
                self.callbacks.on_warning(problem)
            elif self._problems == MAX_LISTED + 1:
                self.callbacks.on_warning(f"more files have problems; see {METRICS_NAME}")

    def _note_skip(self, not_finite: Sequence[str], paths: Sequence[str]) -> None:
        if self.training.precision == "fp16":  # which skips steps to find its scale
            return
        step = self.trainer.steps
        what = f"{', '.join(first_few(not_finite))} not finite"
        self._log_event(f"skipped, {what}; files: {', '.join(paths)}")
        if self._first_skip is None:
            self._first_skip = f"step {step}, {what}, files: {', '.join(first_few(paths))}"

    def _share(self) -> float:
        share = self.trainer.steps / self.max_steps
        if self.max_hours is not None:
            share = max(share, self.seconds / (3600 * self.max_hours))
        return min(share, 1.0)

    def _report(self, share: float, values: dict[str, float]) -> None:
        step = self.trainer.steps
        if self._first_skip is not None:
            self.callbacks.on_warning(
                f"step {step}: {values['skipped']:.0f} of the last steps skipped because a loss or "
                f"gradient was not finite; the first: {self._first_skip}; all: {METRICS_NAME}"
            )
            self._first_skip = None
        self.callbacks.on_step(Progress(step, self.max_steps, share, self.seconds, values))
        if self._log is not None:
            self._log.metrics("train", step, values)

    def _validate(self) -> None:
        """Validate the averaged weights; the other processes wait in their next step."""
        log = self._log
        if not self.valid or log is None:
            return
        with self._averaged_weights():
            model = self.trainer.model
            if self.frozen is None:
                result = validate(model.inference_model(), self.valid)
            else:
                decoder = self.frozen.start.inference_model(model.decoder_state())
                result = validate(decoder.to(self.device), self.valid)
        step, rate = self.trainer.steps, self.trainer.model.sample_rate
        self.last_valid = result.values
        log.metrics("valid", step, result.values)
        for clip, output in zip(self.valid[:LOGGED_CLIPS], result.outputs, strict=False):
            log.audio(step, clip.name, output, rate)
            log.spectrogram(step, clip.name, clip.audio[0], output, rate)
        metrics = ", ".join(f"{name} {value:.3f}" for name, value in result.values.items())
        self.callbacks.on_message(f"step {step}: {metrics}")
        score = result.values["mel_db"]
        if not math.isfinite(score):
            self.callbacks.on_warning(f"step {step}: the mel distance of validation is not finite")
        if math.isfinite(score) and (self.best is None or score < self.best):
            self.best = score
            self._write_checkpoint(BEST)

    def _save(self) -> None:
        """Write checkpoints and the weights for `encode`, in the main process.

        Raises:
            TrainingError: A weight is not finite; the files of the last save are kept.
        """
        if (name := self.trainer.not_finite_weight()) is not None:
            raise TrainingError(
                f"step {self.trainer.steps}: {name} is not finite, so nothing is saved; continue "
                "from the last save with `--resume` and a lower learning rate"
            )
        if not self.is_main:
            return
        self._write_checkpoint(LAST)
        if self.training.keep:
            keep_checkpoint(self.folder, self.trainer.steps, self.training.keep)
        if self.trainer.steps == self.trainer.skipped:
            return  # codebooks may not be initialised yet
        with self._averaged_weights():
            model, path = self.trainer.model, self.folder / WEIGHTS_NAME
            if self.frozen is None:
                write_model(path, model.stored_model(), overwrite=True)
            else:
                self.frozen.start.write(path, model.decoder_state())

    def _write_checkpoint(self, name: str) -> None:
        state = {
            "trainer": self.trainer.state(),
            "best": self.best,
            "seconds": self.seconds,
            "valid": self.last_valid,
            "data": self.data,
        }
        write_checkpoint(self.folder / name, state)

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Use the averaged weights, if there are any, and keep the random state of training.

        Building a model may draw random numbers, which would change the course of a resumed run.
        """
        average = self.trainer.average
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), average.applied() if average else nullcontext():
            yield
