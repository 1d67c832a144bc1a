"""Number of CPU cores."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def cores() -> int:
    """Return the number of CPU cores that this process may use.

    The limit of a container counts, rounded up.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    limit = cgroup_cores()
    return count if limit is None else max(1, min(count, -int(-limit // 1)))


def cgroup_cores(root: Path = CGROUP, own_group: Path = OWN_GROUP) -> float | None:
    """Return how many cores' time the control groups of Linux allow, or None for no limit."""
    limits = []
    for quota, period in _quotas(root, own_group):
        with suppress(ValueError, ZeroDivisionError):  # "max", or damaged
            if float(quota) > 0:  # -1 is no limit
                limits.append(float(quota) / float(period))
    return min(limits, default=None)


def _quotas(root: Path, own_group: Path) -> list[list[str]]:
    """Return quota and period of the process's group and all groups around it."""
    groups = [root]
    with suppress(OSError, ValueError):
        for line in own_group.read_text("utf-8").splitlines():
            if line.startswith("0::/"):  # version 2
                own = root / line[4:]
                groups += [own, *(folder for folder in own.parents if root in folder.parents)]
    found = []
    for group in groups:
        with suppress(OSError, ValueError):
            found.append((group / "cpu.max").read_text("ascii").split())
    with suppress(OSError, ValueError):  # version 1
        names = [root / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
        found.append([name.read_text("ascii") for name in names])
    return [pair for pair in found if len(pair) == 2]
