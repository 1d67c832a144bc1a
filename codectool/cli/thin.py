"""`codectool thin`: fewer codebooks of .hcd files, without the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from codectool.cli.batch import FileOptions, file_options, run_folder
from codectool.cli.console import note, warn, working
from codectool.cli.options import open_input, open_output

if TYPE_CHECKING:
    from codectool.pipeline.operations import ThinOperation


@click.command()
@click.option(
    "--codebooks",
    type=click.IntRange(1),
    required=True,
    metavar="N",
    help="Number of codebooks to keep, the first ones.",
)
@file_options(output_required=True, uses_model=False)
def thin(codebooks: int, files: FileOptions) -> None:
    """Write the first codebooks of INPUT, a .hcd file, to OUTPUT. Needs no model.

    OUTPUT has a lower bit rate and quality, and is the file that `encode --codebooks N` writes; it
    decodes with the same weights. Only codecs with several codebooks (residual vector quantization)
    can be thinned: SuperCodec and some BigCodec models, but not HAC, whose frames have one
    codebook. `-` is stdin or stdout.

    If INPUT is a folder, all .hcd files below it are thinned to the same tree under OUTPUT. To
    continue an interrupted run, repeat the command: finished files are skipped.

    \b
    Examples:
      codectool thin speech.hcd small.hcd --codebooks 1
      codectool thin tokens/ tokens-500bps/ --codebooks 1
      ssh host cat speech.hcd | codectool thin - - --codebooks 1 | codectool decode - - | aplay
    """
    if files.is_folder_run():

        def make_operation(*_: object) -> ThinOperation:
            from codectool.pipeline.operations import ThinOperation

            return ThinOperation(codebooks)

        run_folder(files, None, make_operation)
    target = files.choose_output(".hcd")

    from codectool.container import Reader
    from codectool.thinning import thin as thin_tokens

    with open_input(files.source) as (file, name):
        reader = Reader(file, name)
        with working(f"thinning {name}"), open_output(target, files.overwrite) as output:
            thinned = thin_tokens(reader, output, codebooks)
    for sentence in thinned.warnings:
        warn(sentence)
    note(f"{name} -> {target}: {thinned.num_bytes} bytes")
