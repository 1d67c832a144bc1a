"""Models by name: list, download, add, remove and verify them.

    import codectool

    codectool.models.pull("bigcodec")          # the only functions that download are pull and add
    codec = codectool.load("bigcodec")
    for entry in codectool.models.entries().values():
        print(entry.name, entry.find())

Listing models does not import PyTorch.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codectool.checkpoints import registry
from codectool.checkpoints.download import OnProgress, canonical_source, download, safe_name
from codectool.checkpoints.registry import (
    FILE_NAME,
    NAME,
    ModelEntry,
    entries,
    forget,
    home,
    is_remote,
    record,
)
from codectool.errors import CheckpointError, CodectoolError, DownloadError, UsageError
from codectool.files import atomic_output, file_sha256
from codectool.messages import shorten

if TYPE_CHECKING:
    from codectool.checkpoints.load import LoadedModel
    from codectool.onnx.load import LoadedExport
    from codectool.tokens import TokenLayout

__all__ = [
    "ModelEntry",
    "Verified",
    "add",
    "entries",
    "get",
    "home",
    "pull",
    "registry_file",
    "remove",
    "verify",
]

FOLDER_NAME = "models"  # in `home`: files that codectool downloaded or copied


@dataclass(frozen=True)
class Verified:
    """The outcome of checking one model.

    Attributes:
        entry: the model, with what was recorded now.
        path: where its weights are; None if they are not on this machine.
        problems: what is wrong with them, one sentence each.
        skipped: what could not be checked, and why.
    """

    entry: ModelEntry
    path: Path | None
    problems: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def registry_file() -> Path:
    """Return the user's registry file, which may not exist."""
    return home() / FILE_NAME


def get(name: str) -> ModelEntry:
    """Return the model of this name, available or not.

    Raises:
        UsageError: There is none.
        ConfigError: The user's registry file is invalid.
    """
    import difflib

    known = entries(strict=True)
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean `{close[0]}`?" if close else "see `codectool models list`"
        raise UsageError(f"{shorten(name)}: no model of this name; {hint}")
    return known[name]


def pull(name: str, on_progress: OnProgress | None = None) -> Path:
    """Download the weights of a model, unless they are on this machine, and check them.

    Size, SHA-256 and fingerprint must be those of the registry; what it does not know is recorded,
    so that a later download must be the same. Weights that do not pass are deleted.

    Args:
        name: name in the registry.
        on_progress: called while bytes arrive with their number, and the number of all or None.

    Returns:
        Where the weights are.

    Raises:
        UsageError: There is no such model.
        DownloadError: They cannot be downloaded, or are not the expected ones.
        CheckpointError: The file is not a checkpoint that codectool can read.
    """
    get(name)  # before a file is made for the lock
    with _locked(name):
        entry = get(name)
        if (path := entry.find()) is not None:
            return path
        if entry.remote is None:
            raise DownloadError(f"{name}: {entry.how_to_get()}")
        found = _fetch(entry, on_progress)
        record(name, **_new(entry, found), path=str(found.path), downloaded=True)
        return found.path


def add(
    source: str | Path,
    name: str | None = None,
    *,
    config: str | Path | None = None,
    copy: bool = False,
    license: str | None = None,
    citation: str | None = None,
    sha256: str | None = None,
    on_progress: OnProgress | None = None,
) -> ModelEntry:
    """Add a model to the registry: a checkpoint on this machine, or one that is downloaded now.

    A checkpoint whose fingerprint is in the registry already gets no second entry, unless a name
    is given; if the weights of that entry are missing, they are found from now on.

    Args:
        source: file or folder, ``hf://ORG/REPO/FILE@REVISION`` or a URL.
        name: name in the registry; None for family and fingerprint.
        config: JSON file with the model config, if the checkpoint does not contain it.
        copy: copy a file into codectool's folder instead of referring to it.
        license: license of the weights.
        citation: paper or page that describes them.
        sha256: expected SHA-256 of a download.
        on_progress: as for `pull`.

    Raises:
        UsageError: The name is taken or invalid.
        DownloadError: The weights cannot be downloaded, or have another SHA-256.
        CheckpointError: It is not a checkpoint that codectool can read.
    """
    known = entries(strict=True)
    if name is not None and not NAME.fullmatch(name):
        raise UsageError(
            f"{shorten(name)}: is not a name; use up to 64 letters, digits, `-`, `_` and `.`"
        )
    if name in known:
        raise UsageError(f"{name}: there is a model of this name; give another one with `--name`")
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256 := sha256.lower()):
        raise UsageError(f"{shorten(sha256)}: is not a SHA-256 (64 hexadecimal digits)")
    settings = None if config is None else str(Path(config).resolve())
    remote = isinstance(source, str) and is_remote(source)
    if remote:
        if copy:
            raise UsageError(f"{shorten(str(source))}: `--copy` is for files on this machine")
        address = canonical_source(str(source))
        draft = ModelEntry(
            name or f"download-{hashlib.sha256(address.encode()).hexdigest()[:8]}",
            family="",
            source=address,
            config=settings,
            sha256=sha256,
        )
        with _locked(draft.name):
            found = _fetch(draft, on_progress)
        origin: str = address
    else:
        path = Path(source)
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        found = _inspect(path, Path(settings) if settings else None)
        if sha256 is not None and found.sha256 != sha256:
            raise CheckpointError(f"{path}: has another SHA-256, {found.sha256}")
        origin = str(path.resolve())
    about: dict[str, Any]
    same = registry.find(found.fingerprint) if found.fingerprint else None
    if name is None and same is not None:
        if (present := same.find()) is not None:
            if remote and not present.samefile(found.path):
                _delete(found.path)
            return same
        name, about = same.name, {"path": origin, **_new(same, found)}
    else:
        name = name or f"{found.family}-{found.fingerprint}"
        about = {"family": found.family, "source": origin, **_new(None, found)}
    if copy:
        about |= {"path": str(_copy(found.path, name)), "downloaded": True}
    elif remote:
        about |= {"path": str(found.path), "downloaded": True}
    given = {"license": license, "citation": citation, "config": settings}
    record(name, **about, **{key: value for key, value in given.items() if value is not None})
    return entries()[name]


def owned_file(entry: ModelEntry) -> Path | None:
    """Return the file that `remove` deletes: one that codectool downloaded or copied, or None."""
    if not entry.downloaded or entry.path is None:
        return None
    path = Path(entry.path)
    return path if path.exists() else None


def remove(name: str, delete: bool = True) -> Path | None:
    """Remove a model from the user's registry file.

    Models of the package stay known, and files that the user keeps elsewhere are never deleted.

    Args:
        name: name in the registry.
        delete: delete the weights, too, if codectool downloaded or copied them.

    Returns:
        The deleted file, if any.

    Raises:
        UsageError: There is no such model, or only in the package.
        OSError: The file cannot be deleted.
    """
    entry = get(name)
    if not registry.is_recorded(name):
        raise UsageError(f"{name}: comes with codectool; there is nothing to remove")
    path = owned_file(entry) if delete else None
    with _locked(name):
        if path is not None:
            _delete(path)
        forget(name)
    return path


def verify(name: str) -> Verified:
    """Check the weights of a model against the registry: size, SHA-256 and fingerprint.

    Values that the registry does not know yet are recorded.

    Raises:
        UsageError: There is no such model.
    """
    entry = get(name)
    path = entry.find()
    if path is None:
        return Verified(entry, None)
    problems: list[str] = []
    skipped: list[str] = []
    try:
        found = _inspect(path, Path(entry.config) if entry.config else None, skipped)
    except (CodectoolError, OSError) as error:
        return Verified(entry, path, (str(error),))
    problems += _mismatches(entry, found)
    if not problems:
        record(name, **_new(entry, found))
    return Verified(get(name), path, tuple(problems), tuple(skipped))


@dataclass(frozen=True)
class _Found:
    """What a checkpoint is. Values that cannot be computed are None."""

    path: Path
    size: int | None
    sha256: str | None
    family: str | None
    fingerprint: str | None
    sample_rate: int | None
    bit_rate: float | None
    token_fingerprint: str | None = None
    same_tokens_as: list[str] | None = None


def _fetch(entry: ModelEntry, on_progress: OnProgress | None) -> _Found:
    """Download the weights of an entry and check them; delete them if they do not pass."""
    assert entry.remote is not None
    target = home() / FOLDER_NAME / entry.name
    path = download(entry.remote, target, entry.size, on_progress)
    try:
        found = _hash(path)
        if problems := _mismatches(entry, found):  # before its content is looked at
            raise DownloadError("; ".join(problems))
        found = _inspect(path, Path(entry.config) if entry.config else None, [])
        if problems := _mismatches(entry, found):
            raise DownloadError("; ".join(problems))
    except CodectoolError as error:
        _delete(path)
        text = str(error).removeprefix(f"{path}: ")
        raise DownloadError(
            f"{entry.name}: the file from {shorten(entry.remote)} was deleted: {text}"
        ) from error
    return found


def _mismatches(entry: ModelEntry, found: _Found) -> list[str]:
    """Return how a checkpoint differs from its entry, one sentence each."""
    names = {"size": "size", "sha256": "SHA-256", "fingerprint": "fingerprint", "family": "family"}
    names["token_fingerprint"] = "token fingerprint"
    pairs = {key: (getattr(entry, key), getattr(found, key)) for key in names}
    return [
        f"its {names[key]} is {actual}, not {expected}"
        for key, (expected, actual) in pairs.items()
        if expected and actual is not None and actual != expected
    ]


def _new(entry: ModelEntry | None, found: _Found) -> dict[str, Any]:
    """Return what is known about a checkpoint and not in its entry."""
    keys = (
        *("size", "sha256", "fingerprint", "token_fingerprint", "same_tokens_as"),
        *("sample_rate", "bit_rate"),
    )
    known = {key: getattr(found, key) for key in keys if not getattr(entry, key, None)}
    return {key: value for key, value in known.items() if value}


def _hash(path: Path) -> _Found:
    """Return size and SHA-256 of a file; None for a folder."""
    if path.is_dir():
        return _Found(path, None, None, None, None, None, None)
    return _Found(path, path.stat().st_size, file_sha256(path), None, None, None, None)


def _inspect(path: Path, config: Path | None, skipped: list[str] | None = None) -> _Found:
    """Return everything about a checkpoint or an exported model.

    Args:
        path: file or folder.
        config: JSON file with the model config, if the checkpoint does not contain it.
        skipped: gets what could not be computed because PyTorch is missing; None raises instead.
    """
    from codectool.onnx.load import is_export

    if is_export(path):
        return _inspect_export(path)
    if skipped is not None and find_spec("torch") is None:
        skipped.append("the fingerprint was not checked, which needs PyTorch")
        return _hash(path)
    from codectool.checkpoints.load import load_model
    from codectool.codec import model_layout
    from codectool.codecs.isolation import isolated

    with isolated("cpu", inference=False):
        loaded = load_model(path, config=config)
    return _described(path, loaded.path, loaded, model_layout(loaded.model))


def _inspect_export(path: Path) -> _Found:
    from codectool.codec import model_layout
    from codectool.onnx.load import load_exported

    loaded = load_exported(path)
    return _described(path, path, loaded, model_layout(loaded.runner.model))


def _described(
    path: Path, file: Path, loaded: LoadedModel | LoadedExport, layout: TokenLayout
) -> _Found:
    """Add size and SHA-256 to what is known about a model; folders of several files have none."""
    hashed = _hash(file)
    about = (layout.family, loaded.fingerprint, layout.sample_rate, layout.bit_rate)
    others = sorted({*loaded.same_tokens_as} - {loaded.fingerprint, loaded.token_fingerprint})
    tokens = loaded.token_fingerprint, others
    return _Found(path, hashed.size, hashed.sha256, *about, *tokens)


def _copy(path: Path, name: str) -> Path:
    """Copy a checkpoint, a file, into codectool's folder; return the copy."""
    if not path.is_file():
        raise UsageError(f"{path}: is a folder; `--copy` needs a file. Convert it to one")
    target = home() / FOLDER_NAME / name / safe_name(path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as source, atomic_output(target, overwrite=True) as file:
        shutil.copyfileobj(source, file, 1 << 20)
    return target


def _delete(path: Path) -> None:
    """Delete a file, the content of a link in the Hub's cache, and codectool's folder if empty."""
    content = path.resolve()
    path.unlink(missing_ok=True)
    content.unlink(missing_ok=True)
    with suppress(OSError):
        if path.parent.parent == home() / FOLDER_NAME:
            path.parent.rmdir()


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Wait for other processes that download or remove the same model."""
    from filelock import FileLock

    folder = home() / FOLDER_NAME
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        yield
