"""`codectool plot`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.test_bad_input import assert_refused
from tests.cli.test_start import called, modules_after

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a short run."""
    entries = [
        {"kind": kind, "step": step, "time": 0, name: step / 100}
        for step in (10, 20, 30)
        for kind, name in (("train", "loss"), ("valid", "mel_db"))
    ]
    path = tmp_path / "run"
    path.mkdir()
    (path / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


@pytest.fixture
def _matplotlib() -> None:
    pytest.importorskip("matplotlib")


@pytest.mark.usefixtures("_matplotlib")
def test_figure_is_written_to_the_run_and_replaced(run: Run, folder: Path) -> None:
    for _ in range(2):
        result = run("plot", folder)
        assert (result.code, result.out, result.err) == (0, b"", "")
        assert (folder / "curves.png").read_bytes().startswith(PNG)
        (folder / "curves.png").write_bytes(b"old")


@pytest.mark.usefixtures("_matplotlib")
def test_named_figure_is_not_replaced_without_overwrite(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.png"
    path.write_bytes(b"mine")
    assert_refused(run("plot", folder, "-o", path), "mine.png", "exists", "--overwrite")
    assert path.read_bytes() == b"mine"
    assert run("plot", folder, "-o", path, "--overwrite").code == 0
    assert path.read_bytes().startswith(PNG)
    assert not (folder / "curves.png").exists()


@pytest.mark.usefixtures("_matplotlib")
def test_figure_to_stdout(run: Run, folder: Path) -> None:
    result = run("plot", folder, "-o", "-", "--metric", "loss", "--log-x", "--smooth", "0")
    assert result.code == 0
    assert result.out.startswith(PNG)


@pytest.mark.usefixtures("_matplotlib")
def test_several_runs_need_an_output(run: Run, folder: Path, tmp_path: Path) -> None:
    assert_refused(run("plot", folder, folder), "several runs", "-o")
    assert run("plot", folder, folder, "-o", tmp_path / "both.png").code == 0
    assert (tmp_path / "both.png").read_bytes().startswith(PNG)


def test_metrics_as_json(run: Run, folder: Path) -> None:
    result = run("plot", folder, folder, "--json", "--metric", "mel_db")
    assert result.code == 0
    first, second = map(json.loads, result.text.splitlines())
    assert first == second
    assert first["run"] == str(folder)
    assert first["step"] == 30
    assert list(first["figures"]) == ["valid/mel_db"]
    assert first["figures"]["valid/mel_db"]["best"] == 0.1
    assert not (folder / "curves.png").exists()


def test_bad_input_is_refused(run: Run, folder: Path, tmp_path: Path) -> None:
    assert_refused(run("plot", tmp_path), str(tmp_path), "has no metrics.jsonl")
    assert not (tmp_path / "curves.png").exists()
    assert_refused(run("plot", tmp_path / "gone"), "gone", "there is no folder")
    assert_refused(run("plot", tmp_path / "gone", "--json"), "gone: no such folder")
    assert_refused(run("plot", folder, "--metric", "pesq"), "`pesq`", "train/loss, valid/mel_db")
    assert_refused(run("plot", folder, "-o", tmp_path / "x.pdf"), "x.pdf", ".png")
    assert_refused(run("plot"), "RUN_DIR")
    for smooth in ("1", "-0.1", "nan"):
        assert_refused(run("plot", folder, "--smooth", smooth), "--smooth", "below 1")
    (folder / "metrics.jsonl").write_text("not a metrics log\nat all\n")
    assert_refused(run("plot", folder), "metrics.jsonl: line 1 is no entry")


def test_missing_matplotlib_names_the_install_command(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [m for m in sys.modules if m.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert_refused(run("plot", folder), "matplotlib", "pip install 'codectool[train]'")
    assert not (folder / "curves.png").exists()
    assert run("plot", folder, "--json").code == 0


def test_plot_does_not_load_torch(folder: Path) -> None:
    loaded = modules_after(called("plot", str(folder), "--json"))
    assert not loaded & {"torch", "torchaudio", "matplotlib", "tensorboard", "rich"}
