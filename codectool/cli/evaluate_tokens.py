"""`codectool evaluate --tokens` and `--stability`: token statistics."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

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
    import numpy as np
    import numpy.typing as npt

    from codectool.evaluation.systems.spec import CodecSpec, SystemSpec
    from codectool.tokens import Tokens

Result = TypeVar("Result")


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
    faults = _Faults()
    sources = [
        _encode(name, codec, folder, files, faults) for name, codec in _codectool_codecs(systems)
    ]
    sources = sources or [read_tokens(folder, files, faults.on_error)]
    models = [usage for clips in sources for usage in token_usage(clips)]
    faults.print(folder, bool(models))
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
    return len(faults)


def print_token_stability(
    folder: Path,
    files: Sequence[str] | None,
    systems: Sequence[SystemSpec],
    output: str,
    report: Path | None,
    overwrite: bool,
) -> int:
    """Print how many tokens stay when recordings change a little; return how many were unusable."""
    from codectool.evaluation.tokens import stability

    if not systems:
        raise UsageError("`--stability` encodes recordings; add `--model` or `--checkpoint`")
    faults = _Faults()
    models = []
    for name, spec in _codectool_codecs(systems):
        codec = spec.load()
        model = stability.TokenStability(name, codec.layout, codec.token_fingerprint)
        title = f"encoding with {name}"
        for _ in _each_recording(title, folder, files, faults, partial(model.add, codec)):
            pass
        models.append(model)
    faults.print(folder, any(model.clips for model in models))
    if output == "json":
        print_data(to_json([model.to_json() for model in models], indent=1))
    elif output == "csv":
        print_data(stability.stability_csv(models), end="")
    elif output == "markdown":
        print_data(
            "\n\n".join(
                f"{model.heading}\n\n{as_markdown(stability.stability_table(model))}"
                for model in models
            )
        )
    else:
        print_data(stability.stability_text(models))
    if report is not None:
        from codectool.evaluation.report.page import write_tables

        write_tables(
            report,
            [(model.heading, stability.stability_table(model)) for model in models],
            title="codectool evaluate: token stability",
            text=" ".join(stability.LEGEND.split()),
            command=shlex.join(["codectool", *sys.argv[1:]]),
            overwrite=overwrite,
        )
        note(f"{report}: open it in a browser")
    return len(faults)


class _Faults:
    """Files that cannot be used and warnings, each once, since each system reads the same files."""

    def __init__(self) -> None:
        self._problems: dict[str, str] = {}  # names of files by message
        self._warnings: dict[str, None] = {}

    def __len__(self) -> int:
        return len(set(self._problems.values()))

    def on_error(self, name: str, reason: str) -> None:
        self._problems.setdefault(f"{name}: {reason}", name)

    def on_warning(self, *lines: str) -> None:
        self._warnings |= dict.fromkeys(lines)

    def print(self, folder: Path, any_used: bool) -> None:
        """Print all; raise a `UsageError` if no file could be used."""
        for line in first_few(list(self._warnings)):
            warn(line)
        for line in first_few(list(self._problems)):
            say("error", line, "red")
        if not any_used:
            raise UsageError(f"{folder}: none of its files can be used")


def _codectool_codecs(systems: Sequence[SystemSpec]) -> list[tuple[str, CodecSpec]]:
    """Return the names and codecs of systems; raise a `UsageError` for an external codec."""
    codecs = []
    for spec in systems:
        if isinstance(spec.codec, str):
            raise UsageError(f"{spec.name}: is not a codectool codec, so its tokens are unknown")
        codecs.append((spec.name, spec.codec))
    return codecs


def _encode(
    name: str, spec: CodecSpec, folder: Path, files: Sequence[str] | None, faults: _Faults
) -> Iterator[Tokens]:
    """Encode the recordings of a folder."""
    codec = spec.load()

    def encode(samples: npt.NDArray[np.float32], rate: int) -> Tokens:
        return codec.encode_chunks([samples], rate, len(samples), checked=True)

    yield from _each_recording(f"encoding with {name}", folder, files, faults, encode)


def _each_recording(
    title: str,
    folder: Path,
    files: Sequence[str] | None,
    faults: _Faults,
    work: Callable[[npt.NDArray[np.float32], int], Result],
) -> Iterator[Result]:
    """Yield what a function returns for the samples ``(C, N)`` and the rate of each recording."""
    clips, problems = find_references(folder, files, [])
    for problem in problems:
        faults.on_error(problem.clip, problem.reason)
    with evaluation_progress() as progress:
        progress.on_step(title, len(clips))
        for clip in clips:
            try:
                lines: list[str] = []
                samples, rate = read_audio(folder / clip, str(folder / clip), lines)
                faults.on_warning(*lines)
                yield work(samples, rate)
            except CodectoolError as error:
                faults.on_error(clip, str(error).removeprefix(f"{folder / clip}: "))
            progress.on_clip()
