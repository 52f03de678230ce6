"""MaskLoss against the plain one-hot formulas (kept here) and against numbers worked out by hand."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from maskcast.models.segmentation import loss_chunks
from maskcast.models.segmentation.configs import MaskLossConfig
from maskcast.models.segmentation.losses import AlphaLoss, MaskLoss

IGNORE = 255


def plain(logits: Tensor, target: Tensor, c: MaskLossConfig) -> Tensor:
    """The same loss, written as in the papers: one-hot targets, whole tensors."""
    num_classes = logits.shape[1]
    z = logits.movedim(1, -1).reshape(-1, num_classes)
    kept = target.flatten() != IGNORE
    z, ids = z[kept], target.flatten()[kept].long()
    y = F.one_hot(ids, num_classes).to(z.dtype)
    weight = torch.ones(num_classes, dtype=z.dtype)
    weight[0] = c.background_weight
    if c.class_weights is not None:
        weight = torch.tensor(c.class_weights, dtype=z.dtype)
    nll = -F.log_softmax(z, 1)
    ce = (weight * y * nll).sum() / (len(y) if c.ce_reduction == "mean" else (weight * y).sum())
    p = z.softmax(1)
    present = y.sum(0) > 0
    score = (2 * (p * y).sum(0) + c.dice_smooth) / ((p + y).sum(0) + c.dice_smooth).clamp_min(1e-7)
    dice = ((1 - score) * present).sum() / (num_classes if c.dice_classes == "all" else present.sum())
    if c.focal_form == "sigmoid":
        bce = F.binary_cross_entropy_with_logits(z, y, reduction="none")
        focal = ((1 - torch.exp(-bce)) ** c.focal_gamma * bce).mean(0)
        focal = focal.sum() if c.focal_classes == "sum" else focal.mean()
    else:
        true = (nll * y).sum(1)
        focal = ((1 - torch.exp(-true)) ** c.focal_gamma * true).mean()
    return c.ce * ce + c.dice * dice + c.focal * focal


def example(dtype: torch.dtype = torch.float64, ignored: bool = True) -> tuple[Tensor, Tensor]:
    """Logits (3, 5, 6, 7) and a target in which class 4 never occurs."""
    generator = torch.Generator().manual_seed(7)
    logits = 3 * torch.randn(3, 5, 6, 7, generator=generator, dtype=dtype)
    target = torch.randint(0, 4, (3, 6, 7), generator=generator).to(torch.uint8)
    if ignored:
        target[torch.rand(3, 6, 7, generator=generator) < 0.2] = IGNORE
    return logits, target


def value_and_gradient(loss: object, logits: Tensor, *args: object) -> tuple[Tensor, Tensor]:
    z = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = loss(z, *args)  # type: ignore[operator]
    value.backward()
    assert z.grad is not None
    return value.detach(), z.grad


CONFIGS = [
    MaskLossConfig(),
    MaskLossConfig(ce=1, dice=0, focal=0, ce_reduction="mean"),
    MaskLossConfig(ce=1, dice=0, focal=0, background_weight=0),
    MaskLossConfig(ce=0.35, dice=0.65, focal=0, class_weights=[0.1, 0.8, 1, 0.35, 2], dice_smooth=0.1),
    MaskLossConfig(ce=0, dice=1, focal=0, dice_classes="present", dice_smooth=1),
    MaskLossConfig(ce=0, dice=0, focal=1, focal_classes="mean", focal_gamma=1.5),
    MaskLossConfig(ce=0, dice=0, focal=1, focal_gamma=0),
    MaskLossConfig(ce=0.3, dice=0.5, focal=2, focal_form="softmax", focal_gamma=3),
    MaskLossConfig(ce=0, dice=0, focal=1, focal_form="softmax", focal_gamma=0),
    MaskLossConfig(ce=0, dice=0, focal=1, focal_form="softmax", focal_gamma=0.5),
]


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
@pytest.mark.parametrize(
    ("layout", "chunk", "ignored"),
    [
        (torch.contiguous_format, 1 << 17, True),
        (torch.channels_last, 50, True),
        (torch.contiguous_format, 450, False),
    ],
)
def test_equals_the_plain_formula_in_value_and_gradient(
    config: MaskLossConfig, layout: torch.memory_format, chunk: int, ignored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_chunks, "CPU_CHUNK", chunk)  # 50 logits: 10 pixels a chunk; 450: two frames a chunk
    logits, target = example(ignored=ignored)
    logits = logits.contiguous(memory_format=layout)
    expected, expected_gradient = value_and_gradient(plain, logits, target, config)
    value, gradient = value_and_gradient(MaskLoss(config), logits, target)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)
    assert gradient.is_contiguous(memory_format=layout)


def test_logits_of_turned_frames_have_the_gradient_of_their_copies() -> None:
    logits, target = example()
    turned = logits.transpose(2, 3), target.transpose(1, 2)  # neither NCHW nor channels_last
    expected = value_and_gradient(MaskLoss(MaskLossConfig()), logits, target)
    value, gradient = value_and_gradient(MaskLoss(MaskLossConfig()), *turned)
    torch.testing.assert_close(value, expected[0])
    torch.testing.assert_close(gradient.transpose(2, 3), expected[1])


def test_long_targets_and_float32_give_the_same() -> None:
    logits, target = example(torch.float32)
    expected, expected_gradient = value_and_gradient(plain, logits.double(), target, MaskLossConfig())
    value, gradient = value_and_gradient(MaskLoss(MaskLossConfig()), logits, target.long())
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=1e-7)


def test_bf16_logits_are_summed_in_float32_even_under_autocast() -> None:
    logits, target = example(torch.bfloat16)
    expected, expected_gradient = value_and_gradient(plain, logits.double(), target, MaskLossConfig())
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = value_and_gradient(MaskLoss(MaskLossConfig()), logits, target)
    assert value.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=4e-3, atol=1e-7)


def test_hand_computed_cross_entropy_and_focal() -> None:
    # Two pixels, two classes, all logits 0: p = 1/2 everywhere, sigmoid = 1/2.
    logits, target = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]], dtype=torch.uint8)
    ln2 = math.log(2)

    def value(**config: object) -> float:
        zero = {"ce": 0, "dice": 0, "focal": 0}
        return MaskLoss(MaskLossConfig(**(zero | config)))(logits, target).item()  # type: ignore[arg-type]

    assert value(ce=1) == pytest.approx(ln2)
    assert value(ce=1, ce_reduction="mean") == pytest.approx((0.3 + 1) / 2 * ln2)
    assert value(focal=1) == pytest.approx(2 * ln2 / 4)
    assert value(focal=1, focal_classes="mean") == pytest.approx(ln2 / 4)
    assert value(focal=1, focal_form="softmax") == pytest.approx(ln2 / 4)


def test_hand_computed_dice() -> None:
    # Three classes, p = 1/3 everywhere, class 0 at two pixels, class 1 at one, class 2 absent:
    # d_0 = 2 * (2/3) / (1 + 2) = 4/9, d_1 = 2 * (1/3) / (1 + 1) = 1/3.
    logits, target = torch.zeros(1, 3, 1, 3), torch.tensor([[[0, 0, 1]]], dtype=torch.uint8)
    dice = {"ce": 0, "dice": 1, "focal": 0}
    assert MaskLoss(MaskLossConfig(**dice))(logits, target).item() == pytest.approx((5 / 9 + 2 / 3) / 3)
    present = MaskLoss(MaskLossConfig(**dice, dice_classes="present"))
    assert present(logits, target).item() == pytest.approx((5 / 9 + 2 / 3) / 2)


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_a_batch_without_a_label_costs_nothing(config: MaskLossConfig) -> None:
    logits, target = example()
    value, gradient = value_and_gradient(MaskLoss(config), logits, torch.full_like(target, IGNORE))
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("size", [1e3, 1e30])
@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
def test_extreme_logits_stay_finite(form: str, size: float) -> None:
    config = MaskLossConfig(focal_form=form)  # type: ignore[arg-type]
    logits, target = example(torch.float32)
    value, gradient = value_and_gradient(MaskLoss(config), logits.sign() * size, target)
    assert value.isfinite()
    assert gradient.isfinite().all()


def test_backward_scales_and_repeats() -> None:
    logits, target = example()
    logits.requires_grad_()
    loss = 3 * MaskLoss(MaskLossConfig())(logits, target)
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (second,) = torch.autograd.grad(loss, logits)
    _, unscaled = value_and_gradient(MaskLoss(MaskLossConfig()), logits, target)
    torch.testing.assert_close(first, 3 * unscaled)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize(
    "wrong",
    [{"ce": -1}, {"focal": math.nan}, {"dice_classes": "some"}, {"dise": 1}, {"ce": 0, "dice": 0, "focal": 0}],
)
def test_config_refuses_what_makes_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MaskLossConfig(**wrong)  # type: ignore[arg-type]


def test_the_loss_of_an_opacity_by_hand() -> None:
    logits = torch.logit(torch.tensor([[[[0.5, 0.75], [0.25, 0.5]]]])).requires_grad_()
    target = torch.tensor([[[255, 255], [0, 0]]], dtype=torch.uint8)
    # differences -0.5, -0.25 / 0.25, 0.5; down 0.75, 0.75; across 0.25, 0.25
    loss = AlphaLoss()(logits, target)
    assert loss.item() == pytest.approx(1.5 / 4 + 0.75 + 0.25)
    assert AlphaLoss()(torch.full((1, 1, 2, 2), 30.0), torch.full((1, 2, 2), 255, dtype=torch.uint8)).item() == 0
    loss.backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert AlphaLoss()(logits.bfloat16(), target).dtype == torch.float32
