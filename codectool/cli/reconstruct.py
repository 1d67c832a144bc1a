"""`codectool reconstruct`: encode and decode in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from codectool.cli.batch import FileOptions, file_options, run_folder, strict_option
from codectool.cli.codec import EncoderOptions, decoder_option, encoder_options
from codectool.cli.console import note, warn, working
from codectool.cli.options import (
    PIPE,
    AudioOptions,
    NormalizeCommand,
    audio_options,
    is_pipe,
    normalize_option,
)
from codectool.errors import UsageError, naming

if TYPE_CHECKING:
    from codectool.pipeline.operations import ReconstructOperation


@click.command(cls=NormalizeCommand)
@encoder_options
@decoder_option
@normalize_option
@audio_options
@strict_option
@file_options(output_required=True)
def reconstruct(
    selected: EncoderOptions,
    normalize: float | None,
    audio: AudioOptions,
    strict: bool,
    files: FileOptions,
) -> None:
    """Encode and decode INPUT, an audio file, to OUTPUT, a wav or flac file.

    The codec is HAC with bundled weights unless --model or --checkpoint is given.

    If INPUT is a folder, all audio files below it are written to the same tree under OUTPUT. To
    continue an interrupted run, repeat the command: finished files are skipped.

    \b
    Examples:
      codectool reconstruct test-clean/ decoded/ --checkpoint bigcodec.pt --report report.jsonl
      codectool reconstruct talk.wav back.wav
      codectool reconstruct talk.wav back.wav --decoder runs/new-decoder/model.safetensors
    """
    from codectool.audio.sink import check_format

    folder = files.is_folder_run()
    container = audio.container_for(None if folder else files.target)
    check_format(container, audio.subtype)

    def make_operation(selected: EncoderOptions, *_: object) -> ReconstructOperation:
        from codectool.pipeline.operations import DecodeOptions, ReconstructOperation

        options = DecodeOptions(
            container, audio.subtype, audio.native_rate, keep_loudness=audio.keep_loudness
        )
        return ReconstructOperation(selected.load(), options, normalize)

    if folder:
        run_folder(files, selected, make_operation, strict)
    source, target = files.source, files.target
    assert target is not None, "OUTPUT is required"
    if PIPE in (source, target) or is_pipe(source) or is_pipe(target):
        raise UsageError(
            f"{source} to {target}: `reconstruct` needs files; for pipes use "
            "`encode - - | decode - -`"
        )
    files.choose_output(f".{container}")
    operation = make_operation(selected)
    with working(f"reconstructing {source}"), naming(str(source)):
        processed = operation.run_single(source, target, strict=strict)
    for sentence in processed.warnings:
        warn(sentence)
    note(f"{source}: {processed.seconds:.2f} s -> {target}")
