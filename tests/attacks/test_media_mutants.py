"""Damaged m4a, aac, webm and wma files end in samples or in an `AudioError`."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile

from codectool.audio.source import open_audio
from codectool.errors import AudioError
from tests.signals import speechlike

MUTANTS = 60  # per kind
NUMBERS = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0")

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def mutant(data: bytes, rng: random.Random) -> bytes:
    """Change, insert and delete bytes, mostly at the start, where the lengths are."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 4, 20))):
        at = rng.randrange(min(len(changed), rng.choice((200, len(changed)))))
        action = rng.randrange(4)
        if action == 0:
            changed[at] = rng.randrange(256)
        elif action == 1:
            changed[at : at + 4] = rng.choice(NUMBERS)
        elif action == 2:
            del changed[at : at + rng.randrange(1, 60)]
        else:
            changed[at:at] = changed[at : at + rng.randrange(1, 60)]
    return bytes(changed)


@pytest.mark.parametrize("name", ["a.m4a", "a.aac", "a.webm", "a.wma", "a.wv"])
def test_damaged_media_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    soundfile.write(tmp_path / "a.wav", speechlike(0.4, 24000)[0], 24000)
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", tmp_path / name]
    subprocess.run(command, check=True)
    data = (tmp_path / name).read_bytes()
    rng = random.Random(name)
    refusals: list[str] = []
    for _ in range(MUTANTS):
        try:
            with open_audio(io.BytesIO(mutant(data, rng)), name) as audio:
                samples = sum(chunk.shape[1] for chunk in audio.chunks())
                # no more than the damaged file can hold
                assert samples < 100 * 48000
        except AudioError as error:
            refusals.append(str(error))
    assert refusals
    assert all(refusal.startswith(f"{name}: ") for refusal in refusals)
