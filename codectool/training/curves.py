"""Figures of training runs over their steps: read from journals, smoothed, summed up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codectool.errors import UsageError
from codectool.training.metrics_log import METRICS_NAME, read_journal

Values = npt.NDArray[np.float64]

# Whether less or more is better, where that can be said.
LOWER_IS_BETTER = {"valid/mel_db"}
HIGHER_IS_BETTER = {"valid/stoi", "valid/estoi", "valid/si_sdr"}

FIRST_AND_LAST = (
    "valid/mel_db",
    "valid/stoi",
    "valid/estoi",
    "valid/si_sdr",
    "train/loss",
    "...",
    "train/gradient",
    "train/judge_gradient",
    "train/learning_rate",
    "train/steps_per_second",
    "train/waited",
    "train/skipped",
)


@dataclass(frozen=True)
class Curve:
    """One figure over the steps.

    Attributes:
        steps: int64 ``(n,)``, rising.
        values: float64 ``(n,)``; NaN where the figure was not finite.
    """

    steps: npt.NDArray[np.int64]
    values: Values

    def best(self, name: str) -> tuple[int, float] | None:
        """Step and value of the best point; None if there is none, or "best" means nothing."""
        finite = np.isfinite(self.values)
        if not finite.any() or name not in LOWER_IS_BETTER | HIGHER_IS_BETTER:
            return None
        sign = 1.0 if name in LOWER_IS_BETTER else -1.0
        at = int(np.where(finite, sign * self.values, np.inf).argmin())
        return int(self.steps[at]), float(self.values[at])


@dataclass(frozen=True)
class Run:
    """The journal of one training run.

    Attributes:
        label: what the run is called beside others.
        folder: where it lies.
        curves: by name, ``train/...`` or ``valid/...``, in the order in which they came up.
    """

    label: str
    folder: Path
    curves: dict[str, Curve]

    @property
    def last_step(self) -> int:
        """The last step of any curve."""
        return max(int(curve.steps[-1]) for curve in self.curves.values())


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read the journals of runs.

    Raises:
        UsageError: a folder has no journal, or one that holds no figures yet.
    """
    labels = _labels(folders)
    return [_read_run(folder, label) for folder, label in zip(folders, labels, strict=True)]


def _read_run(folder: Path, label: str) -> Run:
    path = folder / METRICS_NAME
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; name the folder of a training run")
    if not path.exists():
        raise UsageError(f"{folder}: has no {METRICS_NAME}; name the folder of a training run")
    points: dict[str, dict[int, float]] = {}
    for record in read_journal(path):
        for key, value in record.items():
            if key in ("step", "time") or isinstance(value, str):
                continue
            name = f"{record['kind']}/{key}"
            # a step that was done twice, as after a crash, counts as it was done last
            points.setdefault(name, {})[record["step"]] = math.nan if value is None else value
    if not points:
        raise UsageError(f"{path}: holds no figures yet; wait until training has logged some")
    curves = {}
    for name, by_step in points.items():
        steps = sorted(by_step)
        values = np.array([by_step[step] for step in steps], np.float64)
        curves[name] = Curve(np.array(steps, np.int64), values)
    return Run(label, folder, curves)


def _labels(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart."""
    parts = [folder.resolve().parts for folder in folders]
    depth = 1
    while depth < max(map(len, parts)) and len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def choose(runs: Sequence[Run], wanted: Sequence[str] = ()) -> list[str]:
    """Names of the curves to look at: validation first, then training, housekeeping last.

    Args:
        runs: of which at least one has the curve.
        wanted: names with or without ``train/`` or ``valid/``; none means all.

    Raises:
        UsageError: no run has a curve of this name.
    """
    known = list(dict.fromkeys(name for run in runs for name in run.curves))
    if not wanted:
        return sorted(known, key=_place)
    chosen: list[str] = []
    for name in wanted:
        found = [k for k in known if name in (k, k.partition("/")[2])]
        if not found:
            raise UsageError(f"no run has a figure called `{name}`; there are {', '.join(known)}")
        chosen += [k for k in found if k not in chosen]
    return chosen


def _place(name: str) -> tuple[bool, int]:
    """Where a curve stands among the others; equals keep their order."""
    middle = FIRST_AND_LAST.index("...")
    place = FIRST_AND_LAST.index(name) if name in FIRST_AND_LAST else middle
    return not name.startswith("valid/"), place


def smoothed(values: Values, weight: float) -> Values:
    """Exponential moving average without the pull of its start.

        y_n = (sum over k of weight^(n-k) x_k) / (sum over k of weight^(n-k))

    over the k <= n whose x_k is finite (the bias correction of Adam, arXiv 1412.6980, section 3).

    Args:
        values: ``(n,)``.
        weight: of the past, from 0 (no smoothing) to below 1.

    Returns:
        ``(n,)``, NaN where nothing finite has come yet.
    """
    result = np.full(len(values), np.nan)
    total = mass = 0.0
    for n, value in enumerate(values.tolist()):
        total, mass = weight * total, weight * mass
        if math.isfinite(value):
            total, mass = total + value, mass + 1
        if mass > 0:
            result[n] = total / mass
    return result


def smoothing_weight(num_points: int) -> float:
    """A weight whose mean reaches over a 25th of the points, and over 50 of them at most.

    So a short run is not smoothed at all: its strong curve would lag behind what happens.
    """
    return max(0.0, min(0.98, 1 - 25 / max(num_points, 1)))


def summary(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """Last, smallest, largest and best values of the named curves, as JSON values."""
    figures: dict[str, dict[str, float]] = {}
    for name in names:
        curve = run.curves.get(name)
        if curve is None:
            continue
        finite = np.isfinite(curve.values)
        steps, values = curve.steps[finite], curve.values[finite]
        if len(values) == 0:
            figures[name] = {"points": len(curve.values), "finite": 0}
            continue
        best = curve.best(name)
        figures[name] = {
            "points": len(curve.values),
            "finite": len(values),
            "last": float(values[-1]),
            "last_step": int(steps[-1]),
            "min": float(values.min()),
            "min_step": int(steps[values.argmin()]),
            "max": float(values.max()),
            "max_step": int(steps[values.argmax()]),
        }
        if best is not None:
            figures[name] |= {"best": best[1], "best_step": best[0]}
    return {"run": str(run.folder), "step": run.last_step, "figures": figures}
