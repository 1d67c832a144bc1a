"""`codectool info`: what .hcd files say about themselves, without a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from codectool.cli.console import EXIT_BAD_INPUT, Settings, printable, report_error
from codectool.cli.options import debug_option, files_argument, open_input
from codectool.errors import CodectoolError


@click.command()
@files_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object per file and line.")
@debug_option
@click.pass_obj
def info(settings: Settings, sources: tuple[Path, ...], as_json: bool) -> None:
    """Show codec, rates, length, bit rate and weights of each FILE; no model is needed.

    \b
    Examples:
      codectool info out.hcd
      codectool info --json *.hcd | jq .bit_rate_kbps
    """
    failed = False
    for number, source in enumerate(sources):
        try:
            facts = describe(source)
        except CodectoolError as error:
            report_error(error, settings)
            failed = True
            continue
        if as_json:
            click.echo(json.dumps(facts))
        else:
            click.echo(("\n" if number else "") + _table(facts))
    if failed:
        sys.exit(EXIT_BAD_INPUT)


def describe(source: Path) -> dict[str, Any]:
    """The facts of one file, as JSON values.

    Raises:
        ContainerError: it cannot be read, or its end is missing.
        UsageError: there is no such file.
    """
    from codectool.checkpoints import known
    from codectool.container import Reader

    with open_input(source) as (file, name):
        reader = Reader(file, name)
        if reader.file_size is not None:
            reader.scan()
        else:
            for _ in reader.blocks():
                pass  # a pipe tells its length at the end
        file_bytes = reader.file_size or reader.bytes_read
    header, layout = reader.header, reader.header.layout
    samples, frames = reader.num_samples or 0, reader.num_frames or 0
    blocks = max(1, -(-frames // header.block_frames))
    rest = frames - (blocks - 1) * header.block_frames
    token_bytes = (blocks - 1) * header.block_payload_bytes + header.payload_bytes(rest)
    seconds = samples / header.sample_rate
    seen = known.find(header.fingerprint)
    return {
        "file": name,
        "codec": layout.family,
        "profile": header.profile_name,
        "weights": header.fingerprint,
        "checkpoint": seen.path if seen else None,
        "sample_rate": header.sample_rate,
        "channels": header.channels,
        "num_samples": samples,
        "duration": seconds,
        "model_sample_rate": layout.sample_rate,
        "hop_length": layout.hop_length,
        "frame_rate": layout.frame_rate,
        "frames": frames,
        "bits_per_stream": list(layout.stream_bits),
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


def _table(facts: dict[str, Any]) -> str:
    bits = "+".join(map(str, facts["bits_per_stream"]))
    rows = {
        "file": facts["file"],
        "codec": f"{facts['codec']}, profile {facts['profile']}",
        "weights": f"{facts['weights']}, {facts['checkpoint'] or 'not seen on this machine'}",
        "audio": f"{facts['duration']:.3f} s, {facts['num_samples']} samples at "
        f"{facts['sample_rate']} Hz, {_count(facts['channels'], 'channel')}",
        "model": f"{facts['model_sample_rate']} Hz, hop length {facts['hop_length']}, "
        f"frame rate {facts['frame_rate']:g} Hz",
        "tokens": f"{_count(facts['frames'], 'frame')} of {bits} bits",
        "bit rate": f"{facts['token_kbps']:.3f} kbps, {facts['bit_rate_kbps']:.3f} with container",
        "size": f"{facts['file_bytes']} bytes = {facts['token_bytes']} of tokens + "
        f"{facts['overhead_bytes']}",
        "blocks": f"{_count(facts['blocks'], 'block')} of {facts['block_frames']} frames",
    }
    if facts["segment_frames"]:
        rows["segments"] = f"of {facts['segment_frames']} frames"
    rows |= {f"tag {key}": value for key, value in facts["tags"].items()}
    width = max(map(len, rows))
    return "\n".join(f"{printable(key):{width}}  {printable(value)}" for key, value in rows.items())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
