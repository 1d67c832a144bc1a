"""The command line as a function, and audio codecs; see `tests/cli/conftest.py`."""

from tests.cli.conftest import hac, run

__all__ = ["hac", "run"]
