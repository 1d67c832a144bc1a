"""`codectool export`: a model as ONNX graphs or `torch.export` programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codectool.cli.console import print_data
from codectool.cli.options import complete_weights, debug_option
from codectool.messages import printable, to_json

if TYPE_CHECKING:
    from codectool.export.run import ExportedFile


@click.command()
@click.argument("model", metavar="MODEL", shell_complete=complete_weights)
@click.argument("output", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "torch-export"]),
    default="onnx",
    help="ONNX graphs, or programs for torch.export.load.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Config of the model, if the checkpoint does not contain it.",
)
@click.option(
    "--clip",
    "clips",
    type=click.Path(path_type=Path),
    multiple=True,
    show_default="a synthetic signal",
    help="Recording to compare the files with the model on. Repeatable.",
)
@click.option(
    "--external-data",
    is_flag=True,
    help="Write the weights to files beside the graphs, as is always done beyond 2 GB.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@debug_option
def export(
    model: str,
    output: Path,
    format_: str,
    config: Path | None,
    clips: tuple[Path, ...],
    external_data: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Export MODEL to files in the folder OUT, for programs without codectool or Python.

    MODEL is a codec, the name of a model, or a checkpoint. Encoder and decoder take signals of any
    length; those of HAC can also run chunk by chunk. The files are compared with the model before
    they are written.

    \b
    Examples:
      codectool export hac hac-onnx
      codectool export bigcodec.pt out --format torch-export
    """
    from codectool.codecs.registry import FAMILIES
    from codectool.export.run import export_codec
    from codectool.loading import load

    if model in FAMILIES and not Path(model).exists():
        codec = load(model, config=config, device="cpu", runtime="torch")
    else:
        codec = load(checkpoint=model, config=config, device="cpu", runtime="torch")
    from tqdm import tqdm

    with tqdm(unit="file", disable=None, leave=False) as bar:
        files = export_codec(
            codec,
            output,
            format_,  # type: ignore[arg-type]
            clips=clips,
            overwrite=overwrite,
            external_data=external_data,
            on_part=lambda name: bar.set_postfix_str(name),
        )
    if as_json:
        data = [_describe(file) for file in files]
        print_data(
            to_json({"model": codec.model.family, "weights": codec.fingerprint, "files": data})
        )
        return
    for file in files:
        print_data(_row(output, file))
    if opset := files[0].opset:
        names = sorted({name for file in files for name in file.operators})
        print_data(f"operators of opset {opset}: {', '.join(names)}")


def _describe(file: ExportedFile) -> dict[str, Any]:
    check = file.check
    return {
        "file": file.name,
        "bytes": file.size,
        "opset": file.opset,
        "operators": dict(file.operators),
        "clips_frames": list(check.frames),
        "tokens": check.tokens,
        "tokens_equal": check.equal,
        "max_audio_error": check.max_error,
    }


def _row(folder: Path, file: ExportedFile) -> str:
    check = file.check
    if check.max_error is None:
        result = f"{check.equal} of {check.tokens} tokens equal"
    else:
        result = f"audio error at most {check.max_error:.2g}"
    return f"{printable(str(folder / file.name))}: {file.size / 1e6:.1f} MB, {result}"
