"""`codectool decode`: .hcd to audio."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from codectool.cli.batch import FileOptions, file_options, run_folder
from codectool.cli.codec import CodecOptions, codec_options, decoder_option
from codectool.cli.console import EXIT_CONCEALED, note, warn, working
from codectool.cli.options import AudioOptions, audio_options, is_pipe, open_input, open_output
from codectool.errors import CodectoolError, UsageError

if TYPE_CHECKING:
    from codectool.codec import Codec
    from codectool.pipeline.operations import DecodeOperation


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Parse a time, ``90``, ``1:30`` or ``1:00:02.5``, to seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(?:(?:(\d{1,6}):)?(\d{1,6}):)?(\d{1,9}(?:\.\d*)?)", value, re.ASCII)
    if not match:
        raise click.BadParameter(f"`{value}` is not a time; use seconds or h:mm:ss")
    hours, minutes, seconds = match.groups(default="0")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


@click.command()
@codec_options
@decoder_option
@click.option(
    "--start",
    default="0",
    callback=_seconds,
    metavar="TIME",
    help="Start of the range to decode, in seconds or h:mm:ss.",
)
@click.option(
    "--duration",
    callback=_seconds,
    metavar="TIME",
    show_default="to the end",
    help="Length of the range to decode, in seconds or h:mm:ss.",
)
@click.option(
    "--conceal",
    is_flag=True,
    help="Replace damaged blocks by silence and decode truncated files (exit code 3).",
)
@click.option(
    "--force",
    is_flag=True,
    help="Decode even if the tokens were made with different weights (the output is meaningless "
    "unless the codecs match).",
)
@audio_options
@file_options(output_required=False)
def decode(
    selected: CodecOptions,
    start: float,
    duration: float | None,
    conceal: bool,
    force: bool,
    audio: AudioOptions,
    files: FileOptions,
) -> None:
    """Decode INPUT, a .hcd file, to OUTPUT, a wav or flac file.

    The output has the sampling rate, length and channels of the original. OUTPUT defaults to INPUT
    with the suffix .wav or .flac; `-` is stdin or stdout. Audio is written while INPUT is read, in
    memory that does not grow with its length.

    INPUT names the codec and the fingerprint of its tokens. Bundled weights are found by it, and so
    are weights used before on this machine; name others with --checkpoint. All weights with the
    same encoder decode INPUT; --decoder chooses among them.

    If INPUT is a folder, all .hcd files below it are decoded to the same tree under OUTPUT, with
    the weights of the first file. To continue an interrupted run, repeat the command: finished
    files are skipped.

    \b
    Examples:
      codectool decode out.hcd out.wav
      codectool decode talk.hcd minute.flac --start 1:00:00 --duration 60
      codectool decode tokens/ audio/ --format flac
      codectool decode old.hcd --decoder runs/new-decoder/model.safetensors
      codectool decode - - --checkpoint bigcodec.pt < out.hcd | aplay
    """
    if files.is_folder_run():
        if start or duration is not None:
            raise UsageError(
                f"{files.source}: is a folder; `--start` and `--duration` need a single file"
            )

        def make_operation(
            selected: CodecOptions, folder: Path, files: list[str] | None
        ) -> DecodeOperation:
            from codectool.pipeline.operations import DecodeOperation, DecodeOptions

            options = DecodeOptions(
                *(audio.container or "wav", audio.subtype, audio.native_rate, force, conceal),
                audio.keep_loudness,
            )
            return DecodeOperation(_load_for_folder(selected, folder, files), options)

        run_folder(files, selected, make_operation)
    container = audio.container_for(files.target)
    target = files.choose_output(f".{container}")

    from codectool.audio.sink import check_format
    from codectool.container import Reader
    from codectool.decoding import Decoding, write_audio

    subtype = check_format(container, audio.subtype)
    with open_input(files.source) as (file, name):
        reader = Reader(file, name, damaged="keep" if conceal else "raise")
        header = reader.header
        codec = selected.load_for(header, name)
        # a stream with short blocks is played while it arrives
        short = header.num_samples is None and header.block_frames < codec.frame_rate
        decoding = Decoding(
            codec,
            reader,
            start,
            duration,
            native_rate=audio.native_rate,
            force=force,
            chunk_frames=header.block_frames if short and is_pipe(files.source, file) else None,
            keep_loudness=audio.keep_loudness,
        )
        with working(f"decoding {name}"), open_output(target, files.overwrite) as output:
            samples = write_audio(output, decoding, container, subtype)
    for sentence in decoding.damage:
        warn(sentence)
    note(f"{name}: {samples / decoding.sample_rate:.2f} s -> {target}")
    if decoding.damage:
        sys.exit(EXIT_CONCEALED)


def _load_for_folder(selected: CodecOptions, folder: Path, files: list[str] | None) -> Codec:
    """Load the weights that the first readable `.hcd` file of a folder was made with."""
    from codectool.audio.discovery import find_names
    from codectool.container import Reader

    for name in find_names(folder, {".hcd"}, files)[0]:
        path = folder / name
        try:
            with open_input(path) as (file, _):
                header = Reader(file, str(path)).header
        except (CodectoolError, OSError):
            continue
        return selected.load_for(header, str(path))
    raise UsageError(f"{folder}: contains no readable .hcd file, which would name the weights")
