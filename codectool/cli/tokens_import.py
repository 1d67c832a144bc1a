"""`codectool tokens import`: ids of a language model or of a data set to .hcd or audio."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from codectool.cli.codec import CodecOptions, codec_options
from codectool.cli.console import count, note, print_data, say, warn, working
from codectool.cli.options import (
    FILE,
    PIPE,
    check_output,
    debug_option,
    open_input,
    open_output,
)
from codectool.cli.signals import stoppable_run
from codectool.cli.tokens_layout import layout_options
from codectool.corpus.layouts import LayoutOptions
from codectool.errors import UsageError, naming
from codectool.messages import first_few, printable, to_json

if TYPE_CHECKING:
    from codectool.codec import Codec
    from codectool.corpus.importing import Importable, ImportOptions, ImportReport

FORMATS = {".hcd": "hcd", ".wav": "wav", ".wave": "wav", ".flac": "flac"}


def _ids(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Parse ids separated by commas."""
    try:
        return tuple(int(word) for word in (value or "").split(",") if word.strip())
    except ValueError as error:
        raise click.BadParameter(f"`{value}` is not ids separated by commas") from error


@click.command("import")
@click.argument("source", metavar="INPUT", type=FILE)
@click.argument("target", metavar="OUTPUT", type=FILE)
@click.option(
    "--like",
    type=FILE,
    metavar="FILE",
    help="What the ids of an INPUT without metadata mean: an export, or a .hcd file of the same "
    "codec and the layout below.",
)
@layout_options
@click.option(
    "--column",
    metavar="NAME",
    show_default="tokens, ids, input_ids or codes",
    help="Key of the ids in JSON objects.",
)
@click.option(
    "--on-bad-id",
    type=click.Choice(["error", "clamp", "drop-frame"]),
    default="error",
    help="What to do about ids that are no codes of their codebook, and about incomplete frames: "
    "stop and say where, take the nearest id of the codebook, or leave out the frame.",
)
@click.option(
    "--realign",
    is_flag=True,
    help="Find the codebooks again where a flat sequence lost or gained ids, and leave out the "
    "frames concerned; needs ids with offsets.",
)
@click.option(
    "--special-ids",
    callback=_ids,
    metavar="ID,...",
    help="Ids of the language model to remove anywhere. Ids outside the vocabulary at both ends "
    "are removed in any case.",
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["hcd", "wav", "flac"]),
    show_default="from the suffix of OUTPUT, else hcd",
    help="Format of the outputs; wav and flac are decoded.",
)
@click.option(
    "--subtype",
    metavar="NAME",
    show_default="PCM_16",
    help="Sample format: PCM_16, PCM_24, FLOAT or another one of libsndfile.",
)
@click.option("--native-rate", is_flag=True, help="Write audio at the model's sampling rate.")
@codec_options
@click.option(
    "--force",
    is_flag=True,
    help="Decode even if the tokens were made with different weights (the output is meaningless "
    "unless the codecs match).",
)
@click.option("--json", "as_json", is_flag=True, help="Print totals as JSON.")
@click.option("--skip-existing", is_flag=True, help="Leave out recordings whose file exists.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@debug_option
def import_(
    source: Path,
    target: Path,
    like: Path | None,
    layout: LayoutOptions,
    column: str | None,
    on_bad_id: str,
    realign: bool,
    special_ids: tuple[int, ...],
    format_name: str | None,
    subtype: str | None,
    native_rate: bool,
    selected: CodecOptions,
    force: bool,
    as_json: bool,
    skip_existing: bool,
    overwrite: bool,
) -> None:
    """Turn ids into .hcd files or audio.

    INPUT is what `codectool tokens export` wrote, which needs no options, or ids that a program
    saved: .npy, .npz, JSON Lines, text with ids separated by spaces, or `-` for stdin. For these,
    --like or --checkpoint states the codec, and --layout and the like how the ids are arranged.

    OUTPUT is a file (.hcd, .wav, .flac), `-` for stdout, or a folder, where each recording is named
    by its id. Other OUTPUTs than .hcd are decoded.

    \b
    Examples:
      codectool tokens import dataset/ tokens/
      codectool tokens import generated.npy speech.wav --like dataset/
      codectool tokens import ids.jsonl out/ --format wav --like dataset/ --realign
      echo 32017 32530 32101 33000 | codectool tokens import - out.hcd \\
        --like speech.hcd --layout flat --group 9 --offsets --id-base 32000
    """
    from codectool.audio.discovery import AUDIO_SUFFIXES
    from codectool.audio.sink import check_format
    from codectool.cli.progress import ProgressBar
    from codectool.corpus.importing import ImportOptions, import_folder, open_importable

    suffix = target.suffix.lower()
    single = target == PIPE or suffix in FORMATS
    format_name = format_name or FORMATS.get(suffix, "hcd")
    if format_name != "hcd":
        subtype = check_format(format_name, subtype)
    options = ImportOptions(
        on_bad_id=on_bad_id,
        realign=realign,
        special_ids=special_ids,
        format=format_name,
        subtype=subtype,
        native_rate=native_rate,
        force=force,
        overwrite=overwrite,
        skip_existing=skip_existing,
    )
    if target == PIPE and as_json:
        raise UsageError("stdout is used for the tokens; name a file as OUTPUT for `--json`")
    if single:
        check_output(target, source, overwrite)
    elif suffix in AUDIO_SUFFIXES and not target.is_dir():
        raise UsageError(f"{target}: only .hcd, .wav and .flac can be written; rename it")
    elif target.exists() and not target.is_dir():
        raise UsageError(f"{target}: is not a folder; name a folder, or a .hcd, .wav or .flac file")
    given = None if layout == LayoutOptions() else layout
    chosen = selected.model is not None or selected.checkpoint is not None
    with ExitStack() as stack:
        stream = stack.enter_context(open_input(source))[0] if source == PIPE else source
        codec = selected.load() if chosen and like is None else None
        opened = open_importable(stream, like=like, layout=given, codec=codec, column=column)
        if format_name != "hcd" and codec is None:
            codec = _load_codec(selected, opened)
        if single:
            report = _import_file(opened, target, options, codec)
        else:
            with stoppable_run(), ProgressBar("import") as bar:
                report = import_folder(
                    opened,
                    target,
                    options,
                    codec,
                    lambda n: bar.update(None, count(n, "recording")),
                )
    _print_report(report, opened, target)
    if as_json:
        print_data(to_json(report.to_json()))
    sys.exit(report.exit_code)


def _load_codec(selected: CodecOptions, source: Importable) -> Codec:
    """Load the weights that the tokens of a source were made with."""
    from codectool.container import Header

    metadata = source.metadata
    layout = metadata.token_layout
    return selected.load_for(Header(layout, metadata.fingerprint, layout.sample_rate), source.name)


def _import_file(
    source: Importable, target: Path, options: ImportOptions, codec: Codec | None
) -> ImportReport:
    from codectool.corpus.importing import ImportReport, import_file, write_tokens

    report = ImportReport()
    if options.skip_existing and target != PIPE and target.exists():
        report.skipped = 1
        return report
    imported = import_file(source, options)
    with (
        naming(f"{source.name}: record {printable(imported.id)}"),
        working(f"importing {source.name}"),
        open_output(target, options.overwrite) as file,
    ):
        write_tokens(file, imported.tokens, options, codec)
    report.add(imported)
    return report


def _print_report(report: ImportReport, source: Importable, target: Path) -> None:
    if report.changes:
        changes = [f"{name}: {change}" for name, change in report.changes.items()]
        if len(changes) == 1:
            warn(changes[0])
        else:
            shown = "; ".join(first_few(changes, see="`--json`"))
            dropped = f", {count(report.dropped_frames, 'frame')} dropped"
            warn(f"{len(changes)} recordings have other ids than codes{dropped}: {shown}")
    for name, reason in report.failures.items():
        say("error", f"{source.name}: record {name}: {reason}", "red")
    skipped = f", {report.skipped} skipped" if report.skipped else ""
    failed = f", {len(report.failures)} failed" if report.failures else ""
    note(
        f"{source.name}: {count(report.records, 'recording')} ({report.seconds:.2f} s) -> "
        f"{target}{skipped}{failed}"
    )
