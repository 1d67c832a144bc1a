"""Check the wheel and the sdist: ``python .ci/check_dist.py dist``.

The wheel is installed in a fresh environment that finds its dependencies in this one, and runs the
commands that README.md shows, in another folder. A second environment has no PyTorch.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_WHEEL_BYTES = 9_000_000  # 7 MB are weights
MAX_SDIST_BYTES = 14_000_000
PIP = (sys.executable, "-m", "pip")


def main(folder: Path) -> None:
    """Run all checks on the only wheel and the only sdist in a folder."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    check_wheel(wheel)
    check_sdist(sdist)
    check_reproducible(wheel, sdist)
    with tempfile.TemporaryDirectory() as name:
        check_installed(wheel, Path(name))
    subprocess.run(["sh", ROOT / "tests" / "without_torch.sh", wheel.resolve()], check=True)


def tracked(*paths: str) -> set[str]:
    """Return the files of the repository below some paths."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--", *paths]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return set(filter(None, names.split("\0")))


def check_wheel(wheel: Path) -> None:
    """Check that the wheel holds the package as in the repository, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        weights = archive.read("codectool/weights/hac.safetensors")
    assert names == tracked("codectool"), names ^ tracked("codectool")
    assert weights == (ROOT / "codectool/weights/hac.safetensors").read_bytes()
    assert wheel.stat().st_size < MAX_WHEEL_BYTES, wheel.stat().st_size
    print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size:,} bytes")


def check_sdist(sdist: Path) -> None:
    """Check that the sdist holds what tests and documentation need, and no previous weights."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {n for n in tracked() if not n.startswith((".ci/", "assets/weights/"))}
    assert names - {"PKG-INFO"} == expected, names ^ expected
    assert sdist.stat().st_size < MAX_SDIST_BYTES, sdist.stat().st_size
    print(f"{sdist.name}: {len(names)} files, {sdist.stat().st_size:,} bytes")


def check_reproducible(*built: Path) -> None:
    """Check that a second build, at another time and umask, gives the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        print("building a second time", flush=True)
        before = os.umask(0o077)
        subprocess.run(
            [sys.executable, "-m", "build", "--outdir", folder, ROOT],
            check=True,
            capture_output=True,
        )
        os.umask(before)
        for path in built:
            digests = [
                hashlib.sha256(other.read_bytes()).hexdigest()
                for other in (path, Path(folder, path.name))
            ]
            assert digests[0] == digests[1], f"{path.name}: differs between two builds"
            print(f"{path.name}: sha256 {digests[0]}")


def check_installed(wheel: Path, folder: Path) -> None:
    """Check that the installed wheel passes `pip check` and runs the commands of README.md."""
    python = install(wheel, folder / "env")
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(dependencies))
    check_requirements(python)
    work = folder / "work"
    (work / "recordings").mkdir(parents=True)
    (work / "assets").mkdir()
    for clip in (ROOT / "assets").glob("*.flac"):
        shutil.copy(clip, work / "assets")
        shutil.copy(clip, work / "recordings")
    where = run_in(python, work, "python -c 'import codectool; print(codectool.__file__)'")
    assert str(packages.resolve()) in str(Path(where).resolve()), where
    for command in [*readme_commands(), "codectool doctor"]:
        print("$", command, flush=True)
        print(run_in(python, work, command), end="")


def check_requirements(python: Path) -> None:
    """Run `pip check`; Resemblyzer is installed without its dependencies on purpose."""
    command = [*PIP, "--python", python, "check"]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    lines = result.stdout.splitlines()
    broken = [line for line in lines if not line.startswith("resemblyzer ")]
    assert lines, result
    assert result.returncode == 0 or not broken, broken


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel without dependencies in a new environment; return its interpreter."""
    venv.create(folder)
    python = folder / "bin" / "python"
    subprocess.run([*PIP, "--python", python, "install", "--quiet", "--no-deps", wheel], check=True)
    return python


def run_in(python: Path, work: Path, command: str) -> str:
    """Run a command of an environment in a folder and return what it prints."""
    environ = {
        **os.environ,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "CODECTOOL_HOME": str(work / "home"),
    }
    environ.pop("PYTHONPATH", None)
    return subprocess.run(
        ["bash", "-c", command],
        cwd=work,
        env=environ,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    ).stdout


def readme_commands() -> list[str]:
    """Return the commands that README.md shows and this machine can run."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [
        line.partition("  # ")[0] for line in re.findall(r"^\$ (codectool .*)$", text, re.M)
    ]
    assert len(commands) >= 5
    programs = all(map(shutil.which, ("c2enc", "opusenc")))
    return [command for command in commands if programs or "--codec" not in command]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
