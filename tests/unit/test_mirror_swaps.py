"""Mirrored frames of two hands: left becomes right, in maps drawn by hand, and only where the source says so."""

from pathlib import Path

import numpy as np
import pytest

from maskcast.data.augment.colours import ColourParams, draw_colour_transform, recolour
from maskcast.data.augment.frames import AugmentParams, augment
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap
from maskcast.seed import rng
from maskcast.training.schedule import TrainingParams
from maskcast.training.tasks.segmentation_params import SegmentationTraining
from maskcast.training.tasks.segmentation_windows import LabelledWindows

PARTS = ("background", "palm", "thumb")
LEFT, RIGHT = LabelMap("left", PARTS), LabelMap("right", PARTS)
VISIBLE, OTHER = LabelMap("visible", ("background", "left", "right")), LabelMap("other", PARTS)
ALWAYS = AugmentParams(hflip=1.0)
DRAWN = {  # the left hand in the first two columns, the right one in the last two; they overlap in column 2
    LEFT: np.array([[[1, 1, 2, 0, 0], [1, 0, 0, 0, 255]]], np.uint8),
    RIGHT: np.array([[[0, 0, 2, 1, 1], [0, 0, 0, 0, 1]]], np.uint8),
    VISIBLE: np.array([[[1, 1, 2, 2, 2], [1, 0, 0, 0, 2]]], np.uint8),
    OTHER: np.array([[[1, 1, 2, 0, 0], [1, 0, 0, 0, 255]]], np.uint8),
}
FRAME = np.arange(30, dtype=np.uint8).reshape(1, 2, 5, 3)


def test_a_mirrored_left_hand_is_a_right_one() -> None:
    frame, masks = augment(FRAME, DRAWN, ALWAYS, rng(0), ("left", "right"))
    np.testing.assert_array_equal(frame, FRAME[:, :, ::-1])
    assert masks[LEFT].tolist() == [[[1, 1, 2, 0, 0], [1, 0, 0, 0, 0]]]
    assert masks[RIGHT].tolist() == [[[0, 0, 2, 1, 1], [255, 0, 0, 0, 1]]]
    assert masks[VISIBLE].tolist() == [[[1, 1, 1, 2, 2], [1, 0, 0, 0, 2]]]
    assert masks[OTHER].tolist() == [[[0, 0, 2, 1, 1], [255, 0, 0, 0, 1]]]


@pytest.mark.parametrize(("params", "swaps"), [(ALWAYS, None), (AugmentParams(hflip=0), ("left", "right"))])
def test_nothing_swaps_undeclared_or_unmirrored(params: AugmentParams, swaps: tuple[str, str] | None) -> None:
    _, masks = augment(FRAME, DRAWN, params, rng(0), swaps)
    step = -1 if params.hflip else 1
    for one, drawn in DRAWN.items():
        np.testing.assert_array_equal(masks[one], drawn[:, :, ::step])


def test_a_rotated_or_zoomed_mirror_image_swaps_too() -> None:
    params = AugmentParams(hflip=0.5, rotate=170, zoom=(0.9, 1.2), shift=0.01)
    swapped = 0
    for seed in range(20):
        both = {LEFT: np.full((1, 9, 9), 1, np.uint8), RIGHT: np.full((1, 9, 9), 2, np.uint8)}
        _, masks = augment(np.zeros((1, 9, 9, 3), np.uint8), both, params, rng(seed), ("left", "right"))
        assert masks[LEFT][0, 4, 4] + masks[RIGHT][0, 4, 4] == 3
        swapped += int(masks[LEFT][0, 4, 4] == 2)
    assert 3 < swapped < 17


def training(augment: AugmentParams) -> SegmentationTraining:
    schedule = TrainingParams(epochs=1, steps_per_epoch=1, batch_size=1, learning_rate=0.1)
    return SegmentationTraining(augment=augment, training=schedule)


def store(root: Path, maps: tuple[LabelMap, ...], meta: dict[str, object]) -> ClipStore:
    with ClipWriter(root, height=2, width=5, maps=maps, meta=meta) as writer:
        masks = {one.name: DRAWN[one] if one in DRAWN else DRAWN[RIGHT] for one in maps}
        writer.add("one", split="train", kind="labelled", frames=FRAME, masks=masks)
    return ClipStore(root)


def test_training_swaps_what_the_store_declares(tmp_path: Path) -> None:
    params = training(ALWAYS)
    declared = store(tmp_path / "declared", (LEFT, RIGHT), {"mirror_swaps": ["left", "right"]})
    silent = store(tmp_path / "silent", (LEFT, RIGHT), {})
    assert declared.mirror_swaps == ("left", "right") and silent.mirror_swaps is None
    left, _ = LabelledWindows(declared, (LEFT, RIGHT), params).batch(0).masks
    assert left[0, 0].tolist() == [[1, 1, 2, 0, 0], [1, 0, 0, 0, 0]]
    left, _ = LabelledWindows(silent, (LEFT, RIGHT), params).batch(0).masks
    assert left[0, 0].tolist() == [[0, 0, 2, 1, 1], [255, 0, 0, 0, 1]]


def test_one_hand_alone_is_not_mirrored_by_chance(tmp_path: Path) -> None:
    clips = store(tmp_path / "clips", (LEFT, RIGHT), {"mirror_swaps": ["left", "right"]})
    with pytest.raises(MaskcastError, match=r"'left' becomes 'right' in flipped frames; train both"):
        LabelledWindows(clips, (LEFT,), training(ALWAYS))
    LabelledWindows(clips, (LEFT,), training(AugmentParams(hflip=0)))
    fewer = LabelMap("right", ("background", "hand", "arm", "more"))
    unlike = store(tmp_path / "unlike", (LEFT, fewer), {"mirror_swaps": ["left", "right"]})
    with pytest.raises(MaskcastError, match=r"but their classes differ; give them the same"):
        LabelledWindows(unlike, (LEFT, fewer), training(ALWAYS))


def test_names_that_swap_are_not_masked_by_the_mean_of_a_mirror_image(tmp_path: Path) -> None:
    params = training(ALWAYS).model_copy(update={"mirror": True})
    LabelledWindows(store(tmp_path / "silent", (LEFT, RIGHT), {}), (LEFT, RIGHT), params)
    declared = store(tmp_path / "declared", (LEFT, RIGHT), {"mirror_swaps": ["left", "right"]})
    with pytest.raises(MaskcastError, match=r"'left' and 'right' swap in flipped frames; set .*mirror to false"):
        LabelledWindows(declared, (LEFT, RIGHT), params)


def test_a_damaged_declaration_is_refused(tmp_path: Path) -> None:
    clips = store(tmp_path / "clips", (LEFT, RIGHT), {"mirror_swaps": ["left"]})
    with pytest.raises(MaskcastError, match=r"index.json: mirror_swaps is \['left'\], not two names"):
        _ = clips.mirror_swaps


def test_each_channel_changes_by_itself() -> None:
    grey = np.full((1, 4, 4, 3), 100, np.uint8)
    gains = []
    for seed in range(8):
        colours = draw_colour_transform(ColourParams(channels=0.2), grey.shape, rng(seed))
        (pixel,) = np.unique(recolour(grey, colours).reshape(-1, 3), axis=0)
        assert (np.abs(pixel.astype(int) - 100) <= 20).all()
        gains.append(pixel)
    assert len(np.unique(np.array(gains), axis=0)) == 8
    assert np.abs(np.diff(np.array(gains, int), axis=1)).max() > 10
