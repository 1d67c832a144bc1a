"""Downloads from a server that imitates the Hugging Face Hub, and from a plain one."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from codectool import models
from codectool.checkpoints import download, registry
from codectool.checkpoints.download import canonical_source, safe_name
from codectool.errors import CheckpointError, DownloadError, UsageError
from tests.checkpoints.weight_server import COMMIT, WeightServer, serve
from tests.conftest import GOLDEN

constants = pytest.importorskip("huggingface_hub.constants", reason="needs codectool[hub]")
pytest.importorskip("pooch", reason="needs codectool[hub]")

# requests leaves the connection open when pooch stops reading a response
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CONTENT = (GOLDEN / "bigcodec_micro.pt").read_bytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FINGERPRINT = "218b61c7"
Serve = Callable[..., Any]


@pytest.fixture(params=["hub", "url"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serving(
    kind: str, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Return a context manager that serves the weights of a model `micro`."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    monkeypatch.setattr(download, "CHUNK_BYTES", 1 << 16)
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    @contextmanager
    def start(
        behavior: str = "ok", content: bytes = CONTENT, **about: Any
    ) -> Iterator[WeightServer]:
        with serve(content, behavior) as server:
            monkeypatch.setattr(constants, "ENDPOINT", server.url)
            template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
            monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            source = "hf://org/repo/dir/bigcodec_micro.pt"
            if kind == "url":
                source = f"{server.url}/files/bigcodec_micro.pt?download=1"
            registry.record("micro", family="bigcodec", source=source, **about)
            yield server

    return start


def leftovers(*folders: Path) -> list[str]:
    """Return the files in folders, without locks and the registry itself."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    ignored = {"models.toml", "CACHEDIR.TAG", "main"}
    return [path.name for path in files if path.suffix != ".lock" and path.name not in ignored]


def test_pull_downloads_checks_and_records(
    serving: Serve, kind: str, own_home: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int | None]] = []
    with serving() as server:
        path = models.pull("micro", lambda *progress: seen.append(progress))
        assert path.read_bytes() == CONTENT
        entry = registry.named("micro")
        assert entry is not None
        assert (entry.size, entry.sha256, entry.fingerprint) == (len(CONTENT), SHA256, FINGERPRINT)
        assert (entry.sample_rate, entry.bit_rate) == (16000, 1120)
        assert entry.find() == path
        assert seen[-1] == (len(CONTENT), len(CONTENT))
        assert seen == sorted(seen)
        assert path.is_relative_to(tmp_path / "hub" if kind == "hub" else own_home / "models")
        asked = len(server.requests)
        assert models.pull("micro") == path  # without a question
        assert len(server.requests) == asked
    if kind == "hub":
        assert COMMIT in path.parts


def test_cache_of_the_hub_is_looked_in_first(serving: Serve, kind: str, own_home: Path) -> None:
    if kind == "url":
        pytest.skip("plain addresses have no shared cache")
    with serving() as server:
        path = models.pull("micro")
        registry.record("micro", path=None, downloaded=None)  # as if another program had it
        entry = registry.named("micro")
        assert entry is not None
        assert entry.find() == path
        asked = len(server.requests)
        models.pull("micro")
        assert len(server.requests) == asked
        assert models.owned_file(entry) is None


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"size": 872628}, {"size": 872630}])
def test_wrong_file_is_refused_and_deleted(
    serving: Serve, own_home: Path, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with serving(**wrong), pytest.raises(DownloadError) as caught:
        models.pull("micro")
    line = str(caught.value)
    (key,) = wrong
    assert {"sha256": f"SHA-256 is {SHA256}, not 000", "size": "8726"}[key] in line
    assert "micro" in line
    assert "\n" not in line
    assert leftovers(own_home, tmp_path) == []
    assert registry.named("micro").find() is None  # type: ignore[union-attr]


def test_file_that_changed_since_it_was_first_seen_is_refused(serving: Serve) -> None:
    with serving():
        models.pull("micro")
        models._delete(registry.named("micro").locate())  # type: ignore[union-attr]
    changed = CONTENT[:-1] + b"\1"
    with serving(content=changed), pytest.raises(DownloadError, match="its SHA-256 is "):
        models.pull("micro")


def test_wrong_fingerprint_is_refused(serving: Serve, own_home: Path, tmp_path: Path) -> None:
    with serving(fingerprint="00000000"), pytest.raises(DownloadError, match="not 00000000"):
        models.pull("micro")
    assert leftovers(own_home, tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!doctype html><html>Please log in</html>", "web page"),
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "deleted: "),
    ],
)
def test_file_that_is_no_checkpoint_is_refused_and_deleted(
    serving: Serve, own_home: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    with serving(content=content), pytest.raises(DownloadError, match=message) as caught:
        models.pull("micro")
    assert "\n" not in str(caught.value)
    assert leftovers(own_home, tmp_path) == []


def test_cut_connection_is_continued_by_range_or_reported(
    serving: Serve, kind: str, own_home: Path, tmp_path: Path
) -> None:
    with serving("cut") as server:
        if kind == "hub":  # continues where it was cut
            assert models.pull("micro").read_bytes() == CONTENT
            starts = [int(span.split("=")[1].rstrip("-")) for span in server.ranges() if span]
            assert starts == sorted(starts)
            assert len(starts) == len(server.ranges()) - 1 == 3
        else:  # starts again, three times in all
            with pytest.raises(DownloadError, match="127.0.0.1.*try again"):
                models.pull("micro")
            assert server.ranges() == [None] * 3
            assert leftovers(own_home, tmp_path) == []


def test_redirect_is_followed(serving: Serve) -> None:
    with serving("redirect"):
        assert models.pull("micro").read_bytes() == CONTENT


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_endless_body_is_cut_off(
    serving: Serve, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 3_000_000)
    about = {} if size is None else {"size": size}
    with serving("endless", **about), pytest.raises(DownloadError, match=r"larger than \d+ bytes"):
        models.pull("micro")
    assert leftovers(own_home, tmp_path) == []


@pytest.mark.parametrize(
    ("behavior", "hub", "url"),
    [
        ("gated", "accept the terms on http.*hf auth login", "HTTP status 403.*needs a login"),
        ("login", "hf auth login", "HTTP status 401.*needs a login"),
        ("private", "no such repository, or it is private", "HTTP status 401"),
        ("missing", "no such file", "no such file"),
        ("broken", "HTTP status 500|cannot be reached", "HTTP status 500"),
    ],
)
def test_refusals_of_the_server_say_what_to_do(
    serving: Serve, kind: str, own_home: Path, tmp_path: Path, behavior: str, hub: str, url: str
) -> None:
    with serving(behavior) as server:
        with pytest.raises(DownloadError, match=hub if kind == "hub" else url) as caught:
            models.pull("micro")
        assert "\n" not in str(caught.value)
        assert server.requests
    assert leftovers(own_home, tmp_path) == []


def test_unreachable_server_is_named(serving: Serve, tmp_path: Path) -> None:
    with serving() as server:
        pass
    with pytest.raises(DownloadError, match=f"{server.url[7:]} cannot be reached"):
        models.pull("micro")


def test_offline_mode_of_the_hub_is_named(
    serving: Serve, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "url":
        pytest.skip("HF_HUB_OFFLINE is for the Hub")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with serving() as server, pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        models.pull("micro")
    assert server.requests == []


def test_full_disk_is_one_line_and_leaves_nothing(
    serving: Serve, kind: str, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0

    def full(self: object, num_bytes: int, total: int | None) -> None:
        nonlocal written
        written = num_bytes
        if num_bytes > 300_000:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download._Limit, "check", full)
    with serving(), pytest.raises(DownloadError, match="no space left on the disk") as caught:
        models.pull("micro")
    assert written > 300_000
    assert "\n" not in str(caught.value)
    assert leftovers(own_home, tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_real_limit_of_the_file_system_is_one_line(
    serving: Serve, kind: str, own_home: Path, tmp_path: Path
) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving():
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
        try:
            with pytest.raises(DownloadError, match="no space left on the disk"):
                models.pull("micro")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert leftovers(own_home, tmp_path) == []


def test_two_pulls_at_once_download_once(serving: Serve) -> None:
    with serving() as server, ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(models.pull, ["micro", "micro"]))
        assert paths[0] == paths[1]
        assert len(server.ranges()) == 1


def test_mirror_of_the_repository_serves_previous_weights(
    serving: Serve, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "hub":
        pytest.skip("a mirror is a plain address")
    content = (registry.REPOSITORY / "assets/weights/hac-1d8631bb.safetensors").read_bytes()
    monkeypatch.setattr(registry, "REPOSITORY", tmp_path / "site")
    with serving(content=content) as server:
        monkeypatch.setenv("CODECTOOL_MIRROR", server.url)
        path = models.pull("hac-1d8631bb")
    assert path.name == "hac-1d8631bb.safetensors"
    assert registry.find("1d8631bb").find() == path  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("https://example.org/a/b.pt", "b.pt"),
        ("https://example.org/a/..%2f..%2f..%2fetc%2fpasswd", "passwd"),
        ("https://example.org/a/..%5c..%5cx.pt", "x.pt"),
        ("https://example.org/.bashrc", "bashrc"),
        ("https://example.org/%00%0a;rm -rf.pt", "_rm_-rf.pt"),
        ("https://example.org/..", "weights"),
        ("https://example.org", "weights"),
        ("https://example.org/" + "x" * 5000 + ".pt", "x" * 97 + ".pt"),
    ],
)
def test_file_name_cannot_leave_the_folder(source: str, name: str) -> None:
    assert safe_name(source).lstrip("_") == name.lstrip("_")
    assert "/" not in safe_name(source)


@pytest.mark.parametrize(
    "source",
    [
        "hf://org/repo/../../x",
        "hf://org/repo/a/../../x.pt",
        "hf://org/repo//x.pt",
        "hf://org/repo",
        "hf://org/../x.pt/y",
        "hf://org/repo/x.pt@a b",
        "http:///x",
    ],
)
def test_invalid_addresses_are_refused(source: str) -> None:
    with pytest.raises(UsageError, match="is not of the form|inside the repository|not an address"):
        canonical_source(source)


def test_pages_of_the_hub_are_understood() -> None:
    page = "https://huggingface.co/Alethia/BigCodec/blob/main/bigcodec.pt"
    assert canonical_source(page) == "hf://Alethia/BigCodec/bigcodec.pt@main"
    resolved = "https://huggingface.co/a/b/resolve/v1.0/dir/c.pt?download=true"
    assert canonical_source(resolved) == "hf://a/b/dir/c.pt@v1.0"
    assert canonical_source("https://example.org/x.pt") == "https://example.org/x.pt"


def test_missing_package_names_the_extra(
    serving: Serve, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("huggingface_hub", "pooch"):
        monkeypatch.setitem(sys.modules, package, None)
    with serving(), pytest.raises(DownloadError, match=r"pip install 'codectool\[hub\]'"):
        models.pull("micro")


def test_added_address_is_downloaded_and_named(serving: Serve, kind: str, own_home: Path) -> None:
    with serving() as server:
        source = "hf://org/repo/x.pt" if kind == "hub" else f"{server.url}/x.pt"
        registry.forget("micro")
        entry = models.add(source, license="MIT", sha256=SHA256.upper())
        assert entry.name == f"bigcodec-{FINGERPRINT}"
        assert (entry.license, entry.source, entry.sha256) == ("MIT", source, SHA256)
        assert entry.downloaded
        path = entry.locate()
        assert models.add(source) == entry  # known already
        assert models.remove(entry.name) == path
        assert not path.exists()
        assert not path.resolve().exists()
        with pytest.raises(DownloadError, match="its SHA-256 is"):
            models.add(source, "other", sha256="0" * 64)
        assert registry.named("other") is None
    assert leftovers(own_home) == []


def test_a_library_error_is_no_bug() -> None:
    assert isinstance(download._failed("x", ValueError("a\nb")), CheckpointError)
    assert "\n" not in str(download._failed("x", ValueError("a\nb")))


def start_pull(home: Path, server: WeightServer, *arguments: str, **variables: str) -> Any:
    """Start `codectool models pull micro` in another process, with the Hub at the server."""
    environment = {**os.environ, "CODECTOOL_HOME": str(home), "HF_HOME": str(home / "hf")}
    environment |= {"HF_ENDPOINT": server.url, **variables}
    return subprocess.Popen(
        [sys.executable, "-m", "codectool", "models", "pull", "micro", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_and_variables_of_the_environment(own_home: Path) -> None:
    with serve(CONTENT) as server:
        registry.record("micro", family="bigcodec", source="hf://org/repo/x.pt@v1")
        offline = start_pull(own_home, server, HF_HUB_OFFLINE="1")
        _, err = offline.communicate(timeout=120)
        assert offline.returncode == 2
        assert err.count("\n") == 1
        assert "HF_HUB_OFFLINE is set" in err
        assert server.requests == []
        pair = [start_pull(own_home, server, HF_TOKEN="hf_secret") for _ in range(2)]
        printed = [process.communicate(timeout=120) for process in pair]
        assert [process.returncode for process in pair] == [0, 0], printed
        assert printed[0] == printed[1]
        assert printed[0][1] == ""
        assert server.ranges() == [None]
        assert server.requests[0][1] == "/org/repo/resolve/v1/x.pt"
        assert server.tokens == {"Bearer hf_secret"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_download_leaves_nothing_in_the_way(own_home: Path, number: int) -> None:
    with serve(CONTENT, "stall") as server:
        source = f"{server.url}/x.pt"
        registry.record("micro", family="bigcodec", source=source)
        process = start_pull(own_home, server)
        deadline = time.monotonic() + 60
        while not server.ranges() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == (130 if number == signal.SIGINT else -number)
        assert (leftovers(own_home) == []) == (number == signal.SIGINT)
        assert registry.named("micro").find() is None  # type: ignore[union-attr]
        server.behavior = "ok"
        models.pull("micro")
    assert leftovers(own_home) == ["x.pt"]
