from itertools import pairwise

import numpy as np
import pytest
import torch

from codectool.training.discriminators.periods import MultiPeriodConfig, PeriodFold


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(periods, channels=16, factor=4, max_channels=512):
    return MultiPeriodConfig(periods, channels, factor, max_channels).build()


def sizes(discriminator):
    return [sum(weight.numel() for weight in m.parameters()) for m in discriminator.members]


@pytest.mark.parametrize(
    ("length", "period", "rows"),
    [
        (6, 3, [[0, 1, 2], [3, 4, 5]]),
        (7, 3, [[0, 1, 2], [3, 4, 5], [6, 5, 4]]),
        (3, 5, [[0, 1, 2, 1, 0]]),
        (2, 3, [[0, 1, 0]]),
        (2, 5, [[0, 1, 1, 1, 1]]),  # too short to reflect three samples
        (1, 3, [[0, 0, 0]]),
    ],
)
def test_period_fold_worked_examples(length, period, rows):
    wave = torch.arange(float(length)).reshape(1, 1, -1)
    assert PeriodFold(period)(wave).squeeze(3).tolist() == [rows]


def test_fold_of_periodic_wave_has_equal_rows():
    pulse = noise(1, 1, 7)
    folded = PeriodFold(7)(pulse.repeat(1, 1, 20))
    assert torch.equal(folded, pulse.reshape(1, 1, 7, 1).expand(1, 20, 7, 1))


def test_bigcodec_discriminator_has_expected_shapes():
    outputs = build((2, 3, 5, 7, 11))(noise(1, 1, 1000))
    # rows: 1000 / p rounded up, then thirds rounded up, then the same; the last layer adds one
    rows = {
        2: (167, 56, 19, 7, 7),
        3: (112, 38, 13, 5, 5),
        5: (67, 23, 8, 3, 3),
        7: (48, 16, 6, 2, 2),
        11: (31, 11, 4, 2, 2),
    }
    for output, (period, lengths) in zip(outputs, rows.items(), strict=True):
        widths = (16, 64, 256, 512, 512)
        expected = [(1, n, period, c) for n, c in zip(lengths, widths, strict=True)]
        assert [tuple(feature.shape) for feature in output.features] == expected
        assert output.logits.shape == (1, (lengths[-1] + 1) * period)


@pytest.mark.parametrize("length", [1, 2, 10, 11, 12])
def test_short_waves_have_one_row(length):
    outputs = build((2, 11), 4, 2, 8)(noise(1, 1, length))
    assert [output.logits.shape[1] for output in outputs] == [2 * 2, 2 * 11]


def test_number_of_parameters():
    def expected(c):
        layers = [(1, c[0], 5), *((a, b, 5) for a, b in pairwise(c)), (c[4], 1, 2)]
        return sum(a * b * kernel + 2 * b for a, b, kernel in layers)  # bias and g of weight norm

    default = build((2, 3, 5, 7, 11))
    assert sizes(default) == [expected((16, 64, 256, 512, 512))] * 5
    small = build((2, 3, 5), 8, 4, 256)
    assert sizes(small) == [expected((8, 32, 128, 256, 256))] * 3


def test_first_layer_matches_numpy():
    torch.manual_seed(0)
    member = build((3,), 4, 2, 8).members[0]
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


def test_phases_of_a_period_are_independent():
    discriminator = build((5,), 4, 2, 8)
    wave = noise(1, 1, 400)
    changed = wave.clone()
    changed[..., 2::5] += 1
    before, after = discriminator(wave)[0], discriminator(changed)[0]
    columns = (after.logits - before.logits).reshape(-1, 5).abs().sum(0)
    assert (columns > 0).tolist() == [False, False, True, False, False]
