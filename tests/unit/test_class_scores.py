"""The table of classes: counted by hand."""

import numpy as np

from maskcast.labels import LabelMap
from maskcast.report.class_scores import HEADER, class_scores


def test_the_worst_class_comes_first_and_absent_ones_are_left_out() -> None:
    label_map = LabelMap("mask", ("rest", "red", "blue", "never"))
    counts = np.array([[8, 0, 2, 0], [0, 4, 0, 0], [3, 1, 0, 0], [0, 0, 0, 0]])
    assert HEADER == ["class", "Jaccard", "precision", "recall", "true pixels", "most confused with"]
    assert class_scores(label_map, counts) == [
        ["blue", "0.000", "0.000", "0.000", "4", "rest (75.0%)"],
        ["rest", "0.615", "0.727", "0.800", "10", "blue (20.0%)"],
        ["red", "0.800", "0.800", "1.000", "4", "-"],
    ]


def test_a_class_that_is_only_found_has_no_recall_and_comes_last() -> None:
    found = class_scores(LabelMap("mask", ("rest", "red")), np.array([[3000, 1], [0, 0]]))
    assert found == [
        ["rest", "1.000", "1.000", "1.000", "3,001", "red (0.0%)"],
        ["red", "0.000", "0.000", "-", "0", "-"],
    ]
