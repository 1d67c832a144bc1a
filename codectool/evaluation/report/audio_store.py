"""Where the report keeps audio and spectrograms: inside the page, or in a folder next to it."""

from __future__ import annotations

import base64
import os
import re
import shutil
from abc import abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from typing_extensions import Self, override

from codectool.errors import UsageError
from codectool.evaluation.report.audio import ClipAudio
from codectool.files import temporary_path

FILE_NAME = re.compile(r"\d+-\d+\.(flac|png)")  # number of the clip, number of the system


class AudioStore(AbstractContextManager["AudioStore"]):
    """Stores the audio of all clips while it is entered as a context.

    Attributes:
        url: relative URL of the folder that the page loads from; None if audio is embedded.
        sources: sources of images and media in the Content-Security-Policy of the page.
    """

    url: str | None = None
    sources = "blob: data:"

    @abstractmethod
    def add(self, page: BinaryIO, clip: int, system: int, audio: ClipAudio) -> None:
        """Store the audio of one clip in one system.

        Args:
            page: the page, at a position where script elements may follow.
            clip: number of the clip, from 0.
            system: number of the system; 0 is the reference.
            audio: audio and spectrogram.
        """


class EmbeddedAudio(AudioStore):
    """Embeds audio as Base64 in script elements, which browsers do not decode before use."""

    @override
    def __exit__(self, *error: object) -> None:
        pass

    @override
    def add(self, page: BinaryIO, clip: int, system: int, audio: ClipAudio) -> None:
        for kind, data in (("audio", audio.flac), ("spectrogram", audio.png)):
            page.write(f'<script type="text/plain" id="{kind}-{clip}-{system}">'.encode())
            page.write(base64.b64encode(data))
            page.write(b"</script>\n")


class SidecarAudio(AudioStore):
    """Writes audio to the folder ``<stem>_files``, which appears when the page is complete.

    Args:
        page: path of the page.
        overwrite: replace the folder of an earlier page.

    Raises:
        UsageError: the folder exists and must not be replaced, or contains other files.
    """

    sources = "blob: data: file: 'self'"  # for local pages, some browsers do not match 'self'

    def __init__(self, page: Path, overwrite: bool) -> None:
        self._folder = page.resolve().with_name(f"{page.stem}_files")
        self.url = f"./{quote(os.fsencode(self._folder.name))}/"
        if not self._folder.exists():
            return
        if not overwrite:
            raise UsageError(f"{self._folder}: exists; give `--overwrite` to replace it")
        if not self._folder.is_dir() or not all(
            FILE_NAME.fullmatch(entry.name) for entry in self._folder.iterdir()
        ):
            raise UsageError(
                f"{self._folder}: holds other files than the audio of a report; move it away"
            )

    @override
    def __enter__(self) -> Self:
        self._temporary = temporary_path(self._folder)
        self._temporary.mkdir(0o700 if self._folder.exists() else 0o777)
        return self

    @override
    def add(self, page: BinaryIO, clip: int, system: int, audio: ClipAudio) -> None:
        (self._temporary / f"{clip}-{system}.flac").write_bytes(audio.flac)
        (self._temporary / f"{clip}-{system}.png").write_bytes(audio.png)

    @override
    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            return
        if self._folder.exists():
            shutil.copymode(self._folder, self._temporary)
            shutil.rmtree(self._folder)
        self._temporary.rename(self._folder)
