"""`codectool decode`: .hcd file to audio file."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from codectool.cli.console import EXIT_CONCEALED, note, warn, working
from codectool.cli.options import (
    choose_output,
    codec_options,
    debug_option,
    is_pipe,
    open_input,
    open_output,
    overwrite_option,
)
from codectool.errors import UsageError


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Seconds of a time: ``90``, ``1:30`` or ``1:00:02.5``."""
    if value is None:
        return None
    match = re.fullmatch(r"(?:(?:(\d{1,6}):)?(\d{1,6}):)?(\d{1,9}(?:\.\d*)?)", value, re.ASCII)
    if not match:
        raise click.BadParameter(f"`{value}` is no time; write seconds or h:mm:ss")
    hours, minutes, seconds = match.groups(default="0")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def _container(target: Path | None) -> str:
    """The format that the suffix of OUTPUT asks for."""
    suffix = target.suffix.lower() if target else ""
    formats = {"": "wav", ".wav": "wav", ".wave": "wav", ".flac": "flac"}
    if suffix not in formats:
        raise UsageError(f"{target}: decode writes wav or flac; rename it, or give `--format`")
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
    help="Begin here: seconds or h:mm:ss.",
)
@click.option(
    "--duration",
    callback=_seconds,
    metavar="TIME",
    help="Decode so much; default: up to the end.",
)
@click.option(
    "--conceal",
    is_flag=True,
    help="Write silence for damaged blocks and what is left of a file that was cut off (exit 3).",
)
@click.option("--force", is_flag=True, help="Decode even if the weights are not the file's.")
@click.option("--native-rate", is_flag=True, help="Leave the audio at the model's sampling rate.")
@click.option(
    "--format",
    "container",
    type=click.Choice(["wav", "flac"]),
    help="Default: by the suffix of OUTPUT, else wav.",
)
@click.option("--subtype", metavar="NAME", help="Sample format: PCM_16 (default), PCM_24, FLOAT.")
@overwrite_option
@debug_option
def decode(
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
    overwrite: bool,
) -> None:
    """Decode INPUT to OUTPUT, at the rate, length and channel count that were encoded.

    OUTPUT is INPUT with the suffix .wav or .flac unless named. The weights are those that the file
    was made with, if this machine has seen them; otherwise give them with --checkpoint. Audio
    leaves while INPUT is read, and memory does not grow with its length.

    \b
    Examples:
      codectool decode out.hcd out.wav
      codectool decode talk.hcd minute.flac --start 1:00:00 --duration 60
      codectool decode - - --checkpoint bigcodec.pt < out.hcd | aplay
    """
    if container is None:
        container = _container(target)
    target = choose_output(source, target, f".{container}", overwrite)

    from codectool.audio.files import check_format
    from codectool.container import Reader

    subtype = check_format(container, subtype)
    with open_input(source) as (file, name):
        reader = Reader(file, name, damaged="keep" if conceal else "raise")

        from codectool.cli.codec import load_codec, load_known_codec
        from codectool.decoding import Decoding, write_audio

        header = reader.header
        family = header.layout.family
        if model is not None and model != family:
            raise UsageError(f"{name}: was made by {family}, not by {model}")
        if checkpoint is not None:
            codec = load_codec(family, checkpoint, config, device, precision)
        elif config is not None:
            raise UsageError("`--config` says how to read a `--checkpoint`; give that, too")
        else:
            codec = load_known_codec(header.fingerprint, family, device, precision, name)
        # What comes in short blocks is meant to be heard as it comes.
        short = header.num_samples is None and header.block_frames < codec.frame_rate
        decoding = Decoding(
            codec,
            reader,
            start,
            duration,
            native_rate=native_rate,
            force=force,
            block_frames=header.block_frames if short and is_pipe(source, file) else None,
        )
        with working(f"decoding {name}"), open_output(target, overwrite) as output:
            samples = write_audio(output, decoding, container, subtype)
    for sentence in decoding.damage:
        warn(sentence)
    note(f"{name}: {samples / decoding.sample_rate:.2f} s -> {target}")
    if decoding.damage:
        sys.exit(EXIT_CONCEALED)
