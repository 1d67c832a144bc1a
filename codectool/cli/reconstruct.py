"""`codectool reconstruct`: encode and decode in one go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from codectool.cli.batch import BatchOptions, batch_options, run_folder
from codectool.cli.console import Settings, note, working
from codectool.cli.options import (
    audio_options,
    choose_output,
    codec_options,
    debug_option,
    encoder_options,
    is_pipe,
    overwrite_option,
)
from codectool.errors import UsageError

if TYPE_CHECKING:
    from codectool.pipeline.operations import ReconstructOperation


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUTPUT", type=click.Path(path_type=Path))
@codec_options
@encoder_options
@audio_options
@batch_options
@overwrite_option
@debug_option
@click.pass_obj
def reconstruct(
    settings: Settings,
    source: Path,
    target: Path,
    model: str | None,
    checkpoint: Path | None,
    config: Path | None,
    device: str,
    precision: str,
    codebooks: int | None,
    padding: str,
    native_rate: bool,
    container: str | None,
    subtype: str | None,
    batch: BatchOptions,
    overwrite: bool,
) -> None:
    """Encode and decode INPUT, a file or a folder, in one go.

    If INPUT is a folder, all audio files below it are written to the same tree under OUTPUT. To
    continue an interrupted run, repeat the command: finished files are skipped.

    \b
    Examples:
      codectool reconstruct test-clean/ decoded/ --checkpoint bigcodec.pt --report report.jsonl
      codectool reconstruct talk.wav back.wav
    """
    folder = batch.is_folder_run(source)
    if container is None:
        container = "flac" if target.suffix.lower() == ".flac" and not folder else "wav"
    options = container, subtype, native_rate

    def make_operation(*_: object) -> ReconstructOperation:
        from codectool.cli.codec import load_codec
        from codectool.pipeline.operations import DecodeOptions, ReconstructOperation

        where = batch.local_device(device)
        codec = load_codec(model, checkpoint, config, where, precision, padding, codebooks)
        return ReconstructOperation(codec, DecodeOptions(*options))

    from codectool.audio.sink import check_format

    check_format(container, subtype)
    if folder:
        run_folder(source, target, batch, device, overwrite, settings, make_operation)
    if is_pipe(source) or is_pipe(target):
        raise UsageError("reconstruct needs files; for pipes use `encode - - | decode - -`")
    choose_output(source, target, f".{container}", overwrite)
    operation = make_operation()
    with working(f"reconstructing {source}"):
        seconds, _ = operation.run_single(source, target)
    note(f"{source}: {seconds:.2f} s -> {target}")
