"""`codectool doctor`: real environments, and broken ones made of stub packages."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from codectool import cores
from codectool.checkpoints import registry
from codectool.doctor import devices, machine, models, packages, programs
from codectool.doctor.finding import Finding, anonymous
from codectool.doctor.run import CHECKS


def doctor(*paths: Path, **environ: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Run `codectool doctor --json` with other folders before the packages."""
    done = subprocess.run(
        [sys.executable, "-m", "codectool", "doctor", "--json"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*map(str, paths), os.getcwd()]),
            **environ,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    report = json.loads(done.stdout)
    return done.returncode, {item["name"]: item for item in report["findings"]}, done.stdout


def test_doctor_of_a_working_installation() -> None:
    code, found, text = doctor()
    problems = [item for item in found.values() if item["state"] == "error"]
    assert (code, problems) == (0, [])
    assert {item["section"] for item in found.values()} == set(CHECKS)
    assert "times as fast as real time" in found["cpu"]["value"]
    assert found["libsndfile"]["value"].endswith("WAV, FLAC, Ogg Vorbis, Opus, MP3")
    assert str(Path.home()) not in text
    assert f"/{getpass.getuser()}/" not in text


def test_doctor_survives_broken_packages(tmp_path: Path) -> None:
    """Packages that raise, that end the process, and that print while they are imported."""
    (tmp_path / "torch.py").write_text("import os; os.kill(os.getpid(), 11)")
    (tmp_path / "soundfile.py").write_text("raise OSError('sndfile library not found')")
    (tmp_path / "soxr.py").write_text("print('{}'); raise ImportError('wrong ABI')")
    code, found, text = doctor(tmp_path, CODECTOOL_HOME="/proc/none")
    assert code == 1
    assert found["libsndfile"]["state"] == "error"
    assert "sndfile library not found" in found["libsndfile"]["value"]
    assert found["soxr"]["state"] == found["resampling"]["state"] == "error"
    assert "wrong ABI" in found["resampling"]["value"]
    assert '"was ended by SIGSEGV after the start' in text
    assert found["home folder"]["state"] == "warning"
    assert found["numpy"]["state"] == "ok"


def test_doctor_prints_advice_for_each_problem(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so: cannot open')")
    done = subprocess.run(
        [sys.executable, "-m", "codectool", "doctor"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    (row,) = [i for i, line in enumerate(lines) if "libcudart.so: cannot open" in line]
    assert lines[row].startswith("  x torch")
    assert "-> install torch again" in lines[row + 1]
    assert lines[-1].startswith("1 error, ")


def test_packages_that_are_missing_or_old_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    required = [
        "no-such-package>=1",
        "other-system>=1; python_version < '3'",
        "numpy>=99",
        "msgspec>=0.1,<99",
        'pesq>=0; extra == "x"',
        'none[a,b]>=1; extra == "y"',
    ]
    info = Message()
    for extra in ("x", "y", "dev"):
        info["Provides-Extra"] = extra
    monkeypatch.setattr(packages.metadata, "requires", lambda _: required)
    monkeypatch.setattr(packages.metadata, "metadata", lambda _: info)
    found = {finding.name: finding for finding in packages.check_packages()}
    assert "other-system" not in found
    assert "codectool[dev]" not in found
    assert found["msgspec"].state == found["codectool[x]"].state == "ok"
    assert found["no-such-package"].state == found["numpy"].state == "error"
    assert found["no-such-package"].advice == "run `pip install 'no-such-package>=1'`"
    assert found["codectool[y]"].state == "note"
    assert found["codectool[y]"].advice == "run `pip install 'codectool[y]'`"


def test_codectool_that_is_not_installed_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise packages.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.metadata, "requires", requires)
    assert [finding.state for finding in packages.check_packages()] == ["warning"]


def fake_torch(**cuda: Any) -> SimpleNamespace:
    gpu = SimpleNamespace(name="Test GPU", total_memory=80e9, major=9, minor=0)
    return SimpleNamespace(
        __version__="2.99.0",
        version=SimpleNamespace(cuda="13.0", hip=None, debug=False),
        cuda=SimpleNamespace(
            **{"device_count": lambda: 1, "get_device_properties": lambda _: gpu} | cuda
        ),
        backends=SimpleNamespace(
            cpu=SimpleNamespace(get_cpu_capability=lambda: "AVX512"),
            mps=SimpleNamespace(is_available=lambda: False),
        ),
        get_num_threads=lambda: 4096,
    )


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Devices that the codec is tried on."""
    names: list[str] = []

    def try_codec(device: str, value: str) -> Finding:
        names.append(device)
        return Finding("devices", device, value)

    monkeypatch.setattr(devices, "_try_codec", try_codec)
    return names


def check_devices(monkeypatch: pytest.MonkeyPatch, torch: Any) -> dict[str, Finding]:
    def import_module(name: str) -> Any:
        if name == "torch":
            return torch
        raise OSError("undefined symbol")

    monkeypatch.setattr(devices, "import_module", import_module)
    monkeypatch.setattr(devices, "version_of", lambda _: "2.99.0")
    return {finding.name: finding for finding in devices.check_devices()}


def test_gpus_are_named_and_tried(monkeypatch: pytest.MonkeyPatch, tried: list[str]) -> None:
    found = check_devices(monkeypatch, fake_torch())
    assert found["cuda:0"].value == "Test GPU, 80 GB, compute capability 9.0"
    assert tried == ["cpu", "cuda:0"]
    assert "install torch 2.14 or earlier" in str(found["torchaudio"].advice)
    assert found["threads"].state == "warning"


def test_driver_that_is_too_old_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tried: list[str]
) -> None:
    def device_count() -> int:
        raise RuntimeError("The NVIDIA driver on your system is too old")

    found = check_devices(monkeypatch, fake_torch(device_count=device_count))
    assert found["cuda"].state == "warning"
    assert tried == ["cpu"]


def test_slow_builds_of_torch_are_warnings(
    monkeypatch: pytest.MonkeyPatch, tried: list[str]
) -> None:
    torch = fake_torch()
    torch.backends.cpu.get_cpu_capability = lambda: "DEFAULT"
    assert "no vector instructions" in str(check_devices(monkeypatch, torch)["torch"].advice)
    torch.version.debug = True
    assert "debug build" in str(check_devices(monkeypatch, torch)["torch"].advice)


def test_missing_torch_is_an_error_without_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "version_of", lambda _: None)
    assert [finding.state for finding in devices.check_devices()] == ["error"]
    versions = {"onnxruntime": "1.32.0"}
    monkeypatch.setattr(devices, "version_of", versions.get)
    monkeypatch.setattr(devices, "_try_codec", lambda *a, **k: Finding("devices", "cpu", str(k)))
    found = list(devices.check_devices())
    assert [finding.state for finding in found] == ["note", "ok"]
    assert found[1].value == "{'runtime': 'onnx'}"


def test_damaged_and_missing_weights_are_errors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good = registry.entries()["hac"]
    monkeypatch.setattr(
        registry, "entries", lambda strict=False: {"hac": replace(good, sha256="0" * 64)}
    )
    assert next(models.check_models()).value == "damaged: wrong checksum"
    monkeypatch.setattr(registry, "REPOSITORY", tmp_path)
    monkeypatch.setattr(registry, "entries", lambda strict=False: {"hac": good})
    assert next(models.check_models()).state == "error"


def test_own_models_are_counted_and_not_named(own_home: Path, tmp_path: Path) -> None:
    (own_home / "models.toml").write_text(
        f'[secret]\nfamily = "hac"\npath = "{tmp_path}/gone.safetensors"\n'
    )
    found = {finding.name: finding for finding in models.check_models()}
    assert found["others"].value == "1 recorded on this machine, 1 missing"
    (own_home / "models.toml").write_text("not = [toml")
    found = {finding.name: finding for finding in models.check_models()}
    assert found["registry"].state == "warning"


def test_missing_programs_are_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert {finding.state for finding in programs.check_programs()} == {"note"}


def test_container_limits_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    (root / "a" / "b").mkdir(parents=True)
    own.write_text("0::/a/b\n")
    assert cores.cgroup_cores(root, own) is None
    (root / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert cores.cgroup_cores(root, own) is None
    (root / "a" / "cpu.max").write_text("150000 100000\n")
    assert cores.cgroup_cores(root, own) == 1.5
    (root / "cpu").mkdir()
    (root / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (root / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.cgroup_cores(root, own) == 1.5
    (root / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    assert cores.cgroup_cores(root, own) == 0.5
    monkeypatch.setattr(cores, "cgroup_cores", lambda: 0.5)
    assert cores.cores() == 1
    monkeypatch.setattr(machine, "cgroup_cores", lambda: 0.5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (found,) = [f for f in machine.check_system() if f.name == "cores"]
    assert found.state == "warning"
    assert "OMP_NUM_THREADS=1" in str(found.advice)


def test_full_disk_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    found = [f for f in machine.check_system() if "free" in f.value]
    assert [f.state for f in found] == ["error", "error"]


def test_findings_name_no_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jo")
    monkeypatch.setattr(getpass, "getuser", lambda: "jo")
    assert anonymous("/home/jo/x: no") == "~/x: no"
    assert anonymous("/data/jo/x") == "/data/<user>/x"
    assert Finding("a", "b", "c").state == "ok"
