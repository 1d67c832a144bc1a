"""k-means by the published code's numbers and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codectool.nn.quantize import cluster_sums, draw_rows, k_means
from tests.conftest import shared


@pytest.mark.parametrize("iterations", [1, 10])
def test_published_means(iterations: int) -> None:
    with np.load(shared("golden", "supercodec_layers.npz")) as golden:
        rows = torch.from_numpy(golden["kmeans/data"][0])
        means, counts = k_means(rows, torch.from_numpy(golden["kmeans/start"][0]), iterations)
        np.testing.assert_allclose(
            means.numpy(), golden[f"kmeans/means_{iterations}"][0], atol=1e-6
        )
        np.testing.assert_array_equal(counts.numpy(), golden[f"kmeans/bins_{iterations}"][0])


def test_an_empty_cluster_keeps_its_mean() -> None:
    rows = torch.tensor([[0.0], [1.0], [9.0], [11.0]])
    means, counts = k_means(rows, torch.tensor([[0.0], [10.0], [500.0]]))
    assert means.flatten().tolist() == [0.5, 10.0, 500.0]
    assert counts.tolist() == [2, 2, 0]


def test_sums_of_clusters() -> None:
    rows = torch.arange(10.0).view(5, 2)
    sums, counts = cluster_sums(rows, torch.tensor([2, 0, 2, 2, 0]), 4)
    assert sums.tolist() == [[10, 12], [0, 0], [10, 13], [0, 0]]
    assert counts.tolist() == [2, 0, 3, 0]


@pytest.mark.parametrize("count", [50, 100])
def test_rows_are_drawn_once_while_there_are_enough(count: int) -> None:
    torch.manual_seed(0)
    rows = torch.arange(100.0).view(100, 1)
    drawn = draw_rows(rows, count).flatten().tolist()
    assert len(set(drawn)) == len(drawn) == count
    assert set(drawn) <= set(range(100))
    assert drawn != sorted(drawn)


def test_more_rows_than_there_are_repeat_some() -> None:
    torch.manual_seed(0)
    drawn = draw_rows(torch.arange(100.0).view(100, 1), 300).flatten().tolist()
    assert len(drawn) == 300
    assert 80 < len(set(drawn)) <= 100
