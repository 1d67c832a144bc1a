"""Packages: installed, of versions that fit, and importable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module, metadata
from typing import NamedTuple

from codectool._version import __version__
from codectool.doctor.finding import Finding, reason

HIDDEN_EXTRAS = ("dev", "docs", "fuzz")  # for work on codectool itself
SLOW_IMPORTS = ("torch", "torchaudio")  # in other checks


class Requirement(NamedTuple):
    """A package that codectool requires, or an extra of it does."""

    name: str
    limits: str
    extra: str | None


def check_packages() -> Iterator[Finding]:
    """Check the packages that codectool requires and those of its extras."""
    try:
        texts = metadata.requires("codectool") or []
    except metadata.PackageNotFoundError:
        advice = "run `pip install .` in its folder"
        value = f"{__version__}, not installed as a package: versions are not checked"
        yield Finding("packages", "codectool", value, "warning", advice)
        return
    yield Finding("packages", "codectool", __version__)
    requirements = [parse(text) for text in texts]
    for requirement in requirements:
        if requirement.extra is None:
            yield _check(requirement)
    extras = dict.fromkeys(r.extra for r in requirements if r.extra not in (None, *HIDDEN_EXTRAS))
    for extra in extras:
        assert extra is not None
        yield _check_extra(extra, [r for r in requirements if r.extra == extra])


def parse(text: str) -> Requirement:
    """Parse a requirement as in the metadata of a package.

    Examples:
        >>> parse("pesq>=0.0.4; extra == 'eval'")
        Requirement(name='pesq', limits='>=0.0.4', extra='eval')
    """
    match = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*\(?([^;()]*)\)?", text)
    assert match is not None, text
    extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", text)
    return Requirement(match[1], match[2].replace(" ", ""), extra[1] if extra else None)


def fits(version: str, limits: str) -> bool:
    """Return whether a version is within limits such as ``>=2.10.70,<3``."""
    found = _numbers(version)
    for limit in filter(None, limits.split(",")):
        match = re.match(r"(>=|<=|==|!=|~=|<|>)(.+)", limit)
        if match is None:
            continue
        bound = _numbers(match[2])
        at_least, equal = found >= bound, found[: len(bound)] == bound
        if not {
            ">=": at_least,
            "~=": at_least and found[: len(bound) - 1] == bound[:-1],
            "==": equal,
            "!=": not equal,
            "<": not at_least,
            "<=": not at_least or equal,
            ">": at_least and not equal,
        }[match[1]]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def version_of(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _check(requirement: Requirement) -> Finding:
    """Check a package that codectool requires."""
    name, limits, _ = requirement
    install = f"run `pip install '{name}{limits}'`"
    version = version_of(name)
    if version is None:
        return Finding("packages", name, "not installed", "error", install)
    if not fits(version, limits):
        return Finding("packages", name, f"{version}, needed: {limits}", "error", install)
    if name not in SLOW_IMPORTS:
        try:
            import_module(name.replace("-", "_"))
        except Exception as error:
            value = f"{version}, cannot be imported: {reason(error)}"
            advice = f"run `pip install --force-reinstall '{name}{limits}'`"
            return Finding("packages", name, value, "error", advice)
    return Finding("packages", name, version)


def _check_extra(extra: str, requirements: list[Requirement]) -> Finding:
    """Check which packages of an extra are installed."""
    found, missing = [], []
    for name, limits, _ in requirements:
        version = version_of(name)
        if version is not None and fits(version, limits):
            found.append(f"{name} {version}")
        else:
            missing.append(name if version is None else f"{name} {version} (needed: {limits})")
    label = f"codectool[{extra}]"
    if not missing:
        return Finding("packages", label, ", ".join(found))
    value = f"missing: {', '.join(missing)}"
    return Finding("packages", label, value, "note", f"run `pip install 'codectool[{extra}]'`")
