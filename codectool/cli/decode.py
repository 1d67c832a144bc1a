"""`codectool decode`: .hcd to audio."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from codectool.cli.batch import BatchOptions, batch_options, load_decoder, run_folder
from codectool.cli.console import EXIT_CONCEALED, Settings, note, warn, working
from codectool.cli.options import (
    audio_options,
    choose_output,
    codec_options,
    debug_option,
    is_pipe,
    open_input,
    open_output,
    overwrite_option,
)
from codectool.errors import UsageError

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


def _container(target: Path | None) -> str:
    """Return the audio format for the suffix of OUTPUT."""
    suffix = target.suffix.lower() if target else ""
    formats = {"": "wav", ".wav": "wav", ".wave": "wav", ".flac": "flac"}
    if suffix not in formats:
        raise UsageError(f"{target}: decode writes wav or flac; rename it or use `--format`")
    return formats[suffix]


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("target", metavar="[OUTPUT]", type=click.Path(path_type=Path), required=False)
@codec_options
@click.option(
    "--start",
    default="0",
    callback=_seconds,
    metavar="TIME",
    help="Start of the range, in seconds or h:mm:ss.",
)
@click.option(
    "--duration",
    callback=_seconds,
    metavar="TIME",
    help="Length of the range. Default: to the end.",
)
@click.option(
    "--conceal",
    is_flag=True,
    help="Replace damaged blocks by silence and decode truncated files (exit code 3).",
)
@click.option(
    "--force", is_flag=True, help="Decode even if the tokens were made with different weights."
)
@audio_options
@batch_options
@overwrite_option
@debug_option
@click.pass_obj
def decode(
    settings: Settings,
    source: Path,
    target: Path | None,
    model: str | None,
    checkpoint: Path | None,
    config: Path | None,
    device: str,
    precision: str,
    start: float,
    duration: float | None,
    conceal: bool,
    force: bool,
    native_rate: bool,
    container: str | None,
    subtype: str | None,
    batch: BatchOptions,
    overwrite: bool,
) -> None:
    """Decode INPUT to OUTPUT with the sampling rate, length and channels of the original.

    OUTPUT defaults to INPUT with the suffix .wav or .flac. Bundled weights, and weights used before
    on this machine, are found by the fingerprint in the file; otherwise use --checkpoint. Audio is
    written while INPUT is read; memory use does not depend on its length.

    If INPUT is a folder, all .hcd files below it are decoded to the same tree under OUTPUT, with
    the weights of the first file. To continue an interrupted run, repeat the command.

    \b
    Examples:
      codectool decode out.hcd out.wav
      codectool decode talk.hcd minute.flac --start 1:00:00 --duration 60
      codectool decode tokens/ audio/ --format flac
      codectool decode - - --checkpoint bigcodec.pt < out.hcd | aplay
    """

    def load(fingerprint: str, family: str, name: str) -> Codec:
        from codectool.cli.codec import load_codec, load_known_codec

        if model is not None and model != family:
            raise UsageError(f"{name}: was encoded with {family}, not {model}")
        where = batch.local_device(device)
        if checkpoint is not None:
            return load_codec(family, checkpoint, config, where, precision)
        if config is not None:
            raise UsageError("`--config` needs `--checkpoint`")
        return load_known_codec(fingerprint, family, where, precision, name)

    if batch.is_folder_run(source):
        if start or duration is not None:
            raise UsageError(
                f"{source}: is a folder; `--start` and `--duration` need a single file"
            )

        def make_operation(folder: Path, files: list[str] | None) -> DecodeOperation:
            from codectool.pipeline.operations import DecodeOperation, DecodeOptions

            codec = load_decoder(folder, files, load)
            options = DecodeOptions(container or "wav", subtype, native_rate, force, conceal)
            return DecodeOperation(codec, options)

        run_folder(source, target, batch, device, overwrite, settings, make_operation)
    if container is None:
        container = _container(target)
    target = choose_output(source, target, f".{container}", overwrite)

    from codectool.audio.sink import check_format
    from codectool.container import Reader
    from codectool.decoding import Decoding, write_audio

    subtype = check_format(container, subtype)
    with open_input(source) as (file, name):
        reader = Reader(file, name, damaged="keep" if conceal else "raise")
        header = reader.header
        codec = load(header.fingerprint, header.layout.family, name)
        # A stream with short blocks is played while it arrives.
        short = header.num_samples is None and header.block_frames < codec.frame_rate
        decoding = Decoding(
            codec,
            reader,
            start,
            duration,
            native_rate=native_rate,
            force=force,
            chunk_frames=header.block_frames if short and is_pipe(source, file) else None,
        )
        with working(f"decoding {name}"), open_output(target, overwrite) as output:
            samples = write_audio(output, decoding, container, subtype)
    for sentence in decoding.damage:
        warn(sentence)
    note(f"{name}: {samples / decoding.sample_rate:.2f} s -> {target}")
    if decoding.damage:
        sys.exit(EXIT_CONCEALED)
