"""Several objects of one class are told apart, followed, and forecast one by one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.labels import MASK, single_map
from maskcast.models.base import save_model
from maskcast.models.forecasting.batches import Window
from maskcast.models.forecasting.configs import ObjectsConfig
from maskcast.models.objects.parts import max_objects, number_objects
from maskcast.models.objects.tracks import unpack_tracks
from maskcast.stages.finetune_forecaster import FinetuneForecaster, finetuning

FRAMES, HEIGHT, WIDTH, CAR, POLE, CLASSES = 12, 40, 100, 1, 2, 3
SECOND = CAR + CLASSES  # the number of the second car


def scene(*cars: tuple[int, int, int], pole: int | None = None) -> np.ndarray:
    """Returns masks of cars: their row, their first column, and columns that they move in a frame."""
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for t in range(FRAMES):
        for row, column, speed in cars:
            left = column + speed * t
            masks[t, row : row + 8, max(0, left) : max(0, left + 16)] = CAR
        if pole is not None:
            masks[t, :, pole : pole + 5] = POLE
    return masks


def test_where_a_class_is_one_object_the_numbers_are_the_classes() -> None:
    masks = scene((10, 5, 3), pole=80)
    np.testing.assert_array_equal(number_objects(masks, CLASSES), masks)


def test_two_cars_keep_their_numbers_while_they_touch() -> None:
    found = number_objects(scene((10, 2, 6), (15, 82, -6)), CLASSES)
    for t, number_HW in enumerate(found):
        assert set(np.unique(number_HW)) == {0, CAR, SECOND}
        middle = [float(np.nonzero(number_HW == number)[1].mean()) for number in (CAR, SECOND)]
        assert middle[0] == pytest.approx(9.5 + 6 * t, abs=3) and middle[1] == pytest.approx(89.5 - 6 * t, abs=3)


def test_a_car_that_a_pole_divides_stays_one() -> None:
    masks = scene((10, 5, 4), pole=45)
    assert [len(np.unique(np.diff(np.flatnonzero(row)))) for row in masks[8, 10:11] == CAR] == [2]  # two parts
    np.testing.assert_array_equal(number_objects(masks, CLASSES), masks)


def test_two_cars_beside_a_pole_are_two() -> None:
    found = number_objects(scene((10, 5, 0), (10, 70, 0), pole=45), CLASSES)
    assert set(np.unique(found)) == {0, CAR, SECOND, POLE}


def test_numbers_of_a_frame_know_of_no_later_one() -> None:
    masks = scene((10, 2, 6), (15, 82, -6), pole=45)
    np.testing.assert_array_equal(number_objects(masks[:7], CLASSES), number_objects(masks, CLASSES)[:7])


def test_a_speck_is_a_part_of_the_car_beside_it_and_unknown_pixels_are_nothing() -> None:
    masks = scene((10, 5, 3))
    masks[3, 22, 20], masks[:, :2] = CAR, 255
    found = number_objects(masks, CLASSES)
    assert found[3, 22, 20] == CAR and set(np.unique(found)) == {0, CAR}


def test_more_objects_than_numbers_share_the_last() -> None:
    masks = np.zeros((2, 60, 60), np.uint8)
    masks[:, 2::10, 2::10] = masks[:, 3::10, 2::10] = masks[:, 2::10, 3::10] = masks[:, 3::10, 3::10] = 1
    assert max_objects(60) == 4
    masks[:, 30:, :] = 0
    found = number_objects(np.kron(masks, np.ones((1, 2, 2), np.uint8)), 60)
    assert set(np.unique(found)) == {0, 1, 61, 121, 181}


def test_each_car_has_its_own_track_and_its_own_forecast(tmp_path: Path) -> None:
    """Two cars that drive apart: as one object they stay where they are, as two they drive on."""
    masks = scene((4, 42, 3), (24, 42, -3))
    with ClipWriter(tmp_path / "clips", height=HEIGHT, width=WIDTH, maps=single_map("012")) as writer:
        writer.add("0", split="train", kind="labelled", masks={"mask": masks})
    store = ClipStore(tmp_path / "clips")
    errors = {}
    for several in (False, True):
        model = ObjectsConfig(hidden=8, several=several).build(CLASSES).eval()
        model.reset_to_constant_velocity()
        batch = model.batch_source(store, list(store.clips)).batch([Window(0, slice(0, 8), False)])
        assert isinstance(batch, torch.Tensor)
        objects, _ = unpack_tracks(batch)
        assert objects.tolist() == [[CAR, SECOND]] if several else [[CAR]]
        context = torch.from_numpy(masks[None, :8])
        found, confidence = model.forecast_with_confidence(context, 4)
        assert set(found.unique().tolist()) == {0, CAR} and confidence is not None
        errors[several] = (found[0].numpy() != masks[8:]).mean()
    assert errors[True] == 0 < errors[False]


@pytest.mark.parametrize("labelled", [range(FRAMES), range(1, FRAMES, 4)], ids=["all frames", "every fourth"])
def test_true_masks_have_the_numbers_of_the_generated_ones(labelled: Sequence[int], tmp_path: Path) -> None:
    true, generated = scene((4, 42, 1), (24, 42, 1)), scene((4, 42, 1), (24, 42, 1))
    generated[:, 4] = 0  # the masker misses a row, so that the other car is larger, and comes first
    sparse = np.full_like(true, 255)
    sparse[labelled] = true[labelled]
    kinds = {"split": "train", "kind": "labelled"}
    with (
        ClipWriter(tmp_path / "clips", height=HEIGHT, width=WIDTH, maps=single_map("012")) as clips,
        ClipWriter(tmp_path / "masks", height=HEIGHT, width=WIDTH, maps=single_map("012")) as masks,
    ):
        frames = np.zeros((*true.shape, 3), np.uint8)
        clips.add("a", **kinds, frames=frames, masks={MASK: sparse})
        clips.add("b", split="val", kind="labelled", frames=frames, masks={MASK: true})
        masks.add("a", **kinds, masks={MASK: generated})
    config = ObjectsConfig(hidden=8, several=True)
    meta = {"classes": list("012"), "context_frames": 6, "horizon": 6}
    save_model(tmp_path / "model", model=config.build(CLASSES), config=config, num_classes=CLASSES, meta=meta)
    schedule = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "learning_rate": 1e-3, "precision": "fp32"}
    params = FinetuneForecaster(training=schedule, context_frames=6, horizon=6, flip=0)
    paths = tmp_path / "clips", tmp_path / "masks", tmp_path / "masker", tmp_path / "model"
    paths[2].mkdir()
    task, *_ = finetuning(*paths, params)
    context, target = task.batch(0)
    objects, seen = unpack_tracks(context)
    _, future = unpack_tracks(target, objects)
    assert objects.tolist() == [[CAR, SECOND]] * 2
    assert torch.equal(future.visible_BTN.all(2), future.known_BT) and future.known_BT.any(1).all()
    rows = seen.centre_BTN2[:, -1:, :, 0].expand(-1, 6, -1)[future.visible_BTN]
    torch.testing.assert_close(future.centre_BTN2[..., 0][future.visible_BTN], rows, atol=0.02, rtol=0)
