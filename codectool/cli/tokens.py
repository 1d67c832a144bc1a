"""`codectool tokens`: tokens of whole corpora."""

from __future__ import annotations

import click

from codectool.cli.tokens_export import export
from codectool.cli.tokens_import import import_


@click.group()
def tokens() -> None:
    """Tokens of whole corpora, in the formats that language models are trained on.

    \b
    Examples:
      codectool tokens export tokens/ dataset/ --format parquet --manifest metadata.csv
      codectool tokens import generated.jsonl decoded/
    """


tokens.add_command(export)
tokens.add_command(import_)
