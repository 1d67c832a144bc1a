"""Packed convolutions and products against PyTorch's, with and without oneDNN."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.nn import packed
from codectool.nn.packed import PackedConv, PackedLinear, PackedLSTM, round_length


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(params=["packed", "plain"], autouse=True)
def _form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(packed, "can_use_packed", lambda x: False)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [6, 40, 300])  # the short ones are padded
@pytest.mark.parametrize("channels", [16, 400])
def test_packed_conv_matches_conv1d_and_adds_in_place(channels: int, length: int) -> None:
    x, weight, bias = noise(1, length, channels), noise(8, channels, 3), noise(8, seed=1)
    conv = PackedConv(weight, bias, dilation=2)
    expected = F.conv1d(x.mT, weight, bias, dilation=2).mT
    torch.testing.assert_close(conv(x), expected, atol=1e-4, rtol=1e-5)
    memory = noise(1, length, 8, seed=2)
    y = memory[:, 3:-1]  # a part of another tensor, like the rows of a buffer
    before = memory.clone()
    conv.add_to(y, x)
    torch.testing.assert_close(y, before[:, 3:-1] + expected, atol=1e-4, rtol=1e-5)
    assert torch.equal(memory[:, :3], before[:, :3])
    assert torch.equal(memory[:, -1:], before[:, -1:])


def test_packed_linear_matches_linear() -> None:
    x, weight, bias = noise(30, 16), noise(8, 16), noise(8, seed=1)
    torch.testing.assert_close(PackedLinear(weight, bias)(x), F.linear(x, weight, bias))


@pytest.mark.parametrize("time", [1, 7, 30])  # products of 3, 21 and 90 rows
def test_packed_lstm_matches_lstm(time: int) -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(16, 16, 2, batch_first=True)
    x, state = noise(3, time, 16), (noise(2, 3, 16, seed=1), noise(2, 3, 16, seed=2))
    expected, after = lstm(x, state)
    output, (h, c) = PackedLSTM(lstm)(x, state)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close((h, c), after)


def test_round_length_adds_little_and_gives_few_lengths() -> None:
    rounded = [round_length(length) for length in range(1, 8001)]
    assert all(0 <= n - length < max(50, n / 5) for length, n in enumerate(rounded, start=1))
    assert len(set(rounded)) == 8 + 4 * 4 + 1
    assert {400, 500, 1000, 2000, 4000, 8000} < set(rounded)  # full tiles
