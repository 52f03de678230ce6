"""Repeat factors by hand, and what is drawn by them."""

from pathlib import Path

import numpy as np
import pytest
from tests.conftest import write_detection_set

from maskcast.data.detection.dataset import DetectionSet
from maskcast.seed import rng
from maskcast.training.tasks.detection_sampler import ImageSampler, repeat_factors


def test_repeat_factors_by_hand() -> None:
    present = np.zeros((10, 3), bool)
    present[:, 0] = True  # in every image: f = 1, r = 1
    present[:4, 1] = True  # f = 0.4, r = max(1, sqrt(0.36 / 0.4)) = 1
    present[0, 2] = True  # f = 0.1, r = sqrt(0.36 / 0.1) = 1.897
    assert repeat_factors(present, 0.36).tolist() == pytest.approx([3.6**0.5] + [1] * 9)
    assert repeat_factors(present, 0.05).tolist() == [1] * 10


def test_an_image_takes_the_factor_of_its_rarest_class_and_an_empty_one_none() -> None:
    present = np.array([[1, 1], [1, 0], [0, 0], [0, 0]], bool)
    assert repeat_factors(present, 1.0).tolist() == pytest.approx([2, 2**0.5, 1, 1])


def test_a_class_that_no_image_has_changes_nothing() -> None:
    assert repeat_factors(np.array([[True, False]]), 0.5).tolist() == [1]


def test_images_are_drawn_as_often_as_their_factors_say(tmp_path: Path) -> None:
    split = DetectionSet(write_detection_set(tmp_path / "set", train=6, val=1)).split("train")
    present = np.array([[label in split.labels(n) for label in (0, 1)] for n in range(6)])
    factors = repeat_factors(present, 1.0)
    assert factors.min() == 1 < factors.max()
    for threshold, expected in ((None, np.ones(6) / 6), (1.0, factors / factors.sum())):
        sampler = ImageSampler(split, 2, threshold)
        drawn = np.bincount([sampler.draw(rng(0, k)) for k in range(3000)], minlength=6) / 3000
        np.testing.assert_allclose(drawn, expected, atol=0.03)
