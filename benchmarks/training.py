"""How fast `codectool train` trains: steps a second, waiting for data, memory.

    python -m benchmarks.training --files LIST [--config NAME ...] [--steps 20] [--seconds 30]
    python -m benchmarks.training --files LIST --against upstream

Every row is a run of `codectool.training.run.train` in a process of its own, on real speech read by
the config's number of workers; the first steps are not counted. ``--against upstream`` trains
SuperCodec by our step and by the straightforward one (`benchmarks.reference_training`) in turn.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from codectool.training.config import DataConfig, RunConfig, bundled, load

# More than a CPU should be asked for.
LEFT_OUT = frozenset({"bigcodec", "hac-v01"})
FAST_SETTINGS = ("training.precision=bf16", "training.compile=true")
# What a row of the table is computed from is worth this many steps at least.
FEWEST_STEPS = 2

# Of the comparison: what, batch size, further settings.
AGAINST = (("supercodec-small", 16), ("supercodec", 16))

Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """One row of the table.

    Attributes:
        config: name or path.
        settings: of the config, as of ``--set``.
        files: speech.
        judged: whether discriminators take part.
        steps: to be counted.
        seconds: after which no further step begins.
        warm_up: steps before those.
        threads: of torch.
    """

    config: str
    settings: tuple[str, ...]
    files: str
    judged: bool
    steps: int
    seconds: float
    warm_up: int
    threads: int


@dataclass(frozen=True)
class Row:
    """What a run took; times are medians over its steps unless said otherwise.

    Attributes:
        config: its name.
        arithmetic: its precision, and whether the model was compiled.
        judged: whether discriminators took part.
        parameters: of the codec.
        batch: crops of a step, and their length in seconds.
        steps: that were counted.
        steps_per_second: by the clock, over all of them.
        core_share: of the processor for all that time; what is lacking others had.
        cpu_seconds: of the processor for a step, reading not included.
        audio_seconds: learned from in a second of the processor.
        waited: share of the time spent waiting for data.
        reading_seconds: of the processor to read a batch.
        memory: most that the process ever held, in bytes.
    """

    config: str
    arithmetic: str
    judged: bool
    parameters: int
    batch: tuple[int, float]
    steps: int
    steps_per_second: float
    core_share: float
    cpu_seconds: float
    audio_seconds: float
    waited: float
    reading_seconds: float
    memory: int


class Enough(Exception):
    """The run has told all that was to be known."""


class Stopwatch:
    """Takes the time of every step of a run, and ends it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.marks: list[tuple[float, float]] = []
        self.waited = 0.0

    def step(self, progress: Any) -> None:
        """What the run calls after each step."""
        job, now = self.job, (time.perf_counter(), time.process_time())
        if len(self.marks) > job.warm_up - 1:
            values = progress.values
            self.waited += values["data_wait_fraction"] / values["steps_per_second"]
        self.marks.append(now)
        counted = len(self.marks) - job.warm_up
        late = counted >= FEWEST_STEPS and now[0] - self.marks[job.warm_up - 1][0] > job.seconds
        if counted >= job.steps or late:
            raise Enough

    def taken(self) -> tuple[float, list[float]]:
        """Seconds of all counted steps, and the processor's seconds of each."""
        marks = self.marks[self.job.warm_up - 1 :]
        cpu = [after[1] - before[1] for before, after in itertools.pairwise(marks)]
        return marks[-1][0] - marks[0][0], cpu


def prepared(job: Job) -> RunConfig:
    """The config of a row: nothing but steps is done."""
    config = load(job.config, job.settings)
    recipe = config.training
    adversarial = recipe.adversarial
    if not job.judged:
        adversarial = None
    elif adversarial is not None:
        adversarial = replace(adversarial, start=0.0)
    length = 1000 * (job.warm_up + job.steps)  # of which a row sees the beginning
    recipe = replace(
        recipe,
        adversarial=adversarial,
        max_steps=length,
        max_epochs=None,
        log_every=1,
        save_every=length,
        validate_every=length,
    )
    return replace(config, training=recipe, data=DataConfig(job.files))


def measure(job: Job) -> Row:
    """Train for a few steps, in this process."""
    import torch

    from codectool.training.run import Callbacks, train

    config = prepared(job)
    recipe = config.training
    watch = Stopwatch(job)
    with tempfile.TemporaryDirectory() as folder:
        try:
            callbacks = Callbacks(on_step=watch.step)
            device = torch.device("cpu")
            train(config, Path(folder), device, threads=job.threads, callbacks=callbacks)
        except Enough:
            gc.collect()  # ends the reading processes
    memory = peak_memory()
    seconds, cpu = watch.taken()
    crop = recipe.segment_size / config.crop_spec().sample_rate
    model = config.trainable.from_config(config.model)
    return Row(
        config=job.config,
        arithmetic=recipe.precision + (", compiled" if recipe.compile else ""),
        judged=job.judged,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        batch=(recipe.batch_size, crop),
        steps=len(cpu),
        steps_per_second=len(cpu) / seconds,
        core_share=sum(cpu) / seconds,
        cpu_seconds=statistics.median(cpu),
        audio_seconds=recipe.batch_size * crop / statistics.median(cpu),
        waited=watch.waited / seconds,
        reading_seconds=reading_seconds(config),
        memory=memory,
    )


def batches(config: RunConfig, count: int) -> list[Any]:
    """Batches ``(B, 1, N)`` as a run gets them, read in this process."""
    from codectool.audio.discovery import read_list
    from codectool.training.data import CropLoader, CropSettings
    from codectool.training.filelist import scan

    assert config.data is not None
    recipe = config.training
    settings = CropSettings(
        sample_rate=config.crop_spec().sample_rate,
        segment_size=recipe.segment_size,
        seed=recipe.seed,
        by_seconds=recipe.sampling == "seconds",
        gain_db=recipe.gain_db,
        start_padding_prob=recipe.start_padding_prob,
        silence_prob=recipe.silence_prob,
    )
    clips, _ = scan(read_list(Path(config.data.train)))
    loader = CropLoader(clips, settings, recipe.batch_size)
    return [batch.audio for batch in itertools.islice(loader, count)]


def reading_seconds(config: RunConfig, count: int = 10) -> float:
    """Processor seconds that a batch costs its reader."""
    batches(config, 1)
    begin = time.process_time()
    batches(config, 1)
    once = time.process_time()
    batches(config, 1 + count)
    return max(0.0, (time.process_time() - once) - (once - begin)) / count


def peak_memory() -> int:
    """Most bytes that this process ever held; the readers share its pages."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def against(name: str, batch_size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Compare our step with the straightforward one, in this process."""
    import torch

    from benchmarks.reference_training import compare, upstream_form

    torch.set_num_threads(options.threads)
    settings = [*options.settings, f"training.batch_size={batch_size}"]
    config = upstream_form(load(name, settings), steps=1000)
    crops = batches(replace(config, data=DataConfig(options.files)), 1 + options.pairs)
    comparison = compare(config, crops)
    length = config.training.segment_size
    return {
        "config": name,
        "batch": batch_size,
        "samples": length,
        "threads": options.threads,
        **comparison.summary(),
        "losses": comparison.losses,
        "memory": peak_memory(),
    }


def alone(work: Callable[..., Result], *arguments: Any) -> Result:
    """Call in a fresh process, whose memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def jobs(options: argparse.Namespace) -> list[Job]:
    """The rows that were asked for."""
    result = []
    for name in options.config or [name for name in bundled() if name not in LEFT_OUT]:
        config = load(name, options.settings)
        forms: list[tuple[str, ...]] = [()]
        if config.family == "hac" and not options.plain:
            forms.append(FAST_SETTINGS)
        for form in forms:
            for judged in [False, True] if config.training.adversarial else [False]:
                job = Job(
                    config=name,
                    settings=(*options.settings, *form),
                    files=options.files,
                    judged=judged,
                    steps=options.steps,
                    seconds=options.seconds,
                    warm_up=options.warm_up,
                    threads=options.threads,
                )
                result.append(job)
    return result


def machine(threads: int) -> dict[str, Any]:
    """Where all this was measured."""
    import torch

    return {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": threads,
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }


def processor_name() -> str:
    """As the machine calls it, with the extensions that matter here."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine()
    lines = [line.partition(":") for line in path.read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in lines}
    flags = fields.get("flags", "").split()
    known = [flag for flag in ("avx2", "avx512f", "amx_bf16") if flag in flags]
    return f"{fields.get('model name', platform.machine())} ({', '.join(known)})"


COLUMNS = (
    "config",
    "arithmetic",
    "discriminators",
    "batch",
    "CPU s/step",
    "audio/CPU s",
    "reading CPU s",
    "steps/s",
    "of a core",
    "waiting",
    "memory",
)


def cells(row: Row) -> list[str]:
    """A row as text."""
    return [
        row.config,
        row.arithmetic,
        "yes" if row.judged else "no",
        f"{row.batch[0]} x {row.batch[1]:g} s",
        f"{row.cpu_seconds:.3g}",
        f"{row.audio_seconds:.3g}",
        f"{row.reading_seconds:.3f}",
        f"{row.steps_per_second:.3g}",
        f"{100 * row.core_share:.0f} %",
        f"{100 * row.waited:.1f} %",
        f"{row.memory / 1e9:.1f} GB",
    ]


def show(line: Sequence[str], markdown: bool) -> None:
    """Print a line of the table as soon as it is known."""
    if markdown:
        print("| " + " | ".join(line) + " |", flush=True)
    else:
        print(f"{line[0]:18}{line[1]:16}" + "".join(f"{cell:>15}" for cell in line[2:]), flush=True)


def describe(result: dict[str, Any]) -> str:
    """The comparison as text."""
    lines = [
        f"{result['config']}, batch {result['batch']} of {result['samples']} samples, "
        f"{result['pairs']} pairs, peak memory of both {result['memory'] / 1e9:.1f} GB"
    ]
    for kind in ("cpu", "wall"):
        middle, least, most = result[f"{kind}_ratio"]
        lines.append(
            f"  {kind:4} seconds a step: ours {result[f'{kind}_ours']:.2f}, "
            f"straightforward {result[f'{kind}_straightforward']:.2f}: "
            f"{middle:.2f} times ({least:.2f} to {most:.2f})"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", required=True, help="speech: a folder or a list")
    parser.add_argument("--config", action="append", help="name or file; again for more")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=20, help="counted for each row")
    parser.add_argument("--seconds", type=float, default=30, help="at most, for each row")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before those")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="leave out bf16 and compiling")
    parser.add_argument("--against", choices=["upstream"], help="compare SuperCodec's steps")
    parser.add_argument("--batch", type=int, help="of the comparison")
    parser.add_argument("--pairs", type=int, default=5, help="of steps to compare")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    if options.warm_up < 1 or options.steps < FEWEST_STEPS:
        parser.error(f"--warm-up must be 1 or more, --steps {FEWEST_STEPS} or more")
    return options


def main() -> None:
    options = arguments()
    where = machine(options.threads)
    print(", ".join(f"{name} {value}" for name, value in where.items()))
    results: list[dict[str, Any]] = []
    if options.against:
        for name, batch_size in AGAINST:
            if not options.config or name in options.config:
                results.append(alone(against, name, options.batch or batch_size, options))
                print(describe(results[-1]), flush=True)
    else:
        show(COLUMNS, options.markdown)
        if options.markdown:
            show(["---"] * len(COLUMNS), True)
        for job in jobs(options):
            row = alone(measure, job)
            results.append(asdict(row))
            show(cells(row), options.markdown)
    if options.json:
        options.json.write_text(json.dumps({"machine": where, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
