"""Folder runs on a Ray cluster: the same files as without, even if workers die."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from codectool.codec import Codec
from codectool.errors import CheckpointError, CodectoolError, FingerprintError, UsageError
from codectool.pipeline.operations import (
    AnyOperation,
    DecodeOptions,
    EncodeOperation,
    EncodeOptions,
)
from codectool.pipeline.plan import Batch
from codectool.pipeline.ray import engine as ray_engine
from codectool.pipeline.ray.cluster import Machine, Placement, connected, place
from codectool.pipeline.ray.engine import RayEngine, on_ray
from codectool.pipeline.ray.worker import OperationSpec
from codectool.pipeline.report import Report, Result
from codectool.pipeline.run import Callbacks, RunOptions, encode_tree, reconstruct_tree
from tests.cli.conftest import Run, run  # noqa: F401  (fixture)
from tests.pipeline.test_pipeline_inputs import edit_in_place
from tests.pipeline.trees import FILES, contents, make_tree, outputs, write_audio

RUN_OPTIONS = RunOptions(batch_seconds=0.5)
NEEDS_RAY = "needs the extra `ray`: pip install 'codectool[ray]'"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ModuleType]:
    """Ray on this machine with room for two workers."""
    pytest.importorskip("ray", reason=NEEDS_RAY)
    with connected(None, 2) as ray:
        # workers cannot import the classes of this file
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield ray


@pytest.fixture
def hac(codecs: dict[str, Codec]) -> Codec:
    return codecs["hac"]


@pytest.fixture
def in_dir(tmp_path: Path) -> Path:
    folder = make_tree(tmp_path / "in")
    for number in range(16 - len(FILES)):
        write_audio(folder / f"more/{number}.wav", 1, 16000, 2000 + number)
    return folder


@dataclass(frozen=True)
class SlowSpec(OperationSpec):
    """Builds an operation that is slow, and writes the id of its process to a folder."""

    folder: str

    def build(self, device: str) -> AnyOperation:
        operation = super().build(device)
        compute = operation.compute

        def slowly(inputs: Any) -> Any:
            time.sleep(0.2)
            return compute(inputs)

        operation.compute = slowly  # type: ignore[method-assign]
        Path(self.folder, str(os.getpid())).touch()
        return operation


@pytest.mark.parametrize("workers", [2, 1])
def test_killed_worker_is_replaced(
    cluster: ModuleType,
    hac: Codec,
    in_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    """One of two workers, or the only one."""
    pids = tmp_path / "pids"
    pids.mkdir()

    def slow(operation: AnyOperation) -> SlowSpec:
        return SlowSpec(**vars(spec), folder=str(pids))

    spec = OperationSpec.of(EncodeOperation(hac, EncodeOptions()))
    seen: list[Path] = []
    killed: list[int] = []

    def kill(result: Result) -> None:
        if not killed:  # the first worker that is ready, which holds two batches
            first = min(pids.iterdir(), key=lambda path: path.stat().st_mtime_ns)
            killed.append(int(first.name))
            os.kill(killed[0], signal.SIGKILL)
        seen.append(result.source)

    (in_dir / "bad.wav").write_text("no audio")
    monkeypatch.chdir(tmp_path)
    local = encode_tree(hac, Path("in"), Path("local"), run_options=RUN_OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(ray_engine.OperationSpec, "of", slow)
        report = encode_tree(
            hac,
            Path("in"),
            Path("out"),
            None,
            RUN_OPTIONS,
            Callbacks(on_result=kill),
            on_ray(None, workers),
        )
    assert (report.done, report.skipped, len(report.failures)) == (16, 0, 1)
    assert set(Counter(seen).values()) == {1}
    assert set(seen) == {path for path in Path("in").rglob("*") if path.is_file()}
    assert contents(Path("out")) == contents(Path("local"))
    assert len(list(pids.iterdir())) >= 2
    assert report.failures[0].source == Path("in/bad.wav")
    assert report.failures[0].reason == local.failures[0].reason
    assert report.idle_share is not None
    assert 0 <= report.idle_share < 1

    again = encode_tree(
        hac, in_dir, tmp_path / "out", run_options=RUN_OPTIONS, engine=on_ray(workers=1)
    )
    assert (again.done, again.skipped, len(again.failures)) == (0, 16, 1)
    assert contents(Path("out")) == contents(Path("local"))


def test_command_line_gives_the_same_outputs(
    cluster: ModuleType,
    in_dir: Path,
    tmp_path: Path,
    checkpoints: dict[str, Path],
    run: Run,  # noqa: F811
) -> None:
    chosen = ("--checkpoint", checkpoints["hac"], "--device", "cpu", "--subtype", "PCM_24")
    with_ray = ("--engine", "ray", "--ray-actors", 1)
    result = run("reconstruct", in_dir, tmp_path / "local", *chosen)
    assert (result.code, result.err) == (0, "")
    result = run("reconstruct", in_dir, tmp_path / "out", *chosen, *with_ray)
    assert (result.code, result.err) == (0, "")
    assert contents(tmp_path / "out") == contents(tmp_path / "local")


def test_interrupted_run_leaves_complete_files_only(
    cluster: ModuleType, codecs: dict[str, Codec], in_dir: Path, tmp_path: Path
) -> None:
    def stop(_: Result) -> None:
        raise KeyboardInterrupt

    out_dir = tmp_path / "out"
    codec, options, one = codecs["bigcodec"], DecodeOptions("flac"), on_ray(workers=1)
    reconstruct_tree(codec, in_dir, tmp_path / "undisturbed", options, RUN_OPTIONS, None, one)
    with pytest.raises(KeyboardInterrupt):
        reconstruct_tree(
            codec, in_dir, out_dir, options, RUN_OPTIONS, Callbacks(on_result=stop), one
        )
    left = outputs(out_dir)
    assert 0 < len(left) < 16
    assert left.items() <= outputs(tmp_path / "undisturbed").items()


def test_operation_spec_rebuilds_the_operation(
    codecs: dict[str, Codec], checkpoints: dict[str, Path]
) -> None:
    for codec in codecs.values():
        operation = EncodeOperation(codec, EncodeOptions({"a": "b"}))
        spec = OperationSpec.of(operation)
        assert spec.build("cpu").settings == operation.settings
        # also what this machine, but not the other one, knows to be the same tokens
        named = replace(spec, same_tokens_as=frozenset({"00000001"}))
        named.build("cpu").codec.check_compatible(codec.layout, "00000001")
    missing = replace(spec, codec={**spec.codec, "checkpoint": "/nowhere/x.safetensors"})
    with pytest.raises(CheckpointError, match=r"/nowhere/x.safetensors: .* \(on .+\)$"):
        missing.build("cpu")
    other = replace(spec, fingerprint="00000000")
    with pytest.raises(FingerprintError, match="but 00000000 here"):
        other.build("cpu")


TWO, FOUR, GPUS = Machine(2, 0), Machine(4, 0), Machine(16, 2)


@pytest.mark.parametrize(
    ("machines", "device", "threads", "workers", "expected"),
    [
        ([TWO, FOUR], "auto", 1, None, Placement(6, 1, 0, "cpu")),
        ([TWO, FOUR], "auto", None, None, Placement(3, 2, 0, "cpu")),
        ([FOUR, FOUR], "cpu", None, 3, Placement(3, 2, 0, "cpu")),
        ([FOUR, FOUR], "cpu", None, 1, Placement(1, 4, 0, "cpu")),
        ([TWO], "cpu", 1, 9, Placement(9, 1, 0, "cpu")),
        ([Machine(0, 0), GPUS, FOUR], "auto", None, None, Placement(2, 1, 1, "cuda")),
        ([GPUS], "cuda", 1, 1, Placement(1, 1, 1, "cuda")),
        ([GPUS], "cpu", 4, None, Placement(4, 4, 0, "cpu")),
    ],
)
def test_place_uses_gpus_or_else_cpus(
    machines: list[Machine],
    device: str,
    threads: int | None,
    workers: int | None,
    expected: Placement,
) -> None:
    assert place(machines, device, threads, workers) == expected


@pytest.mark.parametrize(
    ("machines", "device", "message"),
    [
        ([TWO], "cuda", "no machine of the Ray cluster has a GPU"),
        ([GPUS], "cuda:1", "--device cuda:1"),
        ([Machine(0, 0)], "auto", "no machine of the Ray cluster has a CPU"),
    ],
)
def test_place_rejects_impossible_devices(
    machines: list[Machine], device: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        place(machines, device, None, None)


def test_missing_ray_is_reported(
    in_dir: Path,
    tmp_path: Path,
    checkpoints: dict[str, Path],
    run: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    chosen = ("--checkpoint", checkpoints["hac"], "--engine", "ray")
    result = run("encode", in_dir, tmp_path / "out", *chosen)
    assert (result.code, result.out) == (2, b"")
    assert result.err == (
        "error: `--engine ray` needs the package ray: run `pip install 'codectool[ray]'`\n"
    )


def test_options_of_ray_need_the_engine(run: Run, in_dir: Path, tmp_path: Path) -> None:  # noqa: F811
    result = run("encode", in_dir, tmp_path / "out", "--ray-actors", 2)
    assert (result.code, result.err) == (
        2,
        "error: `--ray-address` and `--ray-actors` need `--engine ray`\n",
    )


class WorkerDied(Exception):
    """Stands for `ray.exceptions.RayError`."""


class TaskFailed(WorkerDied):
    """Stands for `ray.exceptions.RayTaskError`."""


class FakeRay:
    """Runs each call in this process when it is waited for.

    Args:
        dies: returns whether the worker dies, given the name of the call and the batch, if any.
    """

    exceptions = SimpleNamespace(RayError=WorkerDied, RayTaskError=TaskFailed)

    def __init__(self, dies: Any) -> None:
        self.dies = dies
        self.started = 0
        self.most_held = 0

    def remote(self, kind: type) -> Any:
        def make(*arguments: Any) -> Any:
            self.started += 1
            worker = SimpleNamespace(alive=True, held={})
            real = kind(*arguments)

            def method(name: str) -> Any:
                return SimpleNamespace(
                    remote=lambda *values: self._call(worker, real, name, values)
                )

            for name in ("load", "prepare", "finish"):
                setattr(worker, name, method(name))
            return worker

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=make))

    def _call(self, worker: Any, real: Any, name: str, values: tuple[Any, ...]) -> Any:
        if name == "prepare":
            worker.held[values[0]] = values[1]
            self.most_held = max(self.most_held, len(worker.held))

        def call() -> Any:
            batch = worker.held.get(values[0]) if values else None
            if not worker.alive or self.dies(name, batch):
                worker.alive = False
                raise WorkerDied
            outcome = getattr(real, name)(*values)
            if name == "finish":
                del worker.held[values[0]]
            return outcome

        return call

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return references[:num_returns], references[num_returns:]

    def get(self, reference: Any) -> Any:
        return reference()

    def kill(self, worker: Any) -> None:
        worker.alive = False


def encode_with(
    ray: FakeRay, codec: Codec, in_dir: Path, out_dir: Path, callbacks: Callbacks | None = None
) -> Report:
    from contextlib import nullcontext

    def start(operation: AnyOperation) -> Any:
        return nullcontext(RayEngine(ray, operation, Placement(2, 1, 0, "cpu")))  # type: ignore[arg-type]

    return encode_tree(codec, in_dir, out_dir, None, RunOptions(batch_seconds=1), callbacks, start)


def test_file_that_kills_its_workers_is_listed_as_failed(
    hac: Codec, in_dir: Path, tmp_path: Path
) -> None:
    """Other files of its batch, and other batches of its workers, are processed."""
    deaths: list[int] = []

    def dies(name: str, batch: Batch | None) -> bool:
        names = [file.job.source_name for file in batch.files] if batch else []
        if name == "finish" and "more/3.wav" in names:
            deaths.append(len(names))
            return True
        return False

    ray = FakeRay(dies)
    seen: list[Path] = []
    callbacks = Callbacks(on_result=lambda result: seen.append(result.source))
    report = encode_with(ray, hac, in_dir, tmp_path / "out", callbacks)
    assert deaths[0] > 1
    assert deaths == [deaths[0]] * 3 + [1]
    assert (report.done, len(report.failures)) == (15, 1)
    assert report.failures[0].source == in_dir / "more/3.wav"
    assert report.failures[0].reason == "its worker died, and 2 others before it"
    assert len(seen) == len(set(seen)) == 16
    assert ray.most_held == 2
    assert ray.started <= 2 + len(deaths)
    encode_tree(hac, in_dir, tmp_path / "local")
    expected = outputs(tmp_path / "local")
    del expected["more/3.hcd"]
    assert outputs(tmp_path / "out") == expected


def test_changed_input_is_encoded_again(hac: Codec, in_dir: Path, tmp_path: Path) -> None:
    out_dir = tmp_path / "out"
    ray = FakeRay(lambda *_: False)
    assert encode_with(ray, hac, in_dir, out_dir).done == 16
    edit_in_place(in_dir / "more/3.wav")
    (in_dir / "more/4.wav").chmod(0o600)
    report = encode_with(ray, hac, in_dir, out_dir)
    assert (report.done, report.skipped) == (1, 15)
    local = encode_tree(hac, in_dir, out_dir, run_options=RunOptions(verify_inputs=True))
    assert local.skipped == 16


def test_run_survives_repeated_worker_deaths(hac: Codec, in_dir: Path, tmp_path: Path) -> None:
    calls: Counter[str] = Counter()

    def dies(name: str, batch: Batch | None) -> bool:
        calls[name] += 1
        return calls[name] % 4 == 0

    report = encode_with(FakeRay(dies), hac, in_dir, tmp_path / "out")
    assert (report.done, len(report.failures)) == (16, 0)
    assert not [name for name in contents(tmp_path / "out") if name.endswith(".part")]


def test_run_ends_if_no_worker_can_load(hac: Codec, in_dir: Path, tmp_path: Path) -> None:
    ray = FakeRay(lambda name, _: name == "load")
    with pytest.raises(CodectoolError, match="die while they load the codec"):
        encode_with(ray, hac, in_dir, tmp_path / "out")
    assert ray.started < 6
    assert outputs(tmp_path / "out") == {}
