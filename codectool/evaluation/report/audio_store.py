"""Where the page finds its sounds and pictures: within itself, or in a folder beside it."""

from __future__ import annotations

import base64
import re
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import BinaryIO
from urllib.parse import quote

from codectool.errors import UsageError
from codectool.evaluation.report.audio import Sound
from codectool.files import temporary_path

OURS = re.compile(r"\d+-\d+\.(flac|png)")  # number of the clip, number of the system


class Shelf(ABC):
    """Takes the sounds of all clips in turn.

    Attributes:
        link: of the folder that the page loads from; None where it loads nothing.
        sources: what the page may load from, in the words of a Content-Security-Policy.
    """

    link: str | None = None
    sources = "blob: data:"

    def __enter__(self) -> Shelf:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End, well or not."""
        return None

    @abstractmethod
    def put(self, page: BinaryIO, clip: int, system: int, sound: Sound) -> None:
        """Keep one sound.

        Args:
            page: the page, of which so much is written that blocks of data may follow.
            clip: its number.
            system: 0 is the reference.
            sound: what to keep.
        """


class Within(Shelf):
    """Base64 in blocks that no browser looks into before a script asks for one of them."""

    def put(self, page: BinaryIO, clip: int, system: int, sound: Sound) -> None:
        """Write two blocks."""
        for kind, data in (("sound", sound.audio), ("image", sound.image)):
            page.write(f'<script type="text/plain" id="{kind}-{clip}-{system}">'.encode())
            page.write(base64.b64encode(data))
            page.write(b"</script>\n")


class Beside(Shelf):
    """A folder named after the page, which is put into its place once it is whole.

    Args:
        page: name of the page.
        overwrite: a folder that an earlier page left may be replaced.

    Raises:
        UsageError: there is a folder of this name, and it may not be replaced or holds other files.
    """

    sources = "blob: data: file: 'self'"  # of a page that is a file, not all take 'self' as such

    def __init__(self, page: Path, overwrite: bool) -> None:
        self._folder = page.resolve().with_name(f"{page.stem}_files")
        self.link = f"./{quote(self._folder.name)}/"
        self._check(overwrite)

    def _check(self, overwrite: bool) -> None:
        if not self._folder.exists():
            return
        if not overwrite:
            raise UsageError(f"{self._folder}: exists; give `--overwrite` to replace it")
        if not self._folder.is_dir() or not all(
            OURS.fullmatch(entry.name) for entry in self._folder.iterdir()
        ):
            raise UsageError(f"{self._folder}: holds other files than a page's; move it away")

    def __enter__(self) -> Shelf:
        """Make a temporary folder."""
        self._part = temporary_path(self._folder)
        self._part.mkdir()
        return self

    def put(self, page: BinaryIO, clip: int, system: int, sound: Sound) -> None:
        """Write two files."""
        name = f"{clip}-{system}"
        (self._part / f"{name}.flac").write_bytes(sound.audio)
        (self._part / f"{name}.png").write_bytes(sound.image)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the folder into its place, or leave the one that was there."""
        if kind is None:
            if self._folder.exists():
                shutil.rmtree(self._folder)
            self._part.rename(self._folder)
        else:
            shutil.rmtree(self._part, ignore_errors=True)
