"""Evaluation of folders and systems: good clips, and every kind of bad one."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.errors import UsageError
from codectool.evaluation import tables
from codectool.evaluation.metrics.base import Metric
from codectool.evaluation.metrics.registry import Selection
from codectool.evaluation.metrics.spectral import MelDistance
from codectool.evaluation.report.data import page_data
from codectool.evaluation.results import Evaluation, SystemResult
from codectool.evaluation.run import EvaluationConfig, ProgressCallback, evaluate, folder_name
from codectool.evaluation.systems.spec import CodecSpec, SystemSpec
from tests.evaluation.broken_metrics import Broken, Crashing, Error, Level, Undefined

RATE = 16000


def wave(seed: int, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    length = int(seconds * rate)
    loud = np.repeat(rng.uniform(0, 0.2, length // 1000 + 1), 1000)[:length]
    return np.clip(rng.normal(size=length) * loud, -0.8, 0.8)


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, "FLOAT" if path.suffix == ".wav" else None)


def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Write three clips, and the same at half the level and 10 ms late."""
    references, degraded = tmp_path / "references", tmp_path / "degraded"
    for number, name in enumerate(["a.wav", "b/c.wav", "b/d.flac"]):
        samples = wave(number)
        write(references / name, samples)
        late = np.concatenate([np.zeros(160), 0.5 * samples])
        write((degraded / name).with_suffix(".wav"), late)
    return references, degraded


def run(
    references: Path,
    degraded: Path | list[tuple[str, Path]],
    *metrics: type[Metric],
    systems: tuple[SystemSpec, ...] = (),
    outputs: Path = Path("unused"),
    **options: object,
) -> Evaluation:
    named = [("x", degraded)] if isinstance(degraded, Path) else degraded
    infos = tuple(info for metric in metrics for info in metric.outputs)
    selection = Selection(metrics, infos)
    config = EvaluationConfig(references, systems, named, selection, **options)  # type: ignore[arg-type]
    return evaluate(config, outputs, 1)


def by_clip(system: SystemResult) -> dict[str, object]:
    return {score.clip: score for score in system.scores}


def test_delay_is_found_compensated_and_reported(tmp_path: Path) -> None:
    references, degraded = folders(tmp_path)
    found = run(references, degraded, Error)
    (system,) = found.systems
    assert (system.name, system.delay_ms, found.problems) == ("x", pytest.approx(10), ())
    assert [clip.name for clip in found.clips] == ["a.wav", "b/c.wav", "b/d.flac"]
    assert (system.kbps, system.rtf_encode) == (None, None)
    for number, score in enumerate(system.scores):
        half = float(np.sqrt(np.mean((wave(number) / 2) ** 2)))
        assert score.values["error"] == pytest.approx(half, rel=1e-2)
        assert score.values["length"] == 8000
        assert score.delay_ms == pytest.approx(10)
    late = run(references, degraded, Error, align="off").systems[0]
    assert late.means["error"].mean > 1.5 * system.means["error"].mean
    each = run(references, degraded, Error, align="clip").systems[0]
    assert each.delay_ms is None
    assert [score.delay_ms for score in each.scores] == pytest.approx([10, 10, 10])


def test_originals_have_values_of_metrics_without_reference(tmp_path: Path) -> None:
    references, degraded = folders(tmp_path)
    write(references / "silent.wav", np.zeros(8000))
    write(degraded / "silent.wav", np.ones(8000) / 4)
    found = run(references, degraded, Error, Level)
    assert found.originals is not None
    assert [system.name for system in found.columns] == ["originals", "x"]
    own, coded = (system.means["level"] for system in found.columns)
    assert (own.clips, coded.clips) == (3, 4)
    assert found.originals.means.keys() == {"level"}
    values = by_clip(found.originals)
    assert values["a.wav"].values == {  # type: ignore[attr-defined]
        "level": pytest.approx(float(np.sqrt(np.mean(wave(0) ** 2))), rel=1e-5)
    }
    rows = {row[0]: row[1:] for row in tables.table(found)}
    assert rows[""] == ["originals", "x"]
    assert rows["error ↓"][0] == rows["kbps of audio"][0] == rows["delay, ms"][0] == "-"
    assert rows["level ↑"][0].startswith(f"{own.mean:.3f} ±")
    assert "*" not in "".join(rows["level ↑"]), "a single system is not the best"
    assert list(tables.remarks(found)) == [
        "originals: 1 of 4 clips has no level: silent.wav (silence)"
    ]
    data = tables.to_json(found)
    assert data["originals"]["means"]["level"]["mean"] == own.mean
    assert [system["name"] for system in data["systems"]] == ["x"]
    lines = list(csv.DictReader(io.StringIO(tables.to_csv(found))))
    assert [line["system"] for line in lines] == ["originals"] * 4 + ["x"] * 4
    assert lines[0]["error"] == ""
    with pytest.raises(UsageError, match="two systems have the name `originals`; write NAME=PATH"):
        run(references, [("originals", degraded)], Level)
    assert run(references, [("originals", degraded)], Error).originals is None


def test_means_by_folder(tmp_path: Path) -> None:
    references, degraded = folders(tmp_path)
    found = run(references, degraded, Error, Level)
    parts = found.by_folder()
    assert {name: [clip.name for clip in part.clips] for name, part in parts.items()} == {
        ".": ["a.wav"],
        "b": ["b/c.wav", "b/d.flac"],
    }
    for part in parts.values():
        for whole, system in zip(found.columns, part.columns, strict=True):
            values = [by_clip(whole)[clip.name].values["level"] for clip in part.clips]  # type: ignore[attr-defined]
            assert system.means["level"].mean == pytest.approx(float(np.mean(values)))
            assert (system.name, system.delay_ms) == (whole.name, whole.delay_ms)
    data = tables.to_json(found, by_folder=True)["folders"]
    assert data["b"]["clips"] == 2
    assert data["b"]["systems"][0]["means"]["error"]["clips"] == 2
    assert data["b"]["originals"]["means"].keys() == {"level"}
    assert "folders" not in tables.to_json(found)


def test_version_of_an_external_codec_is_in_all_outputs(tmp_path: Path) -> None:
    if not shutil.which("opusenc"):
        pytest.skip("opusenc is not installed")
    references, degraded = folders(tmp_path)
    systems, outputs = (SystemSpec("o", "opus@6"),), tmp_path / "outputs"
    found = run(references, degraded, Error, systems=systems, outputs=outputs)
    version = found.systems[0].version
    assert version.startswith("libopus ")
    assert tables.table(found)[-1] == ["version", version, "-"]
    assert [system["version"] for system in tables.to_json(found)["systems"]] == [version, ""]
    assert f'"version":"{version}"' in page_data(found, None)
    assert found.by_folder()["b"].systems[0].version == version
    with pytest.raises(UsageError, match="there is no codec `mp3@64`"):
        run(references, degraded, Error, systems=(SystemSpec("o", "mp3@64"),))


def test_clips_may_differ_in_rate_channels_and_length(tmp_path: Path) -> None:
    references, degraded = tmp_path / "r", tmp_path / "d"
    for name, rate in (("same.wav", 16000), ("high.wav", 48000), ("low.wav", 8000)):
        write(references / name, wave(1, rate=rate), rate)
        write(degraded / name, wave(1, rate=16000), 16000)
    write(references / "stereo.wav", np.stack([wave(1), wave(1)], axis=1))
    write(degraded / "stereo.wav", wave(1))
    write(references / "cut.wav", wave(2, 1.0))
    write(degraded / "cut.wav", wave(2, 1.0)[:8000])
    system = run(references, degraded, Error, MelDistance, align="off").systems[0]
    scores = by_clip(system)
    assert scores["same.wav"].values == {"error": 0, "length": 8000, "mel_db": 0}
    assert scores["stereo.wav"].values["error"] == pytest.approx(0, abs=1e-7)
    assert scores["high.wav"].values["length"] == scores["low.wav"].values["length"] == 8000
    assert scores["cut.wav"].values["length"] == 16000
    assert scores["cut.wav"].notes == {"length": "is 0.50 s shorter than its reference"}
    assert scores["same.wav"].notes == {}


def test_bad_clips_are_listed_and_do_not_stop_the_evaluation(tmp_path: Path) -> None:
    references, degraded = folders(tmp_path)
    bad = wave(9)
    bad[5] = np.nan
    for name in ("nan-reference.wav", "nan-output.wav", "text-output.wav", "gone.wav", "one.wav"):
        write(references / name, bad if name == "nan-reference.wav" else wave(3))
        write(degraded / name, bad if name == "nan-output.wav" else wave(3))
    (references / "empty.wav").write_bytes(b"")
    write(references / "no-samples.wav", np.zeros(0))
    (degraded / "text-output.wav").write_text("no audio\n" * 9)
    (degraded / "gone.wav").unlink()
    write(degraded / "unknown.wav", wave(3))
    write(references / "one.wav", np.full(1, 0.5))
    write(degraded / "one.wav", np.full(1, 0.25))
    write(references / "silent.wav", np.zeros(4000))
    write(degraded / "silent.wav", np.zeros(4000))
    found = run(references, degraded, Error, Undefined, MelDistance, align="off")
    # a clip that cannot be aligned is not scored, and reported once
    aligned = run(references, degraded, Error, Undefined, MelDistance, align="system")
    assert sorted(aligned.problems) == sorted(found.problems)
    problems = {(system, clip): reason for system, clip, reason in found.problems}
    assert problems.keys() == {
        ("", "nan-reference.wav"),
        ("", "empty.wav"),
        ("", "no-samples.wav"),
        ("x", "nan-output.wav"),
        ("x", "text-output.wav"),
        ("x", "gone.wav"),
        ("x", "unknown.wav"),
    }
    assert "sample 5 of channel 0 is nan" in problems["", "nan-reference.wav"]
    assert "is empty (0 bytes)" in problems["", "empty.wav"]
    assert "holds no samples" in problems["", "no-samples.wav"]
    assert "sample 5" in problems["x", "nan-output.wav"]
    assert "not audio" in problems["x", "text-output.wav"]
    assert problems["x", "gone.wav"] == "is missing"
    assert problems["x", "unknown.wav"] == "has no reference"
    scores = by_clip(found.systems[0])
    assert scores["gone.wav"].problem == "is missing"
    assert "sample 5" in scores["nan-output.wav"].problem
    assert scores["silent.wav"].values["undefined"] is None
    assert scores["silent.wav"].notes["undefined"] == "silence"
    assert scores["one.wav"].values["error"] == pytest.approx(0.25)
    assert scores["a.wav"].values["undefined"] == 1
    lines = list(tables.remarks(found))
    assert lines == ["x: 1 of 5 clips has no undefined: silent.wav (silence)"]


def test_failing_metrics_affect_only_their_values(tmp_path: Path) -> None:
    references, degraded = folders(tmp_path)
    write(references / "short.wav", wave(4, 0.1))
    write(degraded / "short.wav", wave(4, 0.1))
    write(references / "loud.wav", np.sign(wave(5)) * 0.95)
    write(degraded / "loud.wav", np.sign(wave(5)) * 0.95)
    found = run(references, degraded, Error, Broken, Crashing, align="off")
    scores = by_clip(found.systems[0])
    assert scores["a.wav"].notes["broken"] == "unexpected IndexError: list index out of range"
    assert scores["short.wav"].notes["broken"] == "no finite value"
    assert scores["a.wav"].values["error"] is not None
    assert found.problems == (
        ("x", "loud.wav", "the worker process died; it may have run out of memory"),
    )
    assert scores["b/d.flac"].values["crashing"] == 0


def test_system_and_folder_in_one_evaluation(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    references, degraded = folders(tmp_path)
    (references / "bad.wav").write_text("no audio")
    spec = SystemSpec("hac/1", codec=CodecSpec(None, checkpoints["hac"], device="cpu"))
    steps: list[object] = []
    config = EvaluationConfig(
        references, [spec], [("coded", degraded)], Selection((Error,), Error.outputs)
    )
    progress = ProgressCallback(lambda *step: steps.append(step), lambda: steps.append(1))
    found = evaluate(config, tmp_path / "kept", 2, progress)
    system, folder = found.systems
    assert (system.name, folder.name) == ("hac/1", "coded")
    assert system.kbps == pytest.approx(1.35, rel=0.03)  # the last frame is padded
    assert system.kbps_file > system.kbps
    assert system.rtf_encode > 0
    assert (tmp_path / "kept/hac_1/b/d.wav").is_file()
    assert {score.path.parent.name for score in system.scores} == {"hac_1", "b"}
    assert [step for step in steps if step != 1] == [
        ("reading", 4),
        ("coding with hac/1", 3),
        ("aligning", 6),
        ("scoring", 6),
    ]
    assert steps.count(1) == 4 + 3 + 6 + 6
    again = evaluate(config, tmp_path / "again", 1)
    for before, after in zip(found.systems, again.systems, strict=True):
        assert [score.values for score in before.scores] == [score.values for score in after.scores]


def test_results_as_table_json_and_csv(tmp_path: Path) -> None:
    references, degraded = folders(tmp_path)
    (degraded / "a.wav").unlink()
    found = run(references, [("x|y", degraded), ("same", references)], Error, Undefined)
    rows = tables.table(found)
    assert rows[0] == ["", "x|y", "same"]
    named = {row[0]: row[1:] for row in rows}
    assert named["kbps of audio"] == ["-", "-"]
    assert named["error ↓"][1] == "*0.000 ±0.000 (0.000)"
    assert not named["error ↓"][0].startswith("*")
    assert named["undefined ↓"] == ["*1.000 ±0.000 (1.000)", "*1.000 ±0.000 (1.000)"]
    assert named["delay, ms"] == ["10.0", "0.0"]
    text = tables.as_text(rows)
    assert len({len(line) for line in text.splitlines()}) == 1
    assert "| x\\|y |" in tables.as_markdown(rows).splitlines()[0]
    values = json.loads(json.dumps(tables.to_json(found), allow_nan=False))
    assert values["problems"] == [{"system": "x|y", "clip": "a.wav", "reason": "is missing"}]
    assert values["systems"][0]["clips"][0]["problem"] == "is missing"
    assert values["systems"][1]["means"]["error"]["clips"] == 3
    lines = list(csv.DictReader(io.StringIO(tables.to_csv(found))))
    assert len(lines) == 6
    assert lines[0]["problem"] == "is missing"
    assert float(lines[1]["error"]) == values["systems"][0]["clips"][1]["values"]["error"]


def test_evaluate_rejects_duplicate_names_and_missing_folders(tmp_path: Path) -> None:
    references, degraded = folders(tmp_path)
    with pytest.raises(UsageError, match="two systems have the name `x`"):
        run(references, [("x", degraded), ("x", degraded)], Error)
    with pytest.raises(UsageError, match="there is no such folder"):
        run(references, tmp_path / "no", Error)


def test_folder_name_is_safe() -> None:
    assert folder_name("opus@6") == "opus@6"
    assert folder_name("../a b/c") == "_a_b_c"
    assert folder_name("..") == "_"
