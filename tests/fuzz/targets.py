"""What the fuzzers call: readers of untrusted input, which may raise only errors of codectool.

Each target takes the bytes of an input. `tests/corpus` has a folder of inputs for each, which
`tests/attacks/test_corpus.py` runs without a fuzzer.
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

from codectool.audio.discovery import parse_list
from codectool.audio.source import open_audio
from codectool.checkpoints.load import load_model
from codectool.checkpoints.pickles import read_torch
from codectool.codecs.bigcodec.config import BigCodecConfig
from codectool.codecs.hac.config import parse_config
from codectool.codecs.supercodec.config import SuperCodecConfig
from codectool.container import Reader
from codectool.errors import CodectoolError
from codectool.schema import parse_json
from codectool.training.config import override, parse
from tests.container.hcd_samples import Pipe
from tests.fuzz.mutants import compare

MAX_SAMPLES = 1 << 22  # read from one audio file: compressed silence is large
MAX_MESSAGE = 1200  # characters; a message may quote several texts of 200


class PipeOf(Pipe):
    """A pipe in chunks of an odd size."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data, 4093)


def refuse(read: Callable[[], object]) -> None:
    """Call a reader; a `CodectoolError` with a short message is a right answer."""
    message = ""
    try:
        read()
    except CodectoolError as error:
        message = str(error)
    assert len(message) < MAX_MESSAGE, f"a message of {len(message)} characters"


def container(data: bytes) -> None:
    """Read a `.hcd` file in every way, and compare with the independent reader."""
    if len(data) < 1 << 16:
        compare(data)
    for opened in (io.BytesIO, PipeOf):
        refuse(lambda opened=opened: Reader(opened(data), "x.hcd").read_all())  # type: ignore[misc]
        refuse(
            lambda opened=opened: list(  # type: ignore[misc]
                Reader(opened(data), "x.hcd", damaged="keep").blocks()
            )
        )
    refuse(lambda: Reader(io.BytesIO(data), "x.hcd", damaged="keep").scan())
    refuse(lambda: Reader(io.BytesIO(data), "x.hcd").read_frames(3, 1 << 40))


def pickle(data: bytes) -> None:
    """Read a pickle in an archive with two storages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", bytes(range(64)))
        archive.writestr("archive/data/1", bytes(256))
    size = file.tell()
    file.seek(0)
    refuse(lambda: read_torch(file, size))


def checkpoint(data: bytes) -> None:
    """Load a file of any kind as weights."""
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder:
        path = Path(folder) / "x"
        path.write_bytes(data)
        refuse(lambda: load_model(path))


def config(data: bytes) -> None:
    """Read JSON as the config of every kind of model and of a training."""

    def read(parse_values: Callable[..., object]) -> Callable[[], object]:
        return lambda: parse_values(parse_json(data, "x.json"))

    for parse_values in (
        parse_config,
        BigCodecConfig.from_published,
        SuperCodecConfig.from_published,
        parse,
    ):
        refuse(read(parse_values))
    text = data.decode("utf-8", "replace")
    refuse(lambda: parse(override({"family": "hac", "training": {"losses": []}}, [text])))


def audio(data: bytes) -> None:
    """Read audio from a seekable file and from a pipe."""

    def read(file: io.IOBase) -> None:
        taken = 0
        with open_audio(file, "x") as source:  # type: ignore[arg-type]
            for chunk in source.chunks():
                taken += chunk.shape[1]
                if taken > MAX_SAMPLES:
                    return

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refuse(lambda: read(io.BytesIO(data)))
        refuse(lambda: read(PipeOf(data)))


def filelist(data: bytes) -> None:
    """Read a list of files and a manifest."""
    folder = Path("/nowhere")
    refuse(lambda: parse_list(io.BytesIO(data), "x.lst", [folder]))
    refuse(lambda: parse_list(io.BytesIO(data), "x.jsonl", [folder], lengths=False))
    refuse(lambda: parse_list(io.BytesIO(data), "x.jsonl", [folder]))


def _fast_folder() -> str | None:
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (container, pickle, checkpoint, config, audio, filelist)
}
