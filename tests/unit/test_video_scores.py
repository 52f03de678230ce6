"""Scores of masks through time, by hand."""

import numpy as np
import pytest

from maskcast.evaluation.video import flicker
from maskcast.evaluation.video_scores import VideoScores, compare_with_base

TRUTH = np.array([[[0, 1, 1, 255]], [[0, 1, 1, 1]], [[0, 0, 1, 1]]], np.uint8)
FOUND = np.array([[[0, 1, 0, 1]], [[1, 1, 0, 1]], [[0, 0, 1, 1]]], np.uint8)


def test_flicker_is_what_changes_of_the_error_and_not_of_the_truth() -> None:
    # pixel 0: right, wrong, right; 1: always right, though it changes; 2: wrong, wrong, right; 3: known twice
    assert flicker(TRUTH, FOUND) == (3, 4, 7)


def test_scores_pool_frames_and_stay_within_clips() -> None:
    scores = VideoScores(2)
    scores.add("a", TRUTH, FOUND)
    scores.add("b", TRUTH[::-1], TRUTH[::-1])
    table = scores.table()
    # confusion of a: background 3 right 1 wrong, foreground 5 right 2 wrong; of b: all 11 right
    assert table["jaccard"] == pytest.approx(((3 + 4) / 10 + (5 + 7) / 15) / 2)
    assert table["jaccard_no_background"] == pytest.approx((5 + 7) / 15)
    assert table["accuracy"] == pytest.approx(19 / 22)
    assert table["flicker"] == pytest.approx(3 / 14) and table["change"] == pytest.approx(5 / 14)
    assert np.isnan(table["mvc8"]) and np.isnan(table["mvc16"])
    assert scores.per_clip["b"]["jaccard"] == 1 and scores.per_clip["b"]["flicker"] == 0
    assert scores.per_clip["a"]["flicker"] == pytest.approx(3 / 7)


def test_long_clips_have_consistency_and_empty_ones_no_jaccard() -> None:
    scores = VideoScores(2)
    truth = np.zeros((9, 2, 2), np.uint8)
    found = truth.copy()
    found[8, 0] = 1
    scores.add("a", truth, found)
    assert scores.table()["mvc8"] == pytest.approx((1 + 0.5) / 2)
    assert np.isnan(scores.table()["jaccard"]) and np.isnan(scores.per_clip["a"]["jaccard"])


def test_a_masker_beside_its_base() -> None:
    ours, base = {"jaccard": 0.9, "flicker": 0.01}, {"jaccard": 0.8, "flicker": 0.02}
    assert compare_with_base(ours, base) == pytest.approx({"jaccard_gain": 0.1, "flicker_ratio": 0.5})
    assert np.isnan(compare_with_base(ours, base | {"flicker": 0.0})["flicker_ratio"])
