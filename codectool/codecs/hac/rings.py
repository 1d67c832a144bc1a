"""Memory of a stream that is made once and used again for every piece.

Letters used in shapes: T frames of one piece, C channels, K taps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float32]


class Buffer(NamedTuple):
    """One piece of memory under two names: torch multiplies matrices, numpy does the rest.

    Attributes:
        tensor: ``(T, C)``.
        array: the same numbers.
    """

    tensor: Tensor
    array: Array


def as_buffer(tensor: Tensor) -> Buffer:
    """Name the memory of a CPU tensor twice."""
    return Buffer(tensor, tensor.numpy())


class Scratch:
    """Buffers that nobody needs any longer than one step: each name is the same memory for all."""

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def take(self, name: str, frames: int, channels: int) -> Buffer:
        """A buffer ``(T, C)`` of undefined content, shared with all others of the name."""
        size = frames * channels
        memory = self._memory.get(name)
        if memory is None or memory.numel() < size:
            memory = self._memory[name] = torch.empty(size)
        return as_buffer(memory[:size].view(frames, channels))


class Ring:
    """The end of a signal and the piece that follows it, rows of one buffer.

        | reach | piece | piece | ... | piece |

    Pieces are written one after the other, so that each finds the frames before it in place. Only
    after the last one the end of the signal is moved to the front.

    Args:
        reach: frames of the past that are needed.
        frames: frames of a piece.
        channels: of each frame.
    """

    def __init__(self, reach: int, frames: int, channels: int) -> None:
        self.reach = reach
        self.frames = frames
        self.turns = max(1, -(-reach // frames))
        self.turn = 0
        self.rows = torch.zeros(reach + self.turns * frames, channels)
        self.pieces = [
            as_buffer(self.rows[reach + turn * frames :][:frames]) for turn in range(self.turns)
        ]

    @property
    def piece(self) -> Buffer:
        """Where the next piece is written, ``(T, C)``."""
        return self.pieces[self.turn]

    def windows(self, taps: int, dilation: int = 1, stride: int = 1) -> list[Buffer]:
        """For each turn what each output frame sees: views ``(T / stride, K, C)``."""
        channels = self.rows.shape[1]
        size = (self.frames // stride, taps, channels)
        steps = (stride * channels, dilation * channels, 1)
        return [
            as_buffer(self.rows.as_strided(size, steps, turn * self.frames * channels))
            for turn in range(self.turns)
        ]

    def advance(self) -> None:
        """Let the piece be part of the past."""
        self.turn += 1
        if self.turn == self.turns:
            self.rows[: self.reach] = self.rows[self.turns * self.frames :]
            self.turn = 0

    def past(self) -> Tensor:
        """The frames before the next piece, ``(reach, C)``: a view."""
        return self.rows[self.turn * self.frames :][: self.reach]
