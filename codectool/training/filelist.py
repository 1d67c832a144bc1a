"""Lists of audio files: folders, list files and manifests in; clips with their lengths out."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codectool.audio.files import MAX_RATE, MAX_SAMPLES, MIN_RATE, SUFFIXES, read_header
from codectool.errors import AudioError, ConfigError, UsageError

MAX_LINE = 1 << 20  # of a list, in bytes; beyond it this is no list
AT_ONCE = 4096  # headers that are waited for together


@dataclass(frozen=True)
class Clip:
    """An audio file and what its header says.

    Attributes:
        path: of the file.
        num_samples: length in samples per channel.
        sample_rate: in Hz.
    """

    path: Path
    num_samples: int
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate


def read_list(source: Path) -> list[Clip | Path]:
    """What a folder, a list file or a manifest names.

    A folder is searched to its bottom for names of audio files, hidden ones aside. Lines of a list
    are one of these; a relative path is relative to the list's own folder:

        path                    blank lines and lines that begin with # are skipped
        path TAB samples TAB rate        as `codectool filelist` writes
        id|path                 BigCodec's lists
        name|...                SuperCodec's lists; the suffix .wav may be missing
        {"path": ..., "num_samples": ..., "sample_rate": ...}        in files named .jsonl

    Args:
        source: folder or file.

    Returns:
        a `Clip` where the list says length and rate, else the path.

    Raises:
        UsageError: it cannot be read.
        ConfigError: a line is none of these; the message names file and line.
    """
    if source.is_dir():
        return list(_search(source))
    try:
        with source.open("rb") as file:
            lines = list(_lines(file, source))
    except OSError as error:
        raise UsageError(f"{source}: {(error.strerror or str(error)).lower()}") from error
    parse = _parse_object if source.suffix.lower() == ".jsonl" else _parse_line
    entries: list[Clip | Path] = []
    for number, line in lines:
        try:
            entries.append(parse(line, source.parent))
        except ValueError as error:
            raise ConfigError(f"{source}: line {number}: {error}") from error
    return entries


def _search(folder: Path) -> Iterator[Path]:
    """Audio files below a folder in the order of their names, each folder once."""

    def fail(error: OSError) -> None:
        raise UsageError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from error

    seen: set[tuple[int, int]] = set()  # links may lead round in circles
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield Path(place, name)


def _lines(file: Any, source: Path) -> Iterator[tuple[int, str]]:
    """Numbers and text of the lines that say something."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if b"\0" in line or len(line) == MAX_LINE:
            raise ConfigError(
                f"{source}: line {number} is no text; give a folder or a list of audio files"
            )
        # Names of files need not be UTF-8; `os.fsdecode` keeps what they are.
        text = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        text = text.rstrip("\r\n")
        if text.strip() and not text.lstrip().startswith("#"):
            yield number, text


def _parse_line(line: str, folder: Path) -> Clip | Path:
    if "\t" in line:
        columns = line.split("\t")
        if len(columns) != 3:
            raise ValueError(f"has {len(columns)} columns instead of path, samples, rate")
        path, num_samples, rate = columns
        if not (num_samples.isdecimal() and rate.isdecimal()):
            raise ValueError(f"samples {num_samples!r:.30} and rate {rate!r:.30} must be numbers")
        return _clip(folder / path, int(num_samples), int(rate))
    line = line.strip()
    if "|" not in line:
        return folder / line
    name, rest = line.split("|", 1)
    candidates = [folder / line, folder / name, folder / f"{name}.wav", folder / rest]
    # Of those that are not there, the likelier one is to be called missing.
    likely = candidates[3] if candidates[3].suffix.lower() in SUFFIXES else candidates[2]
    return next((path for path in candidates if path.is_file()), likely)


def _parse_object(line: str, folder: Path) -> Clip | Path:
    try:
        values = json.loads(line)
    except RecursionError:
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("path"), str):
        raise ValueError('is no JSON object with a "path"')
    path = folder / str(values["path"])
    num_samples, rate = values.get("num_samples"), values.get("sample_rate")
    if num_samples is None and rate is None:
        return path
    if type(num_samples) is not int or type(rate) is not int:
        raise ValueError('"num_samples" and "sample_rate" must be whole numbers, or both missing')
    return _clip(path, num_samples, rate)


def _clip(path: Path, num_samples: int, sample_rate: int) -> Clip:
    if not 0 < num_samples <= MAX_SAMPLES:
        raise ValueError(f"{num_samples} is no length in samples")
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise ValueError(f"{sample_rate} is no sampling rate in Hz")
    return Clip(path, num_samples, sample_rate)


def scan(
    entries: Sequence[Clip | Path], on_progress: Callable[[int], object] | None = None
) -> tuple[list[Clip], list[str]]:
    """Read the headers of the files whose length is not known; no samples are decoded.

    Args:
        entries: as `read_list` gives them.
        on_progress: called with the number of entries that were done since the last call.

    Returns:
        the clips in the order of ``entries``, and one line ``path: why`` for each file that cannot
        be used.
    """
    clips: list[Clip] = []
    problems: list[str] = []
    with ThreadPoolExecutor(max_workers=16) as pool:  # they wait for the disk or the network
        for first in range(0, len(entries), AT_ONCE):
            for result in pool.map(_look, entries[first : first + AT_ONCE]):
                if isinstance(result, Clip):
                    clips.append(result)
                else:
                    problems.append(result)
                if on_progress is not None:
                    on_progress(1)
    return clips, problems


def _look(entry: Clip | Path) -> Clip | str:
    if isinstance(entry, Clip):
        return entry
    try:
        return Clip(entry, *read_header(entry))
    except AudioError as error:
        return str(error)


def split(
    clips: Sequence[Clip], share: float, seed: int, levels: int = 1
) -> tuple[list[Clip], list[Clip]]:
    """Set clips apart for validation: whole folders, which in most corpora are speakers.

    A codec that is judged by speakers it was trained on looks better than it is. Where no choice
    of folders comes near the share (one folder, or few large ones), single clips are set apart.

    Args:
        clips: all there are.
        share: of the total length, between 0 and 1.
        seed: of the choice, which does not depend on the order of ``clips``.
        levels: 1 if a speaker is the folder of the clips, 2 if it is the folder above that, as
            LibriSpeech has it.

    Returns:
        clips for training and clips for validation, in the order given; neither is empty.

    Raises:
        UsageError: the share is not between 0 and 1, or there are fewer than two clips.
    """
    if not 0 < share < 1:
        raise UsageError(f"a share of {share} cannot be set apart; choose one between 0 and 1")
    if len(clips) < 2:
        raise UsageError("there is nothing to split: two clips are needed at least")
    target = share * sum(clip.seconds for clip in clips)
    by_folder: dict[str, list[int]] = {}
    for index, clip in enumerate(clips):
        by_folder.setdefault(_folder(clip.path, levels), []).append(index)
    groups = [by_folder[folder] for folder in sorted(by_folder)]
    chosen = _choose(clips, groups, target, seed)
    if not chosen:
        single = sorted(range(len(clips)), key=lambda index: os.fspath(clips[index].path))
        groups = [[index] for index in single]
        chosen = _choose(clips, groups, target, seed)
    if not chosen:  # every clip is longer than twice the target
        chosen = {min(range(len(clips)), key=lambda index: clips[index].seconds)}
    train = [clip for index, clip in enumerate(clips) if index not in chosen]
    return train, [clips[index] for index in sorted(chosen)]


def _folder(path: Path, levels: int) -> str:
    parents = path.absolute().parents
    return os.fspath(parents[min(levels, len(parents)) - 1])


def _choose(
    clips: Sequence[Clip], groups: Sequence[list[int]], target: float, seed: int
) -> set[int]:
    """Random groups whose total length comes near the target, never all of them."""
    order = list(range(len(groups)))
    random.Random(seed).shuffle(order)
    chosen: set[int] = set()
    total = 0.0
    for number in order:
        if len(chosen) + len(groups[number]) == len(clips):
            continue
        seconds = sum(clips[index].seconds for index in groups[number])
        if abs(total + seconds - target) < abs(total - target):
            chosen.update(groups[number])
            total += seconds
    return chosen
