"""The command line as a function; see `tests/cli/conftest.py`."""

from tests.cli.conftest import run

__all__ = ["run"]
