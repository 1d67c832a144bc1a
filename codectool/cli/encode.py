"""`codectool encode`: audio to .hcd."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, BinaryIO

import click
from typing_extensions import Self

from codectool.cli.batch import FileOptions, file_options, run_folder, strict_option
from codectool.cli.codec import EncoderOptions, encoder_options
from codectool.cli.console import note, warn, working
from codectool.cli.options import (
    NormalizeCommand,
    finite,
    is_pipe,
    normalize_option,
    open_input,
    open_output,
)
from codectool.cli.signals import ENDING, handling
from codectool.errors import UsageError

if TYPE_CHECKING:
    from codectool.audio.samples import Samples
    from codectool.audio.source import AudioSource
    from codectool.codec import Codec
    from codectool.pipeline.operations import EncodeOperation

RAW_FORMATS = ("s16le", "s24le", "s32le", "f32le")
PIPE_BLOCK_SECONDS = 1.0  # from pipe to pipe, so that data arrives while samples do


def _parse_tags(
    _ctx: click.Context, _param: click.Parameter, tags: tuple[str, ...]
) -> dict[str, str]:
    table: dict[str, str] = {}
    for tag in tags:
        key, equals, value = tag.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"`{tag}` is not KEY=VALUE")
        if key in table:
            raise click.BadParameter(f"`{key}` is given twice")
        table[key] = value
    return table


@click.command(cls=NormalizeCommand)
@encoder_options
@normalize_option
@click.option(
    "--tag",
    "tags",
    multiple=True,
    callback=_parse_tags,
    metavar="KEY=VALUE",
    help="Text tag to store. Repeatable.",
)
@click.option(
    "--block-seconds",
    type=click.FloatRange(0.0, 86400.0, min_open=True),
    callback=finite,
    metavar="S",
    show_default="about 24",
    help="Seconds of audio per block; each block has a checksum.",
)
@click.option(
    "--exact",
    is_flag=True,
    help="SuperCodec: encode the whole signal without segments; reads INPUT several times.",
)
@click.option(
    "--live",
    is_flag=True,
    help="Write blocks of 0.1 s (SuperCodec: 1 s) as soon as they are complete; Ctrl-C or SIGTERM "
    "ends the input.",
)
@click.option(
    "--input-format",
    type=click.Choice(RAW_FORMATS),
    help="Sample format of raw input, which has no header.",
)
@click.option(
    "--input-rate", type=click.IntRange(1), metavar="HZ", help="Sampling rate of raw input, in Hz."
)
@click.option(
    "--input-channels",
    type=click.IntRange(1, 1024),
    metavar="N",
    show_default="1",
    help="Number of interleaved channels of raw input.",
)
@strict_option
@file_options(output_required=False)
def encode(
    selected: EncoderOptions,
    normalize: float | None,
    tags: dict[str, str],
    block_seconds: float | None,
    exact: bool,
    live: bool,
    input_format: str | None,
    input_rate: int | None,
    input_channels: int | None,
    strict: bool,
    files: FileOptions,
) -> None:
    """Encode INPUT, an audio file, to OUTPUT, a .hcd file.

    INPUT is wav, flac, ogg, mp3 or another audio format, of any sampling rate and number of
    channels; m4a, mp4, webm, wma and amr need codectool[formats]. OUTPUT defaults to INPUT with the
    suffix .hcd; `-` is stdin or stdout. Memory use does not depend on the length of INPUT. From
    pipe to pipe, tokens are written while samples arrive.

    The codec is HAC with bundled weights unless --model or --checkpoint is given.

    If INPUT is a folder, all audio files below it are encoded to the same tree under OUTPUT. To
    continue an interrupted run, repeat the command: finished files are skipped.

    --normalize reads INPUT twice; a pipe is kept in a temporary file. Silence and what is below
    -70 LUFS keep their level, and no sample is made to exceed full scale.

    \b
    Examples:
      codectool encode in.wav out.hcd
      codectool encode talk.flac --checkpoint runs/supercodec/ --tag speaker=p253
      codectool encode quiet.wav quiet.hcd --normalize
      codectool encode recordings/ tokens/ --report report.jsonl
      sox in.wav -t wav - | codectool encode - - --checkpoint bigcodec.pt > out.hcd
      arecord -q -f S16_LE -r 24000 | codectool encode - - --live | codectool decode - - | aplay
    """
    raw = input_format, input_rate, input_channels
    padded = selected.padding == "reference"
    if live and (exact or padded):
        raise UsageError("`--live` cannot be combined with `--exact` or `--padding reference`")
    if live and normalize is not None:
        raise UsageError("`--normalize` needs the whole input, so it cannot be used with `--live`")
    if files.is_folder_run():
        if live or any(raw):
            raise UsageError(
                f"{files.source}: is a folder; `--live` and raw input need a single file or a pipe"
            )

        def make_operation(selected: EncoderOptions, *_: object) -> EncodeOperation:
            from codectool.pipeline.operations import EncodeOperation, EncodeOptions

            codec = selected.load()
            block_frames = _block_frames(codec, block_seconds)
            return EncodeOperation(codec, EncodeOptions(tags, block_frames, exact, normalize))

        run_folder(files, selected, make_operation, strict)
    target = files.choose_output(".hcd")

    from codectool.container import write
    from codectool.encoding import Encoded, encode_live, encode_source, live_seconds
    from codectool.streaming import channel_groups

    with open_input(files.source) as (file, name), _open_audio(file, name, *raw) as audio:
        codec = selected.load()
        streamed = live or (
            is_pipe(files.source, file)
            and is_pipe(target)
            and not (padded or exact or normalize is not None)
            and len(channel_groups(codec.model, audio.channels)) == 1
        )
        if streamed and block_seconds is None:
            block_seconds = live_seconds(codec) if live else PIPE_BLOCK_SECONDS
        block_frames = _block_frames(codec, block_seconds)
        started = time.perf_counter()
        if streamed:
            with (
                working(f"encoding {name}"),
                _LiveSource(audio) if live else nullcontext(audio) as input_,
                open_output(target, files.overwrite) as output,
            ):
                encoded = encode_live(
                    codec,
                    input_,
                    output,
                    tags=tags,
                    block_frames=block_frames,
                    chunk_frames=max(block_frames or 1, codec.model.min_frames) if live else None,
                    strict=strict,
                )
        else:
            with working(f"encoding {name}"):
                tokens = encode_source(
                    codec, audio, tags=tags, exact=exact, normalize=normalize, strict=strict
                )
            with open_output(target, files.overwrite) as output:
                num_bytes = write(output, tokens, block_frames=block_frames)
            encoded = Encoded(
                *(tokens.num_samples, tokens.sample_rate, num_bytes, tuple(audio.warnings)),
                tokens.gain_db,
            )
    seconds = time.perf_counter() - started
    for sentence in encoded.warnings:
        warn(sentence)
    if encoded.num_samples:
        note(
            f"{name}: {encoded.seconds:.2f} s -> {target}: {encoded.num_bytes} bytes, "
            f"{8 * encoded.num_bytes / encoded.seconds / 1000:.3f} kbps, "
            f"RTF {seconds / encoded.seconds:.3f}"
            + (f", gain {encoded.gain_db:+.2f} dB" if normalize is not None else "")
        )


def _block_frames(codec: Codec, seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds * codec.frame_rate))


def _open_audio(
    file: BinaryIO, name: str, form: str | None, rate: int | None, channels: int | None
) -> AbstractContextManager[AudioSource]:
    """Open an audio file, or raw samples if their format is given."""
    from codectool.audio.source import PcmSource, open_audio
    from codectool.audio.wav import RAW_FORMATS

    if form is None and rate is None and channels is None:
        return open_audio(file, name)
    if form is None or rate is None:
        raise UsageError("raw input needs `--input-format` and `--input-rate`")
    return nullcontext(PcmSource(file, RAW_FORMATS[form], rate, channels or 1, name))


class _LiveSource:
    """Audio that ends on Ctrl-C, or when the program is terminated: the recording is kept."""

    seekable = False
    num_samples: int | None = None

    def __init__(self, audio: AudioSource) -> None:
        self.name, self.sample_rate, self.channels = audio.name, audio.sample_rate, audio.channels
        self.warnings = audio.warnings
        self._chunks = audio.chunks()
        self._waiting = self._ended = False

    def __enter__(self) -> Self:
        self._handling = handling(ENDING, self._end)
        self._handling.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._handling.__exit__(*exception)

    def _end(self, *_: object) -> None:
        self._ended = True
        if self._waiting:
            raise KeyboardInterrupt

    def chunks(self, first: int = 0, count: int | None = None) -> Iterator[Samples]:
        while not self._ended:
            self._waiting = True
            try:
                chunk = next(self._chunks)
            except (KeyboardInterrupt, StopIteration):
                return
            finally:
                self._waiting = False
            yield chunk
