"""Options of `codectool tokens` that arrange codes as ids."""

from __future__ import annotations

import click

from codectool.cli.options import collect_options
from codectool.corpus.layouts import DTYPES, LAYOUTS, LayoutOptions

layout_options = collect_options(
    "layout",
    LayoutOptions,
    click.option(
        "--layout",
        "kind",
        type=click.Choice(LAYOUTS),
        show_default="frames",
        help="Arrangement of the ids: (frames, codebooks), (codebooks, frames), one sequence, "
        "delay pattern, or (frames, bits).",
    ),
    click.option(
        "--group",
        "group_bits",
        type=click.IntRange(1, 24),
        metavar="BITS",
        help="Most bits per id; wider codes are split. 9 makes two ids of HAC's 18 bits.",
    ),
    click.option("--offsets", is_flag=True, help="Give each codebook its own range of ids."),
    click.option("--id-base", type=click.IntRange(0), default=0, metavar="N", help="First id."),
    click.option(
        "--pad-id",
        type=int,
        metavar="N",
        show_default="the first id after the codes",
        help="Id of the pads of a delay pattern.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        show_default="the smallest of uint8, uint16, int32 and int64",
        help="Data type of the ids.",
    ),
)
