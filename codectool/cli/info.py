"""`codectool info`: metadata of .hcd files and codecs, without a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from codectool.cli.console import EXIT_BAD_INPUT, Settings, printable, report_error
from codectool.cli.options import debug_option, open_input
from codectool.codecs.registry import FAMILIES, get_family
from codectool.errors import CodectoolError, UsageError


@click.command()
@click.argument("sources", metavar="[FILE...]", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--model",
    "models",
    type=click.Choice(list(FAMILIES)),
    multiple=True,
    help="Show metadata and latency of this codec. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line and file.")
@debug_option
@click.pass_obj
def info(
    settings: Settings, sources: tuple[Path, ...], models: tuple[str, ...], as_json: bool
) -> None:
    """Show codec, sampling rate, length, bit rate and weights of each FILE. Needs no model.

    \b
    Examples:
      codectool info out.hcd
      codectool info --json *.hcd | jq .bit_rate_kbps
      codectool info --model hac
    """
    if not sources and not models:
        raise UsageError("give a FILE, or a codec with `--model`")
    failed = False
    shown: list[tuple[dict[str, Any], str]] = []
    for model in models:
        data = describe_model(model)
        shown.append((data, _model_table(data)))
    for source in sources:
        try:
            data = describe(source)
        except CodectoolError as error:
            report_error(error, settings)
            failed = True
            continue
        shown.append((data, _table(data)))
    for number, (data, table) in enumerate(shown):
        click.echo(json.dumps(data) if as_json else ("\n" if number else "") + table)
    if failed:
        sys.exit(EXIT_BAD_INPUT)


def describe_model(family: str) -> dict[str, Any]:
    """Return the metadata of a codec as published, as JSON values."""
    from codectool.checkpoints import bundled

    model = get_family(family).published
    if model is None:
        raise UsageError(f"{family} has no published model")
    layout = model.layout
    weights = bundled.default(family)
    return {
        "codec": family,
        "source": model.paper,
        "weights": weights.fingerprint if weights else None,
        "parameters": model.parameters,
        "model_sample_rate": layout.sample_rate,
        "hop_length": layout.hop_length,
        "frame_rate": layout.frame_rate,
        "bits_per_codebook": list(layout.bits_per_codebook),
        "token_kbps": layout.bit_rate / 1000,
        "encoder_lookahead_samples": model.encoder_lookahead,
        "decoder_lookahead_samples": model.decoder_lookahead,
        "latency_ms": model.latency_ms,
        "segment_seconds": model.segment_seconds,
    }


def _model_table(data: dict[str, Any]) -> str:
    bits = "+".join(map(str, data["bits_per_codebook"]))
    rate = data["model_sample_rate"]
    if data["latency_ms"] is None:
        latency = (
            f"one segment: {data['segment_seconds']} s, or the block length of `encode --live`"
        )
    else:
        frame, encoder, decoder = (
            1000 * data[name] / rate
            for name in ("hop_length", "encoder_lookahead_samples", "decoder_lookahead_samples")
        )
        latency = (
            f"{data['latency_ms']:.1f} ms = frame {frame:.1f} + encoder lookahead {encoder:.1f} + "
            f"decoder lookahead {decoder:.1f}"
        )
    rows = {
        "codec": f"{data['codec']}, {data['source']}",
        "weights": f"{data['weights']}, bundled"
        if data["weights"]
        else "not bundled; use `--checkpoint PATH`",
        "size": f"{data['parameters'] / 1e6:.1f} million parameters",
        "model": f"{rate} Hz, hop length {data['hop_length']}, "
        f"frame rate {data['frame_rate']:g} Hz",
        "tokens": f"{bits} bits per frame",
        "bit rate": f"{data['token_kbps']:.3f} kbps",
        "latency": latency,
    }
    return _aligned(rows)


def describe(source: Path) -> dict[str, Any]:
    """Return the metadata of a file as JSON values.

    Raises:
        ContainerError: the file cannot be read or is truncated.
        UsageError: the file does not exist.
    """
    from codectool.checkpoints import bundled, registry
    from codectool.container import Reader

    with open_input(source) as (file, name):
        reader = Reader(file, name)
        if reader.file_size is not None:
            reader.scan()
        else:
            for _ in reader.blocks():
                pass  # the length of a pipe is known at its end
        file_bytes = reader.file_size or reader.bytes_read
    header, layout = reader.header, reader.header.layout
    samples, frames = reader.num_samples or 0, reader.num_frames or 0
    blocks = max(1, -(-frames // header.block_frames))
    rest = frames - (blocks - 1) * header.block_frames
    full, last = header.payload_bytes(header.block_frames), header.payload_bytes(rest)
    token_bytes = (blocks - 1) * full + last
    seconds = samples / header.sample_rate
    seen = registry.find(header.fingerprint)
    weights = bundled.find(header.fingerprint)
    return {
        "file": name,
        "codec": layout.family,
        "profile": header.profile_name,
        "weights": header.fingerprint,
        "weights_name": weights.name if weights else None,
        "checkpoint": seen.path if seen else None,
        "sample_rate": header.sample_rate,
        "channels": header.channels,
        "num_samples": samples,
        "duration": seconds,
        "model_sample_rate": layout.sample_rate,
        "hop_length": layout.hop_length,
        "frame_rate": layout.frame_rate,
        "frames": frames,
        "bits_per_codebook": list(layout.bits_per_codebook),
        "bits_per_frame": layout.bits_per_frame,
        "segment_frames": header.segment_frames,
        "blocks": blocks,
        "block_frames": header.block_frames,
        "file_bytes": file_bytes,
        "token_bytes": token_bytes,
        "overhead_bytes": file_bytes - token_bytes,
        "token_kbps": 8 * token_bytes / seconds / 1000 if seconds else 0.0,
        "bit_rate_kbps": 8 * file_bytes / seconds / 1000 if seconds else 0.0,
        "tags": reader.tags,
    }


def _table(data: dict[str, Any]) -> str:
    bits = "+".join(map(str, data["bits_per_codebook"]))
    missing = ", ".join(filter(None, (data["weights_name"], "not found on this machine")))
    rows = {
        "file": data["file"],
        "codec": f"{data['codec']}, profile {data['profile']}",
        "weights": f"{data['weights']}, {data['checkpoint'] or missing}",
        "audio": f"{data['duration']:.3f} s, {data['num_samples']} samples at "
        f"{data['sample_rate']} Hz, {_count(data['channels'], 'channel')}",
        "model": f"{data['model_sample_rate']} Hz, hop length {data['hop_length']}, "
        f"frame rate {data['frame_rate']:g} Hz",
        "tokens": f"{_count(data['frames'], 'frame')} of {bits} bits",
        "bit rate": f"{data['token_kbps']:.3f} kbps, {data['bit_rate_kbps']:.3f} with container",
        "size": f"{data['file_bytes']} bytes = {data['token_bytes']} of tokens + "
        f"{data['overhead_bytes']}",
        "blocks": f"{_count(data['blocks'], 'block')} of {data['block_frames']} frames",
    }
    if data["segment_frames"]:
        rows["segments"] = f"of {data['segment_frames']} frames"
    rows |= {f"tag {key}": value for key, value in data["tags"].items()}
    return _aligned(rows)


def _aligned(rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"{printable(key):{width}}  {printable(value)}" for key, value in rows.items())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
