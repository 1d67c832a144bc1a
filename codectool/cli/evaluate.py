"""`codectool evaluate`: quality of coded speech, as a table and as a page to listen to."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import click

from codectool.cli.batch import read_files_from
from codectool.cli.console import note, say, warn, working
from codectool.cli.options import PIPE, check_output, debug_option
from codectool.cli.progress import evaluation_progress
from codectool.codecs.registry import FAMILIES
from codectool.errors import UsageError

if TYPE_CHECKING:
    from codectool.evaluation.results import Evaluation
    from codectool.evaluation.run import Align, ProgressCallback
    from codectool.evaluation.systems.spec import CodecSpec, SystemSpec

EXIT_PROBLEMS = 1
Output: TypeAlias = Literal["table", "markdown", "json", "csv"]


def _list_metrics(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value:
        return
    from codectool.evaluation.metrics.registry import METRICS

    # of several metrics that compute a value, the last one needs the fewest packages
    by_name = {info.name: (info, metric) for metric in METRICS for info in metric.outputs}
    for name, (info, metric) in by_name.items():
        low, high = ("" if end is None else f"{end:g}" for end in info.range)
        needs = f"at {metric.rate} Hz" + "".join(f", package {name}" for name in metric.packages)
        click.echo(f"{name}: {info.heading}, {low}..{high}, {info.better} is better, {needs}")
        click.echo(f"    {info.about}")
    ctx.exit()


@click.command()
@click.argument("references", metavar="WAV_DIR", type=click.Path(path_type=Path))
@click.argument("folders", metavar="[[NAME=]DEGRADED_DIR]...", nargs=-1)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Choice(list(FAMILIES)),
    help="codectool codec to run, with bundled weights or a --checkpoint of its family. "
    "Repeatable.",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    metavar="[NAME=]PATH",
    help="Weights of a codectool codec to run. Repeatable.",
)
@click.option(
    "--codec",
    "codecs",
    multiple=True,
    metavar="NAME",
    help="External codec to run: opus@6, codec2@1300, speex@2, speex@5wb, amrwb@6.6, gsm. "
    "Repeatable.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="JSON",
    help="Hyper-parameters, if the checkpoint does not contain them.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="Device of codectool codecs.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Metric to compute. Repeatable. Default: all whose packages are installed.",
)
@click.option(
    "--list-metrics",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_metrics,
    help="List the metrics with range, sampling rate and source.",
)
@click.option(
    "--files-from",
    type=click.Path(path_type=Path),
    metavar="LIST",
    help="List of recordings in WAV_DIR to use, one per line; `-` is stdin.",
)
@click.option(
    "--align",
    type=click.Choice(["system", "clip", "off"]),
    default="system",
    show_default=True,
    help="Delay to compensate: one per system, one per clip, or none.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Number of processes. Default: one per core.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all values of all clips as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a line per clip and system.")
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="HTML",
    help="Page to write, with players, spectrograms and a blind test.",
)
@click.option(
    "--report-audio",
    type=click.Choice(["embed", "beside"]),
    default="embed",
    show_default=True,
    help="Place of the page's audio: in the page, or in a folder next to it.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder to keep the decoded audio in, with a subfolder per system.",
)
@click.option("--tokens", is_flag=True, help="Print token statistics instead of audio metrics.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PNG",
    help="With --tokens: figure of the codebook usage to write.",
)
@click.option("--overwrite", is_flag=True, help="Replace the page or figure if it exists.")
@debug_option
def evaluate(
    references: Path,
    folders: tuple[str, ...],
    models: tuple[str, ...],
    checkpoints: tuple[str, ...],
    codecs: tuple[str, ...],
    config: Path | None,
    device: str,
    metrics: tuple[str, ...],
    files_from: Path | None,
    align: str,
    jobs: int | None,
    as_json: bool,
    as_csv: bool,
    markdown: bool,
    report: Path | None,
    report_audio: str,
    keep: Path | None,
    tokens: bool,
    plot: Path | None,
    overwrite: bool,
) -> None:
    """Compare coded speech with the recordings in WAV_DIR.

    Each DEGRADED_DIR contains coded versions of the recordings in the same tree. Systems given as
    options are run on the recordings. For each metric, the table shows the mean, half of its 95 %
    confidence interval and (the worst clip); a star marks the best system.

    \b
    Examples:
      codectool evaluate clips/ decoded/ older=decoded-2024/
      codectool evaluate clips/ --model hac --codec opus@6 --codec codec2@1300 --report out.html
      codectool evaluate clips/ --checkpoint bigcodec.pt --metric stoi --metric pesq_wb --json
      codectool evaluate clips/ --model hac --tokens --plot tokens.png
    """
    output = _output(as_json, as_csv, markdown)
    files = None if files_from is None else read_files_from(files_from, references)
    if report is not None:
        if report == PIPE:
            raise UsageError("stdout is used for the table; give a file name for `--report`")
        check_output(report, PIPE, overwrite)
    if plot is not None and not tokens:
        raise UsageError("`--plot` draws token statistics; add `--tokens`")
    if tokens and (folders or report or keep or metrics):
        raise UsageError(
            "`--tokens` takes one folder and cannot be combined with `--metric`, `--report` or "
            "`--keep`"
        )
    systems = _load_systems(models, checkpoints, codecs, config, device)
    if tokens:
        from codectool.cli.evaluate_tokens import print_token_usage

        failed = print_token_usage(references, files, systems, output, plot, overwrite)
        sys.exit(EXIT_PROBLEMS if failed else 0)
    if not systems and not folders:
        raise UsageError(
            "nothing to compare: give folders of coded audio, or systems to run with `--model`, "
            "`--checkpoint` or `--codec`"
        )
    from codectool.evaluation.metrics.registry import select_metrics
    from codectool.evaluation.run import EvaluationConfig, evaluate

    selection = select_metrics(metrics)
    for line in selection.left_out:
        warn(line)
    evaluation_config = EvaluationConfig(
        references,
        systems,
        [_named_folder(text) for text in folders],
        selection,
        files,
        cast("Align", align),
    )
    with _output_folder(keep) as outputs, evaluation_progress() as progress:
        evaluation = evaluate(evaluation_config, outputs, jobs, progress)
        if report is not None:
            audio = cast(Literal["embed", "beside"], report_audio)
            _write_page(report, evaluation, audio, overwrite, progress)
    _print(evaluation, output)
    _print_problems(evaluation)
    if report is not None:
        note(f"{report}: open it in a browser")
    sys.exit(EXIT_PROBLEMS if evaluation.problems else 0)


def _output(as_json: bool, as_csv: bool, markdown: bool) -> Output:
    """Return the format of stdout."""
    options: dict[Output, bool] = {"json": as_json, "csv": as_csv, "markdown": markdown}
    given = [name for name, value in options.items() if value]
    if len(given) > 1:
        raise UsageError(f"`--{given[0]}` and `--{given[1]}` cannot be combined; give one of them")
    return given[0] if given else "table"


def _load_systems(
    models: Sequence[str],
    checkpoints: Sequence[str],
    codecs: Sequence[str],
    config: Path | None,
    device: str,
) -> list[SystemSpec]:
    """Load every system once, so that errors appear before any work is done.

    Args:
        models: families; a family with a checkpoint uses that checkpoint.
        checkpoints: ``PATH`` or ``NAME=PATH``.
        codecs: external codecs such as ``opus@6``, or families with bundled weights.
        config: hyper-parameters of the checkpoints.
        device: device of codectool codecs.

    Raises:
        CodectoolError: a system is unknown, its program is missing, or its weights are bad.
    """
    from codectool.evaluation.systems.spec import CodecSpec, SystemSpec

    own, families = [], set()
    for text in checkpoints:
        name, path = _split_name(text)
        system, family = _load_codec(name or path.stem, CodecSpec(None, path, config, device))
        own.append(system)
        families.add(family)
    bundled = [model for model in models if model not in families]
    bundled += [name for name in codecs if name in FAMILIES]
    external = [SystemSpec(name, name) for name in codecs if name not in FAMILIES]
    for spec in external:
        spec.load()
    return [
        *(_load_codec(name, CodecSpec(name, device=device))[0] for name in bundled),
        *own,
        *external,
    ]


def _load_codec(name: str, spec: CodecSpec) -> tuple[SystemSpec, str]:
    """Load a codec; return its system with the device that it runs on, and its family."""
    from codectool.evaluation.systems.spec import SystemSpec

    with working(f"loading {spec.checkpoint or name}"):
        codec = spec.load()
    return SystemSpec(name, codec=replace(spec, device=str(codec.device))), codec.layout.family


def _named_folder(text: str) -> tuple[str, Path]:
    name, path = _split_name(text)
    return name or path.name or path.resolve().name, path


def _split_name(text: str) -> tuple[str, Path]:
    """Split ``NAME=PATH``; the name is empty for a path that contains ``=`` or no name."""
    name, mark, rest = text.partition("=")
    return (name, Path(rest)) if mark and not Path(text).exists() else ("", Path(text))


@contextmanager
def _output_folder(keep: Path | None) -> Iterator[Path]:
    """Yield the folder for decoded audio, by default a temporary one."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="codectool-") as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{keep}: cannot be created ({error.strerror or error})") from error
    yield keep


def _print(evaluation: Evaluation, output: Output) -> None:
    from codectool.evaluation import tables

    if output == "json":
        click.echo(json.dumps(tables.to_json(evaluation), indent=1))
    elif output == "csv":
        click.echo(tables.to_csv(evaluation), nl=False)
    else:
        clips = evaluation.clips
        minutes = sum(clip.seconds for clip in clips) / 60
        click.echo(f"{len(clips)} clips, {minutes:.1f} minutes; mean ± 95 % (worst clip)\n")
        rows = tables.table(evaluation)
        click.echo(tables.as_markdown(rows) if output == "markdown" else tables.as_text(rows))


def _print_problems(evaluation: Evaluation) -> None:
    from codectool.evaluation.tables import remarks

    for line in remarks(evaluation):
        warn(line)
    for system, clip, reason in evaluation.problems:
        say("error", f"{system}: {clip}: {reason}" if system else f"{clip}: {reason}", "red")


def _write_page(
    path: Path,
    evaluation: Evaluation,
    audio: Literal["embed", "beside"],
    overwrite: bool,
    progress: ProgressCallback,
) -> None:
    from codectool.evaluation.report.page import write_page

    progress.on_step("writing the page", len(evaluation.clips))
    command = shlex.join(["codectool", *sys.argv[1:]])
    write_page(
        path,
        evaluation,
        audio=audio,
        command=command,
        overwrite=overwrite,
        on_clip=progress.on_clip,
    )
