"""Time of BigCodec's encoder by kind of layer, against the least time that each kind can take.

    python -m benchmarks layers [--checkpoint FILE] [--files LIST] [--clips 16] [--figure FILE.svg]

One file and a folder of clips, on one thread and on two. The least time is the arithmetic at the
rate of the fastest convolution, for the LSTM at least the time of reading its weights for each
step, and for activations that of their sines. All rates are measured in the same run.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.codecs import on_all_cores
from benchmarks.systems import (
    BUNDLED_SPEECH,
    balanced,
    find_speech,
    open_system,
    short_clips,
    speech,
)
from benchmarks.tables import table
from benchmarks.timing import peak_rates, threads
from codectool.allocator import keep_freed_memory
from codectool.codec import Codec
from codectool.codecs.bigcodec.alias_free import StreamingSnake
from codectool.nn.packed import PackedConv, PackedLinear, PackedLSTM

KINDS = ("convolutions", "1x1 products", "LSTM", "activations", "copies, Python, waiting")
TIMED = (
    (PackedConv, "__call__", KINDS[0]),
    (PackedLinear, "__call__", KINDS[1]),
    (PackedLSTM, "__call__", KINDS[2]),
    (StreamingSnake, "_compute", KINDS[3]),
)
CLIP_SECONDS = (2.0, 6.0)
FILE_SECONDS = 10.0
REPEATS = 2


class LayerTimer:
    """Adds up the time of layers, by kind; a layer inside another one counts as its part."""

    def __init__(self) -> None:
        self._calls: list[tuple[str, float]] = []
        self._thread = threading.local()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time all layers in this context."""
        self._calls.clear()
        with ExitStack() as stack:
            for owner, name, kind in TIMED:
                timed = self._timed(getattr(owner, name), kind)
                stack.enter_context(mock.patch.object(owner, name, timed))
            yield

    def totals(self) -> dict[str, float]:
        """Return seconds by kind, of all threads together."""
        totals: dict[str, float] = defaultdict(float)
        for kind, seconds in self._calls:
            totals[kind] += seconds
        return totals

    def _timed(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if getattr(self._thread, "inside", False):
                return function(*arguments, **options)
            self._thread.inside = True
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self._calls.append((kind, time.perf_counter() - start))
                self._thread.inside = False

        return call


def layer_seconds(work: Callable[[], Any], seconds: float, workers: int) -> dict[str, float]:
    """Return wall-clock time per second of audio by kind: the fastest of some repetitions.

    Args:
        work: what is timed.
        seconds: of audio.
        workers: number of threads that run layers at the same time.
    """
    timer = LayerTimer()
    best: dict[str, float] = {}
    work()
    for _ in range(REPEATS):
        with timer.running():
            start = time.perf_counter()
            work()
            total = time.perf_counter() - start
        row = {kind: timer.totals()[kind] / workers / seconds for kind in KINDS}
        row[KINDS[-1]] = total / seconds - sum(row.values())
        if not best or sum(row.values()) < sum(best.values()):
            best = row
    return best


def floors(codec: Codec, count: int, signals: int) -> dict[str, float]:
    """Return the least seconds per second of audio by kind.

    Args:
        codec: BigCodec.
        count: number of threads.
        signals: number of signals that share a step of the LSTM.
    """
    with threads(count), torch.inference_mode():
        rate = max(peak_rates().values())
        step = _step_seconds(signals)
        sine = _sine_seconds()
    operations: dict[str, float] = defaultdict(float)
    sines = 0.0
    columns = float(codec.sample_rate)
    for module in codec.model.encoder.modules():
        if isinstance(module, torch.nn.Conv1d):
            columns /= module.stride[0]
            kind = KINDS[0] if module.kernel_size[0] > 1 else KINDS[1]
            operations[kind] += 2 * module.weight.numel() * columns
        elif isinstance(module, torch.nn.LSTM):
            weights = sum(weight.numel() for weight in module.parameters() if weight.dim() == 2)
            operations[KINDS[2]] += 2 * weights * columns
        elif hasattr(module, "alpha"):
            sines += 2 * len(module.alpha) * columns
    least = {kind: operations[kind] / rate for kind in KINDS}
    reading = 2 * step * codec.frame_rate / signals  # two layers
    least[KINDS[2]] = max(least[KINDS[2]], reading + least[KINDS[2]] / 2)
    least[KINDS[3]] = sines * sine / count
    return least


def _step_seconds(signals: int) -> float:
    """Return the time of the product of a step of the LSTM, whose weights are read once."""
    product = PackedLinear(torch.rand(6144, 1536), None)
    x = torch.rand(signals, 1536)
    return _median(lambda: product(x))


def _sine_seconds() -> float:
    """Return the time of a sine in the cache."""
    x = np.random.default_rng(0).standard_normal(10_000, dtype=np.float32)
    out = np.empty_like(x)
    return _median(lambda: np.sin(x, out=out)) / len(x)


def _median(work: Callable[[], Any], repeats: int = 30) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def measure(codec: Codec, files: Sequence[Path], num_clips: int) -> dict[str, dict[str, Any]]:
    """Return ``seconds`` and ``least`` by kind for each use."""
    keep_freed_memory()
    random = np.random.default_rng(0)
    lengths = random.uniform(*CLIP_SECONDS, num_clips).tolist()
    wave = speech(files, codec.sample_rate, max(sum(lengths) + 1, FILE_SECONDS))
    clips = short_clips(codec, wave, lengths)
    file = short_clips(codec, wave, [FILE_SECONDS])
    total = sum(clip.seconds for clip in clips)
    rows: dict[str, dict[str, Any]] = {}
    for count in (1, 2):
        with threads(count):
            rows[f"one file, {count} thread{'s' * (count > 1)}"] = {
                "seconds": layer_seconds(lambda: codec.encode_clips(file), FILE_SECONDS, 1),
                "least": floors(codec, count, 1),
            }
    for count in (1, 2):
        groups = balanced(clips, count)
        rows[f"folder, {count} thread{'s' * (count > 1)}"] = {
            "seconds": layer_seconds(
                lambda groups=groups: on_all_cores(codec.encode_clips, groups), total, count
            ),
            "least": floors(codec, count, len(groups[0])),
        }
    return rows


def draw(rows: dict[str, dict[str, Any]], target: Path) -> None:
    """Draw a bar per use: time by kind, and the least time as a frame."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 2.8), layout="constrained")
    axes = figure.add_subplot()
    names = list(rows)[::-1]
    left = np.zeros(len(names))
    for kind in KINDS:
        values = np.array([rows[name]["seconds"][kind] for name in names])
        axes.barh(names, values, left=left, label=kind, height=0.6)
        left += values
    least = [sum(rows[name]["least"].values()) for name in names]
    axes.barh(names, least, fill=False, edgecolor="black", linewidth=1.2, label="least", height=0.8)
    axes.set_xlabel("seconds per second of audio")
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(target)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--checkpoint", type=Path, help="weights; default: generated, of the published size")
    add("--files", type=Path, help="folder or list of speech files; default: assets/")
    add("--clips", type=int, default=16, help="number of clips in the folder")
    add("--figure", type=Path, help="also draw the times to this file")
    options = parser.parse_args(arguments)
    files = find_speech(options.files) if options.files else BUNDLED_SPEECH
    with tempfile.TemporaryDirectory() as folder:
        codec = open_system("bigcodec", options.checkpoint, Path(folder), False).codec
        rows = measure(codec, files, options.clips)
    cells = []
    for name, row in rows.items():
        pairs = [(row["seconds"][kind], row["least"][kind]) for kind in KINDS]
        pairs.append((sum(row["seconds"].values()), sum(row["least"].values())))
        cells.append([name, *(f"{seconds:.3f} / {least:.3f}" for seconds, least in pairs)])
    print(table(["seconds / least", *KINDS, "all"], cells))
    if options.figure:
        draw(rows, options.figure)
