"""Speed of `codectool train`: steps per second, waiting for data, memory.

    python -m benchmarks training --files LIST [--config NAME ...] [--steps 20] [--seconds 30]
    python -m benchmarks training --files LIST --against reference

Every row is a training run in a process of its own, on speech read by the config's number of
workers; warm-up steps are not counted. ``--against reference`` alternates steps of SuperCodec with
`benchmarks.reference_training`.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from benchmarks.tables import table
from codectool.training.config import DataConfig, RunConfig, bundled, load

EXCLUDED = frozenset({"bigcodec", "hac-v01"})  # too slow for a CPU
FAST_SETTINGS = ("training.precision=bf16", "training.compile=true")
MIN_STEPS = 2
COMPARED = ("supercodec-small", "supercodec")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """One row of the table.

    Attributes:
        config: name or path.
        settings: settings of the config, as in ``--set``.
        files: speech.
        adversarial: train with discriminators.
        steps: steps to count.
        seconds: no step starts after this time.
        warm_up: steps before the counted ones.
        threads: number of PyTorch's threads.
        start_from: checkpoint to start from, which configs with a fixed encoder need.
    """

    config: str
    settings: tuple[str, ...]
    files: str
    adversarial: bool
    steps: int
    seconds: float
    warm_up: int
    threads: int
    start_from: Path | None = None


@dataclass(frozen=True)
class Row:
    """Measurements of a run.

    Attributes:
        config: name of the config.
        precision: precision, and whether the model was compiled.
        adversarial: trained with discriminators.
        parameters: parameters of the codec.
        batch: crops per step, and their length in seconds.
        steps: counted steps.
        steps_per_second: by wall-clock time.
        core_share: CPU time per wall-clock time; below 1 if other programs were running.
        cpu_seconds: median CPU time per step, without reading.
        audio_seconds: seconds of audio per CPU second.
        data_wait: share of time spent waiting for data.
        reading_seconds: CPU time to read a batch.
        memory: peak memory of the process in bytes.
    """

    config: str
    precision: str
    adversarial: bool
    parameters: int
    batch: tuple[int, float]
    steps: int
    steps_per_second: float
    core_share: float
    cpu_seconds: float
    audio_seconds: float
    data_wait: float
    reading_seconds: float
    memory: int


class EnoughSteps(Exception):
    """All steps of a job were timed."""


class StepTimer:
    """Time the steps of a run, and end it after enough steps."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.times: list[tuple[float, float]] = []  # wall-clock and CPU time after each step
        self.data_wait = 0.0

    def on_step(self, progress: Any) -> None:
        """Callback of the run."""
        job, now = self.job, (time.perf_counter(), time.process_time())
        if len(self.times) >= job.warm_up:
            values = progress.values
            self.data_wait += values["data_wait_fraction"] / values["steps_per_second"]
        self.times.append(now)
        counted = len(self.times) - job.warm_up
        late = counted >= MIN_STEPS and now[0] - self.times[job.warm_up - 1][0] > job.seconds
        if counted >= job.steps or late:
            raise EnoughSteps

    def totals(self) -> tuple[float, list[float]]:
        """Return the seconds of all counted steps, and the CPU seconds of each."""
        times = self.times[self.job.warm_up - 1 :]
        cpu = [after[1] - before[1] for before, after in itertools.pairwise(times)]
        return times[-1][0] - times[0][0], cpu


def benchmark_config(job: Job) -> RunConfig:
    """Return the config of a job: without validation and checkpoints."""
    config = load(job.config, job.settings)
    adversarial = config.training.adversarial if job.adversarial else None
    if adversarial is not None:
        adversarial = replace(adversarial, start=0.0)
    length = 1000 * (job.warm_up + job.steps)  # so that schedules are at their start
    training = replace(
        config.training,
        adversarial=adversarial,
        max_steps=length,
        max_epochs=None,
        log_every=1,
        save_every=length,
        validate_every=length,
    )
    return replace(config, training=training, data=DataConfig(job.files))


def measure(job: Job) -> Row:
    """Train for a few steps in this process."""
    import torch

    from codectool.training.run import Callbacks, train

    config, timer = benchmark_config(job), StepTimer(job)
    training = config.training
    with tempfile.TemporaryDirectory() as folder:
        try:
            callbacks = Callbacks(on_step=timer.on_step)
            device = torch.device("cpu")
            train(
                *(config, Path(folder), device),
                start_from=job.start_from,
                threads=job.threads,
                callbacks=callbacks,
            )
        except EnoughSteps:
            gc.collect()  # ends the reader processes
    memory = peak_memory()
    seconds, cpu = timer.totals()
    crop = training.segment_size / config.crop_spec().sample_rate
    model = config.trainable.from_config(config.model)
    return Row(
        config=job.config,
        precision=training.precision + (", compiled" if training.compile else ""),
        adversarial=job.adversarial,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        batch=(training.batch_size, crop),
        steps=len(cpu),
        steps_per_second=len(cpu) / seconds,
        core_share=sum(cpu) / seconds,
        cpu_seconds=statistics.median(cpu),
        audio_seconds=training.batch_size * crop / statistics.median(cpu),
        data_wait=timer.data_wait / seconds,
        reading_seconds=reading_seconds(config),
        memory=memory,
    )


def batches(config: RunConfig, count: int) -> list[Any]:
    """Read batches ``(B, 1, N)`` in this process."""
    from codectool.audio.discovery import read_list
    from codectool.training.data import CropDataset, read_batches
    from codectool.training.filelist import scan

    assert config.data is not None
    clips, _ = scan(read_list(Path(config.data.train)))
    dataset = CropDataset(clips, config.training, config.crop_spec().sample_rate)
    found = read_batches(dataset, config.training.batch_size)
    return [batch.audio for batch in itertools.islice(found, count)]


def reading_seconds(config: RunConfig, count: int = 10) -> float:
    """Return the CPU seconds to read a batch."""
    batches(config, 1)
    times = [time.process_time()]
    for number in (1, 1 + count):
        batches(config, number)
        times.append(time.process_time())
    return max(0.0, (times[2] - times[1]) - (times[1] - times[0])) / count


def peak_memory() -> int:
    """Return the peak memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def compare_with_reference(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Alternate steps of codectool and of the reference training in this process."""
    import torch

    from benchmarks.reference_training import compare, reference_form

    torch.set_num_threads(options.threads)
    settings = [*options.settings, f"training.batch_size={options.batch}"]
    config = reference_form(load(name, settings), steps=1000)
    crops = batches(replace(config, data=DataConfig(options.files)), 1 + options.pairs)
    comparison = compare(config, crops)
    return {
        "config": name,
        "batch": options.batch,
        "samples": config.training.segment_size,
        "threads": options.threads,
        **comparison.summary(),
        "losses": comparison.losses,
        "memory": peak_memory(),
    }


def in_new_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a new process, so that peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def jobs(options: argparse.Namespace) -> list[Job]:
    """Return the rows of the table."""
    rows = []
    for name in options.config or [name for name in bundled() if name not in EXCLUDED]:
        config = load(name, options.settings)
        fast = [FAST_SETTINGS] if config.family == "hac" and not options.plain else []
        for settings in [(), *fast]:
            for adversarial in [False, True] if config.training.adversarial else [False]:
                job = Job(
                    config=name,
                    settings=(*options.settings, *settings),
                    files=options.files,
                    adversarial=adversarial,
                    steps=options.steps,
                    seconds=options.seconds,
                    warm_up=options.warm_up,
                    threads=options.threads,
                    start_from=options.start_from,
                )
                rows.append(job)
    return rows


COLUMNS = (
    *("config", "precision", "discriminators", "batch", "CPU s/step", "audio/CPU s"),
    *("reading CPU s", "steps/s", "of a core", "waiting", "memory"),
)


def cells(row: Row) -> list[str]:
    """Return a row as text."""
    return [
        row.config,
        row.precision,
        "yes" if row.adversarial else "no",
        f"{row.batch[0]} x {row.batch[1]:g} s",
        f"{row.cpu_seconds:.3g}",
        f"{row.audio_seconds:.3g}",
        f"{row.reading_seconds:.3f}",
        f"{row.steps_per_second:.3g}",
        f"{100 * row.core_share:.0f} %",
        f"{100 * row.data_wait:.1f} %",
        f"{row.memory / 1e9:.1f} GB",
    ]


def describe(result: dict[str, Any]) -> str:
    """Return a comparison as text."""
    lines = [
        f"{result['config']}, batch {result['batch']} of {result['samples']} samples, "
        f"{result['pairs']} pairs, peak memory of both {result['memory'] / 1e9:.1f} GB"
    ]
    for kind in ("cpu", "wall"):
        ratio, low, high = result[f"{kind}_ratio"]
        lines.append(
            f"  {kind:4} seconds per step: codectool {result[f'{kind}_codectool']:.2f}, "
            f"reference {result[f'{kind}_reference']:.2f}: ratio {ratio:.2f} "
            f"({low:.2f} to {high:.2f})"
        )
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--files", required=True, help="folder or list of speech files")
    add("--config", action="append", help="name or path of a config; repeatable")
    add("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    add("--steps", type=int, default=20, help="counted steps per row")
    add("--seconds", type=float, default=30, help="time limit per row")
    add("--warm-up", type=int, default=2, help="steps before the counted ones")
    add("--threads", type=int, default=1)
    add("--start-from", type=Path, help="checkpoint, for configs with a fixed encoder")
    add("--plain", action="store_true", help="without rows for bf16 and compilation")
    add("--against", choices=["reference"], help="compare with the reference training")
    add("--batch", type=int, default=16, help="batch size of the comparison")
    add("--pairs", type=int, default=5, help="pairs of steps of the comparison")
    add("--json", type=Path, help="also write the values to this file")
    options = parser.parse_args()
    if options.warm_up < 1 or options.steps < MIN_STEPS:
        parser.error(f"--warm-up must be at least 1, --steps at least {MIN_STEPS}")
    return options


def main() -> None:
    """Run the benchmark."""
    from benchmarks.timing import machine

    options = parse()
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    results: list[dict[str, Any]] = []
    if options.against:
        for name in options.config or COMPARED:
            results.append(in_new_process(compare_with_reference, name, options))
            print(describe(results[-1]), flush=True)
    else:
        rows = []
        for job in jobs(options):
            print(f"{job.config} {' '.join(job.settings)}", file=sys.stderr)
            rows.append(in_new_process(measure, job))
        results = [asdict(row) for row in rows]
        print(table(COLUMNS, [cells(row) for row in rows]))
    if options.json:
        values = {"machine": machine(), "results": results}
        options.json.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
