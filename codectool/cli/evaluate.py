"""`codectool evaluate`: quality of coded speech, as a table and as a page to listen to."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from codectool.cli.batch import read_files_from
from codectool.cli.console import (
    count,
    note,
    print_data,
    say,
    warn,
    warn_untaken,
    working,
)
from codectool.cli.options import (
    FILE,
    PIPE,
    asr_language_option,
    asr_model_option,
    complete_device,
    complete_file,
    debug_option,
    metric_option,
)
from codectool.cli.progress import evaluation_progress
from codectool.codecs.registry import FAMILIES
from codectool.errors import UsageError
from codectool.files import check_writable
from codectool.messages import first_few, printable, to_json

if TYPE_CHECKING:
    from codectool.evaluation.results import Evaluation
    from codectool.evaluation.run import Align
    from codectool.evaluation.systems.spec import CodecSpec, SystemSpec

EXIT_PROBLEMS = 1


def _list_metrics(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value:
        return
    from codectool.evaluation.metrics.registry import METRICS

    # of several metrics that compute a value, the last one needs the fewest packages
    by_name = {info.name: (info, metric) for metric in METRICS for info in metric.outputs}
    for name, (info, metric) in by_name.items():
        low, high = ("" if end is None else f"{end:g}" for end in info.range)
        needs = f"at {metric.rate} Hz" + "".join(f", package {name}" for name in metric.packages)
        print_data(f"{name}: {info.heading}, {low}..{high}, {info.better} is better, {needs}")
        print_data(f"    {info.about}")
    ctx.exit()


def _complete_codec(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    codecs = ("opus@6", "opus-nolace@6", "codec2@1300", "speex@2", "amrnb@4.75", "amrwb@6.6", "gsm")
    return [name for name in codecs if name.startswith(incomplete)]


@click.command()
@click.argument("references", metavar="WAV_DIR", type=FILE)
@click.argument(
    "folders", metavar="[[NAME=]DEGRADED_DIR]...", nargs=-1, shell_complete=complete_file
)
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
    shell_complete=complete_file,
    help="Weights of a codectool codec to run. Repeatable.",
)
@click.option(
    "--codec",
    "codecs",
    multiple=True,
    metavar="NAME",
    shell_complete=_complete_codec,
    help="External codec to run: opus@6, opus-nolace@6 (libopus 1.5), codec2@1300, speex@2, "
    "speex@5wb, amrwb@6.6, gsm. Repeatable.",
)
@click.option(
    "--config",
    type=FILE,
    metavar="JSON",
    help="Model config, if the checkpoint does not contain it.",
)
@click.option(
    "--device",
    default="auto",
    metavar="DEVICE",
    shell_complete=complete_device,
    help="Device of codectool codecs.",
)
@metric_option
@click.option(
    "--list-metrics",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_metrics,
    help="List the metrics with range, sampling rate and source.",
)
@asr_model_option
@asr_language_option
@click.option(
    "--text",
    type=FILE,
    metavar="PATH",
    show_default="Whisper's transcript of each recording",
    help="What is said, for wer and cer: a folder with a .txt file per recording (WAV_DIR itself), "
    "or a list with a name and a text per line.",
)
@click.option(
    "--files-from",
    type=FILE,
    metavar="LIST",
    help="List of recordings in WAV_DIR to use, one per line; `-` is stdin.",
)
@click.option(
    "--align",
    type=click.Choice(["system", "clip", "off"]),
    default="system",
    help="Delay to compensate: one per system, one per clip, or none.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 1024),
    metavar="N",
    show_default="one per core",
    help="Number of processes.",
)
@click.option(
    "--by-folder",
    is_flag=True,
    help="Print means of each folder in WAV_DIR too, so that no source of clips hides another.",
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
    "--stability",
    is_flag=True,
    help="Print instead how many tokens stay when clips are shifted, scaled, given noise, or coded "
    "twice.",
)
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
    asr_model: str | None,
    asr_language: str | None,
    text: Path | None,
    files_from: Path | None,
    align: Align,
    jobs: int | None,
    by_folder: bool,
    as_json: bool,
    as_csv: bool,
    markdown: bool,
    report: Path | None,
    report_audio: Literal["embed", "beside"],
    keep: Path | None,
    tokens: bool,
    stability: bool,
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
      codectool evaluate clips/ --model hac --stability
      codectool evaluate clips/ decoded/ --metric wer --asr-model small --text clips/
    """
    formats = {"json": as_json, "csv": as_csv, "markdown": markdown}
    output, *others = [name for name, given in formats.items() if given] or ["table"]
    if others:
        raise UsageError(f"`--{output}` and `--{others[0]}` cannot be combined; give one of them")
    files = None if files_from is None else read_files_from(files_from, references)
    if asr_model is None and (asr_language or text):
        option = "--text" if text else "--asr-language"
        raise UsageError(f"`{option}` is for speech recognition; add `--asr-model`")
    if config is not None and not checkpoints:
        raise UsageError("`--config` is the config of a `--checkpoint`; add one")
    if keep is not None and keep.resolve() == references.resolve():
        raise UsageError(f"{keep}: contains the recordings; keep decoded audio in another folder")
    if report is not None:
        if report == PIPE:
            raise UsageError("stdout is used for the table; give a file name for `--report`")
        from codectool.evaluation.report.page import check_page

        check_page(report, report_audio, overwrite)
    if plot is not None and not tokens:
        raise UsageError("`--plot` draws token statistics; add `--tokens`")
    of_tokens = "--tokens" if tokens else "--stability" if stability else ""
    unfit = {"--stability": tokens and stability, "--metric": metrics, "--keep": keep}
    unfit |= {"--asr-model": asr_model, "--by-folder": by_folder, "DEGRADED_DIR": folders}
    unfit |= {"--report": tokens and report}
    for option, given in unfit.items():
        if of_tokens and given:
            raise UsageError(f"`{of_tokens}` measures no audio; leave out `{option}`")
    if by_folder and as_csv:
        raise UsageError("`--csv` has a line per clip, and no means for `--by-folder`")
    systems = _load_systems(models, checkpoints, codecs, config, device)
    if files is None and (systems or folders):
        for folder in (references, *(path for _, path in map(_split_name, folders))):
            warn_untaken(folder)
    if tokens:
        from codectool.cli.evaluate_tokens import print_token_usage

        failed = print_token_usage(references, files, systems, output, plot, overwrite)
        sys.exit(EXIT_PROBLEMS if failed else 0)
    if stability:
        from codectool.cli.evaluate_tokens import print_token_stability

        failed = print_token_stability(references, files, systems, output, report, overwrite)
        sys.exit(EXIT_PROBLEMS if failed else 0)
    if not systems and not folders:
        raise UsageError(
            "nothing to compare: give folders of coded audio, or systems to run with `--model`, "
            "`--checkpoint` or `--codec`"
        )
    from codectool.evaluation.metrics.base import MetricSettings
    from codectool.evaluation.metrics.registry import select_metrics
    from codectool.evaluation.pairs import require_folder
    from codectool.evaluation.run import EvaluationConfig, evaluate
    from codectool.evaluation.texts import read_texts

    named = [
        (name or path.name or path.resolve().name, path) for name, path in map(_split_name, folders)
    ]
    for folder in (references, *(path for _, path in named)):
        require_folder(folder)  # before models of metrics are loaded
    texts = None if text is None else read_texts(text)
    selection = select_metrics(metrics, settings=MetricSettings(asr_model, asr_language))
    for line in selection.left_out:
        warn(line)
    with tempfile.TemporaryDirectory(prefix="codectool-") as temporary:
        outputs = keep or Path(temporary)
        outputs.mkdir(parents=True, exist_ok=True)
        check_writable(outputs / ".part", overwrite=True)
        with evaluation_progress() as progress:
            evaluation = evaluate(
                EvaluationConfig(references, systems, named, selection, files, align, texts),
                outputs,
                jobs,
                progress,
            )
        if not any(score.problem is None for s in evaluation.systems for score in s.scores):
            _print_problems(evaluation)
            raise UsageError(f"{references}: none of its clips could be compared")
        # hours of work: no failure of one output costs the other
        try:
            _print(evaluation, output, by_folder)
        finally:
            if report is not None:
                _write_page(report, evaluation, report_audio, overwrite)
    sys.exit(EXIT_PROBLEMS if evaluation.problems else 0)


def _write_page(
    path: Path, evaluation: Evaluation, audio: Literal["embed", "beside"], overwrite: bool
) -> None:
    from codectool.evaluation.report.page import write_page

    command = shlex.join(["codectool", *sys.argv[1:]])
    with evaluation_progress() as progress:
        progress.on_step("writing the page", len(evaluation.clips))
        write_page(
            path,
            evaluation,
            audio=audio,
            command=command,
            overwrite=overwrite,
            on_clip=progress.on_clip,
        )
    note(f"{path}: open it in a browser")


def _load_systems(
    models: Sequence[str],
    checkpoints: Sequence[str],
    codecs: Sequence[str],
    config: Path | None,
    device: str,
) -> list[SystemSpec]:
    """Load every system once, so that errors appear before any work is done."""
    from codectool.evaluation.systems.spec import CodecSpec, SystemSpec

    def load(name: str, spec: CodecSpec) -> tuple[str, SystemSpec]:
        """Load a codec; return its family, and its system with the device that it runs on."""
        with working(f"loading {spec.checkpoint or name}"):
            codec = spec.load()
        return codec.layout.family, SystemSpec(name, replace(spec, device=str(codec.device)))

    own = [
        load(name or path.stem, CodecSpec(None, path, config, device))
        for name, path in map(_split_name, checkpoints)
    ]
    external = [SystemSpec(name, name) for name in codecs if name not in FAMILIES]
    for system in external:
        system.load()
    # a family with a checkpoint uses that checkpoint
    bundled = [model for model in models if model not in [family for family, _ in own]]
    bundled += [name for name in codecs if name in FAMILIES]
    loaded = [*(load(name, CodecSpec(name, device=device)) for name in bundled), *own]
    return [*(system for _, system in loaded), *external]


def _split_name(text: str) -> tuple[str, Path]:
    """Split ``NAME=PATH``; the name is empty for a path that contains ``=`` or no name."""
    name, mark, rest = text.partition("=")
    return (name, Path(rest)) if mark and not Path(text).exists() else ("", Path(text))


def _print(evaluation: Evaluation, output: str, by_folder: bool) -> None:
    """Print the results on stdout, remarks and problems on stderr."""
    from codectool.evaluation import tables

    if output == "json":
        print_data(to_json(tables.to_json(evaluation, by_folder), indent=1))
    elif output == "csv":
        print_data(tables.to_csv(evaluation), end="")
    else:
        parts = {"": evaluation, **(evaluation.by_folder() if by_folder else {})}
        as_output = tables.as_markdown if output == "markdown" else tables.as_text
        print_data(
            "\n\n".join(
                f"{_heading(folder, part)}\n\n{as_output(tables.table(part))}"
                for folder, part in parts.items()
            )
        )
    for line in tables.remarks(evaluation):
        warn(line)
    _print_problems(evaluation)


def _heading(folder: str, evaluation: Evaluation) -> str:
    clips = evaluation.clips
    minutes = sum(clip.seconds for clip in clips) / 60
    counted = f"{count(len(clips), 'clip')}, {minutes:.1f} minutes"
    return f"{printable(folder)}: {counted}" if folder else f"{counted}; mean ± 95 % (worst clip)"


def _print_problems(evaluation: Evaluation) -> None:
    problems = [
        f"{system}: {clip}: {reason}" if system else f"{clip}: {reason}"
        for system, clip, reason in evaluation.problems
    ]
    for problem in first_few(problems, see="`--json`"):
        say("error", problem, "red")
