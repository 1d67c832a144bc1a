"""`codectool evaluate`: how good codecs sound, in numbers and on a page to listen to."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    from codectool.evaluation.run import Watcher
    from codectool.evaluation.systems.spec import SystemChoice


def choose_systems(
    models: Sequence[str],
    checkpoints: Sequence[str],
    codecs: Sequence[str],
    config: Path | None,
    device: str,
) -> list[SystemChoice]:
    """Every system is opened once, so that what is wrong is told before any work is done.

    Args:
        models: families; one that a checkpoint belongs to is that checkpoint.
        checkpoints: ``PATH`` or ``NAME=PATH``.
        codecs: ``opus@6`` and the like, or a family with the weights that ship.
        config: hyper-parameters of checkpoints.
        device: where codecs of ours run.

    Raises:
        CodectoolError: there is no such system, its program is missing, or its weights are bad.
    """
    from codectool.evaluation.systems.spec import CodecChoice, SystemChoice

    found = []
    families = set()
    for text in checkpoints:
        name, path = _name_and_path(text)
        with working(f"loading {path}"):
            codec = CodecChoice(None, path, config, device).load()
        families.add(codec.layout.family)
        where = str(codec.device)
        found.append(SystemChoice(name, codec=CodecChoice(None, path, config, where)))
    shipped = [model for model in models if model not in families]
    shipped += [name for name in codecs if name in FAMILIES]
    for number, model in enumerate(shipped):
        with working(f"loading {model}"):
            where = str(CodecChoice(model, device=device).load().device)
        choice = SystemChoice(model, codec=CodecChoice(model, device=where))
        found.insert(number, choice)
    for program in codecs:
        if program not in FAMILIES:
            choice = SystemChoice(program, program)
            choice.open()
            found.append(choice)
    return found


def _name_and_path(text: str) -> tuple[str, Path]:
    path = Path(text)
    name, mark, rest = text.partition("=")
    if mark and not path.exists():
        return name, Path(rest)
    return path.stem, path


EXIT_PROBLEMS = 1
Output: TypeAlias = Literal["table", "markdown", "json", "csv"]


def _list_metrics(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value:
        return
    from codectool.evaluation.metrics.registry import METRICS

    # each once: by the last of its judges, who needs the least
    by_name = {metric.name: (metric, judge) for judge in METRICS for metric in judge.metrics}
    for name, (metric, judge) in by_name.items():
        low, high = ("" if end is None else f"{end:g}" for end in metric.range)
        where = f"at {judge.rate} Hz" + "".join(f", package {name}" for name in judge.packages)
        click.echo(f"{name}: {metric.heading}, {low}..{high}, {metric.better} is better, {where}")
        click.echo(f"    {metric.about}")
    ctx.exit()


@click.command()
@click.argument("references", metavar="WAV_DIR", type=click.Path(path_type=Path))
@click.argument("folders", metavar="[[NAME=]DEGRADED_DIR]...", nargs=-1)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Choice(list(FAMILIES)),
    help="Run this codec of ours: with the weights of a --checkpoint of its family, else with "
    "those that come with codectool. May be repeated.",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    metavar="[NAME=]PATH",
    help="Run the codec with these weights. May be repeated.",
)
@click.option(
    "--codec",
    "codecs",
    multiple=True,
    metavar="NAME",
    help="Run another codec by its programs: opus@6, codec2@1300, speex@2, speex@5wb, amrwb@6.6, "
    "gsm. May be repeated.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="JSON",
    help="Hyper-parameters, as for encode.",
)
@click.option(
    "--device", default="auto", show_default=True, metavar="DEVICE", help="For codecs of ours."
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Only this measure; may be repeated. Default: all that are installed.",
)
@click.option(
    "--list-metrics",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_metrics,
    help="Say what each measure is, its range, rate and source.",
)
@click.option(
    "--files-from",
    type=click.Path(path_type=Path),
    metavar="LIST",
    help="Only the recordings of this list, one per line, below WAV_DIR; `-` is standard input.",
)
@click.option(
    "--align",
    type=click.Choice(["system", "clip", "off"]),
    default="system",
    show_default=True,
    help="Take off the delay that a system has over all clips, each clip's own, or none.",
)
@click.option(
    "--jobs", type=click.IntRange(1, 1024), metavar="N", help="Processes; default one per core."
)
@click.option("--json", "as_json", is_flag=True, help="Print every figure of every clip as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a line per clip and system as CSV.")
@click.option("--markdown", is_flag=True, help="Print the table for a document.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="HTML",
    help="Write a page with players, spectrograms and a blind test.",
)
@click.option(
    "--report-audio",
    type=click.Choice(["embed", "beside"]),
    default="embed",
    show_default=True,
    help="Audio within the page, or in a folder beside it.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Keep what the systems give back, a folder for each.",
)
@click.option("--tokens", is_flag=True, help="Statistics of tokens instead of measures of sound.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PNG",
    help="With --tokens: draw how often each code is used.",
)
@click.option("--overwrite", is_flag=True, help="Replace the page or picture if it exists.")
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

    Either somebody has coded them already, into DEGRADED_DIRs with the same tree, or the systems
    that are named are run here. Prints the mean of each measure with half of its 95 % interval
    and (the worst clip); a star marks the best system.

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
        raise UsageError("`--plot` draws tokens: give `--tokens`, too")
    if tokens and (folders or report or keep or metrics):
        raise UsageError(
            "`--tokens` looks at tokens, not at sound: it takes one folder, and no `--metric`, "
            "`--report` or `--keep`"
        )
    systems = choose_systems(models, checkpoints, codecs, config, device)
    if tokens:
        from codectool.cli.evaluate_tokens import tell_tokens

        bad = tell_tokens(references, files, systems, output, plot, overwrite)
        sys.exit(EXIT_PROBLEMS if bad else 0)
    from codectool.evaluation.metrics.registry import available, choose
    from codectool.evaluation.run import Contest, evaluate

    judges, left_out = available(choose(metrics)) if metrics else available()
    if not judges:
        raise UsageError(left_out[0])
    for line in left_out:
        warn(line)
    named = [_named_folder(text) for text in folders]
    if not systems and not named:
        raise UsageError(
            "nothing to compare: name folders of coded audio, or systems to be run with `--model`, "
            "`--checkpoint` or `--codec`"
        )
    contest = Contest(
        references,
        systems,
        named,
        judges,
        metrics,
        left_out,
        files,
        cast(Literal["system"], align),
    )
    with _folder(keep) as outputs, evaluation_progress() as watcher:
        found = evaluate(contest, outputs, jobs, watcher)
        if report is not None:
            _write_page(report, found, cast(Literal["embed"], report_audio), overwrite, watcher)
    _print(found, output)
    _tell_problems(found)
    if report is not None:
        note(f"{report}: open it in a browser")
    sys.exit(EXIT_PROBLEMS if found.problems else 0)


def _output(as_json: bool, as_csv: bool, markdown: bool) -> Output:
    """What goes to standard output."""
    wanted: dict[Output, bool] = {"json": as_json, "csv": as_csv, "markdown": markdown}
    chosen = [name for name, given in wanted.items() if given]
    if len(chosen) > 1:
        raise UsageError(f"`--{chosen[0]}` and `--{chosen[1]}` both want standard output; give one")
    return chosen[0] if chosen else "table"


def _named_folder(text: str) -> tuple[str, Path]:
    """``NAME=DIR``, or a folder that is its own name."""
    path = Path(text)
    name, mark, rest = text.partition("=")
    if mark and not path.exists():
        return name, Path(rest)
    return path.name or str(path.resolve().name), path


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Where the systems' audio goes."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="codectool-") as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{keep}: cannot be made ({error.strerror or error})") from error
    yield keep


def _print(found: Evaluation, output: Output) -> None:
    from codectool.evaluation import tables

    if output == "json":
        click.echo(json.dumps(tables.to_json(found), indent=1))
    elif output == "csv":
        click.echo(tables.to_csv(found), nl=False)
    else:
        minutes = sum(clip.seconds for clip in found.clips) / 60
        click.echo(f"{len(found.clips)} clips, {minutes:.1f} minutes; mean ± 95 % (worst clip)\n")
        rows = tables.table(found)
        click.echo(tables.as_markdown(rows) if output == "markdown" else tables.as_text(rows))


def _tell_problems(found: Evaluation) -> None:
    from codectool.evaluation.tables import remarks

    for line in remarks(found):
        warn(line)
    for system, clip, reason in found.problems:
        say("error", f"{system}: {clip}: {reason}" if system else f"{clip}: {reason}", "red")


def _write_page(
    path: Path,
    found: Evaluation,
    audio: Literal["embed", "beside"],
    overwrite: bool,
    watcher: Watcher,
) -> None:
    from codectool.evaluation.report.page import write_page

    watcher.on_step("writing the page", len(found.clips))
    command = shlex.join(["codectool", *sys.argv[1:]])
    write_page(
        path, found, audio=audio, command=command, overwrite=overwrite, on_clip=watcher.on_clip
    )
