"""`codectool info`: metadata of .hcd files and codecs, without a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from codectool.cli.console import EXIT_BAD_INPUT, count, print_data, report_error
from codectool.cli.options import FILE, debug_option, open_input
from codectool.codecs.registry import FAMILIES, get_family
from codectool.errors import CheckpointError, CodectoolError, UsageError
from codectool.messages import printable, to_json


@click.command()
@click.argument("sources", metavar="[FILE...]", nargs=-1, type=FILE)
@click.option(
    "--model",
    "models",
    type=click.Choice(list(FAMILIES)),
    multiple=True,
    help="Show metadata and latency of this codec. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON per file or codec.")
@debug_option
def info(sources: tuple[Path, ...], models: tuple[str, ...], as_json: bool) -> None:
    """Show codec, sampling rate, length, bit rate and weights of each FILE. Needs no model.

    Of a checkpoint in the format of codectool, codec, fingerprints and size are shown. For others
    there is `codectool convert FILE --dry-run`.

    \b
    Examples:
      codectool info out.hcd
      codectool info model.safetensors
      codectool info --json *.hcd | jq .bit_rate_kbps
      codectool info --model hac
    """
    if not sources and not models:
        raise UsageError("give a FILE, or a codec with `--model`")
    failed = False
    described = [_describe_model(model) for model in models]
    for source in sources:
        try:
            described.append(_describe_file(source))
        except (CodectoolError, OSError) as error:
            report_error(error)
            failed = True
    for number, data in enumerate(described):
        if as_json:
            old = {}
            if "bits_per_codebook" in data:
                old = {"bits_per_stream": data["bits_per_codebook"]}  # the key of version 0.1
            print_data(to_json(data | old))
        else:
            print_data(("\n" if number else "") + _table(data))
    if failed:
        sys.exit(EXIT_BAD_INPUT)


def _describe_model(family: str) -> dict[str, Any]:
    """Return the metadata of a codec as published."""
    from codectool.checkpoints import registry

    model = get_family(family).published
    if model is None:
        raise UsageError(f"{family} has no published model")
    layout = model.layout
    entry = registry.default(family)
    path = entry.find() if entry else None
    models = [entry.name for entry in registry.entries().values() if entry.family == family]
    return {
        "codec": family,
        "source": model.paper,
        "weights": entry.fingerprint if entry else None,
        "token_fingerprint": entry.token_fingerprint if entry else None,
        "weights_name": entry.name if entry else None,
        "checkpoint": str(path) if path else None,
        "how_to_get": None if entry is None or path else entry.how_to_get(),
        "models": models,
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


def _describe_file(source: Path) -> dict[str, Any]:
    """Return the metadata of a file; raise if it cannot be read or is truncated."""
    from codectool.checkpoints import registry
    from codectool.checkpoints.stored import TENSORS_NAME
    from codectool.container import Reader

    if source.suffix == ".safetensors" or (source / TENSORS_NAME).is_file():
        return _describe_checkpoint(source)
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
    weights = registry.find_decoder(header.fingerprint)
    path = weights.find() if weights else None
    return {
        "file": name,
        "codec": layout.family,
        "profile": header.profile_name,
        "weights": header.fingerprint,
        "token_fingerprint": registry.token_fingerprint(header.fingerprint),
        "weights_name": weights.name if weights else None,
        "checkpoint": str(path) if path else None,
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
        "gain_db": reader.gain_db,
        "tags": reader.tags,
    }


def _describe_checkpoint(source: Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint in the format of codectool, without PyTorch."""
    import math

    from codectool.checkpoints import registry
    from codectool.checkpoints.stored import (
        TENSORS_NAME,
        fingerprint_stored,
        read_stored,
        token_fingerprint_stored,
    )

    file = source / TENSORS_NAME if source.is_dir() else source
    stored = read_stored(file)
    try:
        get_family(stored.family)
    except UsageError as error:
        raise CheckpointError(f"{file}: {error}") from error
    described = stored.family, stored.model, stored.tensors
    fingerprint, tokens = fingerprint_stored(*described), token_fingerprint_stored(*described)
    entry = registry.find(fingerprint)
    return {
        "file": str(file),
        "kind": "checkpoint",
        "codec": stored.family,
        "weights": fingerprint,
        "token_fingerprint": tokens,
        "same_tokens_as": [name for name in stored.same_tokens_as if name != tokens],
        "weights_name": entry.name if entry else None,
        "values": sum(math.prod(tensor.shape) for tensor in stored.tensors.values()),
        "dtypes": sorted({tensor.dtype for tensor in stored.tensors.values()}),
        "file_bytes": file.stat().st_size,
        "config": stored.model,
    }


def _checkpoint_rows(data: dict[str, Any]) -> dict[str, str]:
    rows = {
        "file": data["file"],
        "codec": f"{data['codec']}, checkpoint",
        "weights": ", ".join(filter(None, (data["weights"], data["weights_name"]))),
        "tokens": data["token_fingerprint"],
        "also decodes": ", ".join(data["same_tokens_as"]),
        "size": f"{data['file_bytes']} bytes, {data['values'] / 1e6:.1f} million values "
        f"({', '.join(data['dtypes'])})",
    }
    return {key: value for key, value in rows.items() if value}


def _table(data: dict[str, Any]) -> str:
    rows = _checkpoint_rows(data) if data.get("kind") == "checkpoint" else _rows(data)
    width = max(map(len, rows))
    return "\n".join(f"{printable(key):{width}}  {printable(value)}" for key, value in rows.items())


def _rows(data: dict[str, Any]) -> dict[str, str]:
    model = (
        f"{data['model_sample_rate']} Hz, hop length {data['hop_length']}, "
        f"frame rate {data['frame_rate']:g} Hz"
    )
    bits = "+".join(map(str, data["bits_per_codebook"]))
    return _file_rows(data, model, bits) if "file" in data else _model_rows(data, model, bits)


def _model_rows(data: dict[str, Any], model: str, bits: str) -> dict[str, str]:
    if data["latency_ms"] is None:
        latency = (
            f"one segment: {data['segment_seconds']} s, or the block length of `encode --live`"
        )
    else:
        frame, encoder, decoder = (
            1000 * data[name] / data["model_sample_rate"]
            for name in ("hop_length", "encoder_lookahead_samples", "decoder_lookahead_samples")
        )
        latency = (
            f"{data['latency_ms']:.1f} ms = frame {frame:.1f} + encoder lookahead {encoder:.1f} + "
            f"decoder lookahead {decoder:.1f}"
        )
    weights = ", ".join(filter(None, (_fingerprints(data), data["checkpoint"])))
    return {
        "codec": f"{data['codec']}, {data['source']}",
        "weights": weights
        if data["checkpoint"]
        else data["how_to_get"] or "none known; use `--checkpoint PATH`",
        "models": ", ".join(data["models"]) or "none; see `codectool models add --help`",
        "size": f"{data['parameters'] / 1e6:.1f} million parameters",
        "model": model,
        "tokens": f"{bits} bits per frame",
        "bit rate": f"{data['token_kbps']:.3f} kbps",
        "latency": latency,
    }


def _fingerprints(data: dict[str, Any]) -> str | None:
    """Return the fingerprint of all weights, if known, and that of the tokens."""
    weights: str | None = data["weights"]
    tokens = data["token_fingerprint"]
    if tokens is None:
        return weights
    return f"{weights} (tokens)" if tokens == weights else f"{weights} (tokens {tokens})"


def _file_rows(data: dict[str, Any], model: str, bits: str) -> dict[str, str]:
    weights = (
        _fingerprints(data),
        data["weights_name"],
        data["checkpoint"] or "not found on this machine",
    )
    rows = {
        "file": data["file"],
        "codec": f"{data['codec']}, profile {data['profile']}",
        "weights": ", ".join(filter(None, weights)),
        "audio": f"{data['duration']:.3f} s, {data['num_samples']} samples at "
        f"{data['sample_rate']} Hz, {count(data['channels'], 'channel')}",
        "model": model,
        "tokens": f"{count(data['frames'], 'frame')} of {bits} bits",
        "bit rate": f"{data['token_kbps']:.3f} kbps, {data['bit_rate_kbps']:.3f} with container",
        "size": f"{data['file_bytes']} bytes = {data['token_bytes']} of tokens + "
        f"{data['overhead_bytes']}",
        "blocks": f"{count(data['blocks'], 'block')} of {data['block_frames']} frames",
    }
    if data["segment_frames"]:
        rows["segments"] = f"of {data['segment_frames']} frames"
    if data["gain_db"]:
        rows["gain"] = f"{data['gain_db']:+.2f} dB before encoding; `decode` undoes it"
    return rows | {f"tag {key}": value for key, value in data["tags"].items()}
