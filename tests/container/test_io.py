"""`codectool.write` and `codectool.read`: paths, file objects, links and pipes."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import codectool
from codectool.codec import Codec
from codectool.container import write
from codectool.tokens import Tokens
from tests.signals import speechlike


def stored(tokens: Tokens) -> bytes:
    file = io.BytesIO()
    write(file, tokens)
    return file.getvalue()


def test_write_replaces_files_and_keeps_links_and_pipes(
    codecs: dict[str, Codec], tmp_path: Path
) -> None:
    tokens = codecs["hac"].encode(speechlike(0.1, 24000), 24000)
    link, real = tmp_path / "link.hcd", tmp_path / "real.hcd"
    real.write_bytes(b"old")
    link.symlink_to(real)
    codectool.write(link, tokens)
    assert link.is_symlink()
    assert real.read_bytes() == stored(tokens)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(pipe.read_bytes)
        codectool.write(pipe, tokens)
        assert reading.result(10) == stored(tokens)
    assert pipe.is_fifo()


def test_write_and_read_take_paths_and_files(codec: Codec, tmp_path: Path) -> None:
    tokens = codec.encode(speechlike(0.5, 22050, 2), 22050, tags={"speaker": "p253"})
    path = tmp_path / "x.hcd"
    codectool.write(path, tokens, tags={"title": "Grüße"})
    memory = io.BytesIO()
    codectool.write(memory, tokens, {"title": "Grüße"})
    assert path.read_bytes() == memory.getvalue()
    memory.seek(0)
    for source in (path, str(path), memory):
        found = codectool.read(source)
        np.testing.assert_array_equal(found.codes, tokens.codes)
        assert found.tags == {"speaker": "p253", "title": "Grüße"}
        assert found.layout == tokens.layout
        assert found.segment_frames == tokens.segment_frames
        np.testing.assert_array_equal(codec.decode(found), codec.decode(tokens))
    assert list(tmp_path.iterdir()) == [path]
