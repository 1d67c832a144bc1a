"""The benchmark of BigCodec's layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import layers
from tests.conftest import GOLDEN


def test_table_and_figure_have_times_and_floors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(layers, "FILE_SECONDS", 0.5)
    monkeypatch.setattr(layers, "CLIP_SECONDS", (0.2, 0.4))
    monkeypatch.setattr(layers, "peak_rates", lambda: {"convolution": 1e11})
    monkeypatch.setattr(layers, "keep_freed_memory", lambda: None)
    figure = tmp_path / "x.svg"
    checkpoint = str(GOLDEN / "bigcodec_micro.pt")
    layers.main(["--checkpoint", checkpoint, "--clips", "3", "--figure", str(figure)])
    text = capsys.readouterr().out
    for use in ("one file, 1 thread ", "one file, 2 threads", "folder, 1 thread ", "folder, 2 thr"):
        assert f"| {use}" in text
    assert figure.read_text("utf-8").startswith("<?xml")


def test_time_of_layers_inside_others_counts_once() -> None:
    timer = layers.LayerTimer()
    outer, inner = layers.KINDS[3], layers.KINDS[0]
    conv = timer._timed(lambda: None, inner)
    timer._timed(conv, outer)()
    assert set(timer.totals()) == {outer}
