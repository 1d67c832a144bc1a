"""`codectool tokens`: tokens of whole corpora."""

from __future__ import annotations

from typing import ClassVar

import click

from codectool.cli import Commands


class TokensCommands(Commands):
    """The commands of `codectool tokens`."""

    summaries: ClassVar[dict[str, str]] = {
        "export": "Write tokens of .hcd files or audio as a data set.",
        "import": "Turn ids into .hcd files or audio.",
    }
    module: ClassVar[str] = "codectool.cli.tokens_"


@click.group(cls=TokensCommands)
def tokens() -> None:
    """Tokens of whole corpora, in the formats that language models are trained on.

    \b
    Examples:
      codectool tokens export tokens/ dataset/ --format parquet --manifest metadata.csv
      codectool tokens import generated.jsonl decoded/
    """
