"""Exponential moving average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from codectool.training.average import WeightAverage


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("statistic", torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def move(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.statistic.fill_(-value)
            self.count += 1


def test_average_of_first_steps_matches_reference() -> None:
    """The decay is (1 + n) / (10 + n) until that is above the given decay."""
    model = Model()
    average = WeightAverage(model, 0.15)
    expected = 0.0
    for step, value in enumerate([5.0, -1.0, 2.0]):
        model.move(value)
        average.update()
        decay = (0.1, 2 / 11, 3 / 12)[step]
        expected = min(decay, 0.15) * expected + (1 - min(decay, 0.15)) * value
    torch.testing.assert_close(average.tensors["weight"], torch.full((3,), expected))
    torch.testing.assert_close(average.tensors["statistic"], torch.tensor(-expected))
    assert "count" not in average.tensors


def test_applied_average_is_undone_exactly() -> None:
    """Bit for bit, also after an error."""
    model = Model()
    average = WeightAverage(model, 0.9)
    model.move(1 / 3)
    average.update()
    held = model.weight
    now = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mean = {name: tensor.clone() for name, tensor in average.tensors.items()}

    def use() -> None:
        with average.applied():
            assert model.weight is held
            assert torch.equal(model.weight, mean["weight"])
            assert torch.equal(model.statistic, mean["statistic"])
            assert model.count == 1
            raise KeyError

    with pytest.raises(KeyError):
        use()
    assert all(torch.equal(tensor, now[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, mean[name]) for name, tensor in average.tensors.items())
    model.move(7.0)
    average.update()
    assert average.tensors["weight"][0] > 5, "it still follows the model"


def test_state_restores_the_average() -> None:
    model = Model()
    average = WeightAverage(model, 0.9)
    for value in (1.0, 2.0):
        model.move(value)
        average.update()
    other = WeightAverage(model, 0.9)
    other.load_state(**average.state())  # type: ignore[arg-type]
    model.move(4.0)
    average.update()
    other.update()
    assert other.count == average.count == 3
    assert torch.equal(other.tensors["weight"], average.tensors["weight"])
    assert not torch.equal(other.tensors["weight"], model.weight)
