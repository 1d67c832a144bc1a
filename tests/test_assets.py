"""`make demo`, and the output that README.md shows."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from tests.cli.conftest import Run, run  # noqa: F401  (fixture)
from tests.test_docs import code_blocks

ASSETS = Path(__file__).parents[1] / "assets"


@pytest.mark.parametrize("name", ["speech_espeak.flac", "speech_flite.flac"])
def test_demo(run: Run, tmp_path: Path, name: str) -> None:  # noqa: F811
    clip = ASSETS / name
    packed, back = tmp_path / "speech.hcd", tmp_path / "speech.wav"
    assert run("encode", clip, packed, "--device", "cpu").code == 0
    assert run("verify", packed).code == 0
    assert run("decode", packed, back, "--device", "cpu").code == 0
    before, after = soundfile.info(clip), soundfile.info(back)
    assert (after.frames, after.samplerate) == (before.frames, before.samplerate)
    audio, _ = soundfile.read(back)
    assert 0.01 < audio.std() < 0.3  # speech: neither silence nor full-scale noise


def test_readme_shows_the_output_of_info(run: Run, tmp_path: Path) -> None:  # noqa: F811
    shown = next(block for block in code_blocks("README.md", "text") if "codectool info" in block)
    expected = shown[shown.index("$ codectool info") :].splitlines()[1:]
    packed = tmp_path / "speech.hcd"
    clip = ASSETS / "speech_espeak.flac"
    run("encode", clip, packed, "--device", "cpu", "--tag", "title=codectool demo")
    found = run("info", packed).text.splitlines()
    # except the file name and the path of the weights, which differ between machines
    assert found[1] == expected[1]
    assert found[2].split(",")[0] == expected[2].split(",")[0]
    assert found[3:] == expected[3:]
