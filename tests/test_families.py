"""Metadata of codec families are stated once: in the folder of the family."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from codectool.codecs.registry import FAMILIES, all_families

PACKAGE = Path(__file__).parents[1] / "codectool"
# The registry, and the place for the checkpoint layouts of other programs.
ALLOWED = {"codecs/registry.py", "checkpoints/published.py"}


def string_literals(tree: ast.AST) -> set[str]:
    """Return all string constants, docstrings included: none of those is one word."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def shared_files() -> list[str]:
    """Return the files that serve all families, relative to the package."""
    paths = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")]
    own = tuple(f"codecs/{name}/" for name in FAMILIES)
    return sorted(path for path in paths if not path.startswith(own) and path not in ALLOWED)


@pytest.mark.parametrize("path", shared_files())
def test_shared_file_names_no_family(path: str) -> None:
    named = string_literals(ast.parse((PACKAGE / path).read_text("utf-8"))) & FAMILIES.keys()
    assert not named, f"{path} names {named}: ask codectool.codecs.registry"


def test_families_are_registered_under_their_names() -> None:
    assert [family.name for family in all_families()] == list(FAMILIES)


def test_profile_numbers_and_family_numbers_are_unique() -> None:
    numbers = [profile.number for family in all_families() for profile in family.profiles]
    assert len(numbers) == len(set(numbers))
    families = [family.container_number for family in all_families()]
    assert len(families) == len(set(families))


def test_every_family_of_codectool_has_a_published_model() -> None:
    assert all(family.published for family in all_families())
