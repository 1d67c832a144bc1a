"""Settings of the process that are pinned while models run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import torch
from torch.backends import cuda

from codectool.codecs.isolation import ProcessSettings, isolated


class Switch:
    """A setting that is counted."""

    value = "low"


def test_settings_are_restored_by_the_last_of_several_users() -> None:
    switch = Switch()
    settings = ProcessSettings(
        (lambda: switch.value, lambda value: setattr(switch, "value", value), "high")
    )
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(settings)
        second.enter_context(settings)
        first.close()
        assert switch.value == "high"
    assert switch.value == "low"
    with pytest.raises(ValueError, match="failed"), settings:
        raise ValueError("failed")
    assert switch.value == "low"


def use_high_precision_matmul() -> None:
    torch.set_float32_matmul_precision("high")


def allow_tf32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True


def set_tf32_for_matmul() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def set_tf32_everywhere() -> None:
    torch.backends.fp32_precision = "tf32"


def let_cudnn_choose() -> None:
    torch.backends.cudnn.benchmark = True


PRECISIONS = [
    *((torch.backends, ""), (torch.backends.mkldnn, "matmul"), (torch.backends.mkldnn, "conv")),
    *((torch.backends.mkldnn, "rnn"), (torch.backends.cuda, "matmul")),
    *((torch.backends.cudnn, "conv"), (torch.backends.cudnn, "rnn")),
]


def precisions() -> list[str]:
    owners = [getattr(backend, name) if name else backend for backend, name in PRECISIONS]
    return [owner.fp32_precision for owner in owners]


def legacy() -> list[object]:
    """Return what the old interface says, which fails if the new one contradicts it."""
    values: list[object] = [torch.backends.cudnn.benchmark]
    for read in (torch.get_float32_matmul_precision, lambda: cuda.matmul.allow_tf32):
        try:
            values.append(read())
        except RuntimeError:
            values.append("contradicted")
    return values


@pytest.fixture
def default_precisions() -> Iterator[None]:
    yield
    torch.backends.cudnn.benchmark = False
    torch.backends.fp32_precision = "none"
    for (backend, name), value in zip(PRECISIONS[1:], DEFAULTS[1:], strict=True):
        getattr(backend, name).fp32_precision = value
    torch.set_float32_matmul_precision("highest")


DEFAULTS = precisions()


@pytest.mark.usefixtures("default_precisions")
@pytest.mark.parametrize(
    "change",
    [
        *(use_high_precision_matmul, allow_tf32, set_tf32_for_matmul, set_tf32_everywhere),
        *(let_cudnn_choose, lambda: None),
    ],
)
def test_products_on_a_gpu_have_full_precision(change: Callable[[], None]) -> None:
    change()
    before = precisions(), legacy()
    with isolated("cuda"):
        assert set(precisions()[1:]) <= {"ieee", "none"}
        assert precisions()[-2:] == ["ieee", "ieee"]
        assert legacy() == [False, "highest", False]
    assert (precisions(), legacy()) == before
    torch.backends.fp32_precision = "ieee"
    assert precisions()[1] in ("ieee", before[0][1])  # still follows the setting above it
