"""`codectool train`."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from codectool.training.checkpoint import LAST, read_checkpoint
from codectool.training.config import parse
from codectool.training.run import Callbacks
from codectool.training.run import train as run_training
from codectool.training.trainer import StepReport, Trainer
from tests.cli.conftest import Run
from tests.conftest import GOLDEN
from tests.training import small
from tests.training.test_run import assert_same_end

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.speech(tmp_path_factory.mktemp("train") / "speech")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The file of a small config."""
    return small.write(tmp_path / "small.json", small.config(adversarial=small.ONE_DISCRIMINATOR))


# -- whole runs -------------------------------------------------------------------------------


def test_train_resume_encode_plot(run: Run, config: Path, speech: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ("--config", config, "--train-files", speech, "--valid-files", speech)
    result = run("train", *options, "--run-dir", folder, "--max-steps", 4, "--verbose")
    assert (result.code, result.out) == (0, b"")
    assert "step 4/4  loss " in result.err
    assert "step 4: mel_db " in result.err
    again = run("train", *options, "--run-dir", folder)
    assert (again.code, again.out) == (2, b"")
    assert again.err.endswith("continue it with `--resume`, or choose another --run-dir\n")

    result = run("train", "--run-dir", folder, "--resume", "--max-steps", 6)
    assert (result.code, result.out, result.err) == (0, b"", "")
    assert read_checkpoint(folder / LAST)["trainer"]["steps"] == 6
    written = json.loads((folder / "config.json").read_text())
    assert written["data"] == {"train": str(speech), "valid": str(speech), "token_cache": None}
    assert parse(written).training.max_steps == 6

    clip = sorted(speech.iterdir())[0]
    result = run("encode", clip, tmp_path / "x.hcd", "--checkpoint", folder, "--device", "cpu")
    assert (result.code, result.err) == (0, "")
    assert run("plot", folder, "-o", tmp_path / "curves.png").code == 0


def test_train_decoder_alone_and_decode_old_files(
    run: Run, config: Path, speech: Path, tmp_path: Path
) -> None:
    options = ("--config", config, "--train-files", speech, "--max-steps", 4)
    assert run("train", *options, "--run-dir", tmp_path / "start").code == 0
    clip, device = sorted(speech.iterdir())[0], ("--device", "cpu")
    old = ("--checkpoint", tmp_path / "start", *device)
    assert run("encode", clip, tmp_path / "old.hcd", *old).code == 0
    frozen = ("--freeze", "encoder", "--token-cache", tmp_path / "cache")
    result = run(
        *("train", *options, *frozen, "--start-from", tmp_path / "start"),
        *("--run-dir", tmp_path / "run", "--verbose"),
    )
    assert result.code == 0, result.err
    note = "note: `--freeze encoder` turns off gain_db, start_padding_prob, auxiliary_losses"
    assert note in result.err
    assert "tokens of 6 files computed, of 0 in the cache\n" in result.err
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["training"]["freeze"] == "encoder"
    assert written["data"]["token_cache"] == str(tmp_path / "cache")
    new = ("--checkpoint", tmp_path / "run", *device)
    assert run("encode", clip, tmp_path / "new.hcd", *new).code == 0
    assert (tmp_path / "new.hcd").read_bytes() == (tmp_path / "old.hcd").read_bytes()
    for name, options in (("old", old), ("new", new)):
        result = run("decode", tmp_path / "old.hcd", tmp_path / f"{name}.wav", *options)
        assert (result.code, result.err) == (0, "")
    assert (tmp_path / "old.wav").read_bytes() != (tmp_path / "new.wav").read_bytes()
    last, target = tmp_path / "run" / LAST, tmp_path / "last.safetensors"
    assert run("convert", last, target).code == 0
    assert run("train", "--run-dir", tmp_path / "run", "--resume", "--max-steps", 5).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_the_run_and_exits(
    number: signal.Signals,
    run: Run,
    config: Path,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ("train", "--config", config, "--train-files", speech)
    original = Trainer.step

    def step(self: Trainer, batch: torch.Tensor, progress: float, *rest: Any) -> StepReport:
        if self.steps == 3:
            os.kill(os.getpid(), number)
        return original(self, batch, progress, *rest)

    with monkeypatch.context() as context:
        context.setattr(Trainer, "step", step)
        stopped = run(*options, "--run-dir", tmp_path / "stopped")
    assert stopped.code == 128 + number
    assert stopped.err.endswith("stopped: at step 4; continue with `--resume`\n")
    assert run("train", "--run-dir", tmp_path / "stopped", "--resume").code == 0
    assert run(*options, "--run-dir", tmp_path / "whole").code == 0
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")


def test_max_hours_ends_the_run(run: Run, config: Path, speech: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ("--config", config, "--train-files", speech, "--run-dir", folder)
    assert run("train", *options, "--max-hours", 1e-7).code == 0
    assert read_checkpoint(folder / LAST)["trainer"]["steps"] == 1


def test_start_from_published_config_and_weights(run: Run, tmp_path: Path) -> None:
    wide = small.speech(tmp_path / "wide", count=2, rate=16000)
    micro = GOLDEN / "supercodec_micro"
    options = ["--config", micro / "config.json", "--set", "batch_size=1", "--set", "filters=2"]
    options += ["--set", "num_workers=0", "--train-files", wide, "--run-dir", tmp_path / "run"]
    result = run("train", *options, "--max-steps", 1, "--start-from", micro / "g_00000001")
    assert result.code == 0, result.err
    assert read_checkpoint(tmp_path / "run" / LAST)["trainer"]["steps"] == 1


# -- configs -----------------------------------------------------------------------------------


def printed(run: Run, *options: object) -> dict[str, Any]:
    result = run("train", *options, "--print-config")
    assert (result.code, result.err) == (0, "")
    values: dict[str, Any] = json.loads(result.text)
    return values


def test_printed_config_can_be_read(run: Run, tmp_path: Path) -> None:
    options = ["--config", "hac", "--set", "training.batch_size=4", "--seed", 5]
    options += ["--precision", "bf16", "--max-steps", 77, "--set", "training.losses.0.weight=3"]
    values = printed(run, *options, "--set", "description=of my own")
    training = values["training"]
    chosen = [training[key] for key in ("batch_size", "seed", "precision", "max_steps")]
    assert chosen == [4, 5, "bf16", 77]
    assert training["losses"][0]["weight"] == 3
    assert values["description"] == "of my own"
    path = small.write(tmp_path / "printed.json", values)
    assert printed(run, "--config", path) == values


def test_published_config_can_be_printed(run: Run, tmp_path: Path) -> None:
    published = GOLDEN / "supercodec_micro" / "config.json"
    values = printed(run, "--config", published, "--set", "batch_size=2", "--max-steps", 9)
    assert values["family"] == "supercodec"
    assert values["training"]["batch_size"] == 2
    assert (values["training"]["max_steps"], values["training"]["max_epochs"]) == (9, None)
    assert printed(run, "--config", small.write(tmp_path / "printed.json", values)) == values


def test_paths_of_lists_are_made_absolute(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run can be resumed from another folder."""
    monkeypatch.chdir(tmp_path)
    data = printed(run, "--config", "hac", "--train-files", "a.txt", "--valid-files", "b")["data"]
    paths = {"train": str(tmp_path / "a.txt"), "valid": str(tmp_path / "b")}
    assert data == {**paths, "token_cache": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--config is missing: give a name such as hac, or a JSON file"),
        (["--config", "hac"], "--run-dir is missing"),
        (["--config", "hca"], "hca: neither a file nor a bundled config; choose from bigcodec, "),
        (["--config", "no.json"], "no.json: "),
        (["--config", "hac", "--set", "training.batchsize=2"], "hac: unknown key `training.batch"),
        (["--config", "hac", "--set", "training.batch_size"], "--set takes KEY=VALUE, not "),
        (["--config", "hac", "--set", "family.x=1"], "--set family.x=1: there is no key `x`"),
        (["--config", "hac", "--max-steps", "0"], "--max-steps"),
        (["--config", "hac", "--max-hours", "0"], "--max-hours"),
        (
            ["--config", "hac", "--seed", "99999999999999999999"],
            "`training.seed` must be an integer <= ",
        ),
        (["--config", "hac", "--valid-files", "x"], "--valid-files without --train-files"),
        (["--config", "hac", "--run-dir", "r"], "no training data: give --train-files"),
        (["--config", "hac", "--run-dir", "r", "--train-files", "no"], "no: no such file"),
        (["--config", "hac", "--run-dir", "r", "--device", "abacus"], "no device is called"),
        (
            ["--config", "hac", "--token-cache", "c", "--train-files", "."],
            "--token-cache is only used with `--freeze encoder`",
        ),
        (
            ["--resume", "--run-dir", "r"],
            "r: holds no run to resume; start one with `--config`",
        ),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    options: list[str], message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("train", *options)
    assert (result.code, result.out) == (2, b"")
    assert message in result.err
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_damaged_checkpoint_is_refused(
    run: Run, config: Path, speech: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LAST).write_bytes(b"not a checkpoint")
    options = ("--config", config, "--train-files", speech, "--run-dir", tmp_path / "run")
    result = run("train", *options, "--resume")
    assert result.code == 2
    assert f"error: {tmp_path / 'run' / LAST}: " in result.err
    assert "Traceback" not in result.err


# -- processes --------------------------------------------------------------------------------


def start(*arguments: object, torchrun: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-m"]
    if torchrun:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command += ["codectool", "train", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + TIMEOUT_S
    while not condition():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise AssertionError(f"{process.returncode}: {process.communicate()}")
        time.sleep(0.01)


def workers_of(process: subprocess.Popen[str]) -> list[Path]:
    """Return the worker processes of a process, as folders in /proc."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [Path("/proc", pid) for pid in children.read_text().split()]


def is_alive(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_killed_run_resumes_bit_equal(speech: Path, tmp_path: Path) -> None:
    """After kill -9 at a random moment; no worker process is left."""
    adversarial = {**small.ONE_DISCRIMINATOR, "start": 0.3}
    config = small.config(adversarial=adversarial, max_steps=40, save_every=20)
    whole = small.with_data(config, speech)
    run_training(whole, tmp_path / "whole")
    path = small.write(tmp_path / "small.json", whole)
    killed = tmp_path / "killed"
    options = ("--config", path, "--run-dir", killed, "--threads", 1)
    process = start(*options, "--set", "training.num_workers=2")
    wait_for((killed / "model.safetensors").exists, process)
    workers = workers_of(process)
    time.sleep(random.uniform(0, 0.3))
    process.kill()
    process.wait(TIMEOUT_S)
    assert process.returncode == -signal.SIGKILL
    assert len(workers) >= 2
    deadline = time.monotonic() + 20
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [worker.name for worker in workers if is_alive(worker)]
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    assert not left
    assert process.communicate()[0] == ""

    assert read_checkpoint(killed / LAST)["trainer"]["steps"] == 20
    run_training(whole, killed, resume=True)
    assert_same_end(tmp_path / "whole", killed)


def test_sigterm_to_torchrun_stops_both_processes_at_the_same_step(
    speech: Path, tmp_path: Path
) -> None:
    config = small.config(max_steps=100_000, log_every=1, num_workers=1)
    path = small.write(tmp_path / "small.json", small.with_data(config, speech))
    folder = tmp_path / "run"
    process = start("--config", path, "--run-dir", folder, "--threads", 1, torchrun=True)
    log = folder / "metrics.jsonl"
    wait_for(lambda: log.exists() and log.stat().st_size > 500, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode != 0
    assert out == ""
    assert err.count("stopped: at step ") == 1
    steps = read_checkpoint(folder / LAST)["trainer"]["steps"]
    assert f"stopped: at step {steps}; " in err
    assert steps == json.loads(log.read_text().splitlines()[-1])["step"]
    longer = small.with_data(small.config(max_steps=steps + 2), speech)
    assert run_training(longer, folder, resume=True, callbacks=Callbacks()).step == steps + 2
