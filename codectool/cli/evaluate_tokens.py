"""`codectool evaluate --tokens`: token statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from codectool.audio.files import read_audio
from codectool.cli.console import note, print_data, say, warn
from codectool.cli.options import check_figure, write_output
from codectool.cli.progress import evaluation_progress
from codectool.errors import CodectoolError, UsageError
from codectool.evaluation.pairs import find_references
from codectool.evaluation.tables import as_markdown
from codectool.evaluation.tokens.files import read_tokens
from codectool.evaluation.tokens.table import token_csv, token_tables, token_text
from codectool.evaluation.tokens.usage import token_usage
from codectool.messages import first_few, to_json
from codectool.plots import require_matplotlib

if TYPE_CHECKING:
    from codectool.evaluation.systems.spec import CodecSpec, SystemSpec
    from codectool.tokens import Tokens


def print_token_usage(
    folder: Path,
    files: Sequence[str] | None,
    systems: Sequence[SystemSpec],
    output: str,
    plot: Path | None,
    overwrite: bool,
) -> int:
    """Print statistics of the tokens of a folder; return how many files cannot be used.

    The folder contains `.hcd` files or, if there are systems, recordings that they encode.
    """
    if plot is not None:
        check_figure(plot, [folder], overwrite)
        require_matplotlib()
    codecs = []
    for spec in systems:
        if isinstance(spec.codec, str):
            raise UsageError(f"{spec.name}: is not a codectool codec, so its tokens are unknown")
        codecs.append((spec.name, spec.codec))
    problems: dict[str, str] = {}  # names of files by message
    warnings: dict[str, None] = {}

    def on_error(name: str, reason: str) -> None:
        problems.setdefault(f"{name}: {reason}", name)  # each system reads the same files

    sources = [_encode(name, codec, folder, files, on_error, warnings) for name, codec in codecs]
    sources = sources or [read_tokens(folder, files, on_error)]
    models = [usage for clips in sources for usage in token_usage(clips)]
    for line in first_few(list(warnings)):
        warn(line)
    for line in first_few(list(problems)):
        say("error", line, "red")
    if not models:
        raise UsageError(f"{folder}: none of its files can be used")
    if output == "json":
        print_data(to_json([model.to_json() for model in models], indent=1))
    elif output == "csv":
        print_data(token_csv(models), end="")
    elif output == "markdown":
        print_data("\n\n".join(map(as_markdown, token_tables(models))))
    else:
        print_data(token_text(models))
    if plot is not None:
        from codectool.evaluation.tokens.plot import draw_tokens

        write_output(plot, memoryview(draw_tokens(models)), overwrite)
        note(f"{plot}: codebook usage")
    return len(set(problems.values()))


def _encode(
    name: str,
    spec: CodecSpec,
    folder: Path,
    files: Sequence[str] | None,
    on_error: Callable[[str, str], None],
    warnings: dict[str, None],
) -> Iterator[Tokens]:
    """Encode the recordings of a folder."""
    clips, problems = find_references(folder, files, [])
    for problem in problems:
        on_error(problem.clip, problem.reason)
    codec = spec.load()
    with evaluation_progress() as progress:
        progress.on_step(f"encoding with {name}", len(clips))
        for clip in clips:
            try:
                faults: list[str] = []
                samples, rate = read_audio(folder / clip, str(folder / clip), faults)
                warnings |= dict.fromkeys(faults)
                yield codec.encode_chunks([samples], rate, len(samples), checked=True)
            except CodectoolError as error:
                on_error(clip, str(error).removeprefix(f"{folder / clip}: "))
            progress.on_clip()
