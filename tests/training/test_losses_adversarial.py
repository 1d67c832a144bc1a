import pytest
import torch

from codectool.training.losses.adversarial import (
    discriminator_loss,
    feature_matching,
    generator_loss,
)

# Two sub-discriminators with logits of different shapes.
REAL = [torch.tensor([[2.0, 0.5], [1.0, -1.0]]), torch.tensor([3.0, 0.0])]
FAKE = [torch.tensor([[-2.0, 0.5], [0.0, 1.5]]), torch.tensor([-1.0, 1.0])]


@pytest.mark.parametrize(
    ("loss", "arguments", "expected"),
    [
        # relu(1 - real): 0, .5, 0, 2 and 0, 1;  relu(1 + fake): 0, 1.5, 1, 2.5 and 0, 2
        (discriminator_loss, (REAL, FAKE, "hinge"), (2.5 / 4 + 5 / 4) + (1 / 2 + 2 / 2)),
        # relu(1 - fake): 3, .5, 1, 0 and 2, 0
        (generator_loss, (FAKE, "hinge"), 4.5 / 4 + 2 / 2),
        # (real - 1)^2: 1, .25, 0, 4 and 4, 1;  fake^2: 4, .25, 0, 2.25 and 1, 1
        (discriminator_loss, (REAL, FAKE, "least_squares"), (5.25 / 4 + 6.5 / 4) + (5 / 2 + 2 / 2)),
        # (fake - 1)^2: 9, .25, 1, .25 and 4, 0
        (generator_loss, (FAKE, "least_squares"), 10.5 / 4 + 4 / 2),
    ],
)
def test_adversarial_loss_worked_examples(loss, arguments, expected):
    assert loss(*arguments).item() == pytest.approx(expected)
    assert loss(*arguments, mean=True).item() == pytest.approx(expected / 2)


def test_perfect_discriminator_has_no_loss():
    sure = [torch.full((3,), 1.0)]
    assert discriminator_loss(sure, [-sure[0]], "hinge") == 0
    assert discriminator_loss([5 * sure[0]], [-5 * sure[0]], "hinge") == 0
    assert discriminator_loss(sure, [0 * sure[0]], "least_squares") == 0
    assert generator_loss(sure, "hinge") == generator_loss(sure, "least_squares") == 0


def test_gradients_have_the_right_sign():
    real = [logits.clone().requires_grad_() for logits in REAL]
    fake = [logits.clone().requires_grad_() for logits in FAKE]
    discriminator_loss(real, fake, "hinge").backward()
    # -1/4 if a real logit is below the margin, +1/4 if a fake one is above its margin; exactly on
    # the margin a relu has no gradient
    assert real[0].grad.tolist() == [[0, -0.25], [0, -0.25]]
    assert real[1].grad.tolist() == [0, -0.5]
    assert fake[0].grad.tolist() == [[0, 0.25], [0.25, 0.25]]
    assert fake[1].grad.tolist() == [0, 0.5]
    fake = [logits.clone().requires_grad_() for logits in FAKE]
    generator_loss(fake, "hinge").backward()
    assert fake[0].grad.tolist() == [[-0.25, -0.25], [-0.25, 0]]


def features():
    """Three maps of the first sub-discriminator, one of the second."""
    real = [
        [torch.tensor([1.0, -3.0]), torch.ones(2, 2), torch.tensor([0.5])],
        [torch.tensor([[2.0, 2.0, -8.0]])],
    ]
    fake = [
        [torch.tensor([2.0, -3.0]), torch.zeros(2, 2), torch.tensor([0.25])],
        [torch.tensor([[2.0, 2.0, -5.0]])],
    ]
    return real, fake


def test_feature_matching_worked_example():
    real, fake = features()
    distances, sizes = [0.5, 1, 0.25, 1], [2, 1, 0.5, 4]
    relative = sum(d / s for d, s in zip(distances, sizes, strict=True))
    assert feature_matching(real, fake).item() == pytest.approx(sum(distances))
    assert feature_matching(real, fake, mean=True).item() == pytest.approx(sum(distances) / 4)
    assert feature_matching(real, fake, relative=True).item() == pytest.approx(relative)
    both = feature_matching(real, fake, relative=True, mean=True)
    assert both.item() == pytest.approx(relative / 4)


def test_feature_matching_gives_no_gradient_to_real_maps():
    real, fake = features()
    for maps in (*real, *fake):
        for item in maps:
            item.requires_grad_()
    feature_matching(real, fake, relative=True).backward()
    assert all(item.grad is None for maps in real for item in maps)
    # sign(y - x) / numel / mean |x|
    assert fake[0][0].grad.tolist() == [0.25, 0]
    assert fake[1][0].grad.tolist() == [[0, 0, pytest.approx(1 / 12)]]


def test_relative_feature_distance_of_silence_is_finite():
    silent = [[torch.zeros(3)]]
    assert feature_matching(silent, silent, relative=True) == 0
    assert torch.isfinite(feature_matching(silent, [[torch.ones(3)]], relative=True))


def test_relative_feature_distance_of_two_processes_matches_whole_batch(monkeypatch):
    """Each process divides its distance by the mean size of both."""
    real = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    real[2:] *= 3
    fake = real + 0.1
    whole = feature_matching([[real]], [[fake]], relative=True)
    size = real.abs().mean()
    monkeypatch.setattr(
        "codectool.training.losses.adversarial.all_reduce_mean", lambda value: size.expand(1)
    )
    halves = [
        feature_matching([[real[part]]], [[fake[part]]], relative=True)
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, whole)


def test_low_precision_logits_are_summed_in_float32():
    logits = [torch.full((3,), 0.3, dtype=torch.bfloat16)]
    assert generator_loss(logits, "hinge").dtype == torch.float32
    assert feature_matching([logits], [logits]).dtype == torch.float32


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        discriminator_loss(REAL, FAKE[:1], "hinge")
