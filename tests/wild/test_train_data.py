"""Training on audio of all kinds: damaged, unseekable, without length, or not as listed."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from codectool.audio.discovery import read_list
from codectool.audio.files import read_audio
from codectool.training.checkpoint import read_checkpoint
from codectool.training.data import CropConfig, CropDataset, read_batches
from codectool.training.filelist import Clip, scan
from codectool.training.metrics_log import MetricsLog, read_metrics
from tests.cli.conftest import Run
from tests.training import small

RATE = 8000


def voice(seconds: float = 1.5, seed: int = 0) -> np.ndarray:
    time = np.arange(round(RATE * seconds)) / RATE
    return np.asarray(small._voice(time, np.random.default_rng(seed)), np.float32)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return small.write(tmp_path / "small.json", small.config(max_steps=4, batch_size=4))


def write_gsm(path: Path) -> None:
    soundfile.write(path, voice(), RATE, "GSM610")


def write_mp3(path: Path) -> None:
    soundfile.write(path, np.repeat(voice(), 3), 24000, format="MP3")


def write_flac_without_length(path: Path) -> None:
    """As written to a pipe: the total number of samples in STREAMINFO is 0."""
    soundfile.write(path, voice(), RATE)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the upper 4 of 36 bits
    data[22:26] = bytes(4)
    path.write_bytes(data)


def write_wav_of_crashed_recorder(path: Path) -> None:
    soundfile.write(path, voice(), RATE)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = bytes(4)
    path.write_bytes(data)


def write_ogg(path: Path) -> None:
    soundfile.write(path, voice(), RATE)


def write_truncated_wav(path: Path) -> None:
    soundfile.write(path, voice(), RATE)
    path.write_bytes(path.read_bytes()[:14_000])


def write_truncated_flac(path: Path) -> None:
    soundfile.write(path, voice(4.0), RATE)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def write_truncated_mp3(path: Path) -> None:
    write_mp3(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def write_truncated_ogg(path: Path) -> None:
    soundfile.write(path, voice(8.0), RATE)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


INTACT = {
    "gsm.wav": write_gsm,
    "a.mp3": write_mp3,
    "pipe.flac": write_flac_without_length,
    "crash.wav": write_wav_of_crashed_recorder,
    "a.ogg": write_ogg,
}
DAMAGED = {
    "cut.wav": write_truncated_wav,
    "cut.flac": write_truncated_flac,
    "cut.mp3": write_truncated_mp3,
    "cut.ogg": write_truncated_ogg,
}
PLAIN = CropConfig(segment_size=800, sampling="clips", seed=5)


@pytest.mark.parametrize("name", [*INTACT, *DAMAGED])
def test_lengths_of_lists_are_those_of_the_audio(name: str, tmp_path: Path, run: Run) -> None:
    """And every crop of the file can be read."""
    (tmp_path / "wild").mkdir()
    path = tmp_path / "wild" / name
    (INTACT | DAMAGED)[name](path)
    samples, rate = read_audio(path, name)
    assert samples.shape[1] > 0
    result = run("filelist", tmp_path / "wild", "-o", tmp_path / "list.txt", "--json")
    assert result.code == 0
    assert (name in result.err) == (name in DAMAGED)
    assert bool(json.loads(result.text)["warnings"]) == (name in DAMAGED)
    (entry,) = read_list(tmp_path / "list.txt")
    assert (entry.num_samples, entry.sample_rate) == (samples.shape[1], rate)
    clips, problems = scan([entry])
    assert not problems
    dataset = CropDataset(clips, PLAIN, RATE)
    for number in range(30):
        crop = dataset[number]
        assert not crop.failed
        assert not crop.problems
        assert bool(crop.warnings) == (name in DAMAGED)


def test_train_reads_files_that_cannot_seek_or_state_no_length(
    run: Run, config: Path, tmp_path: Path
) -> None:
    wild = tmp_path / "wild"
    wild.mkdir()
    for name, write in INTACT.items():
        write(wild / name)
    options = ("--config", config, "--train-files", wild, "--valid-files", wild)
    result = run("train", *options, "--run-dir", tmp_path / "run")
    assert (result.code, result.err) == (0, "")


def test_train_warns_of_truncated_files(run: Run, config: Path, tmp_path: Path) -> None:
    wild = tmp_path / "wild"
    wild.mkdir()
    for name, write in DAMAGED.items():
        write(wild / name)
    options = ("--config", config, "--train-files", wild, "--run-dir", tmp_path / "run")
    result = run("train", *options)
    assert result.code == 0
    assert all(f"{wild / name}: " in result.err for name in DAMAGED)


# -- lists ---------------------------------------------------------------------------------------


def test_missing_files_are_named_in_a_few_lines(run: Run, config: Path, tmp_path: Path) -> None:
    names = [f"gone{number}.wav" for number in range(3000)]
    (tmp_path / "list.txt").write_text("\n".join(names))
    options = ("--config", config, "--train-files", tmp_path / "list.txt", "--run-dir")
    result = run("train", *options, tmp_path / "run")
    assert result.code == 2
    *warnings, more, error = result.err.splitlines()
    assert len(warnings) == 5
    assert warnings[0] == f"warning: {tmp_path / 'gone0.wav'}: no such file; left out"
    assert more == "warning: and 2,995 more, see `codectool filelist --json`"
    assert error == f"error: {tmp_path / 'list.txt'}: holds no audio that can be read"

    soundfile.write(tmp_path / "a.wav", voice(), RATE)
    (tmp_path / "list.txt").write_text("\n".join([*names, "a.wav"]))
    result = run("train", *options, tmp_path / "run")
    assert result.code == 0
    assert result.err.count("\n") == 7  # and that there is no validation list


def test_validation_list_without_usable_files_is_named(
    run: Run, config: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", voice(), RATE)
    (tmp_path / "train.txt").write_text("a.wav\n")
    options = ("--config", config, "--train-files", tmp_path / "train.txt", "--run-dir", "run")
    for lines in ("", "gone.wav\n"):
        (tmp_path / "valid.txt").write_text(lines)
        result = run("train", *options, "--valid-files", tmp_path / "valid.txt")
        assert result.code == 2
        assert result.err.splitlines()[-1].startswith(f"error: {tmp_path / 'valid.txt'}: ")


def test_path_that_is_too_long_does_not_hide_the_other_files(
    run: Run, config: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", voice(), RATE)
    (tmp_path / "list.txt").write_text(f"a.wav\n{'x' * 300}.wav\n")
    result = run("filelist", tmp_path / "list.txt", "-o", tmp_path / "out.txt")
    assert result.code == 0
    assert "file name too long" in result.err
    assert max(map(len, result.err.splitlines())) < 400
    options = ("--config", config, "--train-files", tmp_path / "list.txt")
    assert run("train", *options, "--run-dir", tmp_path / "run").code == 0


@pytest.mark.parametrize("seconds", [0.8, 3.0])
def test_file_that_is_not_as_listed_is_named(
    run: Run, config: Path, tmp_path: Path, seconds: float
) -> None:
    """A replaced file: the shorter one is replaced by others, the longer one is used."""
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", voice(), RATE)
    run("filelist", tmp_path, "-o", tmp_path / "list.txt")
    soundfile.write(tmp_path / "b.wav", voice(seconds), RATE)
    options = ("--config", config, "--train-files", tmp_path / "list.txt", "--max-steps", 6)
    result = run("train", *options, "--run-dir", tmp_path / "run")
    assert result.code == 0
    (warning,) = [line for line in result.err.splitlines() if "b.wav" in line]
    assert warning.startswith(
        f"warning: {tmp_path / 'b.wav'}: has {round(seconds * RATE)} samples at 8000 Hz, but the "
        "list says 12000 at 8000 Hz; write the list again with `codectool filelist`"
    )
    assert warning.endswith("; left out") == (seconds < 1.5)
    events = [
        e["message"] for e in read_metrics(tmp_path / "run" / "metrics.jsonl") if "message" in e
    ]
    assert events == [warning.removeprefix("warning: ")]


def test_file_at_another_rate_than_listed_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", voice(), RATE)
    clip = Clip(tmp_path / "a.wav", 24000, 16000)  # as long
    (batch,) = [next(read_batches(CropDataset([clip], PLAIN, RATE), 2))]
    assert "has 12000 samples at 8000 Hz, but the list says 24000 at 16000 Hz" in batch.problems[0]


def test_many_problems_during_training_are_logged(run: Run, config: Path, tmp_path: Path) -> None:
    lines = []
    for number in range(12):
        soundfile.write(tmp_path / f"{number}.wav", voice(), RATE)
        lines.append(f"{number}.wav\t{12000 - (number > 1)}\t8000\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    options = ("--config", config, "--train-files", tmp_path / "list.txt", "--max-steps", 20)
    result = run("train", *options, "--run-dir", tmp_path / "run")
    assert result.err.count("but the list says 11999") == 5
    assert "warning: more files have problems; see metrics.jsonl" in result.err
    entries = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert sum("but the list says" in entry.get("message", "") for entry in entries) == 10


# -- folders -------------------------------------------------------------------------------------


def test_run_folder_is_checked_before_the_audio_is_read(
    run: Run, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    options = ("--config", config, "--train-files", tmp_path / "gone", "--run-dir")
    for folder in ("file", "file/run"):
        result = run("train", *options, tmp_path / folder)
        assert result.code == 2
        assert result.err == f"error: {tmp_path / 'file'}: is a file; name a folder for the run\n"


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "train", "step": 1, "loss": [1]}',
        '{"kind": "train", "step": 99999999999999999999999, "loss": 1}',
        '{"kind": "train", "step": true, "loss": 1}',
        '{"kind": "train", "step": 1, "loss": ' + "9" * 400 + "}",
        '{"kind": "train", "step": 1, "loss": {"a": 1}}',
    ],
)
def test_plot_refuses_a_damaged_log(run: Run, tmp_path: Path, line: str) -> None:
    good = '{"kind": "train", "step": 1, "time": 1.5, "loss": 2}'
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    for options in (("--json",), ("-o", tmp_path / "x.png")):
        result = run("plot", tmp_path, *options)
        assert result.code == 2
        assert f"{tmp_path / 'metrics.jsonl'}: line 2 is no entry" in result.err
    assert not (tmp_path / "x.png").exists()


def test_plot_reads_a_log_whose_last_line_is_cut(run: Run, tmp_path: Path) -> None:
    good = '{"kind": "train", "step": 1, "time": 1.5, "loss": 2}'
    (tmp_path / "metrics.jsonl").write_text(f'{good}\n{{"kind": "train", "st')
    result = run("plot", tmp_path, "--json")
    assert json.loads(result.text)["figures"]["train/loss"]["points"] == 1


# -- state of a run ------------------------------------------------------------------------------


@pytest.fixture
def trained(run: Run, config: Path, tmp_path: Path) -> Path:
    """The folder of a finished run of 4 steps."""
    (tmp_path / "speech").mkdir()
    soundfile.write(tmp_path / "speech" / "a.wav", voice(), RATE)
    options = ("--config", config, "--train-files", tmp_path / "speech")
    assert run("train", *options, "--run-dir", tmp_path / "run").code == 0
    return tmp_path / "run"


def test_resuming_a_finished_run_says_so(run: Run, trained: Path) -> None:
    result = run("train", "--run-dir", trained, "--resume")
    assert result.code == 0
    assert "the run has already ended at step 4; continue it with a higher" in result.err


def test_full_disk_of_the_log_is_named_and_the_run_saved(
    run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        name = str(trained / "metrics.jsonl")

        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    created = MetricsLog.__init__

    def create(self: MetricsLog, *arguments: Any) -> None:
        created(self, *arguments)
        self._file.close()
        self._file = Full()  # type: ignore[assignment]

    monkeypatch.setattr(MetricsLog, "__init__", create)
    result = run("train", "--run-dir", trained, "--resume", "--max-steps", 8)
    assert result.code == 2
    last = result.err.splitlines()[-1]
    assert (
        last == f"error: {trained / 'metrics.jsonl'}: cannot be written (No space left on device)"
    )
    assert read_checkpoint(trained / "last.ckpt")["trainer"]["steps"] == 6


def test_full_disk_of_a_run_names_its_folder(
    run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As raised by TensorBoard, whose errors name no file."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MetricsLog, "metrics", full)
    result = run("train", "--run-dir", trained, "--resume", "--max-steps", 8)
    assert result.code == 2
    assert result.err.splitlines()[-1] == f"error: {trained}: no space left on device"
    assert read_checkpoint(trained / "last.ckpt")["trainer"]["steps"] == 6


def test_state_of_a_run_is_not_taken_for_weights(run: Run, config: Path, trained: Path) -> None:
    options = ("--config", config, "--train-files", trained.parent / "speech", "--run-dir", "new")
    result = run("train", *options, "--start-from", trained / "last.ckpt")
    assert result.code == 2
    assert (
        f"{trained / 'last.ckpt'}: is the state of a run; give its folder {trained}" in result.err
    )


def test_log_that_is_a_device_is_refused(run: Run, trained: Path) -> None:
    (trained / "metrics.jsonl").unlink()
    (trained / "metrics.jsonl").symlink_to("/dev/null")
    result = run("train", "--run-dir", trained, "--resume", "--max-steps", 8)
    assert result.code == 2
    assert f"{trained / 'metrics.jsonl'}: is not a file" in result.err


def test_names_that_are_not_utf_8_can_be_logged(run: Run, config: Path, tmp_path: Path) -> None:
    bad = os.fsdecode(b"caf\xe9.wav")
    soundfile.write(tmp_path / "a.wav", voice(), RATE)
    (tmp_path / "a.wav").rename(tmp_path / bad)
    soundfile.write(tmp_path / "b.wav", voice(), RATE)
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.wav\t900\t8000\nb.wav\t12000\t8000\n")
    options = ("--config", config, "--train-files", tmp_path / "list.txt", "--run-dir")
    assert run("train", *options, tmp_path / "run", "--max-steps", 6).code == 0
    (event,) = [e for e in read_metrics(tmp_path / "run" / "metrics.jsonl") if "message" in e]
    assert r"caf\xe9.wav: has 12000 samples" in event["message"]
