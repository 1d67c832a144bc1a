"""A process with little memory that loads checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.attacks.limited_loader import LimitedLoader


@pytest.fixture(scope="module")
def loader() -> Iterator[LimitedLoader]:
    if sys.platform != "linux":
        pytest.skip("limits the memory of a process as Linux does")
    with LimitedLoader() as limited:
        yield limited
