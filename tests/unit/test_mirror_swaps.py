"""Mirrored frames: left becomes right, in masks drawn by hand, and only where the source says so."""

from pathlib import Path

import numpy as np
import pytest
import torch

from maskcast.data.augment.boxes import BoxAugmentParams, Sample, augment_boxes
from maskcast.data.augment.colours import ColourParams, draw_colour_transform, recolour
from maskcast.data.augment.frames import AugmentParams, augment
from maskcast.data.augment.mirror import swapped_ids
from maskcast.data.clip_store.instances import ObjectClasses
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.inference.forecast import open_stores
from maskcast.labels import LabelMap, MirrorSwaps
from maskcast.models.forecasting.batches import PixelBatches, TrackBatch, Window
from maskcast.models.forecasting.configs import ConvLSTMConfig, ObjectsConfig
from maskcast.models.forecasting.input import Input
from maskcast.seed import rng
from maskcast.training.schedule import TrainingParams
from maskcast.training.tasks.forecasting import ForecastTask
from maskcast.training.tasks.forecasting_masks import KnownMasks
from maskcast.training.tasks.forecasting_params import ForecastTraining
from maskcast.training.tasks.segmentation_params import SegmentationTraining
from maskcast.training.tasks.segmentation_windows import LabelledWindows

PARTS = ("background", "palm", "thumb")
LEFT, RIGHT = LabelMap("left", PARTS), LabelMap("right", PARTS)
VISIBLE, OTHER = LabelMap("visible", ("background", "left", "right")), LabelMap("other", PARTS)
SWAPS: MirrorSwaps = (("left", "right"),)
ALWAYS = AugmentParams(hflip=1.0)
DRAWN = {  # the left hand in the first two columns, the right one in the last two; they overlap in column 2
    LEFT: np.array([[[1, 1, 2, 0, 0], [1, 0, 0, 0, 255]]], np.uint8),
    RIGHT: np.array([[[0, 0, 2, 1, 1], [0, 0, 0, 0, 1]]], np.uint8),
    VISIBLE: np.array([[[1, 1, 2, 2, 2], [1, 0, 0, 0, 2]]], np.uint8),
    OTHER: np.array([[[1, 1, 2, 0, 0], [1, 0, 0, 0, 255]]], np.uint8),
}
FRAME = np.arange(30, dtype=np.uint8).reshape(1, 2, 5, 3)


def test_a_mirrored_left_hand_is_a_right_one() -> None:
    frame, masks = augment(FRAME, DRAWN, ALWAYS, rng(0), SWAPS)
    np.testing.assert_array_equal(frame, FRAME[:, :, ::-1])
    assert masks[LEFT].tolist() == [[[1, 1, 2, 0, 0], [1, 0, 0, 0, 0]]]
    assert masks[RIGHT].tolist() == [[[0, 0, 2, 1, 1], [255, 0, 0, 0, 1]]]
    assert masks[VISIBLE].tolist() == [[[1, 1, 1, 2, 2], [1, 0, 0, 0, 2]]]
    assert masks[OTHER].tolist() == [[[0, 0, 2, 1, 1], [255, 0, 0, 0, 1]]]


@pytest.mark.parametrize(("params", "swaps"), [(ALWAYS, ()), (AugmentParams(hflip=0), SWAPS)])
def test_nothing_swaps_undeclared_or_unmirrored(params: AugmentParams, swaps: MirrorSwaps) -> None:
    _, masks = augment(FRAME, DRAWN, params, rng(0), swaps)
    step = -1 if params.hflip else 1
    for one, drawn in DRAWN.items():
        np.testing.assert_array_equal(masks[one], drawn[:, :, ::step])


def test_a_rotated_or_zoomed_mirror_image_swaps_too() -> None:
    params = AugmentParams(hflip=0.5, rotate=170, zoom=(0.9, 1.2), shift=0.01)
    swapped = 0
    for seed in range(20):
        both = {LEFT: np.full((1, 9, 9), 1, np.uint8), RIGHT: np.full((1, 9, 9), 2, np.uint8)}
        _, masks = augment(np.zeros((1, 9, 9, 3), np.uint8), both, params, rng(seed), SWAPS)
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
    assert declared.mirror_swaps == SWAPS and silent.mirror_swaps == ()
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
    twice = store(tmp_path / "twice", (LEFT, RIGHT), {"mirror_swaps": [["left", "right"], ["left", "other"]]})
    with pytest.raises(MaskcastError, match=r"index.json: mirror_swaps has 'left' twice; give it one partner"):
        _ = twice.mirror_swaps


THUMBS = LabelMap("mask", ("background", "left thumb", "right thumb", "table", "left palm", "right palm"))
PAIRS = [["left thumb", "right thumb"], ["left palm", "right palm"]]
HANDS = np.array([[[1, 1, 3, 0, 5], [4, 4, 3, 255, 2]]], np.uint8)
MIRRORED_HANDS = [[[4, 0, 3, 2, 2], [1, 255, 3, 5, 5]]]


def test_classes_of_one_map_swap_pair_by_pair(tmp_path: Path) -> None:
    with ClipWriter(tmp_path / "clips", height=2, width=5, maps=[THUMBS], meta={"mirror_swaps": PAIRS}) as writer:
        writer.add("one", split="train", kind="labelled", frames=FRAME, masks={"mask": HANDS})
    (masks,) = LabelledWindows(ClipStore(tmp_path / "clips"), (THUMBS,), training(ALWAYS)).batch(0).masks
    assert masks[0].tolist() == MIRRORED_HANDS


def test_default_augmentation_never_shows_a_left_thumb_on_the_right(tmp_path: Path) -> None:
    clips = hands(tmp_path / "clips", {"mirror_swaps": PAIRS})
    windows = LabelledWindows(clips, (THUMBS,), training(AugmentParams()))
    mirrored = 0
    for step in range(30):
        (masks,) = windows.batch(step).masks
        assert set(masks[..., :15].unique().tolist()) <= {0, 1, 4}
        assert set(masks[..., 15:].unique().tolist()) <= {0, 2, 5}
        mirrored += int((masks == 5).any())
    assert 5 < mirrored < 25


def hands(root: Path, meta: dict[str, object], length: int = 4) -> ClipStore:
    """Left thumb and palm on the left of a frame, the right ones on its right, in all frames."""
    masks = np.zeros((length, 20, 30), np.uint8)
    masks[:, 2:8, 2:8], masks[:, 12:18, 3:9], masks[:, 2:8, 20:26] = 1, 4, 2
    with ClipWriter(root, height=20, width=30, maps=[THUMBS], meta=meta) as writer:
        for split in ("train", "val"):
            frames = np.zeros((*masks.shape, 3), np.uint8)
            writer.add(split, split=split, kind="labelled", frames=frames, masks={"mask": masks})
    return ClipStore(root)


def test_a_mirrored_window_of_a_forecaster_has_swapped_classes(tmp_path: Path) -> None:
    declared, silent = hands(tmp_path / "declared", {"mirror_swaps": PAIRS}), hands(tmp_path / "silent", {})
    window = [Window(0, slice(0, 4), False), Window(0, slice(0, 4), True)]
    for clips, expected in ((declared, [2, 5, 1]), (silent, [1, 4, 2])):
        source = PixelBatches(clips, list(clips.clips), Input.MASKS)
        plain, mirrored = source.batch(window).numpy()
        assert [plain[0, 4, 4], plain[0, 14, 5], plain[0, 4, 22]] == [1, 4, 2]
        assert [mirrored[0, 4, 25], mirrored[0, 14, 24], mirrored[0, 4, 7]] == expected
        frames = PixelBatches(clips, list(clips.clips), Input.FRAMES).batch(window)
        assert torch.equal(frames[0].flip(2), frames[1])


@pytest.mark.parametrize("several", [False, True])
def test_mirrored_tracks_are_those_of_the_mirrored_masks(several: bool, tmp_path: Path) -> None:
    clips = hands(tmp_path / "clips", {"mirror_swaps": PAIRS})
    model = ObjectsConfig(hidden=8, several=several).build(THUMBS.num_classes)
    source = model.batch_source(clips, list(clips.clips))
    batch = source.batch([Window(0, slice(0, 4), False), Window(0, slice(0, 4), True)])
    assert isinstance(batch, torch.Tensor)
    plain, mirrored = ({row[0]: row[3] for row in each[0, :, :4].tolist()} for each in batch)  # class to x
    assert plain.keys() == {1, 2, 4} and mirrored.keys() == {2, 1, 5}
    assert [mirrored[k] for k in (2, 1, 5)] == pytest.approx([-plain[k] for k in (1, 2, 4)])


def test_numbers_of_objects_keep_their_count_when_classes_swap(tmp_path: Path) -> None:
    """Two left thumbs are objects 1 and 1 + K; mirrored, they are right thumbs, 2 and 2 + K."""
    masks = np.zeros((4, 20, 40), np.uint8)
    masks[:, 2:8, 2:8], masks[:, 2:8, 14:20] = 1, 1
    with ClipWriter(
        tmp_path / "clips", height=20, width=40, maps=[THUMBS], meta={"mirror_swaps": PAIRS}
    ) as writer:
        writer.add("0", split="train", kind="labelled", masks={"mask": masks})
    clips = ClipStore(tmp_path / "clips")
    source = ObjectsConfig(hidden=8, several=True).build(THUMBS.num_classes).batch_source(clips, list(clips.clips))
    batch = source.batch([Window(0, slice(0, 4), False), Window(0, slice(0, 4), True)])
    assert isinstance(batch, torch.Tensor)
    assert batch[:, 0, :, 0].tolist() == [[1, 7], [2, 8]]


def test_objects_of_both_sides_swap_number_by_number(tmp_path: Path) -> None:
    """One left shoe, two right ones: mirrored, the second right one needs a second left one to become."""
    maps = [LabelMap("objects", ("background", "left shoe", "right shoe", "sock"), "instances")]
    meta: dict[str, object] = {"mirror_swaps": ["left shoe", "right shoe"]}
    masks = np.array([[[7, 0, 8, 9, 5]]], np.uint16)
    with ClipWriter(tmp_path / "clips", height=1, width=5, maps=maps, meta=meta) as writer:
        objects = {"objects": {7: 1, 8: 2, 9: 2, 5: 3}}
        writer.add("0", split="train", kind="labelled", masks={"objects": masks}, objects=objects)
    clips = ObjectClasses(ClipStore(tmp_path / "clips"))
    assert clips.classes == ("background", "left shoe 1", "left shoe 2", "right shoe 1", "right shoe 2", "sock 1")
    source = PixelBatches(clips, list(clips.clips), Input.MASKS)
    both = source.batch([Window(0, slice(0, 1), False), Window(0, slice(0, 1), True)])
    assert both[:, 0, 0].tolist() == [[1, 0, 3, 4, 5], [5, 2, 1, 0, 3]]


def forecast_task(clips: ClipStore, masks: ClipStore, flip: float) -> ForecastTask:
    schedule = TrainingParams(epochs=1, steps_per_epoch=1, batch_size=8, learning_rate=0.1)
    params = ForecastTraining(context_frames=2, min_context_frames=2, horizon=2, training=schedule, flip=flip)
    config, train = ConvLSTMConfig(hidden=4, stride=2), clips.select("train")
    stores = {"clips": clips, "masks": masks, "target": masks}
    return ForecastTask(
        config.build(clips.num_classes), config, params, **stores, train=train, masker=None, fingerprint="x"
    )


def test_the_batches_of_a_forecaster_hold_no_left_thumb_on_the_right(tmp_path: Path) -> None:
    clips = hands(tmp_path / "clips", {"mirror_swaps": PAIRS})
    for batch in forecast_task(clips, clips, 0.5).batch(3):
        assert isinstance(batch, TrackBatch)
        left, right = batch.masks_CTHW[..., :15], batch.masks_CTHW[..., 15:]
        assert set(left.unique().tolist()) == {0, 1, 4}
        assert set(right.unique().tolist()) == {0, 2, 5}
        x_of = [(row[0], row[3] > 0) for row in batch.tracks_BTS8.flatten(0, 2).tolist() if row[1]]
        assert set(x_of) == {(1, False), (4, False), (2, True), (5, True)}


def test_masks_that_declare_nothing_swap_what_the_clips_do(tmp_path: Path) -> None:
    hands(tmp_path / "clips", {"mirror_swaps": PAIRS})
    hands(tmp_path / "masks", {})
    clips, masks = open_stores(tmp_path / "clips", tmp_path / "masks", None)
    for batch in forecast_task(clips, KnownMasks(masks, clips), 0.5).batch(3):
        assert isinstance(batch, TrackBatch)
        assert set(batch.masks_CTHW[..., 15:].unique().tolist()) == {0, 2, 5}


def test_forecasters_that_a_mirror_image_would_mislead_are_refused(tmp_path: Path) -> None:
    clips = hands(tmp_path / "clips", {"mirror_swaps": PAIRS})
    old = hands(tmp_path / "old", {"mirror_swaps": []})
    with pytest.raises(MaskcastError, match=r"old: mirror_swaps differ from those of .*clips; run generate_masks"):
        forecast_task(clips, old, 0.5)
    forecast_task(clips, old, 0)
    with ClipWriter(
        tmp_path / "two", height=2, width=5, maps=[LEFT, RIGHT], meta={"mirror_swaps": ["left", "right"]}
    ) as w:
        for split in ("train", "val"):
            masks = {one.name: DRAWN[one].repeat(4, 0) for one in (LEFT, RIGHT)}
            w.add(split, split=split, kind="labelled", frames=FRAME.repeat(4, 0), masks=masks)
    left = ClipStore(tmp_path / "two", "left")
    with pytest.raises(MaskcastError, match=r"two: label map 'left' becomes 'right' .* set flip of pretrain"):
        forecast_task(left, left, 0.5)
    forecast_task(left, left, 0)


def test_boxes_of_a_mirrored_image_swap_their_classes() -> None:
    boxes = np.array([[0, 0, 4, 4], [12, 2, 20, 8]], np.float32)  # a left hand and a cup
    sample = Sample(np.zeros((10, 20, 3), np.uint8), boxes, np.array([0, 2]))
    swapped_K = swapped_ids(("left hand", "right hand", "cup"), (("left hand", "right hand"),))
    mirrored = augment_boxes(sample, (10, 20), BoxAugmentParams(hflip=1), rng(0), swapped_K)
    assert mirrored.boxes_N4.tolist() == [[16, 0, 20, 4], [0, 2, 8, 8]] and mirrored.labels_N.tolist() == [1, 2]
    plain = augment_boxes(sample, (10, 20), BoxAugmentParams(hflip=0), rng(0), swapped_K)
    assert plain.labels_N.tolist() == [0, 2]
    assert augment_boxes(sample, (10, 20), BoxAugmentParams(hflip=1), rng(0)).labels_N.tolist() == [0, 2]


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
