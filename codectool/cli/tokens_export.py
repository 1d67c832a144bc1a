"""`codectool tokens export`: the tokens of a corpus as a data set."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from typing_extensions import override

from codectool.cli.batch import read_files_from
from codectool.cli.codec import EncoderOptions, encoder_options
from codectool.cli.console import count, note, print_data, say, warn
from codectool.cli.options import FILE, PIPE, debug_option
from codectool.cli.signals import stoppable_run
from codectool.cli.tokens_layout import layout_options
from codectool.corpus.layouts import LayoutOptions
from codectool.errors import UsageError
from codectool.messages import first_few, to_json

if TYPE_CHECKING:
    from codectool.corpus.export import ExportOptions, ExportReport

FORMATS = ("parquet", "webdataset", "jsonl", "npy", "lhotse", "memmap")
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


class ShardSize(click.ParamType[tuple[int | None, int | None]]):
    """A number of records, or of bytes if there is a unit; as records and bytes."""

    name = "shard size"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,12})(?:([kmg]?)b)?", value.strip().lower())
        if not match or not int(match[1]):
            self.fail(f"`{value}` is neither a number of records nor a size such as 500MB")
        if match[2] is None:
            return int(match[1]), None
        return None, int(match[1]) * UNITS[match[2]]


@click.command()
@click.argument("source", metavar="INPUT", type=FILE)
@click.argument("target", metavar="OUTPUT", type=FILE)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(FORMATS),
    show_default="from the suffix of OUTPUT",
    help="Format of the data set.",
)
@click.option(
    "--manifest",
    "manifests",
    type=FILE,
    multiple=True,
    metavar="FILE",
    help="Table with texts, speakers and the like, joined by path or id: CSV, TSV, JSON Lines, "
    "id|text or lhotse. Repeatable.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Fail if a file has no row or a row no file, and refuse truncated or damaged audio.",
)
@layout_options
@click.option(
    "--files-from",
    type=FILE,
    metavar="LIST",
    help="Export only the files in this list (as `filelist` writes them, or one path per line); "
    "`-` is stdin.",
)
@click.option(
    "--shard-size",
    type=ShardSize(),
    metavar="N|SIZE",
    show_default="10000, for memmap one shard",
    help="Records per shard, or about so many bytes with a unit, as in 500MB.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    metavar="N",
    show_default="one per core and 1000 files, at most 8",
    help="Number of processes that read files.",
)
@encoder_options
@click.option("--json", "as_json", is_flag=True, help="Print totals as JSON.")
@click.option("--overwrite", is_flag=True, help="Replace another export.")
@debug_option
def export(
    source: Path,
    target: Path,
    format_name: str | None,
    manifests: tuple[Path, ...],
    strict: bool,
    layout: LayoutOptions,
    files_from: Path | None,
    shard_size: tuple[int | None, int | None] | None,
    workers: int | None,
    selected: EncoderOptions,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Write the tokens of INPUT, a folder or a file, as a data set to OUTPUT.

    INPUT holds .hcd files, which need no model, or audio, which is encoded on the way. If it holds
    both, .hcd files are taken unless --model or --checkpoint is given.

    OUTPUT is a folder of shards, or a single file whose suffix chooses the format: .parquet, .tar
    (webdataset), .jsonl, .jsonl.gz, .bin (memmap), or .npy for a single recording. To continue an
    interrupted export to a folder, repeat the command: finished shards are kept.

    \b
    Examples:
      codectool tokens export tokens/ dataset/ --format parquet --manifest metadata.csv
      codectool tokens export tokens/ train.bin --layout flat --group 9 --offsets
      codectool tokens export recordings/ dataset/ --format webdataset --shard-size 500MB
      codectool tokens export wavs/ cuts/ --format lhotse --manifest metadata.csv
    """
    from codectool.corpus.export import ExportOptions

    if source == PIPE or target == PIPE:
        raise UsageError("an export needs files: name an INPUT and an OUTPUT")
    files = None if files_from is None else read_files_from(files_from, source)
    records, size = shard_size or (None, None)
    options = ExportOptions(
        format=format_name,
        layout=layout,
        files=files,
        manifests=manifests,
        shard_records=records,
        shard_bytes=size,
        workers=workers,
        overwrite=overwrite,
        strict=strict,
    )
    with stoppable_run():
        report = _export(source, target, options, selected)
    _print_report(report)
    if as_json:
        print_data(to_json(report.to_json()))
    sys.exit(report.exit_code)


def _export(
    source: Path, target: Path, options: ExportOptions, selected: EncoderOptions
) -> ExportReport:
    from codectool.cli.progress import BatchProgress, FileProgress
    from codectool.corpus.export import choose_format, export_audio, export_tokens, holds_tokens

    choose_format(target, options.format)  # fails before anything is encoded
    chosen = selected.model is not None or selected.checkpoint is not None
    if not chosen and holds_tokens(source, target, options.files):
        with FileProgress("export") as progress:
            return export_tokens(source, target, options, progress.show)
    from codectool.pipeline.run import Callbacks

    codec = selected.load()
    with BatchProgress("encode") as encoding, FileProgress("export") as progress:
        callbacks = Callbacks(encoding.found, encoding.planned, encoding.add)
        return export_audio(codec, source, target, options, progress.show, callbacks)


def _print_report(report: ExportReport) -> None:
    for sentence in report.warnings:
        warn(sentence)
    if report.join is not None:
        for sentence in report.join.problems():
            warn(sentence)
    if report.mismatches:
        shown = "; ".join(first_few(report.mismatches, see="`--json`"))
        warn(f"{len(report.mismatches)} files are not as long as in the manifest: {shown}")
    for name, reason in report.failures.items():
        say("error", f"{name}: {reason}", "red")
    kept = f", {report.kept} of them kept" if report.kept else ""
    failed = f", {count(len(report.failures), 'file')} failed" if report.failures else ""
    speed = report.records / report.wall_seconds if report.wall_seconds else 0
    note(
        f"{report.path}: {count(report.records, 'record')} ({report.seconds / 3600:.2f} h, "
        f"{report.ids:,} ids) in {count(report.shards, 'shard')}{kept}, "
        f"{report.bytes / 1e6:.1f} MB, {speed:.0f} records/s{failed}"
    )
