"""Augmentation of images with boxes: a painted rectangle and its box stay together."""

import numpy as np
import pytest
from pydantic import ValidationError
from tests.conftest import painted_boxes

from maskcast.data.augment.boxes import (
    BoxAugmentParams,
    Sample,
    StrongParams,
    augment_boxes,
    resized_size,
    strong_view,
    transform,
)
from maskcast.seed import rng


def example(seed: int = 0, boxes: int = 2) -> Sample:
    return Sample(*painted_boxes(seed, 60, 96, boxes))


def painted(image: np.ndarray, label: int) -> np.ndarray:
    """Returns which pixels are of a class's colour, (H, W)."""
    strong, weak = image[..., (0, 2)[label]].astype(int), image[..., (2, 0)[label]].astype(int)
    return strong - weak > 70


def assert_boxes_hold_their_colour(sample: Sample) -> None:
    """Each box is the rectangle of its colour, to a pixel; nothing of a class lies outside its boxes."""
    height, width = sample.image_HWC.shape[:2]
    for label in (0, 1):
        inside = np.zeros((height, width), bool)
        for x1, y1, x2, y2 in sample.boxes_N4[sample.labels_N == label]:
            inside[round(y1) : round(y2), round(x1) : round(x2)] = True
        wrong = inside ^ painted(sample.image_HWC, label)
        edges = 2 * (height + width)  # a pixel along each side
        assert wrong.sum() <= edges
        assert painted(sample.image_HWC, label)[inside].mean() > 0.85 if inside.sum() > 60 else True


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "params",
    [
        {"hflip": 1},
        {"hflip": 0, "scale": (0.4, 0.9)},
        {"hflip": 0, "scale": (1.1, 2.5)},
        {"hflip": 0, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
        {"hflip": 0.5, "scale": (0.3, 3), "brightness": 0.1, "contrast": 0.1, "blur": 0.5, "noise": 3},
    ],
    ids=["flip", "shrink", "crop", "colour", "all"],
)
def test_boxes_follow_their_rectangles(params: dict[str, object], seed: int) -> None:
    sample = augment_boxes(example(seed), (90, 144), BoxAugmentParams(**params), rng(seed))  # type: ignore[arg-type]
    assert_boxes_hold_their_colour(sample)
    assert sample.image_HWC.dtype == np.uint8 and sample.boxes_N4.dtype == np.float32
    assert sample.image_HWC.shape[0] <= 90 and sample.image_HWC.shape[1] <= 144


def test_nothing_allowed_resizes_alone() -> None:
    sample = example()
    same = transform(sample, (60, 96), BoxAugmentParams(hflip=0), rng(0))
    np.testing.assert_array_equal(same.image_HWC, sample.image_HWC)
    np.testing.assert_array_equal(same.boxes_N4, sample.boxes_N4)
    double = transform(sample, (120, 192), BoxAugmentParams(hflip=0), rng(0))
    np.testing.assert_allclose(double.boxes_N4, 2 * sample.boxes_N4)


def test_a_flip_by_hand() -> None:
    sample = Sample(np.zeros((10, 20, 3), np.uint8), np.array([[2, 1, 5, 9]], np.float32), np.array([1]))
    assert transform(sample, (10, 20), BoxAugmentParams(hflip=1), rng(0)).boxes_N4.tolist() == [[15, 1, 18, 9]]


def test_a_crop_clips_boxes_and_drops_those_outside() -> None:
    counts = set()
    for seed in range(40):
        sample = transform(example(1), (60, 96), BoxAugmentParams(hflip=0, scale=(3, 3)), rng(seed))
        assert sample.image_HWC.shape == (60, 96, 3)
        assert len(sample.boxes_N4) == len(sample.labels_N)
        counts.add(len(sample.boxes_N4))
        if len(sample.boxes_N4):
            assert sample.boxes_N4.min() >= 0 and (sample.boxes_N4 <= [96, 60, 96, 60]).all()
            assert (sample.boxes_N4[:, 2:] - sample.boxes_N4[:, :2] >= 1).all()
    assert counts >= {0, 1}


def test_an_image_without_boxes_stays_without() -> None:
    sample = augment_boxes(example(boxes=0), (60, 96), BoxAugmentParams(scale=(0.5, 2)), rng(0))
    assert sample.boxes_N4.shape == (0, 4) and sample.labels_N.shape == (0,)


def test_jitter_is_even_on_a_log_scale() -> None:
    params = BoxAugmentParams(hflip=0, scale=(0.25, 1))
    heights = [transform(example(), (64, 96), params, rng(seed)).image_HWC.shape[0] for seed in range(200)]
    assert min(heights) < 18 and max(heights) > 58
    assert np.mean(np.array(heights) < 32) == pytest.approx(0.5, abs=0.1)


def test_fitted_by_hand() -> None:
    assert resized_size(300, 400, 150, 1000) == (150, 200)
    assert resized_size(100, 400, 200, 400) == (100, 400)
    assert resized_size(10, 10, 100, 400) == (100, 100)


def test_the_strong_view_changes_pixels_and_not_the_original() -> None:
    image = example().image_HWC
    before = image.copy()
    views = [strong_view(image, StrongParams(patches=3), rng(seed)) for seed in range(8)]
    np.testing.assert_array_equal(image, before)
    assert all(view.shape == image.shape and view.dtype == np.uint8 for view in views)
    plain = StrongParams(brightness=0, contrast=0, saturation=0, blur=0, patches=2)
    hidden = [(strong_view(image, plain, rng(seed)) != image).any(2).mean() for seed in range(60)]
    assert min(hidden) == 0 and 0.1 < max(hidden) < 0.25  # none to two patches, a tenth of the area at most


@pytest.mark.parametrize("wrong", [{"hflip": 2}, {"scale": (0, 1)}, {"scale": (2, 1)}, {"zoom": (1, 1)}])
def test_params_refuse_what_makes_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BoxAugmentParams(**wrong)  # type: ignore[arg-type]
