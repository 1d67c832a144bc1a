"""Signals of different lengths side by side through a causal stack.

Letters used in shapes: B batch, T frames, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from codectool.codecs.hac.blocks import Stack

BATCH = 64  # signals side by side: more would cost memory and gain little


def run_ragged(stack: Stack, signals: Sequence[Tensor], block: int) -> list[Tensor]:
    """Run each signal from its start, block by block, the last block filled up with zeros.

    Nothing flows back from the filling, since the stack is causal, nor from one signal to another.
    The longest come first, so that in each block those that go on are the front of the batch.

    Args:
        stack: folded.
        signals: ``(T_i, C)``, none of them empty.
        block: input frames per block.

    Returns:
        ``(T_i * rate, C')`` for each, ``rate`` being output frames per input frame.
    """
    order = sorted(range(len(signals)), key=lambda index: -len(signals[index]))
    made: dict[int, Tensor] = {}
    for first in range(0, len(order), BATCH):
        group = order[first : first + BATCH]
        made |= zip(group, _run_group(stack, [signals[i] for i in group], block), strict=True)
    return [made[index] for index in range(len(signals))]


def _run_group(stack: Stack, signals: list[Tensor], block: int) -> list[Tensor]:
    """As `run_ragged`, for signals that are sorted, the longest first."""
    padded = pad_sequence(signals, batch_first=True)
    padded = F.pad(padded, (0, 0, 0, -padded.shape[1] % block))
    state = stack.start(len(signals), padded.device)
    parts: list[list[Tensor]] = [[] for _ in signals]
    for start in range(0, padded.shape[1], block):
        going = sum(len(signal) > start for signal in signals)
        piece = padded[:going, start : start + block]
        y, state = stack(piece, [end[:going].clone() for end in state])
        for part, new in zip(parts[:going], y, strict=True):
            part.append(new)
    return [
        torch.cat(part)[: len(signal) * len(part[0]) // block]
        for part, signal in zip(parts, signals, strict=True)
    ]
