"""`codectool train`: train a codec."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codectool.cli.console import EXIT_INTERRUPTED, EXIT_TERMINATED, print_data, say, warn
from codectool.cli.options import complete_device, debug_option
from codectool.errors import UsageError

if TYPE_CHECKING:
    from codectool.training.config import RunConfig


@click.command()
@click.option(
    "--config",
    "source",
    metavar="NAME|FILE",
    help="Bundled config or JSON file; SuperCodec's config_v1.json can be used unchanged.",
)
@click.option("--train-files", metavar="LIST|DIR", help="Training audio.")
@click.option("--valid-files", metavar="LIST|DIR", help="Validation audio, from held-out speakers.")
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the run: config, checkpoints, metrics.",
)
@click.option("--max-steps", type=click.IntRange(1), metavar="N", help="Number of training steps.")
@click.option(
    "--max-hours",
    type=click.FloatRange(0, min_open=True),
    metavar="H",
    help="Stop after this many hours; schedules then follow wall-clock time.",
)
@click.option(
    "--device",
    default="auto",
    metavar="DEVICE",
    shell_complete=complete_device,
    help="cpu, cuda, cuda:N, mps or auto.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="Precision of matrix products and convolutions.",
)
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Random seed.")
@click.option(
    "--threads",
    type=click.IntRange(1),
    metavar="N",
    show_default="one per core",
    help="Number of CPU threads.",
)
# not `--log`, which torchrun takes for its own option
@click.option(
    "--verbose",
    "log",
    is_flag=True,
    help="Print a progress line from time to time if there is no terminal.",
)
@click.option("--resume", is_flag=True, help="Continue the run in DIR, or start it.")
@click.option(
    "--start-from",
    type=click.Path(path_type=Path),
    metavar="CKPT",
    help="Start with the weights of a checkpoint, such as SuperCodec's g_XXXXXXXX, or with bundled "
    "weights by name (hac).",
)
@click.option(
    "--freeze",
    type=click.Choice(["encoder"]),
    help="Train the decoder alone; tokens stay those of `--start-from`.",
)
@click.option(
    "--token-cache",
    metavar="DIR",
    help="Folder for the tokens of `--freeze encoder`, which runs can share.  [default: "
    "RUN_DIR/tokens]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the config, such as training.batch_size=16. Repeatable.",
)
@click.option("--print-config", is_flag=True, help="Print the complete config as JSON and exit.")
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
    freeze: str | None,
    token_cache: str | None,
    settings: tuple[str, ...],
    print_config: bool,
) -> None:
    """Train a codec. `encode --checkpoint DIR` then uses its weights.

    SIGINT (Ctrl-C) and SIGTERM save the run and exit; `--resume` continues it exactly.

    \b
    Examples:
      codectool filelist speech/ -o train.txt --split 0.02
      codectool train --config hac --train-files train.txt --valid-files valid.txt --run-dir run
      codectool train --run-dir run --resume
      codectool train --config hac-source --freeze encoder --start-from hac --train-files voice/ ...
      codectool train --config config_v1.json --set batch_size=16 --print-config
      torchrun --nproc-per-node 4 -m codectool train --config bigcodec ...
    """
    from codectool.training.config import load

    if source is None and resume and run_dir is not None:
        source = str(run_dir / "config.json")
        if not Path(source).exists():
            raise UsageError(f"{run_dir}: holds no run to resume; start one with `--config`")
    if source is None:
        raise UsageError("--config is missing: give a name such as hac, or a JSON file")
    config = load(source, settings)
    config = _with_options(
        config,
        {"train": train_files, "valid": valid_files, "token_cache": token_cache},
        {"max_steps": max_steps, "precision": precision, "seed": seed, "freeze": freeze},
    )
    if token_cache is not None and config.training.freeze is None:
        raise UsageError("--token-cache is only used with `--freeze encoder`")
    if print_config:
        print_data(json.dumps(config.to_json(), indent=2))
        return
    if run_dir is None:
        raise UsageError("--run-dir is missing: give a folder for the run")

    from codectool.cli.progress import TrainingProgress
    from codectool.torch_runner import find_device
    from codectool.training import parallel
    from codectool.training.run import Callbacks
    from codectool.training.run import train as run_training

    where = find_device(device)
    if where.type == "cuda" and parallel.is_launched() and device in ("auto", "cuda"):
        where = find_device(f"cuda:{parallel.local_rank()}")
    with TrainingProgress(shown=parallel.is_main_process(), log=log) as progress:
        callbacks = Callbacks(
            on_step=progress.show,
            on_tokens=progress.show_tokens,
            on_message=progress.print,
            on_warning=warn,  # in every process, each of which may find other unreadable files
        )
        result = run_training(
            config, run_dir, where, max_hours, resume, start_from, threads, callbacks
        )
    if result.signal is not None:
        if parallel.is_main_process():
            say("stopped", f"at step {result.step}; continue with `--resume`", "yellow")
        sys.exit(EXIT_INTERRUPTED if result.signal == signal.SIGINT else EXIT_TERMINATED)


def _with_options(
    config: RunConfig, files: dict[str, str | None], settings: dict[str, Any]
) -> RunConfig:
    from codectool.training.config import WITHOUT_ENCODER, parse, set_with_encoder
    from codectool.training.parallel import is_main_process

    values = config.to_json()
    if settings["freeze"] is not None and (unused := set_with_encoder(values["training"])):
        values["training"] |= {key: WITHOUT_ENCODER[key] for key in unused}
        if is_main_process():
            say("note", f"`--freeze encoder` turns off {', '.join(unused)}", "yellow")
    if settings["max_steps"] is not None:
        values["training"]["max_epochs"] = None
    values["training"] |= {key: value for key, value in settings.items() if value is not None}
    paths = {key: str(Path(path).absolute()) for key, path in files.items() if path is not None}
    if paths:
        values["data"] = (values["data"] or {}) | paths
        if "train" not in values["data"]:
            raise UsageError(
                f"{'--valid-files' if 'valid' in paths else '--token-cache'} without "
                "--train-files: there is no training audio"
            )
    return parse(values)
