"""`codectool encode`: audio to .hcd."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from codectool.cli.batch import BatchOptions, batch_options, run_folder
from codectool.cli.console import Settings, note, working
from codectool.cli.options import (
    choose_output,
    codec_options,
    debug_option,
    encoder_options,
    finite,
    is_pipe,
    open_input,
    open_output,
    overwrite_option,
    write_output,
)
from codectool.errors import UsageError

if TYPE_CHECKING:
    from codectool.audio.samples import Samples
    from codectool.audio.source import AudioSource
    from codectool.codec import Codec
    from codectool.pipeline.operations import EncodeOperation

RAW_FORMATS = ("s16le", "s24le", "s32le", "f32le")
PIPE_BLOCK_SECONDS = 1.0  # from pipe to pipe, so that data arrives while samples do


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("target", metavar="[OUTPUT]", type=click.Path(path_type=Path), required=False)
@codec_options
@encoder_options
@click.option(
    "--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Text tag to store. Repeatable."
)
@click.option(
    "--block-seconds",
    type=click.FloatRange(0.0, 86400.0, min_open=True),
    callback=finite,
    metavar="S",
    help="Seconds of audio per block (the unit that is checked). Default: about 24.",
)
@click.option(
    "--exact",
    is_flag=True,
    help="SuperCodec: encode the whole signal without segments; reads INPUT several times.",
)
@click.option(
    "--live",
    is_flag=True,
    help="Write short blocks (0.1 s unless --block-seconds) at once; Ctrl-C ends the input.",
)
@click.option(
    "--input-format",
    type=click.Choice(RAW_FORMATS),
    help="Sample format of raw input (without a header).",
)
@click.option(
    "--input-rate", type=click.IntRange(1), metavar="HZ", help="Sampling rate of raw input, in Hz."
)
@click.option(
    "--input-channels",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Channels of raw input, interleaved. Default: 1.",
)
@batch_options
@overwrite_option
@debug_option
@click.pass_obj
def encode(
    settings: Settings,
    source: Path,
    target: Path | None,
    model: str | None,
    checkpoint: Path | None,
    config: Path | None,
    device: str,
    precision: str,
    codebooks: int | None,
    padding: str,
    tags: tuple[str, ...],
    block_seconds: float | None,
    exact: bool,
    live: bool,
    input_format: str | None,
    input_rate: int | None,
    input_channels: int | None,
    batch: BatchOptions,
    overwrite: bool,
) -> None:
    """Encode INPUT (wav, flac, ogg, mp3; any rate, any number of channels) to OUTPUT.

    OUTPUT defaults to INPUT with the suffix .hcd. Memory use does not depend on the length of
    INPUT. From a pipe to a pipe, tokens are written while samples arrive.

    If INPUT is a folder, all audio files below it are encoded to the same tree under OUTPUT. To
    continue an interrupted run, repeat the command: finished files are skipped.

    \b
    Examples:
      codectool encode in.wav out.hcd
      codectool encode talk.flac --checkpoint runs/supercodec/ --tag speaker=p253
      codectool encode recordings/ tokens/ --report report.jsonl
      sox in.wav -t wav - | codectool encode - - --checkpoint bigcodec.pt > out.hcd
      arecord -q -f S16_LE -r 24000 | codectool encode - - --live | codectool decode - - | aplay
    """
    tag_table = _parse_tags(tags)
    raw = _raw_input(input_format, input_rate, input_channels)
    if live and (exact or padding == "reference"):
        raise UsageError("`--live` cannot be combined with `--exact` or `--padding reference`")

    def load() -> Codec:
        from codectool.cli.codec import load_codec

        where = batch.local_device(device)
        return load_codec(model, checkpoint, config, where, precision, padding, codebooks)

    if batch.is_folder_run(source):
        if live or raw is not None:
            raise UsageError(
                f"{source}: is a folder; `--live` and raw input need a single file or a pipe"
            )

        def make_operation(*_: object) -> EncodeOperation:
            from codectool.pipeline.operations import EncodeOperation, EncodeOptions

            codec = load()
            block_frames = _block_frames(codec, block_seconds)
            return EncodeOperation(codec, EncodeOptions(tag_table, block_frames, exact))

        run_folder(source, target, batch, device, overwrite, settings, make_operation)
    target = choose_output(source, target, ".hcd", overwrite)

    from codectool.container import write
    from codectool.encoding import Encoded, encode_live, encode_source, live_seconds

    with open_input(source) as (file, name), _opened(file, name, raw) as audio:
        codec = load()
        flows = live or (
            is_pipe(source, file) and is_pipe(target) and padding == "lossless" and not exact
        )
        if flows and block_seconds is None:
            block_seconds = live_seconds(codec) if live else PIPE_BLOCK_SECONDS
        block_frames = _block_frames(codec, block_seconds)
        started = time.perf_counter()
        if flows:
            chunk_frames = max(block_frames or 1, codec.model.min_frames) if live else None
            with (
                working(f"encoding {name}"),
                _until_interrupted(audio) if live else nullcontext(audio) as input_,
                open_output(target, overwrite) as output,
            ):
                encoded = encode_live(
                    codec,
                    input_,
                    output,
                    tags=tag_table,
                    block_frames=block_frames,
                    chunk_frames=chunk_frames,
                )
        else:
            with working(f"encoding {name}"):
                tokens = encode_source(codec, audio, tags=tag_table, exact=exact)
            packed = io.BytesIO()
            write(packed, tokens, block_frames=block_frames)
            encoded = Encoded(tokens.num_samples, tokens.sample_rate, packed.tell())
            write_output(target, packed.getbuffer(), overwrite)
    seconds = time.perf_counter() - started
    if encoded.num_samples:
        note(
            f"{name}: {encoded.seconds:.2f} s -> {target}: {encoded.num_bytes} bytes, "
            f"{8 * encoded.num_bytes / encoded.seconds / 1000:.3f} kbps, "
            f"RTF {seconds / encoded.seconds:.3f}"
        )


def _block_frames(codec: Codec, seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds * codec.frame_rate))


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


def _raw_input(
    name: str | None, rate: int | None, channels: int | None
) -> tuple[str, int, int] | None:
    """Return format, sampling rate and channels of raw input; None if INPUT has a header."""
    if name is None and rate is None and channels is None:
        return None
    if name is None or rate is None:
        raise UsageError("raw input needs `--input-format` and `--input-rate`")
    return name, rate, channels or 1


@contextmanager
def _opened(file: BinaryIO, name: str, raw: tuple[str, int, int] | None) -> Iterator[AudioSource]:
    from codectool.audio.source import PcmSource, open_audio
    from codectool.audio.wav import RAW_FORMATS

    if raw is not None:
        form, rate, channels = raw
        yield PcmSource(file, RAW_FORMATS[form], rate, channels, name)
    else:
        with open_audio(file, name) as audio:
            yield audio


class _Interrupted(Exception):
    """Ctrl-C was pressed while waiting for samples."""


@contextmanager
def _until_interrupted(audio: AudioSource) -> Iterator[AudioSource]:
    """Yield the audio with Ctrl-C treated as the end of input."""
    live = _Live(audio)
    previous = signal.signal(signal.SIGINT, live.interrupt)
    try:
        yield live
    finally:
        signal.signal(signal.SIGINT, previous)


class _Live:
    seekable = False

    def __init__(self, audio: AudioSource) -> None:
        self.name, self.sample_rate, self.channels = audio.name, audio.sample_rate, audio.channels
        self.num_samples: int | None = None
        self._chunks = audio.chunks()
        self._waiting = self._ended = False

    def interrupt(self, *_: object) -> None:
        self._ended = True
        if self._waiting:
            raise _Interrupted

    def chunks(self) -> Iterator[Samples]:
        while not self._ended:
            try:
                self._waiting = True
                chunk = next(self._chunks, None)
            except _Interrupted:
                return
            finally:
                self._waiting = False
            if chunk is None:
                return
            yield chunk
