"""Scores against counts done by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from maskcast.errors import MaskcastError
from maskcast.evaluation.metrics import (
    SMALL,
    accuracy,
    confusion,
    dice_per_class,
    jaccard_per_class,
    macro_dice,
    macro_jaccard,
    mean_where_labelled,
)

# Class 0 is right in 2 of 3 pixels, class 1 takes one pixel of 0 and loses one to 2, class 3 never occurs.
TARGET = np.array([[0, 0, 0], [1, 1, 2]], np.uint8)
PREDICTION = np.array([[0, 0, 1], [1, 2, 2]], np.uint8)
MATRIX = np.array([[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]])


def test_the_matrix_has_targets_as_rows() -> None:
    matrix = confusion(TARGET, PREDICTION, 4)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, MATRIX)


def test_scores_by_hand() -> None:
    np.testing.assert_allclose(jaccard_per_class(MATRIX), [2 / 3, 1 / 3, 1 / 2, np.nan])
    np.testing.assert_allclose(dice_per_class(MATRIX), [4 / 5, 2 / 4, 2 / 3, np.nan])
    assert accuracy(MATRIX) == 4 / 6


def test_an_absent_class_is_left_out_or_counted_as_zero() -> None:
    assert macro_jaccard(MATRIX, absent="omit") == pytest.approx(1.5 / 3)
    assert macro_jaccard(MATRIX, absent="zero") == pytest.approx(1.5 / 4)
    assert macro_dice(MATRIX) == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)


def test_background_can_be_left_out_of_the_mean() -> None:
    assert macro_jaccard(MATRIX, absent="omit", background=False) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert macro_jaccard(MATRIX, absent="zero", background=False) == pytest.approx((1 / 3 + 1 / 2) / 3)


def test_a_class_only_predicted_is_not_absent() -> None:
    matrix = confusion(np.array([0, 0]), np.array([0, 1]), 3)
    assert macro_jaccard(matrix, absent="omit") == pytest.approx((1 / 2 + 0) / 2)


def test_ignored_target_pixels_are_left_out_whatever_was_predicted() -> None:
    target = np.array([0, 1, 255, 255], np.uint8)
    prediction = np.array([0, 1, 0, 255], np.uint8)
    np.testing.assert_array_equal(confusion(target, prediction, 2), np.eye(2))


def test_matrices_of_parts_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    target, prediction = rng.integers(0, 49, (2, 6, 20, 30), dtype=np.uint8)
    parts = sum(confusion(t, p, 49) for t, p in zip(target, prediction, strict=True))
    np.testing.assert_array_equal(parts, confusion(target, prediction, 49))


@pytest.mark.parametrize("classes", [3, 255])
@pytest.mark.parametrize("pixels", [0, 1000, SMALL - 1, SMALL, 2 * SMALL])
def test_few_pixels_are_counted_as_many(pixels: int, classes: int) -> None:
    rng = np.random.default_rng(0)
    target, prediction = rng.integers(0, classes, (2, pixels), dtype=np.uint8)
    target[::5] = prediction[::10] = 255
    expected = np.zeros((classes, classes), np.int64)
    np.add.at(expected, (target[target < 255], prediction[target < 255]), 1)
    matrix = confusion(target, prediction, classes)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_equal_to_scikit_learn(dtype: type) -> None:
    rng = np.random.default_rng(1)
    target = rng.integers(0, 40, (4, 24, 36)).astype(dtype)  # 40..48 stay absent
    prediction = np.where(rng.random(target.shape) < 0.7, target, rng.integers(0, 40, target.shape)).astype(dtype)
    peer = jaccard_score(target.ravel(), prediction.ravel(), average="macro")
    assert macro_jaccard(confusion(target, prediction, 49), absent="omit") == pytest.approx(peer, abs=1e-12)


def test_nothing_counted_has_no_score() -> None:
    empty = np.zeros((3, 3), np.int64)
    assert np.isnan(macro_jaccard(empty, absent="omit"))
    assert macro_jaccard(empty, absent="zero") == 0
    assert np.isnan(accuracy(empty))


@pytest.mark.parametrize(
    ("target", "prediction", "message"),
    [
        (np.array([0, 49], np.uint8), np.array([0, 1], np.uint8), "target masks contain class id 49 .1 pixel."),
        (
            np.array([0, 1], np.uint8),
            np.array([60, 60], np.uint8),
            "predicted masks contain class id 60 .2 pixels.",
        ),
        (np.array([0, 1], np.uint8), np.array([255, 1], np.uint8), "class id 255"),
        (np.array([0, -1]), np.array([0, 1]), "class id -1"),
        (np.array([0, 300]), np.array([0, 1]), "class id 300"),
        (np.array([0.0, 1.0]), np.array([0, 1]), "float64"),
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), "differ in shape"),
    ],
)
def test_what_is_no_class_id_is_named(target: np.ndarray, prediction: np.ndarray, message: str) -> None:
    with pytest.raises(MaskcastError, match=message):
        confusion(target, prediction, 49)


def test_frames_without_a_label_are_left_out_of_a_clips_mean() -> None:
    assert mean_where_labelled([float("nan"), 0.5, 1.0]) == 0.75
    assert mean_where_labelled([0.25, 0.75]) == 0.5
    assert np.isnan(mean_where_labelled([float("nan")]))
