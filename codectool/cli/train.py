"""`codectool train`: teach a codec."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codectool.cli.console import EXIT_INTERRUPTED, say, warn
from codectool.cli.options import debug_option
from codectool.errors import UsageError

if TYPE_CHECKING:
    from codectool.training.config import TrainingConfig

EXIT_TERMINATED = 128 + signal.SIGTERM


@click.command()
@click.option(
    "--config",
    "source",
    metavar="NAME|FILE",
    help="A config that comes with codectool, or a JSON file; SuperCodec's config_v1.json as it "
    "is.",
)
@click.option("--train-files", metavar="LIST|DIR", help="Speech to learn from.")
@click.option("--valid-files", metavar="LIST|DIR", help="Speech of others to measure on.")
@click.option(
    "--run-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where the run is kept."
)
@click.option("--max-steps", type=click.IntRange(1), metavar="N", help="Length of the run.")
@click.option(
    "--max-hours",
    type=click.FloatRange(0, min_open=True),
    metavar="H",
    help="End after so many hours in all; learning rate and the like go by time then.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:N, mps or auto.")
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="Of the heavy arithmetic."
)
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Of everything that is drawn.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Of a CPU; default all cores.")
# not `--log`, which torchrun takes for one of its own
@click.option(
    "--verbose", "log", is_flag=True, help="Where there is no terminal, a line now and then."
)
@click.option("--resume", is_flag=True, help="Go on with the run in DIR, if there is one.")
@click.option(
    "--start-from",
    type=click.Path(path_type=Path),
    metavar="CKPT",
    help="Begin with the weights of a checkpoint, such as SuperCodec's g_XXXXXXXX, or with those "
    "that come with codectool, by name (hac).",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key of the config."
)
@click.option("--print-config", is_flag=True, help="Print the whole config as JSON and leave.")
@debug_option
def train(
    source: str | None,
    train_files: str | None,
    valid_files: str | None,
    run_dir: Path | None,
    max_steps: int | None,
    max_hours: float | None,
    device: str,
    precision: str | None,
    seed: int | None,
    threads: int | None,
    log: bool,
    resume: bool,
    start_from: Path | None,
    settings: tuple[str, ...],
    print_config: bool,
) -> None:
    """Train a codec. DIR then holds weights that `encode --checkpoint DIR` takes.

    SIGINT (Ctrl-C) and SIGTERM save and leave; `--resume` goes on as if nothing had happened.

    \b
    Examples:
      codectool filelist speech/ -o train.txt --split 0.02
      codectool train --config hac --train-files train.txt --valid-files valid.txt --run-dir run
      codectool train --run-dir run --resume
      codectool train --config config_v1.json --set batch_size=16 --print-config
      torchrun --nproc-per-node 4 -m codectool train --config bigcodec ...
    """
    from codectool.training.config import load

    if source is None and resume and run_dir is not None:
        source = str(run_dir / "config.json")
        if not Path(source).exists():
            raise UsageError(f"{run_dir}: holds no run to go on with; begin one with `--config`")
    if source is None:
        raise UsageError("--config is missing: a name such as hac, or a JSON file")
    config = load(source, settings)
    config = _with_options(config, train_files, valid_files, max_steps, precision, seed)
    if print_config:
        click.echo(json.dumps(config.to_json(), indent=2))
        return
    if run_dir is None:
        raise UsageError("--run-dir is missing: where the run is to be kept")

    from codectool.cli.progress import TrainingProgress
    from codectool.loading import find_device
    from codectool.training import parallel
    from codectool.training.run import Observer
    from codectool.training.run import train as run_training

    where = find_device(device)
    if where.type == "cuda" and parallel.launched() and device in ("auto", "cuda"):
        where = find_device(f"cuda:{parallel.local_rank()}")
    with TrainingProgress(shown=parallel.first(), log=log) as progress:
        observer = Observer(
            on_step=progress.show,
            on_message=progress.print,
            # each process may find other files that cannot be read
            on_warning=progress.warn if parallel.first() else warn,
        )
        outcome = run_training(
            config, run_dir, where, max_hours, resume, start_from, threads, observer
        )
    if outcome.signal is not None:
        if parallel.first():
            say("stopped", f"at step {outcome.step}; `--resume` goes on", "yellow")
        sys.exit(EXIT_INTERRUPTED if outcome.signal == signal.SIGINT else EXIT_TERMINATED)


def _with_options(
    config: TrainingConfig,
    train_files: str | None,
    valid_files: str | None,
    max_steps: int | None,
    precision: str | None,
    seed: int | None,
) -> TrainingConfig:
    from codectool.training.config import parse

    values = config.to_json()
    chosen: dict[str, Any] = {"max_steps": max_steps, "precision": precision, "seed": seed}
    if max_steps is not None:
        values["training"]["max_epochs"] = None
    values["training"] |= {key: value for key, value in chosen.items() if value is not None}
    if train_files is not None or valid_files is not None:
        data = dict(values["data"] or {})
        for key, path in (("train", train_files), ("valid", valid_files)):
            if path is not None:
                data[key] = str(Path(path).resolve())
        if "train" not in data:
            raise UsageError("--valid-files without --train-files: nothing to learn from")
        values["data"] = data
    return parse(values)
