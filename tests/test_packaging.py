"""Metadata of the package; `.ci/check_dist.py` checks what is built."""

from __future__ import annotations

import re

import pytest

import codectool
from tests.test_docs import ROOT


def test_citation_has_the_required_keys_and_this_version() -> None:
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == codectool.__version__
    assert citation["license"] == "MIT"
    assert all(author["name"] for author in citation["authors"])


def test_licence_and_citation_name_the_same_authors() -> None:
    (holder,) = re.findall(r"Copyright \(c\) \d+ (.+)", (ROOT / "LICENSE").read_text("utf-8"))
    assert f"name: {holder}" in (ROOT / "CITATION.cff").read_text("utf-8")
