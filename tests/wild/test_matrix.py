"""1,600 audio files of more than 100 kinds, compared with the samples that ffmpeg reads.

`audio_kinds.py` lists the kinds. `pytest tests/wild/test_matrix.py -k vbr` compares a few of them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from codectool.audio.source import open_audio
from codectool.errors import AudioError
from tests.wild.audio_kinds import CLIPS, KINDS, Kind, Wave, missing_programs, write_kind

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"without {missing_programs()}")


@dataclass(frozen=True)
class Reading:
    """What codectool says about a file.

    Attributes:
        wave: what it reads; None if it refuses.
        promised: the number of samples that it states beforehand; None if it does not.
        remarks: its warnings, or the reason of a refusal.
    """

    wave: Wave | None
    promised: int | None
    remarks: list[str]


def read(file: Path | BinaryIO, name: str) -> Reading:
    try:
        with open_audio(file, name) as audio:
            promised = audio.num_samples
            chunks = [np.zeros((audio.channels, 0), np.float32), *audio.chunks()]
            wave = Wave(np.concatenate(chunks, axis=1).T, audio.sample_rate)
            return Reading(wave, promised, [str(warning) for warning in audio.warnings])
    except AudioError as error:
        return Reading(None, None, [str(error)])


@contextmanager
def pipe(path: Path) -> Iterator[BinaryIO]:
    """Return the reading end of a pipe that gets the bytes of a file."""
    end, start = os.pipe()

    def feed() -> None:
        try:
            with open(start, "wb", buffering=0) as file:
                file.write(path.read_bytes())
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        with open(end, "rb") as file:
            yield file
    finally:
        thread.join()


def faults(kind: Kind, reading: Reading, expected: Wave | None) -> Iterator[str]:
    """Yield what is wrong with a reading."""
    if kind.damaged:
        if not reading.remarks:
            yield "is damaged, but read without a warning"
        return
    if reading.wave is None:
        if not kind.may_refuse and expected is not None and len(expected.samples):
            yield f"is refused: {reading.remarks[0]}"
        return
    if reading.remarks:
        yield f"is intact, but warned about: {reading.remarks[0]}"
    count = len(reading.wave.samples)
    if reading.promised not in (None, count):
        yield f"promises {reading.promised} samples, read as {count}"
    if expected is None:  # ffmpeg cannot read it
        return
    # libopus decodes to the rate of the source, with other filters than to 48 kHz
    same_rate = reading.wave.rate == expected.rate
    length = len(expected.samples) * reading.wave.rate / expected.rate
    rounding = 2 if kind.joined else 1  # each stream has whole samples
    if (
        abs(count - length) >= rounding
        or reading.wave.samples.shape[1] != expected.samples.shape[1]
    ):
        yield f"has {expected.samples.shape} samples, read as {reading.wave.samples.shape}"
    elif count and same_rate:
        difference = np.nan_to_num(reading.wave.samples - expected.samples)[kind.concealed :]
        reference = np.nan_to_num(expected.samples)[kind.concealed :]
        error = np.linalg.norm(difference) / max(1e-9, float(np.linalg.norm(reference)))
        if error > 0.04:  # a correlation of 0.999
            yield f"differs from the reference: relative error {error:.3f}"


@pytest.mark.parametrize("name", KINDS)
def test_samples_agree_with_ffmpeg(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    found = []
    paths, waves = write_kind(kind, tmp_path)
    for number, (path, expected) in enumerate(zip(paths, waves, strict=True)):
        readings = {"by path": read(path, path.name)}
        if number % 3 == 0:
            with pipe(path) as file:
                readings["on a pipe"] = read(file, path.name)
        elif number % 3 == 1:
            with path.open("rb") as file:
                readings["as stdin"] = read(file, path.name)
        for way, reading in readings.items():
            found += [f"{path.name} {way} {fault}" for fault in faults(kind, reading, expected)]
    assert not found, "\n".join(found)


def test_matrix_has_1000_files_of_25_kinds() -> None:
    assert len(KINDS) >= 25
    assert len(KINDS) * CLIPS >= 1000
