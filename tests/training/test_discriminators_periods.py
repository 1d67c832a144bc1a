from itertools import pairwise

import numpy as np
import pytest
import torch

from codectool.training.discriminators.periods import Fold, MultiPeriodDiscriminator


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sizes(family):
    return [sum(weight.numel() for weight in member.parameters()) for member in family.members]


@pytest.mark.parametrize(
    ("length", "period", "rows"),
    [
        (6, 3, [[0, 1, 2], [3, 4, 5]]),
        (7, 3, [[0, 1, 2], [3, 4, 5], [6, 5, 4]]),
        (3, 5, [[0, 1, 2, 1, 0]]),
        (2, 3, [[0, 1, 0]]),
        (2, 5, [[0, 1, 1, 1, 1]]),  # too short to mirror three samples
        (1, 3, [[0, 0, 0]]),
    ],
)
def test_fold(length, period, rows):
    wave = torch.arange(float(length)).reshape(1, 1, -1)
    assert Fold(period)(wave).squeeze(3).tolist() == [rows]


def test_a_periodic_wave_has_equal_rows():
    pulse = noise(1, 1, 7)
    folded = Fold(7)(pulse.repeat(1, 1, 20))
    assert torch.equal(folded, pulse.reshape(1, 1, 7, 1).expand(1, 20, 7, 1))


def test_shapes_of_bigcodecs_discriminator():
    family = MultiPeriodDiscriminator((2, 3, 5, 7, 11), 16, 4, 512)
    judgements = family(noise(1, 1, 1000))
    # rows: 1000 / p rounded up, then thirds rounded up, then the same; the last layer adds one
    rows = {
        2: (167, 56, 19, 7, 7),
        3: (112, 38, 13, 5, 5),
        5: (67, 23, 8, 3, 3),
        7: (48, 16, 6, 2, 2),
        11: (31, 11, 4, 2, 2),
    }
    for judgement, (period, lengths) in zip(judgements, rows.items(), strict=True):
        widths = (16, 64, 256, 512, 512)
        expected = [(1, n, period, c) for n, c in zip(lengths, widths, strict=True)]
        assert [tuple(feature.shape) for feature in judgement.features] == expected
        assert judgement.logits.shape == (1, (lengths[-1] + 1) * period)


@pytest.mark.parametrize("length", [1, 2, 10, 11, 12])
def test_short_waves(length):
    judgements = MultiPeriodDiscriminator((2, 11), 4, 2, 8)(noise(1, 1, length))
    assert [j.logits.shape[1] for j in judgements] == [2 * 2, 2 * 11]


def test_parameters_of_both_presets():
    def expected(c):
        layers = [(1, c[0], 5), *((a, b, 5) for a, b in pairwise(c)), (c[4], 1, 2)]
        return sum(a * b * kernel + 2 * b for a, b, kernel in layers)  # bias and g of weight norm

    default = MultiPeriodDiscriminator((2, 3, 5, 7, 11), 16, 4, 512)
    assert sizes(default) == [expected((16, 64, 256, 512, 512))] * 5
    debug = MultiPeriodDiscriminator((2, 3, 5), 8, 4, 256)
    assert sizes(debug) == [expected((8, 32, 128, 256, 256))] * 3


def test_first_layer_by_hand():
    torch.manual_seed(0)
    member = MultiPeriodDiscriminator((3,), 4, 2, 8).members[0]
    wave = noise(1, 1, 40)
    state = {name: value.numpy() for name, value in member.hidden[0].state_dict().items()}
    g = state["parametrizations.weight.original0"]
    v = state["parametrizations.weight.original1"]
    weight = g * v / np.sqrt((v**2).sum((1, 2, 3), keepdims=True))
    samples = wave.flatten().tolist()
    samples += [samples[-2], samples[-3]]  # 40 -> 42
    padded = np.pad(np.array(samples).reshape(14, 3), ((2, 2), (0, 0)))
    expected = np.zeros((5, 3, 4))
    for row in range(5):
        for phase in range(3):
            for channel in range(4):
                seen = padded[3 * row : 3 * row + 5, phase]
                expected[row, phase, channel] = seen @ weight[channel, 0, :, 0]
    expected += state["bias"]
    expected = np.where(expected > 0, expected, 0.1 * expected)
    actual = member(wave).features[0][0].detach().numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_phases_of_a_period_never_meet():
    family = MultiPeriodDiscriminator((5,), 4, 2, 8)
    wave = noise(1, 1, 400)
    changed = wave.clone()
    changed[..., 2::5] += 1
    before, after = family(wave)[0], family(changed)[0]
    columns = (after.logits - before.logits).reshape(-1, 5).abs().sum(0)
    assert (columns > 0).tolist() == [False, False, True, False, False]
