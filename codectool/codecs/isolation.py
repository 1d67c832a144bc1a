"""`isolated`: run a model the same way, whatever the program around it has set in PyTorch."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch.backends import cuda, cudnn, mkldnn

DENORMAL = 2.0**-1074  # the smallest float; where denormals are flushed, it is 0 in any operation
ONE = 1.0

Setting = tuple[Callable[[], Any], Callable[[Any], None], Any]  # read, write, value for models


def _attribute(owner: object, name: str, value: object) -> Setting:
    return partial(getattr, owner, name), partial(setattr, owner, name), value


def _full_precision(backend: Any, name: str) -> Setting:
    operation = getattr(backend, name)

    def write(value: str) -> None:
        operation.fp32_precision = "none"  # inherit the value, if the one above is the same
        if operation.fp32_precision != value:
            operation.fp32_precision = value

    return partial(getattr, operation, "fp32_precision"), write, "ieee"


class ProcessSettings:
    """Settings of the process that change results in float32, pinned while models run.

    Threads may run models at the same time: the first one pins the settings, and the last one
    restores what the program has set.

    Args:
        settings: pinned in this order and restored in reverse order.
    """

    def __init__(self, *settings: Setting) -> None:
        self._settings = settings
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._running = 0
        self._before: list[tuple[Callable[[Any], None], Any]] = []  # empty if none was changed

    def __enter__(self) -> None:
        if os.getpid() != self._process:
            # After a fork, the threads of OpenMP are gone, and PyTorch would wait for them for
            # ever. Another thread of the parent may have held the lock.
            torch.set_num_threads(1)
            self._start()
        with self._lock:
            self._running += 1
            if self._running == 1:
                self._pin()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._running -= 1
            while self._before and not self._running:
                write, before = self._before.pop()
                write(before)

    def _pin(self) -> None:
        changed = False
        for read, write, value in self._settings:
            before = read()
            self._before.append((write, before))
            if before not in (value, "none"):
                write(value)
                changed = True
        if not changed:
            self._before.clear()


_CPU = (
    _attribute(mkldnn, "enabled", True),
    _full_precision(mkldnn, "matmul"),
    _full_precision(mkldnn, "conv"),
    _full_precision(mkldnn, "rnn"),
)
_CUDA = (
    _attribute(cudnn, "enabled", True),
    _attribute(cudnn, "benchmark", False),
    _full_precision(cuda, "matmul"),
    _full_precision(cudnn, "conv"),
    _full_precision(cudnn, "rnn"),
    # The old interface, which must not contradict the new one.
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
)
_SETTINGS = {"cpu": ProcessSettings(*_CPU), "cuda": ProcessSettings(*_CPU, *_CUDA)}


@contextmanager
def isolated(
    device_type: str, dtype: torch.dtype | None = None, *, inference: bool = True
) -> Iterator[None]:
    """Enter a context in which results do not depend on the settings of the calling program.

    Gradients, autocast, the precision of float32 products, oneDNN and flushing of denormals are set
    here. The default dtype and device are not: code in this context must not use them.

    Args:
        device_type: of the model, for example ``"cpu"``.
        dtype: of matrix products; None for float32.
        inference: whether new tensors are only for inference; False to make weights.
    """
    settings = _SETTINGS.get(device_type, _SETTINGS["cpu"])
    with settings, torch.inference_mode(inference), ExitStack() as stack:
        for other in {"cpu", device_type}:
            if torch.is_autocast_enabled(other):
                stack.enter_context(torch.autocast(other, enabled=False))
        if dtype is not None:
            stack.enter_context(torch.autocast(device_type, dtype))
        if DENORMAL * ONE == 0:
            torch.set_flush_denormal(False)
            stack.callback(torch.set_flush_denormal, True)
        yield
