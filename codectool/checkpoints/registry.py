"""The model registry: which models are known by name or fingerprint, and where their weights are.

Models of the package are in ``codectool/weights/models.toml``, those of the user in ``models.toml``
in `home`, in the same form. A table of the user adds to the table of the same name in the package.
Listing and finding models does not import PyTorch.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from codectool.codecs.registry import get_family
from codectool.errors import ConfigError, UsageError, WeightsMissingError
from codectool.files import atomic_output
from codectool.messages import shorten
from codectool.schema import MAX_CONFIG_BYTES, Config, PositiveFloat, PositiveInt, from_json

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(str(files("codectool"))).parent  # only a checkout has all of its files
PACKAGE_FILE = REPOSITORY / "codectool" / "weights" / "models.toml"
FILE_NAME = "models.toml"
OLD_NAME = "checkpoints.json"  # of version 0.1
LOCK_NAME = "models.lock"
MIRROR = "CODECTOOL_MIRROR"
HEADER = "# Models on this machine; see docs/guides/models.md. Rewritten by codectool.\n"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
HUB_SOURCE = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<early>[\w./-]+?))?/(?P<file>[^@?#]+)"
    r"(?:@(?P<revision>[\w./-]+))?"
)

Text = Annotated[str, Meta(min_length=1)]
Fingerprint = Annotated[str, Meta(pattern="^[0-9a-f]{8}$")]


class ModelEntry(Config, frozen=True):
    """A model of the registry.

    Attributes:
        name: as in ``--checkpoint``.
        family: codec family.
        source: where the weights come from: ``hf://ORG/REPO/FILE@REVISION``, a URL, a path, or
            ``repo:PATH`` for a file of the codectool repository; None if only ``path`` is known.
        path: where the weights were last seen on this machine.
        config: JSON file with the model config, if the checkpoint does not contain it.
        size: size of the file in bytes; None if it was not seen yet.
        sha256: SHA-256 of the file; None if it was not seen yet.
        fingerprint: of all weights, eight hexadecimal digits; None if it was not seen yet.
        token_fingerprint: of the parts that make tokens, as in `.hcd` files; None if it was not
            seen yet.
        same_tokens_as: other fingerprints whose tokens mean the same, from the checkpoint.
        license: license of the weights.
        citation: paper or page that describes the model.
        sample_rate: sampling rate of the model in Hz.
        bit_rate: bit rate of the tokens in bits per second.
        downloaded: whether codectool downloaded or copied the file at ``path``.
    """

    name: Annotated[str, Meta(pattern=f"^{NAME.pattern}$")]
    family: Text
    source: Text | None = None
    path: Text | None = None
    config: Text | None = None
    size: PositiveInt | None = None
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None
    fingerprint: Fingerprint | None = None
    token_fingerprint: Fingerprint | None = None
    same_tokens_as: tuple[Fingerprint, ...] = ()
    license: str | None = None
    citation: str | None = None
    sample_rate: PositiveInt | None = None
    bit_rate: PositiveFloat | None = None
    downloaded: bool = False

    @property
    def token_names(self) -> set[str]:
        """All fingerprints by which `.hcd` files name its tokens, as far as they are known."""
        known = (self.fingerprint, self.token_fingerprint, *self.same_tokens_as)
        return {name for name in known if name is not None}

    @property
    def remote(self) -> str | None:
        """Address to download the weights from; None if there is none."""
        source = self.source or ""
        if source.startswith("repo:"):
            mirror = os.environ.get(MIRROR, "")
            if not mirror.startswith(("http://", "https://")):
                return None
            return f"{mirror.rstrip('/')}/{source.removeprefix('repo:')}"
        return source if is_remote(source) else None

    @property
    def is_bundled(self) -> bool:
        """Whether the weights are part of this installation."""
        path = self._in_repository(REPOSITORY)
        return path is not None and _exists(path)

    def find(self) -> Path | None:
        """Return where the weights are on this machine, or None."""
        places = [self.path, self._in_repository(REPOSITORY)]
        mirror = os.environ.get(MIRROR)
        if mirror and self.remote is None:
            places.append(self._in_repository(Path(mirror)))
        source = self.source or ""
        if source.startswith("hf://"):
            places.append(_in_hub_cache(source))
        elif not source.startswith("repo:") and not is_remote(source):
            places.append(source)
        return next((Path(place) for place in places if place and _exists(place)), None)

    def locate(self) -> Path:
        """Return where the weights are.

        Raises:
            WeightsMissingError: They are not on this machine; the message says how to get them.
        """
        if (path := self.find()) is None:
            raise WeightsMissingError(
                f"the weights {self.name} are not on this machine: {self.how_to_get()}",
                self.name if self.remote else None,
            )
        return path

    def how_to_get(self) -> str:
        """Return how to get weights that are not on this machine, for messages."""
        size = f"{self.size / 1e6:.1f} MB" if self.size else self._estimated_size()
        if self.remote is not None:
            return f"run `codectool models pull {self.name}`" + (f" ({size})" if size else "")
        source = self.source or self.path or ""
        if source.startswith("repo:"):
            return (
                f"get {source.removeprefix('repo:')} ({size}) from the codectool repository and "
                f"name it with `--checkpoint PATH`, or set {MIRROR} and run "
                f"`codectool models pull {self.name}`"
            )
        return f"{shorten(source)} is gone; name them with `--checkpoint PATH`"

    def _estimated_size(self) -> str:
        published = get_family(self.family).published if self.name == self.family else None
        return f"about {4 * published.parameters / 1e6:.0f} MB" if published else ""

    def _in_repository(self, root: Path) -> Path | None:
        source = self.source or ""
        return root / source.removeprefix("repo:") if source.startswith("repo:") else None


def is_remote(source: str) -> bool:
    """Return whether a source is an address to download from."""
    return source.startswith(("hf://", "http://", "https://"))


def home() -> Path:
    """Return the folder for codectool's own files: ``CODECTOOL_HOME`` or the user's data folder."""
    if folder := os.environ.get("CODECTOOL_HOME"):
        return Path(folder)
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(data) / "codectool"


def entries(strict: bool = False) -> dict[str, ModelEntry]:
    """Return all models by name: first those of the package, then those of the user.

    Args:
        strict: raise if the user's file is invalid, instead of ignoring what is invalid.

    Raises:
        ConfigError: ``strict`` is set, and the file or an entry of it is invalid.
    """
    package, user = _package(), _user_tables(strict)
    found = {}
    for name in [*package, *(name for name in user if name not in package)]:
        try:
            found[name] = _entry(name, {**package.get(name, {}), **user.get(name, {})})
        except ConfigError as error:
            if strict:
                raise ConfigError(f"{home() / FILE_NAME}: [{shorten(name)}]: {error}") from error
            if name in package:
                found[name] = _entry(name, package[name])
    return found


def named(name: str) -> ModelEntry | None:
    """Return the model of this name, available or not."""
    return entries().get(name) if NAME.fullmatch(name) else None


def default(family: str) -> ModelEntry | None:
    """Return the default model of a family, available or not; it has the name of the family."""
    entry = entries().get(family)
    return entry if entry is not None and entry.family == family else None


def find(fingerprint: str) -> ModelEntry | None:
    """Return the model with this fingerprint of all weights, if possible one on this machine."""
    return _first([entry for entry in entries().values() if entry.fingerprint == fingerprint])


def find_decoder(fingerprint: str) -> ModelEntry | None:
    """Return a model that decodes the tokens that a file names by this fingerprint.

    Models on this machine come first, and among them the default model of the family.
    """
    known = entries()
    names = {fingerprint} | _tokens_of_weights(known.values(), fingerprint)
    matching = [entry for entry in known.values() if names & entry.token_names]
    return _first(sorted(matching, key=lambda entry: entry.name != entry.family))


def token_fingerprint(fingerprint: str) -> str:
    """Return the token fingerprint for a fingerprint in a file; itself if no other is known.

    Files of version 0.1 name all weights of a model.
    """
    known = entries().values()
    found = [
        *_tokens_of_weights(known, fingerprint),
        *(e.token_fingerprint for e in known if fingerprint in e.same_tokens_as),
    ]
    return next((name for name in found if name is not None), fingerprint)


def token_names(token_fingerprint: str) -> set[str]:
    """Return all known fingerprints by which files name tokens with this token fingerprint."""
    same = (e for e in entries().values() if e.token_fingerprint == token_fingerprint)
    return {token_fingerprint}.union(*(entry.token_names for entry in same))


def weights_with_tokens(token_fingerprint: str) -> set[str]:
    """Return the fingerprints of all known weights with this token fingerprint."""
    same = (e.fingerprint for e in entries().values() if e.token_fingerprint == token_fingerprint)
    return {fingerprint for fingerprint in same if fingerprint is not None}


def _tokens_of_weights(known: Iterable[ModelEntry], fingerprint: str) -> set[str]:
    found = (entry.token_fingerprint for entry in known if entry.fingerprint == fingerprint)
    return {name for name in found if name is not None}


def _first(matching: Sequence[ModelEntry]) -> ModelEntry | None:
    available = (entry for entry in matching if entry.find() is not None)
    return next(available, matching[0] if matching else None)


def remember(
    fingerprint: str,
    family: str,
    path: Path,
    config: Path | None = None,
    token_fingerprint: str | None = None,
    same_tokens_as: Iterable[str] = (),
) -> None:
    """Record where weights are, so that `decode` finds them by their fingerprints.

    Raises:
        ConfigError: The user's file is invalid.
        UsageError: It cannot be written.
        OSError: Its folder cannot be made.
    """
    place = str(path.resolve())
    settings = str(config.resolve()) if config else None
    others = sorted({*same_tokens_as} - {fingerprint, token_fingerprint})
    tokens = {"token_fingerprint": token_fingerprint, "same_tokens_as": others or None}
    known = find(fingerprint)
    if known is None:
        for entry in entries().values():  # in the cache of the Hub, but not pulled by codectool
            if entry.fingerprint is None and entry.find() == path and config is None:
                record(entry.name, fingerprint=fingerprint, **tokens)
                return
        record(
            f"{family}-{fingerprint}",
            family=family,
            source=place,
            config=settings,
            fingerprint=fingerprint,
            **tokens,
        )
        return
    if known.find() is None:
        record(known.name, path=place, config=settings, downloaded=None)
    if known.token_fingerprint is None and token_fingerprint is not None:
        record(known.name, **tokens)


def record(name: str, **values: str | int | float | bool | list[str] | None) -> None:
    """Set keys of a model in the user's file; None removes a key. Other keys are kept.

    Raises:
        ConfigError: The user's file is invalid.
        UsageError: It cannot be written.
        OSError: Its folder cannot be made.
    """
    with _updating() as tables:
        table = {**tables.get(name, {}), **values}
        tables[name] = {key: value for key, value in table.items() if value is not None}


def is_recorded(name: str) -> bool:
    """Return whether the user's file has a table for a model."""
    return name in _user_tables(strict=False)


def forget(name: str) -> None:
    """Remove a model from the user's file; errors as for `record`."""
    with _updating() as tables:
        tables.pop(name, None)


@cache
def _package() -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = tomllib.loads(PACKAGE_FILE.read_text("utf-8"))
    return tables


def _entry(name: str, table: Mapping[str, Any]) -> ModelEntry:
    return from_json(ModelEntry, {**table, "name": name})


def _user_tables(strict: bool) -> dict[str, dict[str, Any]]:
    path = home() / FILE_NAME
    tables: dict[str, Any] = {}
    try:
        if path.is_file():  # not a pipe, which would block
            with path.open("rb") as file:
                tables = tomllib.loads(file.read(MAX_CONFIG_BYTES).decode())
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise ValueError(f"key {name!r} stands outside of a table `[NAME]`")
    except (OSError, ValueError, RecursionError) as error:
        if strict:
            reason = shorten(str(error))
            raise ConfigError(f"{path}: cannot be read as TOML ({reason}); correct it") from error
        tables = {}
    return tables | _old_tables(tables)


def _old_tables(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the entries of version 0.1, by fingerprint in a JSON file, that ``tables`` lack."""
    path = home() / OLD_NAME
    try:
        old = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    known = {table.get("fingerprint"): name for name, table in (_package() | tables).items()}
    found = {}
    for fingerprint, values in old.items() if isinstance(old, dict) else ():
        try:
            family, place = values["family"], values["path"]
            name = known.get(fingerprint, f"{family}-{fingerprint}")
            table = {**tables.get(name, {}), "family": family, "fingerprint": fingerprint}
            table |= {"path": place} | (
                {"config": values["config"]} if values.get("config") else {}
            )
            _entry(name, table)
        except (KeyError, TypeError, AttributeError, ConfigError):
            continue
        found[name] = table
    return found


@contextmanager
def _updating() -> Iterator[dict[str, dict[str, Any]]]:
    """Yield the tables of the user's file, which is written with the changes that are made."""
    from filelock import FileLock

    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK_NAME):
        entries(strict=True)
        tables = _user_tables(strict=True)
        before = _format(tables)
        yield tables
        after = _format(tables)
        if after == before:
            return
        with atomic_output(folder / FILE_NAME, overwrite=True) as file:
            file.write(after)
        with suppress(OSError):
            (folder / OLD_NAME).unlink()  # its entries are in the new file now


def _format(tables: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return tables as TOML, whose strings, numbers and booleans can be written as in JSON."""
    parts = [HEADER]
    for name, table in tables.items():
        lines = [f"{key} = {_value(value)}" for key, value in table.items()]
        parts.append("\n".join([f'["{name}"]' if "." in name else f"[{name}]", *lines]) + "\n")
    try:
        return "\n".join(parts).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{home() / FILE_NAME}: a file name that is not UTF-8 cannot be recorded; rename it"
        ) from error


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _in_hub_cache(source: str) -> str | None:
    """Return where the cache of huggingface_hub has a file, without asking the Hub."""
    match = HUB_SOURCE.fullmatch(source)
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    if match is None:
        return None
    revision = match["revision"] or match["early"]
    try:
        found = try_to_load_from_cache(match["repo"], match["file"], revision=revision)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, str) else None


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).is_file() or Path(path).is_dir()  # not a pipe, which would block
    except (OSError, ValueError):  # the path is invalid
        return False
