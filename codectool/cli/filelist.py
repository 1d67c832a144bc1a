"""`codectool filelist`: lists of audio files for training."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codectool.cli.console import count, message, print_data, warn, warn_untaken
from codectool.cli.options import FILE, PIPE, debug_option, open_output
from codectool.errors import AudioError, UsageError
from codectool.files import check_writable, write_all
from codectool.messages import first_few, printable, to_json

if TYPE_CHECKING:
    from codectool.audio.discovery import ListEntry
    from codectool.training.filelist import Clip


@click.command()
@click.argument("sources", metavar="DIR|LIST...", nargs=-1, required=True, type=FILE)
@click.option(
    "-o", "--output", required=True, type=FILE, metavar="LIST", help="List to write; `-` is stdout."
)
@click.option(
    "--split",
    "share",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    metavar="SHARE",
    help="Share of the audio to hold out for validation, by whole speakers (folders).",
)
@click.option(
    "--valid-output",
    type=FILE,
    metavar="LIST",
    show_default="valid.txt beside --output",
    help="Validation list to write.",
)
@click.option(
    "--speaker-level",
    type=click.IntRange(1, 16),
    default=1,
    metavar="N",
    help="Folder of a speaker: the N-th above a file; 2 for LibriSpeech and LibriTTS.",
)
@click.option(
    "--min-seconds",
    type=click.FloatRange(0.0, 86400.0),
    default=0.5,
    metavar="S",
    help="Skip shorter files.",
)
@click.option("--absolute", is_flag=True, help="Write absolute paths only.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, metavar="N", help="Random seed of --split."
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
    """List the audio files in each DIR or LIST with their lengths, for `train`.

    Each line has path, number of samples and sampling rate, separated by tabs. Paths below the
    folder of the list are relative to it, so that both can be moved together.

    \b
    Examples:
      codectool filelist LibriTTS/ -o LibriTTS/train.txt --split 0.02 --speaker-level 2
      codectool filelist vctk/ clips.txt -o all.txt --min-seconds 1
    """
    if output == PIPE and as_json:
        raise UsageError("the list and `--json` would both go to stdout; name a LIST")
    outputs = _choose_outputs(output, share, valid_output)
    for path in outputs:
        if path != PIPE:
            check_writable(path, overwrite)
    from tqdm import tqdm

    from codectool.audio.discovery import read_list
    from codectool.training.filelist import scan, split

    entries: dict[str, ListEntry] = {}  # by path, so that each file is listed once
    for source in sources:
        for entry in read_list(source):
            entries.setdefault(os.path.abspath(entry.path), entry)
        warn_untaken(source)
    with tqdm(total=len(entries), unit="file", disable=None, leave=False) as bar:
        warnings: list[str] = []
        clips, problems = scan(list(entries.values()), bar.update, warnings)
    for line in (*first_few(problems, see="`--json`"), *first_few(warnings, see="`--json`")):
        warn(line)
    long = [clip for clip in clips if clip.seconds >= min_seconds]
    skipped = {"unreadable": len(problems), "too_short": len(clips) - len(long)}
    skipped_text = f"{skipped['unreadable']} cannot be used, {skipped['too_short']} too short"
    if not long:
        raise AudioError(
            f"{sources[0]}: contains no audio of {min_seconds:g} s or more (files: "
            f"{skipped_text}); name another folder, or a lower `--min-seconds`"
        )
    lists = [long] if share is None else split(long, share, seed, speaker_level)
    texts = []
    for path, listed in zip(outputs, lists, strict=True):
        folder = None if absolute or path == PIPE else os.path.abspath(path.parent)
        texts.append((path, b"".join(_line(clip, folder) for clip in listed)))
    with ExitStack() as stack:  # all lists are written or none, so stdout comes last
        for path, text in sorted(texts, key=lambda pair: pair[0] == PIPE):
            write_all(stack.enter_context(open_output(path, overwrite)), text)
    totals = dict(zip(("train", "valid"), map(_totals, outputs, lists), strict=False))
    for total in totals.values():
        message(printable(_sentence(total)))
    if any(skipped.values()):
        message(f"skipped: {skipped_text}")
    if as_json:
        print_data(to_json(totals | skipped | {"problems": problems, "warnings": warnings}))


def _choose_outputs(output: Path, share: float | None, valid_output: Path | None) -> list[Path]:
    """Return the path of the list and, with a split, of the validation list."""
    if share is None:
        if valid_output is not None:
            raise UsageError("`--valid-output` needs `--split SHARE`")
        return [output]
    if output == PIPE and valid_output is None:
        raise UsageError("`--split` writes two lists: name the second with `--valid-output LIST`")
    valid_output = valid_output or output.with_name("valid.txt")
    if os.path.abspath(output) == os.path.abspath(valid_output):
        raise UsageError(f"{output}: is both the training and the validation list; name two")
    return [output, valid_output]


def _line(clip: Clip, folder: str | None) -> bytes:
    """Return the line of a clip, with a path relative to ``folder`` if it is inside."""
    name = os.path.abspath(clip.path)
    if any(mark in name for mark in "\t\r\n"):
        raise UsageError(
            f"{clip.path}: a name with a tab or line break cannot be listed; rename or exclude it"
        )
    if folder is not None and Path(name).is_relative_to(folder):
        name = os.path.relpath(name, folder)
        if name.lstrip().startswith("#"):  # would be a comment
            name = f"./{name}"
    return b"%s\t%d\t%d\n" % (os.fsencode(name), clip.num_samples, clip.sample_rate)


def _totals(path: Path, clips: Sequence[Clip]) -> dict[str, Any]:
    rates = Counter(clip.sample_rate for clip in clips)
    return {
        "path": str(path),
        "clips": len(clips),
        "hours": round(sum(clip.seconds for clip in clips) / 3600, 4),
        "rates": {str(rate): rates[rate] for rate in sorted(rates)},
    }


def _sentence(totals: dict[str, Any]) -> str:
    name = "<stdout>" if totals["path"] == str(PIPE) else totals["path"]
    hours = totals["hours"]
    size = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
    kinds = ", ".join(f"{number} at {rate} Hz" for rate, number in totals["rates"].items())
    return f"{name}: {count(totals['clips'], 'clip')}, {size} ({kinds})"
