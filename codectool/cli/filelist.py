"""`codectool filelist`: lists of audio files for training."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codectool.cli.console import printable, warn
from codectool.cli.options import PIPE, check_output, debug_option, write_output
from codectool.errors import AudioError, UsageError

if TYPE_CHECKING:
    from codectool.audio.discovery import ListEntry
    from codectool.training.filelist import Clip

MAX_SHOWN = 20  # unusable files that are listed one by one


@click.command()
@click.argument(
    "sources", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="LIST",
    help="The list to write; `-` is stdout.",
)
@click.option(
    "--split",
    "share",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    metavar="SHARE",
    help="Hold out this share of the audio for validation, as whole folders (speakers).",
)
@click.option(
    "--valid-output",
    type=click.Path(path_type=Path),
    metavar="LIST",
    help="The validation list. Default: valid.txt beside --output.",
)
@click.option(
    "--speaker-level",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    metavar="N",
    help="A speaker is the N-th folder above a file: 2 for LibriSpeech and LibriTTS.",
)
@click.option(
    "--min-seconds",
    type=click.FloatRange(0.0, 86400.0),
    default=0.5,
    show_default=True,
    metavar="S",
    help="Skip shorter files.",
)
@click.option("--absolute", is_flag=True, help="Write absolute paths only.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed of --split."
)
@click.option("--json", "as_json", is_flag=True, help="Print totals as JSON.")
@click.option("--overwrite", is_flag=True, help="Replace existing lists.")
@debug_option
def filelist(
    sources: tuple[Path, ...],
    output: Path,
    share: float | None,
    valid_output: Path | None,
    speaker_level: int,
    min_seconds: float,
    absolute: bool,
    seed: int,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Write a list of the audio files in each DIR (or another list), with lengths, for `train`.

    Each line has path, number of samples and sampling rate, separated by tabs. Paths below the
    folder of the list are relative to it, so that both can be moved together.

    \b
    Examples:
      codectool filelist LibriTTS/ -o LibriTTS/train.txt --split 0.02 --speaker-level 2
      codectool filelist vctk/ clips.txt -o all.txt --min-seconds 1
    """
    valid_output = _check_outputs(output, share, valid_output, as_json, overwrite)
    from codectool.training.filelist import split

    clips, problems = _scan(sources)
    for problem in problems[:MAX_SHOWN]:
        warn(problem)
    if len(problems) > MAX_SHOWN:
        warn(f"{len(problems) - MAX_SHOWN} more files cannot be used")
    long = [clip for clip in clips if clip.seconds >= min_seconds]
    skipped = {"unreadable": len(problems), "too_short": len(clips) - len(long)}
    skipped_text = f"{skipped['unreadable']} cannot be used, {skipped['too_short']} too short"
    if not long:
        raise AudioError(
            f"{sources[0]}: contains no audio of {min_seconds:g} s or more (files: "
            f"{skipped_text}); name another folder, or a lower --min-seconds"
        )
    lists = {"train": (output, long)}
    if share is not None:
        train, valid = split(long, share, seed, speaker_level)
        lists = {"train": (output, train), "valid": (valid_output, valid)}
    _write([(path, _text(listed, path, absolute)) for path, listed in lists.values()], overwrite)
    for path, listed in lists.values():
        name = "<stdout>" if path == PIPE else str(path)
        click.echo(printable(f"{name}: {_totals(listed)}"), err=True)
    if any(skipped.values()):
        click.echo(f"skipped: {skipped_text}", err=True)
    if as_json:
        summary: dict[str, Any] = {name: _summary(*value) for name, value in lists.items()}
        click.echo(json.dumps(summary | skipped))


def _check_outputs(
    output: Path, share: float | None, valid_output: Path | None, as_json: bool, overwrite: bool
) -> Path:
    """Return the path of the validation list; raise if a list cannot be written."""
    if valid_output is not None and share is None:
        raise UsageError("--valid-output needs --split SHARE")
    if output == PIPE and as_json:
        raise UsageError("the list and --json would both go to stdout; name a LIST")
    if output == PIPE and share is not None and valid_output is None:
        raise UsageError("--split writes two lists: name the second with --valid-output LIST")
    if valid_output is None:
        valid_output = output.with_name("valid.txt")
    outputs = [output] if share is None else [output, valid_output]
    if len(outputs) == 2 and os.path.abspath(output) == os.path.abspath(valid_output):
        raise UsageError(f"{output}: is both the training and the validation list; name two")
    for path in outputs:
        if path != PIPE:
            check_output(path, PIPE, overwrite)
    return valid_output


def _scan(sources: Sequence[Path]) -> tuple[list[Clip], list[str]]:
    """Return the clips of all sources, each once, and the problems of the other files."""
    from tqdm import tqdm

    from codectool.audio.discovery import read_list
    from codectool.training.filelist import scan

    entries: dict[str, ListEntry] = {}
    for source in sources:
        for entry in read_list(source):
            entries.setdefault(os.path.abspath(entry.path), entry)
    with tqdm(total=len(entries), unit="file", disable=None, leave=False) as bar:
        return scan(list(entries.values()), bar.update)


def _text(clips: Sequence[Clip], path: Path, absolute: bool) -> bytes:
    """Return the list that is written to ``path``.

    Raises:
        UsageError: a name contains a tab or a line break.
    """
    folder = None if absolute or path == PIPE else os.path.abspath(path.parent)
    lines = [
        b"%s\t%d\t%d\n" % (_name(clip.path, folder), clip.num_samples, clip.sample_rate)
        for clip in clips
    ]
    return b"".join(lines)


def _name(path: Path, folder: str | None) -> bytes:
    name = os.path.abspath(path)
    if any(mark in name for mark in "\t\r\n"):
        raise UsageError(
            f"{path}: a name with a tab or line break cannot be listed; rename or exclude it"
        )
    if folder is not None and Path(name).is_relative_to(folder):
        name = os.path.relpath(name, folder)
        if name.lstrip().startswith("#"):  # would be a comment
            name = f"./{name}"
    return os.fsencode(name)


def _write(texts: Sequence[tuple[Path, bytes]], overwrite: bool) -> None:
    """Write all lists, or none if one cannot be written."""
    from codectool.files import atomic_output

    with ExitStack() as stack:
        for path, text in texts:
            if path != PIPE:
                stack.enter_context(atomic_output(path, overwrite)).write(text)
        for path, text in texts:
            if path == PIPE:
                write_output(path, memoryview(text), overwrite)


def _summary(path: Path, clips: Sequence[Clip]) -> dict[str, Any]:
    rates = Counter(clip.sample_rate for clip in clips)
    return {
        "path": str(path),
        "clips": len(clips),
        "hours": round(sum(clip.seconds for clip in clips) / 3600, 4),
        "rates": {str(rate): rates[rate] for rate in sorted(rates)},
    }


def _totals(clips: Sequence[Clip]) -> str:
    rates = Counter(clip.sample_rate for clip in clips)
    hours = sum(clip.seconds for clip in clips) / 3600
    size = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
    kinds = ", ".join(f"{rates[rate]} at {rate} Hz" for rate in sorted(rates))
    return f"{len(clips)} {'clip' if len(clips) == 1 else 'clips'}, {size} ({kinds})"
