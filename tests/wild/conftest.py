"""Fixtures of tests with input from outside."""

from tests.cli.conftest import run

__all__ = ["run"]
