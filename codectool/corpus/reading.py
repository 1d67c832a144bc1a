"""Read `.hcd` files as records, in several processes ahead of the one that writes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from codectool.container import read
from codectool.cores import cores
from codectool.corpus.layouts import SequenceLayout
from codectool.corpus.records import Record, Value
from codectool.errors import ContainerError, TokensError
from codectool.messages import encodable
from codectool.tokens import TokenLayout

SUFFIX = ".hcd"
FILES_PER_TASK = 64
TASKS_AHEAD = 4  # per process
MIN_FILES_PER_WORKER = 1000  # a process takes about 0.5 s to start
MAX_DEFAULT_WORKERS = 8
MAX_DIFFERENCE = 0.1  # of durations, in seconds; rounded ones differ less


@dataclass(frozen=True)
class Source:
    """A `.hcd` file: name relative to its folder, size, modification time, row of the manifest."""

    name: str
    size: int
    mtime_ns: int
    row: Mapping[str, Value] | None = None

    @property
    def id(self) -> str:
        """Return the id of the row, or else the name without suffix."""
        listed = None if self.row is None else self.row.get("id")
        return str(encodable(listed or self.name[: -len(SUFFIX)]))


@dataclass(frozen=True)
class Failure:
    """A file that cannot be exported, and the reason in one line without its name."""

    name: str
    reason: str


@dataclass(frozen=True)
class Expected:
    """What all files of an export have in common, and the file that says so.

    ``token_names`` are all fingerprints by which files may name the same tokens.
    """

    name: str
    layout: TokenLayout
    fingerprint: str
    token_names: frozenset[str]

    def growth(self, dtype: npt.DTypeLike, metadata: Mapping[str, Any]) -> float:
        """Return bytes of ids per byte of packed tokens."""
        ids = float(metadata["ids_per_frame"])
        return 8 * np.dtype(dtype).itemsize * ids / self.layout.bits_per_frame


@dataclass(frozen=True)
class Readable:
    """The records of a file, one per channel, and what is odd about them."""

    records: Sequence[Record]
    warning: str | None = None


Result: TypeAlias = Readable | Failure


@contextmanager
def read_sources(
    folder: Path,
    groups: Sequence[Sequence[Source]],
    expected: Expected,
    layout: SequenceLayout,
    workers: int | None = None,
) -> Iterator[Iterator[list[Result]]]:
    """Yield an iterator of lists of results, in order; no list has files of two groups."""
    tasks = (
        group[first : first + FILES_PER_TASK]
        for group in groups
        for first in range(0, len(group), FILES_PER_TASK)
    )
    num_files = sum(map(len, groups))
    if workers is None:
        workers = min(cores(), MAX_DEFAULT_WORKERS, num_files // MIN_FILES_PER_WORKER)
    function = partial(read_group, folder, expected, layout)
    if workers < 2:
        yield map(function, tasks)
        return
    # not forked: this process may have threads
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker) as pool:
        try:
            yield _run(pool, function, tasks, TASKS_AHEAD * workers)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _run(
    pool: ProcessPoolExecutor,
    function: Callable[[Sequence[Source]], list[Result]],
    tasks: Iterator[Sequence[Source]],
    ahead: int,
) -> Iterator[list[Result]]:
    pending: deque[Future[list[Result]]] = deque()
    while True:
        for task in islice(tasks, ahead - len(pending)):
            pending.append(pool.submit(function, task))
        if not pending:
            return
        yield pending.popleft().result()


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def read_group(
    folder: Path, expected: Expected, layout: SequenceLayout, sources: Sequence[Source]
) -> list[Result]:
    """Return the records of each file, or why it cannot be exported.

    Raises:
        TokensError: a file was made with other weights than the others.
    """
    results: list[Result] = []
    for source in sources:
        path = folder / source.name
        try:
            results.append(_read_records(path, source, expected, layout))
        except (ContainerError, OSError) as error:
            reason = str(error).removeprefix(f"{path}: ")
            results.append(Failure(source.name, reason))
    return results


def _read_records(
    path: Path, source: Source, expected: Expected, layout: SequenceLayout
) -> Readable:
    tokens = read(path)
    if tokens.layout != expected.layout or tokens.fingerprint not in expected.token_names:
        raise TokensError(
            f"{path}: holds {tokens.layout.family} tokens {tokens.fingerprint} "
            f"({'+'.join(map(str, tokens.layout.bits_per_codebook))} bits), but {expected.name} "
            f"holds {expected.layout.family} tokens {expected.fingerprint} "
            f"({'+'.join(map(str, expected.layout.bits_per_codebook))} bits): the ids of an export "
            "must mean the same; export them apart, with `--files-from`"
        )
    columns = dict(source.row or {})
    columns.pop("id", None)
    listed = columns.pop("duration", None)
    warning = None
    if isinstance(listed, int | float) and abs(listed - tokens.duration) > MAX_DIFFERENCE:
        warning = f"{source.name}: {tokens.duration:.2f} s, in the manifest {listed:.2f} s"
    records = [
        Record(
            id=source.id,
            tokens=layout.to_ids(codes),
            num_samples=tokens.num_samples,
            sample_rate=tokens.sample_rate,
            channel=channel,
            num_channels=tokens.num_channels,
            segment_frames=tokens.segment_frames,
            gain_db=tokens.gain_db,
            tags=tokens.tags,
            columns=columns,
        )
        for channel, codes in enumerate(tokens.codes)
    ]
    return Readable(records, warning)
