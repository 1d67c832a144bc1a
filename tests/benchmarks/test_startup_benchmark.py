"""The benchmark of start-up splits the time of a command into its parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.startup import PARTS, Commands, measure, render


def test_parts_of_a_command_add_up(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    commands = Commands(tmp_path, seconds=0.5)
    values = commands.measure("encode", "onnx")
    assert values["total"] == pytest.approx(sum(values[part] for part in PARTS))
    assert all(values[part] > 0 for part in PARTS)
    rows = measure(commands, [("--help", ""), ("folder", "onnx")], turns=1, cold=False)
    assert [row["weights"] > 0 for row in rows] == [False, True]
    assert rows[0]["package"] == 0
    assert "again" in rows[1]
    assert render(rows).count("warm") == 2
