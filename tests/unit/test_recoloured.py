"""Labelled samples in other colours: groups of alike classes, their loss, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.conftest import moving_squares
from tests.two_maps import MATTE

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, LabelMap
from maskcast.stages.train_masker import TrainMasker
from maskcast.training.tasks.segmentation import FrameTask, segmentation_task
from maskcast.training.tasks.segmentation_params import RecolouredParams
from maskcast.training.tasks.segmentation_recoloured import ClassGroups, is_recoloured

CLASSES = ("background", "red cube", "blue cube", "red ball", "shadow")
ATTRIBUTES = {"colour": (None, "red", "blue", "red", None), "shape": (None, "cube", "cube", "ball", None)}
THINGS = LabelMap("things", CLASSES, attributes=ATTRIBUTES)
VALUES: dict[str, Any] = {
    "model": {"arch": "unet", "width": 4},
    "loss": {"ce": 1, "dice": 0, "focal": 0, "background_weight": 1},
    "augment": {"hflip": 0.0},
    "training": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "learning_rate": 1e-2, "precision": "fp32"},
    "recoloured": {"attributes": ["colour"]},
}


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    with ClipWriter(tmp_path / "clips", height=16, width=24, maps=(THINGS, MATTE)) as writer:
        for seed, split in enumerate(("train", "val")):
            frames, masks = moving_squares(seed, 3, 16, 24)
            both = {"things": masks, "matte": np.array([0, 250, 120], np.uint8)[masks]}
            writer.add(split, split=split, kind="labelled", frames=frames, masks=both)
    return ClipStore(tmp_path / "clips")


def task_of(store: ClipStore, **values: Any) -> FrameTask:
    task = segmentation_task(store, TrainMasker.model_validate(VALUES | values), "x")
    assert isinstance(task, FrameTask)
    return task


def test_classes_that_are_alike_are_one() -> None:
    """By hand: cubes of both colours; the ball and what has no colour are by themselves."""
    groups = ClassGroups(THINGS, ["colour"])
    assert groups.group_K == [0, 1, 1, 2, 3]
    logits = torch.randn(1, 1, 5, 2, 2, requires_grad=True)
    found, p = groups.logits(logits)[0, 0].softmax(0), logits[0, 0].softmax(0)
    torch.testing.assert_close(found, torch.stack([p[0], p[1] + p[2], p[3], p[4]]))
    found[1].log().sum().backward()
    assert logits.grad is not None and bool(logits.grad.isfinite().all())
    masks = torch.tensor([[[[0, 1], [2, 3]], [[4, IGNORE], [0, 0]]]], dtype=torch.uint8)
    assert groups.masks(masks).tolist() == [[[[0, 1], [1, 2]], [[3, IGNORE], [0, 0]]]]


def test_the_loss_is_the_mean_of_both_kinds_of_samples(store: ClipStore) -> None:
    task, plain = task_of(store), task_of(store, recoloured=None)
    batch = task.batch(0)
    assert (task.windows.recoloured, task.windows.recoloured_share) == (2, 0.5)
    logits, _ = task.student(batch.frames_BTHWC)
    things, matte = batch.masks
    p = logits[0][:2, 0].softmax(1)
    grouped = torch.stack([p[:, 0], p[:, 1] + p[:, 2], p[:, 3], p[:, 4]], 1).log()
    changed = torch.nn.functional.nll_loss(grouped, torch.tensor([0, 1, 1, 2, 3])[things[:2, 0].long()])
    others = torch.nn.functional.cross_entropy(logits[0][2:, 0], things[2:, 0].long())
    expected = 0.5 * changed + 0.5 * others + task.criteria[0][1](logits[1].flatten(0, 1), matte.flatten(0, 1))
    torch.testing.assert_close(task.loss(batch, 0)[0], expected)
    same = plain.batch(0)  # draws of geometry are as they were; colours of the first two changed
    places = [index for index in range(4) if is_recoloured(index, task.params.recoloured)]
    places += [index for index in range(4) if index not in places]
    assert torch.equal(batch.masks[0], same.masks[0][places])
    assert torch.equal(batch.frames_BTHWC[2:], same.frames_BTHWC[places[2:]])
    assert not torch.equal(batch.frames_BTHWC[:2], same.frames_BTHWC[places[:2]])


def test_shares_are_evenly_spread_over_the_samples_of_all_processes() -> None:
    params = RecolouredParams(attributes=["colour"], share=0.25)
    assert [is_recoloured(index, params) for index in range(8)] == [False, False, False, True] * 2


def test_what_does_not_fit_is_said(store: ClipStore) -> None:
    match = r"recoloured\.attributes: attribute 'hue' not found in any map \(available: colour, shape\); use"
    with pytest.raises(MaskcastError, match=match):
        task_of(store, recoloured={"attributes": ["hue"]})
    with pytest.raises(ValidationError, match="attributes"):
        TrainMasker.model_validate(VALUES | {"recoloured": {"attributes": []}})


def test_unlabelled_samples_whose_hue_is_turned_say_nothing_of_colours(store: ClipStore, tmp_path: Path) -> None:
    with ClipWriter(tmp_path / "more", height=16, width=24, maps=(THINGS, MATTE)) as writer:
        writer.add("other", split="unlabeled", kind="unlabelled", frames=moving_squares(5, 3, 16, 24)[0])
    unlabeled = {"batch_size": 2, "burn_in_steps": 0, "threshold": 0.0, "balance": False}
    red, blue = (torch.full((1, 1, 16, 24), k, dtype=torch.uint8) for k in (1, 2))
    losses = {}
    for hue in (0.5, 0.0):
        values = VALUES | {"ema": 0.9, "maps": ["things"], "unlabeled": unlabeled | {"strong": {"hue": hue}}}
        params = TrainMasker.model_validate(values)
        task = segmentation_task(store, params, "x", unlabeled=tmp_path / "more")
        assert isinstance(task, FrameTask) and bool(task.loss(task.batch(0), 0)[0].isfinite())
        given = task.batch(0)
        torch.manual_seed(0)
        logits = torch.randn(5, 1, 5, 16, 24)
        losses[hue] = []
        for one in (red, blue):
            (parts,) = task._map_losses([torch.cat([given.masks[0], one])], given, 0)
            losses[hue].append(sum(part.of_next(logits) for part in parts))
    assert torch.equal(*losses[0.5]) and not torch.equal(*losses[0.0])
