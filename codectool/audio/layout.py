"""How libsndfile has to read a file to return all of its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codectool.audio.view import Span


@dataclass(frozen=True)
class Part:
    """A stream in a file.

    Attributes:
        spans: what libsndfile reads (see `View`).
        num_samples: samples per channel; None if libsndfile knows it.
        preroll: samples to decode before the first one of a range, because their decoding depends
            on what comes before.
        last_seek: last sample that libsndfile finds; later ones are read from there.
        begin_at: returns what libsndfile reads instead from a sample on, and the first sample that
            it then decodes; None if libsndfile can seek.
        may_be_mpeg: whether libmpg123 may print messages about it.
    """

    spans: Sequence[Span]
    num_samples: int | None = None
    preroll: int = 0
    last_seek: int | None = None
    begin_at: Callable[[int], tuple[Sequence[Span], int]] | None = None
    may_be_mpeg: bool = False


@dataclass(frozen=True)
class Layout:
    """The streams in a file, which follow each other, and what is wrong with the file.

    Attributes:
        parts: the streams, at least one.
        warnings: faults, as sentences that continue the name of the file.
        promised: samples per channel that the header states, if more than there are.
        promised_bytes: size of the samples that the header states, if it is more than there is,
            and the size of what there is.
    """

    parts: Sequence[Part]
    warnings: Sequence[str] = ()
    promised: int | None = None
    promised_bytes: tuple[int, int] | None = None
