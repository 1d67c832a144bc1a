"""The system: Python, processor, memory and disks."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from codectool.cores import cgroup_cores, cores
from codectool.doctor.finding import Finding, reason

OLDEST_PYTHON = (3, 10)
# As /proc/cpuinfo calls them: fast float32 (and how wide), and fast low precision.
WIDE = {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
LOW_PRECISION = {
    "amx_bf16": "AMX bf16",
    "avx512_bf16": "AVX-512 bf16",
    "avx512_fp16": "AVX-512 fp16",
    "bf16": "NEON bf16",
}
MIN_FREE_GB, LOW_FREE_GB = 0.05, 1.0


def check_system() -> Iterator[Finding]:
    """Check Python, processor, memory and disks."""
    yield _python()
    yield Finding("system", "platform", f"{platform.system()} {platform.release()}")
    yield from _processor()
    yield _cores()
    if (memory := _memory_gb()) is not None:
        yield Finding("system", "memory", f"{memory:.1f} GB")
    yield from _disks()


def _python() -> Finding:
    version = platform.python_version()
    value = f"{version}, {platform.python_implementation()}, {platform.machine()}"
    if sys.prefix != sys.base_prefix:
        value += ", virtual environment"
    if sys.version_info < OLDEST_PYTHON:
        return Finding("system", "python", value, "error", "install Python 3.10 or later")
    if sys.maxsize < 2**32:
        return Finding("system", "python", value, "error", "install a 64-bit Python")
    return Finding("system", "python", value)


def _processor() -> Iterator[Finding]:
    """Report the processor's vector instructions, which decide the speed."""
    info = _cpu_info()
    flags = _flags(info)
    model = info.get("model name") or platform.processor() or platform.machine()
    if not flags:
        yield Finding("system", "processor", model)
    else:
        wide = next((name for flag, name in WIDE.items() if flag in flags), None)
        low = [name for flag, name in LOW_PRECISION.items() if flag in flags]
        value = ", ".join([model, wide or "no vector instructions known", *low])
        if wide is None:
            advice = "all codecs are slow on this processor"
            yield Finding("system", "processor", value, "warning", advice)
        elif wide == "AVX2":
            advice = "processors with AVX-512 are faster"
            yield Finding("system", "processor", value, "note", advice)
        else:
            yield Finding("system", "processor", value)
    if emulator := _emulator(model):
        yield Finding(
            "system",
            "emulation",
            emulator,
            "warning",
            f"install a Python for this machine's own processor; emulation of {platform.machine()} "
            "is several times slower",
        )


def _cpu_info() -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace").split("\n\n")[0]
        rows = (line.partition(":") for line in text.splitlines())
        return {key.strip(): value.strip() for key, _, value in rows}
    return {}


def _flags(info: dict[str, str]) -> set[str]:
    return set((info.get("flags") or info.get("Features") or "").split())


def has_fast_bf16() -> bool:
    """Return whether the processor has instructions for bfloat16."""
    return bool(_flags(_cpu_info()) & {"amx_bf16", "avx512_bf16", "bf16"})


def _emulator(model: str) -> str | None:
    if "QEMU" in model and "KVM" not in model:
        return model
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        with suppress(OSError, subprocess.SubprocessError):
            command = ["sysctl", "-n", "sysctl.proc_translated"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
            if done.stdout.strip() == "1":
                return "Rosetta"
    return None


def _cores() -> Finding:
    total, usable, limit = os.cpu_count() or 1, cores(), cgroup_cores()
    value = f"{usable} of {total} usable"
    if limit is not None:
        value += f", limited to {limit:g} by the container"
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads:
        value += f", OMP_NUM_THREADS={threads[:9]}"
    if limit is not None and not threads and limit < total:
        advice = f"set OMP_NUM_THREADS={max(1, int(limit))}: PyTorch does not see this limit"
        return Finding("system", "cores", value, "warning", advice)
    if usable == 1:
        advice = "one core: folders are processed one file at a time, and training is slow"
        return Finding("system", "cores", value, "warning", advice)
    return Finding("system", "cores", value)


def _memory_gb() -> float | None:
    """Return the memory that this process may use, in GB."""
    found: list[int] = []
    with suppress(AttributeError, OSError, ValueError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such group, or "max"
            found.append(int(Path("/sys/fs/cgroup", name).read_text("ascii")))
    return min(found) / 1e9 if found else None


def _disks() -> Iterator[Finding]:
    """Report free space where codectool writes."""
    for name, folder in (("temporary files", None), ("current folder", ".")):
        try:
            free = shutil.disk_usage(folder or tempfile.gettempdir()).free / 1e9
        except OSError as error:  # none can be written, or it was deleted
            yield Finding(
                "system", name, reason(error), "error", "set TMPDIR" if folder is None else None
            )
            continue
        value = f"{free:.1f} GB free"
        if free < LOW_FREE_GB:
            state = "error" if free < MIN_FREE_GB else "warning"
            yield Finding("system", name, value, state, "free some space on this disk")
        else:
            yield Finding("system", name, value)
