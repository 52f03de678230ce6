"""The loss of windows is the same whatever the length of the chunks that its frames come in."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import write_store
from tests.unit.test_partly_labelled import partly
from tests.unit.test_recurrent_training import params
from torch import Tensor, nn
from torch.nn import functional

from maskcast.labels import IGNORE
from maskcast.models.segmentation.configs import MaskLossConfig, MatteLossConfig
from maskcast.models.segmentation.losses import AlphaLoss, CustomLoss, MaskLoss
from maskcast.models.segmentation.matte_losses import MatteLoss
from maskcast.training.tasks.segmentation import WindowTask, segmentation_task
from maskcast.training.tasks.segmentation_map_loss import MapLoss

FRAMES, CLASSES = 8, 3


def mask_loss(**weights: Any) -> MaskLoss:
    return MaskLoss(MaskLossConfig.model_validate({"ce": 0, "dice": 0, "focal": 0} | weights))


def by_pixel(logits: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logits, target, ignore_index=IGNORE)


ADDED: dict[str, nn.Module] = {  # those whose terms are sums over pixels or frames
    "weighted mean": mask_loss(ce=1, background_weight=0.3),
    "class weights": mask_loss(ce=1, class_weights=[0.1, 2.0, 1.0]),
    "mean": mask_loss(ce=1, ce_reduction="mean"),
    "focal": mask_loss(focal=1),
    "softmax focal": mask_loss(focal=1, focal_form="softmax"),
    "dice of frames": mask_loss(ce=0.5, dice=0.5, dice_over="frame", dice_smooth=1e-4),
    "another package's": CustomLoss(by_pixel),
    "opacity": AlphaLoss(),
    "matte": MatteLoss(MatteLossConfig(coherence=0)),
}


def windows(criterion: nn.Module) -> tuple[Tensor, Tensor]:
    """Returns logits, and masks of which most frames have no label, and others few pixels with one."""
    torch.manual_seed(0)
    if isinstance(criterion, AlphaLoss | MatteLoss):
        logits = torch.randn(2, FRAMES, 1, 16, 16, dtype=torch.float64)
        return logits, torch.randint(256, (2, FRAMES, 16, 16), dtype=torch.uint8)
    masks = torch.randint(CLASSES, (2, FRAMES, 16, 16), dtype=torch.uint8)
    masks[torch.rand(masks.shape) < torch.linspace(0.2, 0.9, FRAMES)[:, None, None]] = IGNORE
    masks[0, [0, 1, 4]] = masks[1, [0, 5]] = IGNORE  # frame 0 has no label at all
    return torch.randn(2, FRAMES, CLASSES, 16, 16, dtype=torch.float64), masks


def chunked(criterion: nn.Module, logits: Tensor, masks: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Returns the summed loss of chunks of some length, and its gradient."""
    logits = logits.clone().requires_grad_()
    loss = MapLoss(criterion, masks, slice(None))
    total = torch.stack([loss.of_next(chunk) for chunk in logits.split(length, dim=1)]).sum()
    (gradient,) = torch.autograd.grad(total, logits)
    return total.detach(), gradient


@pytest.mark.parametrize("criterion", ADDED.values(), ids=ADDED)
@pytest.mark.parametrize("length", [1, 3, 4])
def test_chunks_add_up_to_the_windows(criterion: nn.Module, length: int) -> None:
    logits, masks = windows(criterion)
    flat = logits if isinstance(criterion, MatteLoss) else logits.flatten(0, 1)
    whole, gradient = chunked(criterion, logits, masks, FRAMES)
    assert whole == criterion(flat, masks if isinstance(criterion, MatteLoss) else masks.flatten(0, 1))
    found, its_gradient = chunked(criterion, logits, masks, length)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(its_gradient, gradient)


@pytest.mark.parametrize("length", [1, 3])
def test_dice_is_that_of_each_chunk_weighted_by_its_labelled_pixels(length: int) -> None:
    criterion = mask_loss(dice=1, dice_classes="present", dice_smooth=1)
    logits, masks = windows(criterion)
    counts = [(part != IGNORE).sum() for part in masks.split(length, dim=1)]
    pairs = zip(logits.split(length, dim=1), masks.split(length, dim=1), strict=True)
    each = [criterion(one.flatten(0, 1), other.flatten(0, 1)) for one, other in pairs]
    expected = sum(count / sum(counts) * loss for count, loss in zip(counts, each, strict=True))
    torch.testing.assert_close(chunked(criterion, logits, masks, length)[0], expected, check_dtype=False)


@pytest.mark.parametrize("length", [1, 3])
def test_coherence_compares_frames_of_two_chunks(length: int) -> None:
    """The gradient does not cross the border."""
    criterion = MatteLoss(MatteLossConfig(coherence=5))
    logits, masks = windows(criterion)
    whole, gradient = chunked(criterion, logits, masks, FRAMES)
    found, its_gradient = chunked(criterion, logits, masks, length)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(its_gradient[:, -1], gradient[:, -1])
    assert not torch.allclose(its_gradient[:, length - 1], gradient[:, length - 1])


@pytest.mark.parametrize("unlabeled", [None, {"batch_size": 2, "burn_in_steps": 0, "threshold": 0.3}])
def test_a_window_with_one_labelled_frame_has_its_whole_loss_at_any_chunk(
    unlabeled: dict[str, Any] | None, tmp_path: Path
) -> None:
    whole = write_store(tmp_path / "whole", train=2, val=1)
    store = partly(tmp_path / "clips", whole, {clip.id: [5] for clip in whole.clips if clip.split == "train"})
    pixels = {"loss": {"dice": 0}} if unlabeled else {}  # pseudo masks are in all chunks
    taught = {"ema": 0.9, "unlabeled": unlabeled} if unlabeled else {}
    totals = []
    for chunk in (8, 4, 1):
        task = segmentation_task(store, params(window={"frames": 8, "chunk": chunk}, **taught, **pixels), "x")
        assert isinstance(task, WindowTask)
        task.student.eval()
        totals.append(sum(loss.item() for loss, _ in task.losses(task.batch(0), 0)))
    assert totals[0] > 0.1 and totals == pytest.approx([totals[0]] * 3, rel=1e-5)
