"""Augmentation: frame and mask move together, and only as the seed says."""

import numpy as np
import pytest
from pydantic import ValidationError

from maskcast.data.augment.frames import AugmentParams, augment
from maskcast.labels import IGNORE
from maskcast.seed import rng

COLOURS = np.array([[30, 30, 30], [240, 20, 20], [20, 20, 240]], np.uint8)
EVERYTHING = AugmentParams(
    hflip=0.5, zoom=(0.8, 1.3), rotate=20, shift=0.2, brightness=0.2, contrast=0.2, saturation=0.2, blur=1, noise=4
)


def example() -> tuple[np.ndarray, np.ndarray]:
    """A frame whose colours say the class: a red and a blue block on grey."""
    mask = np.zeros((60, 80), np.uint8)
    mask[8:30, 10:34] = 1
    mask[34:56, 40:72] = 2
    return COLOURS[mask], mask


@pytest.mark.parametrize("seed", range(12))
def test_the_mask_stays_on_its_object(seed: int) -> None:
    frame, mask = augment(*example(), EVERYTHING, rng(seed))
    assert set(np.unique(mask)) <= {0, 1, 2, IGNORE}
    bright = frame.astype(int)
    for class_id, channel in ((1, 0), (2, 2)):
        coloured = bright[..., channel] - bright[..., 1] > 80
        both, either = coloured & (mask == class_id), (coloured | (mask == class_id)) & (mask != IGNORE)
        assert both.sum() > 0.85 * either.sum() or not (mask == class_id).any()


def test_nothing_allowed_changes_nothing() -> None:
    frame, mask = augment(*example(), AugmentParams(hflip=0), rng(0))
    np.testing.assert_array_equal(frame, example()[0])
    np.testing.assert_array_equal(mask, example()[1])


def test_a_flip_is_exact() -> None:
    frame, mask = augment(*example(), AugmentParams(hflip=1), rng(0))
    np.testing.assert_array_equal(frame, example()[0][:, ::-1])
    np.testing.assert_array_equal(mask, example()[1][:, ::-1])


def test_a_crop_is_a_window_of_the_frame() -> None:
    frame, mask = example()
    frame[..., 1] = np.arange(60)[:, None] + np.arange(80)  # makes every window unlike any other
    found = set()
    for seed in range(20):
        small_frame, small_mask = augment(frame, mask, AugmentParams(hflip=0, crop=(40, 100)), rng(seed))
        assert small_mask.shape == (40, 80)  # never larger than the frame
        top = int(small_frame[0, 0, 1])
        found.add(top)
        np.testing.assert_array_equal(small_frame, frame[top : top + 40])
        np.testing.assert_array_equal(small_mask, mask[top : top + 40])
    assert min(found) < 5 < 15 < max(found) <= 20


def test_a_crop_on_an_object_always_holds_one() -> None:
    frame, mask = example()
    mask[:, :72] = 0  # one column of objects is left, at the right edge
    mask[:, 79] = IGNORE
    mask[50, 75] = 2
    crops = [augment(frame, mask, AugmentParams(crop=(10, 20), crop_on_object=1), rng(s))[1] for s in range(30)]
    assert all((crop == 2).sum() == 1 for crop in crops)
    assert len({int(np.argmax(crop == 2)) for crop in crops}) > 10  # anywhere in the window
    _, empty = augment(frame, np.zeros_like(mask), AugmentParams(crop=(10, 20), crop_on_object=1), rng(0))
    assert empty.shape == (10, 20)


def test_what_a_shift_uncovers_has_no_label() -> None:
    for seed in range(20):
        _, mask = augment(*example(), AugmentParams(hflip=0, shift=0.5), rng(seed))
        rows, columns = (mask != IGNORE).any(1), (mask != IGNORE).any(0)
        assert (mask[np.ix_(rows, columns)] != IGNORE).all()  # a rectangle is left
        expected = np.isin(mask, (1, 2)).sum()
        assert expected <= np.isin(example()[1], (1, 2)).sum()
    assert (mask == IGNORE).any()


def test_zoom_magnifies_about_the_centre() -> None:
    mask = np.zeros((61, 81), np.uint8)
    mask[25:36, 35:46] = 1
    _, zoomed = augment(COLOURS[mask], mask, AugmentParams(hflip=0, zoom=(2, 2)), rng(0))
    ys, xs = np.nonzero(zoomed == 1)
    assert (ys.mean(), xs.mean()) == pytest.approx((30, 40), abs=0.5)
    assert (zoomed == 1).sum() == pytest.approx(4 * 121, rel=0.1)


def test_brightness_scales_and_saturation_keeps_grey() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    mask = np.zeros((4, 4), np.uint8)
    frame, _ = augment(grey, mask, AugmentParams(saturation=1), rng(3))
    np.testing.assert_allclose(frame, 100, atol=1)
    bright = [augment(grey, mask, AugmentParams(brightness=0.3), rng(s))[0] for s in range(20)]
    assert 70 <= min(map(np.min, bright)) < 80 < 120 < max(map(np.max, bright)) <= 130


def test_the_seed_decides_alone() -> None:
    first, again, other = (augment(*example(), EVERYTHING, rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize(
    "wrong", [{"hflip": 1.5}, {"zoom": (0, 1)}, {"zoom": (2, 1)}, {"crop": (0, 4)}, {"rotation": 3}, {"noise": -1}]
)
def test_params_refuse_what_makes_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AugmentParams(**wrong)  # type: ignore[arg-type]
