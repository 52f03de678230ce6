"""Views: crops within their bounds, the second near the first, small objects found, nothing drawn elsewhere."""

import numpy as np
import pytest
from pydantic import ValidationError

from maskcast.data.augment.views import CropBox, ViewParams, random_crop, two_views
from maskcast.seed import rng

PLAIN = {"hflip": 0, "recolour": 0, "grey": 0, "blurred": 0}


def frame(height: int = 60, width: int = 90) -> np.ndarray:
    return rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_views_are_a_function_of_the_generator_and_the_frames() -> None:
    params = ViewParams(size=(24, 32), candidates=3, noise=4)
    one, two, other = (two_views(frame(), frame(), params, rng(seed)) for seed in (1, 1, 2))
    for first, second, third in zip(one, two, other, strict=True):
        assert first.shape == (24, 32, 3) and first.dtype == np.uint8
        np.testing.assert_array_equal(first, second)
        assert (first != third).any()


def test_a_crop_has_the_area_and_the_ratio_asked_for_and_lies_inside() -> None:
    params = ViewParams(scale=(0.1, 0.3), ratio=(0.5, 2))
    boxes = [random_crop((60, 90), params, rng(1, k)) for k in range(300)]
    areas = [box.height * box.width / 5400 for box in boxes]
    ratios = [box.width / box.height for box in boxes]
    assert 0.09 < min(areas) < 0.12 and 0.27 < max(areas) < 0.32
    assert 0.45 < min(ratios) < 0.6 and 1.7 < max(ratios) < 2.2
    assert all(box.top >= 0 and box.left >= 0 for box in boxes)
    assert all(box.top + box.height <= 60 and box.left + box.width <= 90 for box in boxes)


def test_the_second_crop_stays_near_the_first() -> None:
    params = ViewParams(scale=(0.04, 0.05), ratio=(1, 1), max_offset=0.25)
    near = CropBox(20, 40, 16, 16)
    for k in range(200):
        box = random_crop((60, 90), params, rng(2, k), near)
        assert abs(box.top + box.height / 2 - 28) <= 4.5 and abs(box.left + box.width / 2 - 48) <= 4.5


def test_candidates_find_an_object_on_plain_ground() -> None:
    picture = np.full((80, 120, 3), 128, np.uint8)
    picture[30:40, 50:60] = (200, 20, 20)
    seen = {}
    for candidates in (1, 12):
        params = ViewParams(**PLAIN, size=(16, 16), scale=(0.03, 0.03), ratio=(1, 1), candidates=candidates)
        views = [two_views(picture, picture, params, rng(3, k))[0] for k in range(100)]
        seen[candidates] = sum(view.std() > 5 for view in views)
    assert seen[1] < 35 and seen[12] > 75


def test_an_unchanged_view_is_the_crop_itself() -> None:
    params = ViewParams(**PLAIN, size=(60, 90), scale=(1, 1), ratio=(1.5, 1.5))
    for view in two_views(frame(), frame(), params, rng(0)):
        np.testing.assert_array_equal(view, frame())


@pytest.mark.parametrize("change", [{"hflip": 1}, {"grey": 1}, {"blurred": 1, "blur": 3}, {"recolour": 1}])
def test_each_change_does_what_its_name_says(change: dict[str, float]) -> None:
    params = ViewParams.model_validate(PLAIN | {"size": (60, 90), "scale": (1, 1), "ratio": (1.5, 1.5)} | change)
    view, _ = two_views(frame(), frame(), params, rng(0))
    if "hflip" in change:
        np.testing.assert_array_equal(view, frame()[:, ::-1])
    elif "grey" in change:
        assert np.ptp(view, axis=2).max() == 0
    elif "blur" in change:
        assert view.std() < 0.9 * frame().std()
    else:
        assert (view != frame()).mean() > 0.5


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"size": (4, 64)}, "size"),
        ({"scale": (0.5, 0.2)}, "scale"),
        ({"scale": (0.0, 0.2)}, "scale"),
        ({"scale": (0.2, 1.2)}, "scale"),
        ({"ratio": (2, 1)}, "ratio"),
        ({"candidates": 0}, "candidates"),
        ({"hue": 0.6}, "hue"),
        ({"grey": 1.5}, "grey"),
    ],
)
def test_wrong_values_name_their_key(change: dict[str, object], line: str) -> None:
    with pytest.raises(ValidationError, match=line):
        ViewParams.model_validate(change)
