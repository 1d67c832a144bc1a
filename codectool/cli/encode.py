"""`codectool encode`: audio file to .hcd file."""

from __future__ import annotations

import io
import math
import time
from pathlib import Path

import click

from codectool.cli.console import note, working
from codectool.cli.options import (
    choose_output,
    codec_options,
    debug_option,
    open_input,
    overwrite_option,
    write_output,
)


def _finite(_ctx: click.Context, _param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of seconds")
    return value


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("target", metavar="[OUTPUT]", type=click.Path(path_type=Path), required=False)
@codec_options
@click.option(
    "--quantizers", type=click.IntRange(1), metavar="N", help="Use the first N codebooks only."
)
@click.option(
    "--framing",
    type=click.Choice(["whole", "upstream"]),
    default="whole",
    show_default=True,
    help="whole loses no sample; upstream does at the file's end what the published script does.",
)
@click.option(
    "--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Text to store; may be repeated."
)
@click.option(
    "--block-seconds",
    type=click.FloatRange(0.0, 86400.0, min_open=True),
    callback=_finite,
    metavar="S",
    help="Audio per checked block; default about 24.",
)
@overwrite_option
@debug_option
def encode(
    source: Path,
    target: Path | None,
    model: str | None,
    checkpoint: Path | None,
    config: Path | None,
    device: str,
    precision: str,
    quantizers: int | None,
    framing: str,
    tags: tuple[str, ...],
    block_seconds: float | None,
    overwrite: bool,
) -> None:
    """Encode INPUT (wav, flac, ogg, mp3; any rate, any number of channels) to OUTPUT.

    OUTPUT is INPUT with the suffix .hcd unless named.

    \b
    Examples:
      codectool encode in.wav out.hcd --model bigcodec --checkpoint bigcodec.pt
      codectool encode talk.flac --checkpoint runs/supercodec/ --tag speaker=p253
      sox in.wav -t wav - | codectool encode - - --checkpoint bigcodec.pt > out.hcd
    """
    target = choose_output(source, target, ".hcd", overwrite)
    tag_table = _parse_tags(tags)

    from codectool.audio.files import read_audio
    from codectool.cli.codec import load_codec

    with open_input(source) as (file, name):
        # libsndfile seeks, which a pipe cannot.
        seekable = file if file.seekable() else io.BytesIO(file.read())
        samples, rate = read_audio(seekable, name)
    codec = load_codec(model, checkpoint, config, device, precision, framing, quantizers)
    started = time.perf_counter()
    with working(f"encoding {name}"):
        tokens = codec.encode(samples, rate, tag_table)
    seconds = time.perf_counter() - started

    from codectool.container import write_tokens

    block_frames = None
    if block_seconds is not None:
        block_frames = max(1, round(block_seconds * codec.frame_rate))
    packed = io.BytesIO()
    write_tokens(packed, tokens, block_frames)
    size = packed.tell()
    write_output(target, packed.getbuffer(), overwrite)
    if tokens.num_samples:
        note(
            f"{name}: {tokens.duration:.2f} s -> {target}: {size} bytes, "
            f"{8 * size / tokens.duration / 1000:.3f} kbps, RTF {seconds / tokens.duration:.3f}"
        )


def _parse_tags(tags: tuple[str, ...]) -> dict[str, str]:
    table: dict[str, str] = {}
    for tag in tags:
        key, equals, value = tag.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"`{tag}` is not KEY=VALUE", param_hint="--tag")
        if key in table:
            raise click.BadParameter(f"`{key}` is given twice", param_hint="--tag")
        table[key] = value
    return table
