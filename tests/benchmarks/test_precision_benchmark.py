"""The benchmark of bf16: its tables, and its model of masking."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import precision
from tests.conftest import GOLDEN


def test_tables_and_json_have_speed_and_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = tmp_path / "x.json"
    options = ["--seconds", "1", "--file-seconds", "0.5", "--turns", "1", "--threads", "1"]
    model = ["--model", "supercodec", str(GOLDEN / "supercodec_micro")]
    monkeypatch.setattr(sys, "argv", ["x", *options, *model, "--json", str(target)])
    monkeypatch.setattr("warnings.warn", lambda *_, **__: None)  # where bf16 is not faster
    precision.main()
    text = capsys.readouterr().out
    assert "| supercodec | 1       | one file" in text
    assert "| supercodec | 2     |" in text
    found = json.loads(target.read_text())["models"]["supercodec"]
    assert min(found["errors"]["snr"]) > 25


@pytest.mark.parametrize(("level", "audible"), [(-60, False), (0, True)])
def test_noise_far_below_a_tone_in_its_band_is_masked(level: float, audible: bool) -> None:
    time = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    noise = 10 ** (level / 20) * np.sin(2 * np.pi * 1040 * time).astype(np.float32)
    assert bool((precision.noise_to_mask(tone, noise, 16000) > 0).any()) == audible


def test_rounding_to_16_bits_is_inaudible() -> None:
    speech = np.random.default_rng(0).normal(0, 0.05, 16000).astype(np.float32)
    noise = np.round(speech * 32768) / 32768 - speech
    assert (precision.noise_to_mask(speech, noise, 16000) < 0).all()
