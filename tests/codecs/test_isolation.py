"""Settings of the process that are pinned while models run."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from codectool.codecs.isolation import ProcessSettings


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
