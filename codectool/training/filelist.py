"""Training clips: read the lengths of audio files, and set clips apart for validation."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from codectool.audio.discovery import ListEntry
from codectool.audio.files import read_header
from codectool.errors import AudioError, UsageError
from codectool.messages import shorten

SCAN_BATCH = 4096  # headers that are requested together
SCAN_THREADS = 16  # threads mostly wait for the disk or the network


@dataclass(frozen=True)
class Clip:
    """An audio file, its length in samples per channel, and its sampling rate in Hz."""

    path: Path
    num_samples: int
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate


def scan(
    entries: Sequence[ListEntry],
    on_progress: Callable[[int], object] | None = None,
    warnings: list[str] | None = None,
) -> tuple[list[Clip], list[str]]:
    """Return the clips, and one line ``path: reason`` for each file that cannot be used.

    Only the headers of files of unknown length are read. `on_progress` is called with the number
    of entries done since the last call. `warnings` gets a sentence for each fault of a file that
    can be used.
    """
    clips: list[Clip] = []
    problems: list[str] = []
    with ThreadPoolExecutor(max_workers=SCAN_THREADS) as pool:
        for first in range(0, len(entries), SCAN_BATCH):
            results = pool.map(_read_clip, entries[first : first + SCAN_BATCH])
            for result, faults in results:
                if warnings is not None:
                    warnings += faults
                if isinstance(result, Clip):
                    clips.append(result)
                else:
                    problems.append(result)
                if on_progress is not None:
                    on_progress(1)
    return clips, problems


def _read_clip(entry: ListEntry) -> tuple[Clip | str, list[str]]:
    if entry.num_samples is not None and entry.sample_rate is not None:
        return Clip(entry.path, entry.num_samples, entry.sample_rate), []
    warnings: list[str] = []
    try:
        return Clip(entry.path, *read_header(entry.path, warnings)), warnings
    except AudioError as error:
        return str(error), []
    except OSError as error:  # such as a path that is too long, or a folder that cannot be read
        return f"{shorten(str(entry.path))}: {(error.strerror or str(error)).lower()}", []


def split(
    clips: Sequence[Clip], share: float, seed: int, levels: int = 1
) -> tuple[list[Clip], list[Clip]]:
    """Split clips into training and validation clips without a common speaker.

    Whole folders, which are speakers in most corpora, are set apart: a codec sounds better on
    speakers it was trained on. If no choice of folders comes near the share (one folder, or a few
    large ones), single clips are set apart. The choice does not depend on the order of clips.

    Args:
        clips: all clips.
        share: validation share of the total length, between 0 and 1.
        seed: random seed.
        levels: 1 if a speaker is the folder of its clips, 2 if it is the folder above, as in
            LibriSpeech.

    Returns:
        Training clips and validation clips in the order given; neither list is empty.

    Raises:
        UsageError: The share is not between 0 and 1, or there are fewer than two clips.
    """
    if not 0 < share < 1:
        raise UsageError(f"a share of {share} cannot be set apart; choose one between 0 and 1")
    if len(clips) < 2:
        raise UsageError("one clip cannot be split; give at least two clips")
    target = share * sum(clip.seconds for clip in clips)
    by_folder: dict[str, list[int]] = {}
    for index, clip in enumerate(clips):
        parents = clip.path.absolute().parents
        folder = os.fspath(parents[min(levels, len(parents)) - 1])
        by_folder.setdefault(folder, []).append(index)
    chosen = _choose(clips, [by_folder[folder] for folder in sorted(by_folder)], target, seed)
    if not chosen:
        by_path = sorted(range(len(clips)), key=lambda index: os.fspath(clips[index].path))
        chosen = _choose(clips, [[index] for index in by_path], target, seed)
    if not chosen:  # every clip is longer than twice the target
        chosen = {min(range(len(clips)), key=lambda index: clips[index].seconds)}
    train = [clip for index, clip in enumerate(clips) if index not in chosen]
    return train, [clips[index] for index in sorted(chosen)]


def _choose(
    clips: Sequence[Clip], groups: Sequence[list[int]], target: float, seed: int
) -> set[int]:
    """Return clips of random groups whose total length is near the target, never all clips."""
    chosen: set[int] = set()
    total = 0.0
    shuffled = list(groups)
    random.Random(seed).shuffle(shuffled)
    for group in shuffled:
        if len(chosen) + len(group) == len(clips):
            continue
        seconds = sum(clips[index].seconds for index in group)
        if abs(total + seconds - target) < abs(total - target):
            chosen.update(group)
            total += seconds
    return chosen
