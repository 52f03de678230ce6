"""Losses of mattes and the Dice of frames, counted by hand."""

import math

import numpy as np
import pytest
import torch

from maskcast.errors import MaskcastError
from maskcast.models.segmentation.configs import MaskLossConfig, MatteLossConfig
from maskcast.models.segmentation.losses import MaskLoss
from maskcast.models.segmentation.matte_losses import MatteLoss, laplacian_pyramid
from maskcast.models.segmentation.soft_dice import soft_dice
from maskcast.params import validate
from maskcast.training.tasks.segmentation_params import SegmentationTraining

SYSTEM = {"dice_over": "frame", "dice_smooth": 1e-4, "focal": 0}


def logits_of(opacity: list) -> torch.Tensor:
    """Returns logits (B, T, 1, H, W) of opacity (B, T, H, W)."""
    return torch.tensor(opacity, dtype=torch.float64).logit()[:, :, None]


def target_of(opacity: list) -> torch.Tensor:
    return (255 * torch.tensor(opacity)).round().to(torch.uint8)


def test_absolute_difference_and_coherence_by_hand() -> None:
    found = [[[[0.2, 0.8]], [[0.6, 0.8]], [[0.6, 0.4]]]]
    truth = [[[[0.0, 1.0]], [[1.0, 1.0]], [[1.0, 0.0]]]]
    logits, target = logits_of(found), target_of(truth)
    # differences .2 -.2, -.4 -.2, -.4 .4, so 1.8 / 6; their changes -.6 0, 0 .6, so .72 / 4
    assert MatteLoss(MatteLossConfig(laplacian=0, coherence=0))(logits, target).item() == pytest.approx(0.3)
    both = MatteLoss(MatteLossConfig(l1=2, laplacian=0, coherence=5))(logits, target)
    assert both.item() == pytest.approx(2 * 0.3 + 5 * 0.18)
    one_frame = MatteLoss(MatteLossConfig(laplacian=0))(logits[:, :1], target[:, :1])
    assert one_frame.item() == pytest.approx(0.2)


def plain_pyramid(picture: np.ndarray, levels: int) -> list[np.ndarray]:
    """Returns a Laplacian pyramid by sums over pixels, for sides that are even at each level."""
    weights = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256

    def blurred(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, 2, mode="reflect")
        height, width = values.shape
        return np.array(
            [[(padded[y : y + 5, x : x + 5] * weights).sum() for x in range(width)] for y in range(height)]
        )

    found = []
    for _ in range(levels):
        smaller = blurred(picture)[::2, ::2]
        spread = np.zeros_like(picture)
        spread[::2, ::2] = 4 * smaller
        found.append(picture - blurred(spread))
        picture = smaller
    return found


def test_the_laplacian_pyramid_is_the_plain_one() -> None:
    picture = np.random.default_rng(0).random((16, 24))
    loss = MatteLoss(MatteLossConfig())
    found = laplacian_pyramid(torch.from_numpy(picture)[None, None], loss.kernel.double())
    plain = plain_pyramid(picture, 3)
    assert len(found) == 3  # the next would be 2 pixels high
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one[0, 0], other, atol=1e-12)


def test_a_laplacian_level_weighs_twice_the_one_before() -> None:
    difference = np.random.default_rng(1).uniform(0.1, 0.4, (16, 24))
    logits = torch.from_numpy(difference).logit()[None, None, None]
    loss = MatteLoss(MatteLossConfig(l1=0, laplacian=3, coherence=0))
    want = sum(2**s / 5 * np.abs(level).mean() for s, level in enumerate(plain_pyramid(difference, 3)))
    assert loss(logits, torch.zeros(1, 1, 16, 24, dtype=torch.uint8)).item() == pytest.approx(3 * want)


def test_autocast_changes_neither_loss_nor_gradient() -> None:
    random = torch.Generator().manual_seed(0)
    target = torch.randint(0, 256, (2, 3, 32, 32), generator=random).to(torch.uint8)
    logits = torch.randn(2, 3, 1, 32, 32, generator=random)
    results = []
    for enabled in (False, True):
        mine = logits.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = MatteLoss(MatteLossConfig())(mine, target)
        loss.backward()
        results.append((loss.detach(), mine.grad))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_a_perfect_matte_costs_nothing_and_gradients_are_finite() -> None:
    target = torch.randint(0, 2, (2, 3, 17, 13), dtype=torch.uint8) * 255
    logits = torch.where(target > 0, 40.0, -40.0)[:, :, None].requires_grad_()
    loss = MatteLoss(MatteLossConfig())(logits, target)
    assert loss.item() < 1e-6
    loss = MatteLoss(MatteLossConfig())(0 * logits + 0.1, target)
    loss.backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_soft_dice_is_a_mean_over_frames_and_classes() -> None:
    # frame 0: p of class 1 is .75 at two pixels, both of class 1; frame 1: .25 and .5, the second has no label
    probability = torch.tensor([[[0.75, 0.75]], [[0.25, 0.5]]], dtype=torch.float64)
    logits = torch.stack([(1 - probability).log(), probability.log()], 1)
    target = torch.tensor([[[1, 1]], [[0, 255]]], dtype=torch.uint8)
    s = 1e-4
    scores = [s / (0.5 + s), (3 + s) / (3.5 + s), (1.5 + s) / (1.75 + s), s / (0.25 + s)]
    assert soft_dice(logits, target, s).item() == pytest.approx(1 - sum(scores) / 4)


def test_cross_dice_is_the_mean_of_both() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(3, 2, 4, 5), torch.randint(0, 2, (3, 4, 5), dtype=torch.uint8)
    cross = MaskLoss(MaskLossConfig(ce=0.5, dice=0.5, background_weight=1, **SYSTEM))(logits, target)
    ce = torch.nn.functional.cross_entropy(logits, target.long())
    assert cross.item() == pytest.approx((ce + soft_dice(logits, target, 1e-4)).item() / 2, rel=1e-5)
    alone = MaskLoss(MaskLossConfig(ce=0, dice=1, **SYSTEM))(logits, target)
    assert alone.item() == pytest.approx(soft_dice(logits, target, 1e-4).item())
    assert math.isfinite(alone.item())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": {"dice_over": "frame"}}, "loss: dice_over: frame needs dice_smooth above 0"),
        ({"matte_loss": {"l1": 0, "laplacian": 0}}, "matte_loss: l1 and laplacian are 0"),
        ({"matte_loss": {"alpha": 1}}, r"matte_loss.alpha: unknown key; allowed: coherence, l1, laplacian"),
    ],
)
def test_losses_that_cannot_be_are_refused(values: dict, message: str) -> None:
    training = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1, "learning_rate": 0.1}
    with pytest.raises(MaskcastError, match=message):
        validate(SegmentationTraining, {"training": training} | values, "params.yaml: train_masker")
