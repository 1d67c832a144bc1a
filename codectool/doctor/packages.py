"""Packages: installed, of versions that fit, and importable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module, metadata

from packaging.requirements import Requirement

from codectool._version import __version__
from codectool.doctor.finding import Finding, reason

HIDDEN_EXTRAS = ("dev", "docs", "fuzz", "release")  # for work on codectool itself
OWN_CHECK = ("torch", "torchaudio")  # whether they are there and can be imported


def check_packages() -> Iterator[Finding]:
    """Check the packages that codectool requires and those of its extras."""
    try:
        requirements = [Requirement(text) for text in metadata.requires("codectool") or []]
        extras = metadata.metadata("codectool").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        advice = "run `pip install .` in its folder"
        value = f"{__version__}, not installed as a package: versions are not checked"
        yield Finding("packages", "codectool", value, "warning", advice)
        return
    yield Finding("packages", "codectool", __version__)
    required = [requirement for requirement in requirements if _applies(requirement)]
    for requirement in required:
        if requirement.name not in OWN_CHECK or version_of(requirement.name) is not None:
            yield _check(requirement)
    for extra in extras:
        if extra not in HIDDEN_EXTRAS:
            added = [r for r in requirements if r not in required and _applies(r, extra)]
            yield _check_extra(extra, added)


def _applies(requirement: Requirement, extra: str = "") -> bool:
    """Return whether a requirement holds on this system, for codectool or for an extra of it."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def version_of(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _check(requirement: Requirement) -> Finding:
    """Check a package that codectool requires."""
    name, limits = requirement.name, requirement.specifier
    version = version_of(name)
    if version is None:
        advice = f"run `pip install '{name}{limits}'`"
        return Finding("packages", name, "not installed", "error", advice)
    if not limits.contains(version, prereleases=True):
        advice = f"run `pip install '{name}{limits}'`"
        return Finding("packages", name, f"{version}, needed: {limits}", "error", advice)
    if name not in OWN_CHECK:
        try:
            import_module(name.replace("-", "_"))
        except Exception as error:
            value = f"{version}, cannot be imported: {reason(error)}"
            advice = f"run `pip install --force-reinstall '{name}{limits}'`"
            return Finding("packages", name, value, "error", advice)
    return Finding("packages", name, version)


def _check_extra(extra: str, requirements: Sequence[Requirement]) -> Finding:
    """Check which packages of an extra are installed."""
    found, missing = [], []
    for requirement in requirements:
        name, limits = requirement.name, requirement.specifier
        version = version_of(name)
        if version is not None and limits.contains(version, prereleases=True):
            found.append(f"{name} {version}")
        else:
            missing.append(name if version is None else f"{name} {version} (needed: {limits})")
    label = f"codectool[{extra}]"
    if not missing:
        return Finding("packages", label, ", ".join(found))
    value = f"missing: {', '.join(missing)}"
    return Finding("packages", label, value, "note", f"run `pip install 'codectool[{extra}]'`")
