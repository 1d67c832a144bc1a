"""`codectool compare`: two recordings, a table and a figure."""

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
    """Write a second of noise in bursts, and the same at half the level and 10 ms late."""
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.1, 24000) * np.repeat(rng.uniform(0, 1, 24), 1000)
    first, second = tmp_path / "a.wav", tmp_path / "b.wav"
    soundfile.write(first, wave, 24000, "FLOAT")
    soundfile.write(second, np.concatenate([np.zeros(240), wave / 2]), 24000, "FLOAT")
    return first, second


def test_compare_prints_table_and_json_and_draws_figure(
    run: Run, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    figure = tmp_path / "x.png"
    result = run("compare", *pair, "--metric", "mel_db", "--picture", figure)
    assert result.code == 0
    assert "10.00 ms late" in result.text
    assert "mel distance" in result.text
    assert figure.read_bytes().startswith(b"\x89PNG")
    values = json.loads(run("compare", *pair, "--metric", "mel_db", "--json").text)
    assert values["delay_ms"] == pytest.approx(10)
    assert values["metrics"]["mel_db"] == pytest.approx(20 * np.log10(2), abs=0.3)


def test_compare_without_alignment_and_from_stdin(run: Run, pair: tuple[Path, Path]) -> None:
    options = ("--metric", "mel_db", "--json")
    values = json.loads(run("compare", *pair, *options, "--no-align").text)
    assert values["delay_ms"] is None
    assert values["metrics"]["mel_db"] > 6.5  # half the level, and late
    piped = json.loads(run("compare", pair[0], "-", *options, stdin=pair[1].read_bytes()).text)
    direct = json.loads(run("compare", *pair, *options).text)
    assert piped["metrics"] == direct["metrics"]
    assert piped["degraded"] == {**direct["degraded"], "file": "-"}
    assert_refused(run("compare", "-", "-"), "stdin", "give a file")
    assert_refused(run("compare", pair[0], "-", stdin=b"no audio"), "<stdin>: not audio")


def test_compare_of_different_rates_lengths_and_channels(run: Run, pair: tuple[Path, Path]) -> None:
    wave, _ = soundfile.read(pair[0])
    other = pair[0].with_name("other.wav")
    stereo = np.stack([wave, wave], axis=1)[:: 24000 // 8000][:6000]
    soundfile.write(other, stereo, 8000, "FLOAT")
    result = run("compare", pair[0], other, "--metric", "mel_db")
    assert result.code == 0
    assert "0.750 s at 8000 Hz" in result.text
    assert "0.25 s shorter" in result.err
    assert "it is padded with silence" in result.err


def test_compare_shows_why_a_metric_has_no_value(run: Run, pair: tuple[Path, Path]) -> None:
    silent = pair[0].with_name("silent.wav")
    soundfile.write(silent, np.zeros(24000), 24000)
    result = run("compare", silent, silent, "--metric", "si_sdr_db", "--metric", "mel_db")
    assert result.code == 0
    assert "no value: " in result.text
    values = json.loads(run("compare", silent, silent, "--metric", "si_sdr_db", "--json").text)
    assert values["metrics"]["si_sdr_db"] is None
    assert values["notes"]["si_sdr_db"]
    single = pair[0].with_name("single.wav")
    soundfile.write(single, np.ones(1), 24000)
    assert run("compare", single, single).code == 0


def test_compare_refuses_a_figure_that_cannot_be_written(
    run: Run, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    taken = tmp_path / "taken.png"
    taken.write_bytes(b"mine")
    assert_refused(run("compare", *pair, "--picture", taken), "taken.png", "--overwrite")
    assert taken.read_bytes() == b"mine"
    assert_refused(run("compare", *pair, "--picture", tmp_path / "x.jpg"), "x.jpg", ".png")
    assert_refused(run("compare", *pair, "--picture", "-"), "give a file name")
    assert_refused(run("compare", *pair, "--picture", pair[1], "--overwrite"), "b.wav")


def test_compare_refuses_invalid_input(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    assert_refused(run("compare", pair[0], tmp_path / "text.wav"), "text.wav", "not audio")
    assert_refused(run("compare", pair[0], tmp_path / "no.wav"), "no.wav", "no such file")
    assert_refused(run("compare", pair[0], tmp_path), "is a folder", "codectool evaluate")
    assert_refused(run("compare", *pair, "--metric", "loudness"), "loudness", "stoi")
    soundfile.write(tmp_path / "slow.wav", np.zeros(9), 1)
    assert_refused(run("compare", pair[0], tmp_path / "slow.wav"), "slow.wav", "1 Hz")
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan]), 16000, "FLOAT")
    assert_refused(run("compare", pair[0], tmp_path / "nan.wav"), "nan.wav", "not finite")
