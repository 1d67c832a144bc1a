"""The alias-free activation on a signal in pieces; see `alias_free` for what it computes.

Letters used in shapes: B batch, C channels, T time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from codectool.nn.alias_free import REACH, TAPS, AliasFreeSnake
from codectool.nn.chains import Chain
from codectool.nn.delay import Flow, Growing, Layer, Sliding
from codectool.nn.packed import PackedConv

BLOCK = 16  # input columns that one matrix doubles


def alias_free(module: AliasFreeSnake, rate: int) -> Layer:
    """The activation at ``rate`` columns per frame."""
    return Chain([_Double(module, rate), _Snake(module), _Halve(module, 2 * rate)])


class _Double(Growing):
    """Twice the rate. The filter is a banded matrix, applied to blocks of columns.

    All channels have the same taps: so this is a matrix product over time, not a convolution of
    each channel on its own, which is several times slower. The columns u[2t - 1] and u[2t] come
    from the same six of the input.
    """

    def __init__(self, module: AliasFreeSnake, rate: int) -> None:
        super().__init__(TAPS // 2, REACH, REACH, edge=True, rate=rate, times=2, cut=1)
        self._module = module
        self._matrix: Tensor | None = None

    @property
    def out_channels(self) -> int:
        return len(self._module.alpha)

    def apply(self, columns: Tensor) -> Tensor:
        if self._matrix is None:
            self._matrix = self._make_matrix()
        count = columns.shape[1] - self.span + 1
        whole = count // BLOCK * BLOCK
        parts = []
        if whole:
            blocks = columns.unfold(1, self._matrix.shape[1], BLOCK).mT
            parts.append((self._matrix @ blocks).flatten(1, 2))
        if count > whole:
            rest = count - whole
            matrix = self._matrix[: 2 * rest, : rest + self.span - 1]
            parts.append(matrix @ columns[:, whole:])
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def _make_matrix(self) -> Tensor:
        even, odd = self._module.up_kernel()[:, 0]
        taps = torch.stack((odd[1:], even[:-1]))
        matrix = taps.new_zeros(BLOCK, 2, BLOCK + self.span - 1)
        for column in range(BLOCK):
            matrix[column, :, column : column + self.span] = taps
        return matrix.flatten(0, 1)


class _Snake(Layer):
    """SnakeBeta, column by column, in place."""

    def __init__(self, module: AliasFreeSnake) -> None:
        self._module = module
        self._factors: tuple[Tensor, Tensor] | None = None

    def push(self, x: Tensor, flow: Flow, last: bool) -> Tensor:
        if self._factors is None or self._factors[0].dtype != x.dtype:
            alpha, inverse_beta = self._module.factors()
            self._factors = alpha.to(x.dtype), inverse_beta.to(x.dtype)
        alpha, inverse_beta = self._factors
        sine = (x * alpha).sin_()
        return x.addcmul_(sine.mul_(sine), inverse_beta)

    def needs(self, columns: int) -> int:
        return columns


class _Halve(Sliding):
    """Half the rate again."""

    def __init__(self, module: AliasFreeSnake, rate: int) -> None:
        super().__init__(TAPS, 2, TAPS // 2 - 1, TAPS // 2 - 1, edge=True, rate=rate)
        self._module = module
        self._filter: PackedConv | None = None

    @property
    def out_channels(self) -> int:
        return len(self._module.alpha)

    def apply(self, columns: Tensor) -> Tensor:
        if self._filter is None:
            taps = self._module.down_taps.expand(self.out_channels, 1, TAPS)
            self._filter = PackedConv(taps, None, stride=2, groups=self.out_channels)
        return self._filter(columns)
