"""Download weights: huggingface_hub for the Hugging Face Hub, pooch for other addresses.

Both packages are the extra ``codectool[hub]`` and imported when something is downloaded. Nothing
here is used before `codectool.models` has checked it.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from codectool.checkpoints.registry import HUB_SOURCE
from codectool.errors import DownloadError, UsageError
from codectool.messages import shorten

MAX_BYTES = 4 << 30  # of weights whose size is not known: six times those of BigCodec
TIMEOUT = 30.0  # seconds without a byte
CHUNK_BYTES = 1 << 20
RETRIES = 2  # of pooch; huggingface_hub continues where a connection was cut, up to five times
HUB_PAGE = re.compile(
    r"https://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repo>[\w.-]+/[\w.-]+)/(?:resolve|blob|raw)/"
    r"(?P<revision>[^/?#]+)/(?P<file>[^?#]+)"
)

OnProgress = Callable[[int, "int | None"], None]  # bytes so far, and bytes in all if known


def canonical_source(source: str) -> str:
    """Return an address of a file on a page of the Hub as ``hf://...``, others as they are.

    Raises:
        UsageError: The address is not of a form that can be downloaded.
    """
    if page := HUB_PAGE.match(source):
        source = f"hf://{page['repo']}/{page['file']}@{page['revision']}"
    if source.startswith("hf://"):
        match = HUB_SOURCE.fullmatch(source)
        if match is None:
            raise UsageError(
                f"{shorten(source)}: is not of the form `hf://ORG/REPO/FILE` or "
                "`hf://ORG/REPO/FILE@REVISION`"
            )
        if {"", ".", ".."} & {*match["repo"].split("/"), *match["file"].split("/")}:
            raise UsageError(f"{shorten(source)}: the file must be a path inside the repository")
    elif not urlsplit(source).hostname:
        raise UsageError(f"{shorten(source)}: is not an address")
    return source


def download(
    source: str, folder: Path, size: int | None, on_progress: OnProgress | None = None
) -> Path:
    """Download a file.

    Args:
        source: ``hf://ORG/REPO/FILE@REVISION`` or a URL.
        folder: where a URL is saved; files of the Hub go to its own cache.
        size: expected size in bytes; None if it is not known.
        on_progress: called with the number of bytes while they arrive.

    Returns:
        Where the file is.

    Raises:
        DownloadError: It cannot be downloaded, or is longer than ``size``.
        OSError: The disk is full.
    """
    source = canonical_source(source)
    limit = _Limit(source, size, on_progress)
    if source.startswith("hf://"):
        return _from_hub(source, limit)
    return _from_url(source, folder, limit)


class _Limit:
    """Reports progress, and raises if more bytes arrive than expected."""

    def __init__(self, source: str, size: int | None, on_progress: OnProgress | None) -> None:
        self.source = source
        self.size = size
        self.on_progress = on_progress

    def check(self, num_bytes: int, total: int | None) -> None:
        most = self.size or MAX_BYTES
        if max(num_bytes, total or 0) > most:
            expected = f"{most} bytes" + ("" if self.size else ", the limit for unknown weights")
            raise DownloadError(
                f"{shorten(self.source)}: larger than {expected}; not downloaded. Check the address"
            )
        if self.on_progress is not None:
            self.on_progress(num_bytes, total or self.size)


def _from_hub(source: str, limit: _Limit) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub import constants, errors
    except ImportError as error:
        raise _missing_package(source, "huggingface_hub") from error
    match = HUB_SOURCE.fullmatch(source)
    assert match is not None, "checked by canonical_source"
    repo, page = match["repo"], f"{constants.ENDPOINT}/{match['repo']}"
    revision = match["revision"] or match["early"]
    log = logging.getLogger("huggingface_hub")
    level = log.level
    try:
        log.setLevel(logging.ERROR)  # of cut connections, which it continues
        return Path(
            huggingface_hub.hf_hub_download(
                repo, match["file"], revision=revision, tqdm_class=_hub_meter(limit)
            )
        )
    except errors.GatedRepoError as error:
        reason = (
            f"needs a login: accept the terms on {page}, then run `hf auth login` or set HF_TOKEN"
        )
        raise DownloadError(f"{source}: {reason}") from error
    except errors.RepositoryNotFoundError as error:
        reason = (
            "there is no such repository, or it is private: correct the name, or run "
            "`hf auth login` or set HF_TOKEN"
        )
        raise DownloadError(f"{source}: {reason}") from error
    except errors.RevisionNotFoundError as error:
        raise DownloadError(f"{source}: the repository has no revision {revision}") from error
    except errors.RemoteEntryNotFoundError as error:
        raise DownloadError(f"{source}: the repository has no such file; see {page}") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        login = "; run `hf auth login` or set HF_TOKEN" if status in (401, 403) else ""
        raise DownloadError(
            f"{source}: {page} answers with HTTP status {status}{login or '; try again later'}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            reason = "HF_HUB_OFFLINE is set, and the file is not in the cache of huggingface_hub"
        else:
            reason = f"{constants.ENDPOINT} cannot be reached; check the connection"
        raise DownloadError(f"{source}: {reason}") from error
    except Exception as error:
        raise _failed(source, error) from error
    finally:
        log.setLevel(level)


def _hub_meter(limit: _Limit) -> type[Any]:
    """Return a progress bar for huggingface_hub that shows nothing but checks the size."""
    from huggingface_hub.utils.tqdm import tqdm

    class Meter(tqdm):
        def __init__(self, *_: object, **options: Any) -> None:
            self.received, self.expected = options.get("initial") or 0, options.get("total")
            super().__init__(disable=True)  # type: ignore[no-untyped-call]
            limit.check(self.received, self.expected)

        def update(self, n: float | None = 1) -> bool | None:
            self.received += int(n or 0)
            limit.check(self.received, self.expected)
            return None

    return Meter


def _from_url(source: str, folder: Path, limit: _Limit) -> Path:
    try:
        import pooch
        from pooch.downloaders import HTTPDownloader
    except ImportError as error:
        raise _missing_package(source, "pooch") from error
    import requests

    class Meter:
        """What pooch calls after each chunk; it counts chunks as if all were full."""

        total: int | None = None

        def __init__(self, path: str) -> None:
            self.path = path

        def update(self, _: int) -> None:
            if os.path.exists(self.path):
                limit.check(os.stat(self.path).st_size, self.total or None)

        def reset(self) -> None:
            """Do nothing: pooch calls it at the end."""

        def close(self) -> None:
            """Do nothing: the caller closes its progress bar."""

    def fetch(url: str, path: str, _: object) -> None:
        try:
            HTTPDownloader(Meter(path), chunk_size=CHUNK_BYTES, timeout=TIMEOUT)(url, path, None)
        except requests.HTTPError as error:
            response = error.response
            if response is None:
                raise
            response.close()
            raise _refused(source, response.status_code) from error

    name = safe_name(source)
    for stale in folder.glob("tmp*"):  # of a process that was killed; the caller holds a lock
        stale.unlink()
    pooch.get_logger().setLevel(logging.ERROR)
    try:
        pooch.core.stream_download(source, folder / name, None, fetch, None, RETRIES)
    except requests.ConnectionError as error:
        raise DownloadError(
            f"{shorten(source)}: {urlsplit(source).netloc} cannot be reached; try again"
        ) from error
    except Exception as error:
        raise _failed(source, error) from error
    return folder / name


def _refused(source: str, status: int) -> DownloadError:
    """Return the error for a status with which a server refuses an address."""
    if status in (404, 410):
        what = "there is no such file"
    elif status in (401, 403):
        what = (
            f"the server answers with HTTP status {status}: the address needs a login; download "
            "the file yourself and use `codectool models add PATH`"
        )
    else:
        what = f"the server answers with HTTP status {status}; try again later"
    return DownloadError(f"{shorten(source)}: {what}")


def safe_name(source: str) -> str:
    """Return the last part of an address as a file name without special characters.

    Examples:
        >>> safe_name("https://example.org/a/..%2f..%2fb c.pt?x=1")
        'b_c.pt'
    """
    last = unquote(urlsplit(source).path).replace("\\", "/").rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9_.-]", "_", last).lstrip(".")[-100:] or "weights"


def _missing_package(source: str, package: str) -> DownloadError:
    return DownloadError(
        f"{shorten(source)}: needs the package {package}; run `pip install 'codectool[hub]'`"
    )


def _failed(source: str, error: Exception) -> Exception:
    """Return what to raise for an exception of one of the packages."""
    if isinstance(error, DownloadError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = f" in {Path(error.filename).parent}" if error.filename else ""
        return DownloadError(
            f"{shorten(source)}: no space left on the disk{where}; free some, or set HF_HOME or "
            "CODECTOOL_HOME to a folder on another disk"
        )
    reason = shorten(str(error).strip() or type(error).__name__)
    return DownloadError(f"{shorten(source)}: the download failed ({reason}); try again")
