"""Fixtures of tests with input from outside."""

from tests.cli.conftest import hac, run

__all__ = ["hac", "run"]
