"""Atomic output: permissions, failures, names of temporary files."""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from codectool.errors import UsageError
from codectool.evaluation.report.audio import ClipAudio
from codectool.evaluation.report.audio_store import SidecarAudio
from codectool.files import (
    ACCESS_LIST,
    atomic_output,
    check_writable,
    temporary_path,
    temporary_stem,
    write_all,
)
from codectool.pipeline.journal import TEMPORARY_NAME

UMASK = """
import os, sys
from pathlib import Path
from codectool.files import atomic_output
os.umask(int(sys.argv[2], 8))
with atomic_output(Path(sys.argv[1])) as file:
    file.write(b"x")
"""


@pytest.mark.parametrize(("umask", "mode"), [("022", 0o644), ("077", 0o600), ("027", 0o640)])
def test_atomic_output_has_the_mode_that_the_umask_gives(
    tmp_path: Path, umask: str, mode: int
) -> None:
    path = tmp_path / "a"
    # In a process of its own, because the umask holds for all threads of a process.
    subprocess.run([sys.executable, "-c", UMASK, str(path), umask], check=True, timeout=60)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o027])
def test_audio_folder_of_the_report_has_the_mode_that_the_umask_gives(
    tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        with SidecarAudio(tmp_path / "page.html", overwrite=False) as store:
            store.add(io.BytesIO(), 0, 0, ClipAudio(memoryview(b"audio"), b"image"))
    finally:
        os.umask(before)
    folder = tmp_path / "page_files"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o666 & ~umask}


def test_replaced_audio_folder_of_the_report_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "page_files"
    folder.mkdir()
    folder.chmod(0o750)
    with SidecarAudio(tmp_path / "page.html", overwrite=True) as store:
        store.add(io.BytesIO(), 0, 0, ClipAudio(memoryview(b"audio"), b"image"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_atomic_output_never_sets_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("umask was called"))
    with atomic_output(tmp_path / "a") as file:
        file.write(b"x")


def test_atomic_output_in_two_threads_writes_whole_files(tmp_path: Path) -> None:
    both_open = threading.Barrier(2, timeout=30)

    def write(letter: bytes) -> None:
        for _ in range(20):
            with atomic_output(tmp_path / "a", overwrite=True) as file:
                both_open.wait()
                file.write(1000 * letter)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"x", b"y")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() in (b"x" * 1000, b"y" * 1000)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_failed_output_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_output(path, overwrite=True) as file:
            file.write(b"new, but only the first half")
            file.flush()
            assert path.read_bytes() == b"old"
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_error_without_a_file_name_gets_the_final_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as caught, atomic_output(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a")


def test_output_that_cannot_be_created_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    for path, message in [
        (tmp_path / "a", "give `--overwrite`"),
        (tmp_path, "is a folder; name a file"),
        (tmp_path / "none" / "a", "there is no folder"),
    ]:
        with pytest.raises(UsageError, match=message), atomic_output(path):
            pytest.fail("the file was opened")


def test_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    with atomic_output(tmp_path / "link", overwrite=True) as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


@pytest.mark.parametrize(
    "name", ["clip.hcd", "a" * 255, "ä b\n.wav", "日" * 85, "🎵" * 63, os.fsdecode(b"\xff" * 255)]
)
def test_temporary_path_is_recognized_as_stale(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    temporary = temporary_path(path)
    match = TEMPORARY_NAME.fullmatch(temporary.name)
    assert match
    assert match[1] == temporary_stem(path)
    assert name.startswith(match[1])
    with atomic_output(path) as file:
        file.write(b"x")
    assert os.listdir(tmp_path) == [name]


def test_temporary_path_of_a_utf_8_name_is_utf_8(tmp_path: Path) -> None:
    for length in range(1, 86):
        os.fsencode(temporary_path(tmp_path / ("a" + "日" * length)).name).decode()


def test_name_that_is_too_long_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written .File name too long"):
        check_writable(tmp_path / ("日" * 84 + ".hcd"), overwrite=False)


def test_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    with (
        pytest.raises(UsageError, match="cannot be written .Too many levels of symbolic links"),
        atomic_output(tmp_path / "a"),
    ):
        pytest.fail("the file was opened")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o664, 0o755, 0o604])
def test_replaced_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(mode)
    with atomic_output(path, overwrite=True) as file:
        file.write(b"new")
        file.flush()
        (temporary,) = set(tmp_path.iterdir()) - {path}
        assert stat.S_IMODE(temporary.stat().st_mode) & ~mode == 0  # at no time more access
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", mode)


def test_new_file_is_private_until_it_has_the_mode_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o600)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    with atomic_output(path, overwrite=True):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_replaced_file_keeps_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    os.chown(path, 1234, 4321)
    path.chmod(0o664)
    with atomic_output(path, overwrite=True):
        pass
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 4321, 0o664)
    # not allowed: another group gets the access of all others

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    with atomic_output(path, overwrite=True):
        pass
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o644)


def access_list(*entries: tuple[int, int, int]) -> bytes:
    """Return the value of the attribute: tag, permissions and ID of each entry."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_replaced_file_keeps_its_access_list(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    none = 0xFFFFFFFF
    # the owner and user 1234 may read; the group may not, although the mode says so
    value = access_list((1, 6, none), (2, 4, 1234), (4, 0, none), (16, 4, none), (32, 0, none))
    try:
        os.setxattr(path, ACCESS_LIST, value)
    except (AttributeError, OSError) as error:
        pytest.skip(f"no access lists here: {error}")
    for _ in range(2):
        with atomic_output(path, overwrite=True):
            pass
        assert os.getxattr(path, ACCESS_LIST) == value
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    # a folder that gives user 1234 access to new files
    os.setxattr(tmp_path, "system.posix_acl_default", value)
    os.removexattr(path, ACCESS_LIST)
    path.chmod(0o640)
    with atomic_output(path, overwrite=True):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(path, ACCESS_LIST)


def test_write_all_repeats_short_writes() -> None:
    class Short(io.BytesIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            return super().write(bytes(data[:3]))

    file = Short()
    write_all(file, b"0123456789")
    assert file.getvalue() == b"0123456789"


def test_write_all_refuses_a_full_pipe_that_does_not_block() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with (
        os.fdopen(reading, "rb"),
        os.fdopen(writing, "wb", buffering=0) as pipe,
        pytest.raises(BlockingIOError),
    ):
        write_all(pipe, bytes(1 << 22))
