"""Where the time goes: shares of PyTorch's operators, for ours and the upstream way.

What no operator accounts for is Python, NumPy, and the work of starting operators.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed_models import Contender, Wave

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot")
KINDS = ("convolutions", "filters", "products", "LSTM", "sine", "other operators", "no operator")


def shares(work: Callable[[], Any]) -> dict[str, float]:
    """Shares of the time that work takes, by kind of operator; they add up to one."""
    work()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        began = time.perf_counter()
        work()
        taken = time.perf_counter() - began
    found = dict.fromkeys(KINDS, 0.0)
    for event in profiler.key_averages(group_by_input_shape=True):
        found[kind(event.key, event.input_shapes)] += event.self_cpu_time_total / 1e6
    found["no operator"] = max(0.0, taken - sum(found.values()))
    return {name: seconds / sum(found.values()) for name, seconds in found.items()}


def kind(operator: str, shapes: list[list[int]]) -> str:
    """The kind that an operator is of, told by its name and the shapes of its arguments."""
    name = operator.rpartition("::")[2].rstrip("_")
    if "rnn" in name or "lstm" in name:
        return "LSTM"
    if "conv" in name:
        return "filters" if _is_filter(shapes) else "convolutions"
    if name in PRODUCTS or "linear" in name:
        return "products"
    return "sine" if name in ("sin", "cos") else "other operators"


def _is_filter(shapes: list[list[int]]) -> bool:
    """Whether each channel is convolved alone; a single channel in or out is no filter."""
    weight = shapes[1] if len(shapes) > 1 else []
    return len(weight) > 2 and weight[1] == 1 and shapes[0][1] > 1


@torch.inference_mode()
def profiled(contender: Contender, wave: Wave) -> dict[str, Any]:
    """Shares of encoding and decoding one file, with one thread or as many as are set."""
    x = contender.whole_frames(wave)
    codes = torch.stack(contender.codec.model.encode(list(x)))
    ways: dict[str, Any] = {"ours": contender.codec.model}
    if contender.upstream is not None:
        ways["upstream"] = contender.upstream
    return {
        name: {"encode": shares(_on(way.encode, x)), "decode": shares(_on(way.decode, codes))}
        for name, way in ways.items()
    }


def _on(work: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    return lambda: work(x)
