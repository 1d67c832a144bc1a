"""`codectool convert`: checkpoints of other layouts to safetensors, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codectool.cli.console import count, note, print_data, warn, working
from codectool.cli.options import FILE, PIPE, complete_weights, debug_option
from codectool.errors import UsageError
from codectool.messages import printable, to_json

if TYPE_CHECKING:
    from codectool.checkpoints.convert import Conversion, Weights


@click.command()
@click.argument("source", metavar="SRC", type=FILE, shell_complete=complete_weights)
@click.argument("target", metavar="[DST]", type=FILE, required=False)
@click.option(
    "--to",
    "layout",
    type=click.Choice(["safetensors", "published"]),
    show_default="from the name of DST",
    help="Layout of DST: codectool's, or that of the authors of the codec.",
)
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    show_default="as in SRC",
    help="Type of the stored values. Rounding changes the fingerprints.",
)
@click.option(
    "--config",
    type=FILE,
    metavar="JSON",
    help="Model config, if SRC does not contain it.",
)
@click.option("--dry-run", is_flag=True, help="List the tensors and what would be written.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@debug_option
def convert(
    source: Path,
    target: Path | None,
    layout: Any,
    dtype: str | None,
    config: Path | None,
    dry_run: bool,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Convert the checkpoint SRC to DST.

    SRC is weights from the authors of a codec, a file or folder of codectool, a checkpoint of a
    training run (last.ckpt), or the name of bundled weights. DST is one .safetensors file that
    contains the config and names the file it came from, or a file in the layout of the authors:
    bigcodec.pt, NAME.ckpt (Lightning), or g_XXXXXXXX with config.json beside it.

    The tensors stay as they are, bit by bit, and so do the fingerprints: .hcd files made with SRC
    decode with DST. If --dtype rounds the encoder, they need `decode --force`.

    \b
    Examples:
      codectool convert bigcodec.pt bigcodec.safetensors
      codectool convert runs/hac/best.ckpt hac.safetensors
      codectool convert supercodec/ small.safetensors --dtype bf16
      codectool convert supercodec.safetensors back/g_00400000
      codectool convert bigcodec.pt --dry-run
    """
    from codectool.checkpoints.convert import plan

    if target is None and not dry_run:
        raise UsageError("give a DST, or `--dry-run` to list the tensors of SRC")
    if PIPE in (source, target):
        raise UsageError("checkpoints are not read from or written to pipes; give file names")
    with working(f"reading {source}"):
        weights = _read(source, config)
    conversion = None
    if target is not None:
        with working(f"converting {source}"):
            conversion = plan(weights, target, layout, dtype, overwrite)
            if not dry_run:
                conversion.write(overwrite)
    if as_json:
        print_data(to_json(_describe(weights, conversion, dry_run)))
    elif dry_run:
        print_data("\n".join(_table(weights, conversion)))
    if conversion is None:
        return
    written = conversion.weights
    note(
        f"{source} -> {target}: {count(len(written.state), 'tensor')}, "
        f"{written.num_bytes / 1e6:.1f} MB, fingerprint {written.fingerprint}, tokens "
        f"{written.token_fingerprint}"
    )
    if written.token_fingerprint != weights.token_fingerprint:
        warn(
            f"{target}: has token fingerprint {written.token_fingerprint}, not "
            f"{weights.token_fingerprint}; .hcd files made with {source} need `decode --force` "
            "with it"
        )
    elif conversion.layout == "published" and written.same_tokens_as:
        warn(
            f"{target}: this layout cannot store that it decodes .hcd files with the fingerprints "
            f"{', '.join(written.same_tokens_as)}; they may need `decode --force` with it"
        )


def _read(source: Path, config: Path | None) -> Weights:
    """Read a checkpoint, which may be the state of a training run."""
    from codectool.checkpoints.convert import describe, read
    from codectool.checkpoints.published import TrainingStateError

    try:
        return read(source, config)
    except TrainingStateError:
        from codectool.training.checkpoint import read_weights_of_run, tokens_of_start

        weights = describe(source, *read_weights_of_run(source), config)
        return replace(weights, same_tokens_as=tokens_of_start(source))


def _describe(weights: Weights, conversion: Conversion | None, dry_run: bool) -> dict[str, Any]:
    values: dict[str, Any] = {
        "source": str(weights.path),
        "family": weights.family,
        "fingerprint": weights.fingerprint,
        "token_fingerprint": weights.token_fingerprint,
        "same_tokens_as": weights.same_tokens_as,
        "config": weights.config,
        "provenance": weights.provenance,
        "bytes": weights.num_bytes,
        "tensors": weights.tensors,
    }
    if conversion is not None:
        values["target"] = {
            "file": str(conversion.target),
            "layout": conversion.layout,
            "bytes": conversion.weights.num_bytes,
            "fingerprint": conversion.weights.fingerprint,
            "token_fingerprint": conversion.weights.token_fingerprint,
            "config_file": conversion.config_path and str(conversion.config_path),
            "source_sha256": conversion.sha256,
            "written": not dry_run,
        }
    return values


def _table(weights: Weights, conversion: Conversion | None) -> Iterator[str]:
    """Yield a line per tensor, and what would be written."""
    rows = [
        (printable(t["name"]), " x ".join(map(str, t["shape"])) or "scalar", t["dtype"])
        for t in weights.tensors
    ]
    name_width, shape_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, shape, dtype in rows:
        yield f"{name:{name_width}}  {shape:{shape_width}}  {dtype}"
    values = sum(tensor.numel() for tensor in weights.state.values())
    yield (
        f"{weights.family} {weights.fingerprint}, tokens {weights.token_fingerprint}: "
        f"{count(len(rows), 'tensor')}, {values:,} values, {weights.num_bytes / 1e6:.1f} MB"
    )
    if weights.same_tokens_as:
        yield f"also decodes tokens of {', '.join(weights.same_tokens_as)}"
    for entry in weights.provenance:
        yield printable("from " + ", ".join(f"{key} {value}" for key, value in entry.items()))
    if conversion is not None:
        if conversion.config_path is not None:
            yield f"would write {printable(str(conversion.config_path))}: the config"
        yield (
            f"would write {printable(str(conversion.target))}: {conversion.layout}, "
            f"{conversion.weights.num_bytes / 1e6:.1f} MB, fingerprint "
            f"{conversion.weights.fingerprint}, tokens {conversion.weights.token_fingerprint}"
        )
