"""Learning curves: metrics of training runs over their steps, smoothed and summarized."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codectool.errors import UsageError
from codectool.evaluation.metrics.registry import METRIC_INFO
from codectool.messages import shorten
from codectool.training.metrics_log import METRICS_NAME, OLD_NAMES, read_metrics

Values = npt.NDArray[np.float64]

FIRST = ("valid/mel_db", "valid/stoi", "valid/estoi", "valid/si_sdr_db", "train/loss")
LAST = (
    "train/grad_norm",
    "train/discriminator_grad_norm",
    "train/learning_rate",
    "train/steps_per_second",
    "train/data_wait_fraction",
    "train/skipped",
)


@dataclass(frozen=True)
class Curve:
    """One metric over the steps."""

    steps: npt.NDArray[np.int64]  # (n,), increasing
    values: Values  # (n,); NaN where the metric was not finite

    def best(self, name: str) -> tuple[int, float] | None:
        """Return step and value of the best point; None if there is none, or no value is better."""
        finite = np.isfinite(self.values)
        info = METRIC_INFO.get(name.removeprefix("valid/"))
        if not finite.any() or info is None:
            return None
        sign = 1.0 if info.better == "lower" else -1.0
        index = int(np.where(finite, sign * self.values, np.inf).argmin())
        return int(self.steps[index]), float(self.values[index])


@dataclass(frozen=True)
class Run:
    """The curves of one training run."""

    label: str  # name of the run beside others
    folder: Path
    curves: dict[str, Curve]  # by name, ``train/...`` or ``valid/...``, in the order of the log

    @property
    def last_step(self) -> int:
        """Last step of any curve."""
        return max(int(curve.steps[-1]) for curve in self.curves.values())


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read the metrics logs of runs.

    Raises:
        UsageError: A folder has no metrics log, or one without metrics.
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
    for record in read_metrics(path):
        for key, value in record.items():
            if key in ("step", "time") or isinstance(value, str):
                continue
            name = f"{record['kind']}/{key}"
            # of a step that was done twice, as after a crash, the last entry counts
            points.setdefault(name, {})[record["step"]] = math.nan if value is None else value
    if not points:
        raise UsageError(f"{path}: holds no metrics yet; wait until training has logged some")
    curves = {}
    for name, by_step in points.items():
        steps, values = zip(*sorted(by_step.items()), strict=True)
        curves[name] = Curve(np.array(steps, np.int64), np.array(values, np.float64))
    return Run(label, folder, curves)


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that differ."""
    parts = [folder.resolve().parts for folder in folders]
    depth = 1
    while depth < max(map(len, parts)) and len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def select_metrics(runs: Sequence[Run], wanted: Sequence[str] = ()) -> list[str]:
    """Return the names of the curves to draw: validation, then losses, then norms and speed.

    Args:
        runs: runs of which at least one has the curve.
        wanted: names with or without ``train/`` or ``valid/``; empty for all.

    Raises:
        UsageError: No run has a curve of this name.
    """
    known = list(dict.fromkeys(name for run in runs for name in run.curves))
    if not wanted:
        order = {name: number for number, name in enumerate(FIRST, start=-len(FIRST))}
        order |= {name: number for number, name in enumerate(LAST, start=1)}
        return sorted(known, key=lambda name: (not name.startswith("valid/"), order.get(name, 0)))
    chosen: list[str] = []
    for name in wanted:
        names = {name, OLD_NAMES.get(name, name)}
        found = [k for k in known if names & {k, k.partition("/")[2]}]
        if not found:
            raise UsageError(
                f"no run has a metric `{name}`; choose from {shorten(', '.join(known), 1000)}"
            )
        chosen += [k for k in found if k not in chosen]
    return chosen


def smoothed(values: Values, weight: float) -> Values:
    """Return the exponential moving average, corrected for its start.

        y_n = (sum over k of weight^(n-k) x_k) / (sum over k of weight^(n-k))

    over the k <= n whose x_k is finite (the bias correction of Adam, arXiv 1412.6980, section 3).
    The weight is from 0 (no smoothing) to below 1; y is NaN before the first finite value.
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
    """Return a weight that averages over a 25th of the points, at most over 50.

    A short run is not smoothed, because its curve would lag behind.
    """
    return max(0.0, min(0.98, 1 - 25 / max(num_points, 1)))


def summary(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """Return the last, smallest, largest and best values of curves as JSON values."""
    figures: dict[str, dict[str, float]] = {}
    for name in names:
        curve = run.curves.get(name)
        if curve is None:
            continue
        finite = np.isfinite(curve.values)
        steps, values = curve.steps[finite], curve.values[finite]
        figures[name] = {"points": len(curve.values), "finite": len(values)}
        if len(values) > 0:
            indices = {"last": -1, "min": int(values.argmin()), "max": int(values.argmax())}
            for kind, index in indices.items():
                figures[name] |= {kind: float(values[index]), f"{kind}_step": int(steps[index])}
        best = curve.best(name)
        if best is not None:
            figures[name] |= {"best": best[1], "best_step": best[0]}
    return {"run": str(run.folder), "step": run.last_step, "figures": figures}
