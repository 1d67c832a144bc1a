"""`ModelProperties`: what a codec model states about itself, whatever runs it; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Context:
    """Frames around a range that its decoded samples depend on.

    Attributes:
        before: number of frames before a frame that its samples depend on; None for the whole
            segment.
        after: number of frames after it; None for the whole segment.
        start_step: samples are those of the whole signal bit for bit if decoding starts at a
            multiple of this number of frames and stops at a multiple of `stop_step`.
        stop_step: see `start_step`.
    """

    before: int | None
    after: int | None
    start_step: int = 1
    stop_step: int = 1


@dataclass(frozen=True)
class Latency:
    """Look-ahead beyond the end of a frame, in samples at the model's rate.

    None stands for the whole segment.

    Attributes:
        encoder: samples that the token of the frame depends on.
        decoder: samples' worth of tokens that the audio of the frame depends on.
    """

    encoder: int | None
    decoder: int | None


def count_frames(
    num_samples: int, hop_length: int, min_frames: int, min_padding: int, extra_frames: int
) -> int:
    """Return the number of frames that hold a signal; see the attributes of `CodecModel`."""
    if num_samples == 0:
        return 0
    filled = -(-(num_samples + min_padding) // hop_length)
    return max(min_frames, filled) + extra_frames


class ModelProperties(Protocol):
    """Properties of a codec model; see `codectool.codecs.base.CodecModel`."""

    @property
    def family(self) -> str:
        """Name of the codec family, as in ``--model``."""

    @property
    def sample_rate(self) -> int:
        """Sampling rate in Hz."""

    @property
    def hop_length(self) -> int:
        """Samples per frame."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of codes of each codebook."""

    @property
    def min_frames(self) -> int:
        """Shortest input in frames."""

    @property
    def segment_frames(self) -> int | None:
        """Default length of segments in frames; None for a model without segments."""

    @property
    def decode_context(self) -> Context:
        """Frames around a range that its decoded samples depend on."""

    @property
    def cpu_threads(self) -> int | None:
        """Number of CPU threads beyond which the model is not faster; None if there is none."""

    @property
    def faster_in_batches(self) -> bool:
        """Whether a CPU computes a batch of signals faster than one by one."""

    @property
    def hyper_parameters(self) -> Mapping[str, Any]:
        """The config as JSON values."""

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames that hold ``num_samples`` at the model's rate."""

    def reference_frames(self, num_samples: int) -> int:
        """Return the number of frames that the reference implementation has for a signal."""
