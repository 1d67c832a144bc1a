"""`codectool compare`: two recordings, a table and a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import Run
from tests.cli.test_bad_input import assert_refused


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A second of noise in bursts, and the same half as loud, 10 ms late."""
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.1, 24000) * np.repeat(rng.uniform(0, 1, 24), 1000)
    first, second = tmp_path / "a.wav", tmp_path / "b.wav"
    soundfile.write(first, wave, 24000, "FLOAT")
    soundfile.write(second, np.concatenate([np.zeros(240), wave / 2]), 24000, "FLOAT")
    return first, second


def test_table_json_and_picture(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "x.png"
    result = run("compare", *pair, "--metric", "mel_db", "--picture", picture)
    assert result.code == 0
    assert "10.00 ms late" in result.text
    assert "mel distance" in result.text
    assert picture.read_bytes().startswith(b"\x89PNG")
    values = json.loads(run("compare", *pair, "--metric", "mel_db", "--json").text)
    assert values["delay_ms"] == pytest.approx(10)
    assert values["metrics"]["mel_db"] == pytest.approx(20 * np.log10(2), abs=0.3)


def test_refused(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    assert_refused(run("compare", pair[0], tmp_path / "text.wav"), "text.wav", "not audio")
    assert_refused(run("compare", pair[0], tmp_path / "no.wav"), "no.wav", "no such file")
    assert_refused(run("compare", *pair, "--metric", "loudness"), "loudness", "stoi")
