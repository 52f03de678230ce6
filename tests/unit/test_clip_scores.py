"""Scores of steadiness, of mattes and of clips, counted by hand."""

import math
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose

from maskcast.errors import MaskcastError
from maskcast.evaluation.clip_scores import DEFINITIONS, scores_of
from maskcast.evaluation.mattes import dtssd, mad
from maskcast.evaluation.metrics import accuracy_per_class, confusion
from maskcast.evaluation.video import Flicker, consistency, flicker
from maskcast.labels import LabelMap

PERSON = LabelMap("person", ("background", "person"))
ALPHA = LabelMap("alpha", ("background", "foreground"), "alpha")


def clip_scores(label_map: LabelMap, clips: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    scores = scores_of(label_map)
    for number, (truth, found) in enumerate(clips):
        scores.add(str(number), truth, found)
    return scores.table()


def frames(*rows: list[int]) -> np.ndarray:
    """Returns masks of one row a frame, (T, 1, W)."""
    return np.array(rows, np.uint8)[:, None]


def test_flicker_counts_changed_errors_and_changed_predictions() -> None:
    truth = frames([0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1])
    found = frames([0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0])
    # errors e = (found != truth) (truth + 1): [0 1 0 2], [0 0 0 2], [0 2 0 2]: pixel 1 changes twice
    # predictions: pixel 1 changes once
    assert flicker(truth, found) == Flicker(errors=2, predictions=1, pixels=8)
    assert flicker(truth, found).rates() == (2 / 8, 1 / 8)


def test_flicker_leaves_out_pixels_without_a_label_in_either_frame() -> None:
    truth = frames([0, 255, 1], [0, 0, 1], [0, 0, 255])
    found = frames([0, 0, 1], [1, 1, 1], [1, 0, 0])
    # pixel 1 counts from frame 1 to 2 alone, pixel 2 from 0 to 1 alone
    assert flicker(truth, found) == Flicker(errors=2, predictions=2, pixels=4)
    assert all(map(math.isnan, flicker(truth[:1], found[:1]).rates()))


def test_consistency_is_of_pixels_whose_truth_stays() -> None:
    truth = frames([0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 1, 0])
    found = frames([0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1])
    # windows of 2: truth stays at 3 pixels, predictions at 2 of them; then at 4, and all stay, two of them wrong
    assert consistency(truth, found, 2) == [pytest.approx(2 / 3), 1.0]
    # of 3: truth stays at pixels 0, 1, 2, predictions at 0 and 2
    assert consistency(truth, found, 3) == [pytest.approx(2 / 3)]
    assert consistency(truth, found, 4) == []


def test_consistency_leaves_out_what_has_no_label() -> None:
    truth = frames([0, 255], [0, 255], [255, 255])
    found = frames([0, 0], [1, 0], [1, 0])
    assert consistency(truth, found, 2) == [0.0]
    with pytest.raises(MaskcastError, match="give at least 2"):
        consistency(truth, found, 1)


def test_mattes_are_scored_as_in_robust_video_matting() -> None:
    truth = frames([0, 255], [0, 255], [0, 0])
    found = frames([0, 204], [51, 204], [51, 51])
    # differences in 255ths of 1: [0 -.2], [.2 -.2], [.2 .2]; their changes: [.2 0], [0 .4]
    assert_allclose(mad(truth, found), [100, 200, 200])
    assert_allclose(dtssd(truth, found), [100 * math.sqrt(0.04 / 2), 100 * math.sqrt(0.16 / 2)])
    assert dtssd(truth[:1], found[:1]) == []


@pytest.mark.parametrize("score", [mad, dtssd, lambda truth, found: confusion(truth, found, 2)])
def test_a_long_clip_takes_little_more_memory_than_its_masks(score) -> None:
    truth = np.ones((200, 100, 200), np.uint8)
    tracemalloc.start()
    score(truth, truth)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * truth.nbytes


@pytest.mark.parametrize("score", [flicker, mad, dtssd, lambda truth, found: consistency(truth, found, 2)])
def test_masks_of_another_shape_are_refused(score) -> None:
    with pytest.raises(MaskcastError, match="differ in shape"):
        score(frames([0, 0]), frames([0]))


def test_a_steady_clip_and_a_flickering_one_by_hand() -> None:
    # one clip of 2 frames x 4 pixels and one of 1 frame: no flicker is counted from one to the other
    first = frames([0, 0, 1, 1], [0, 0, 1, 1]), frames([0, 0, 1, 1], [0, 1, 1, 1])
    second = frames([0, 0, 0, 0]), frames([0, 0, 0, 0])
    scores = clip_scores(PERSON, [first, second])
    assert scores.keys() == DEFINITIONS.keys() - {"mad", "dtssd"}
    # matrix [[7, 1], [0, 4]]: IoU 7/8 and 4/5
    assert scores["jaccard"] == pytest.approx((7 / 8 + 4 / 5) / 2)
    # per frame: 1; (1/2 + 2/3) / 2; 1, of background alone
    assert scores["jaccard_frames"] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2 + 1) / 3)
    # of the one object: right in the first frame, then 2 of 3 pixels; its contour, one pixel, is one pixel away
    assert (scores["j"], scores["f"], scores["j_and_f"]) == pytest.approx(((1 + 2 / 3) / 2, 1, (5 / 6 + 1) / 2))
    assert scores["dice"] == pytest.approx((14 / 15 + 8 / 9) / 2)
    assert scores["accuracy"] == pytest.approx(11 / 12)
    assert scores["class_accuracy"] == pytest.approx((7 / 8 + 1) / 2)
    assert (scores["flicker"], scores["change"]) == (1 / 4, 1 / 4)
    assert math.isnan(scores["mvc8"]) and math.isnan(scores["mvc16"])


def test_long_clips_have_consistencies_over_8_and_16_frames() -> None:
    truth = np.zeros((16, 2, 2), np.uint8)
    found = truth.copy()
    found[8:, 0, 0] = 1  # one change, in 7 of the 9 windows of 8 frames
    scores = clip_scores(PERSON, [(truth, found)])
    assert scores["mvc8"] == pytest.approx((2 * 1 + 7 * 3 / 4) / 9)
    assert scores["mvc16"] == pytest.approx(3 / 4)


def test_mattes_of_clips_are_averaged_over_frames() -> None:
    clips = [(frames([0, 255], [0, 255]), frames([0, 204], [51, 204])), (frames([0, 0]), frames([0, 0]))]
    scores = clip_scores(ALPHA, clips)
    assert scores.keys() == {"mad", "dtssd"}
    assert scores["mad"] == pytest.approx((100 + 200 + 0) / 3)
    assert scores["dtssd"] == pytest.approx(100 * math.sqrt(0.02))
    assert all(math.isnan(value) for value in clip_scores(ALPHA, []).values())


def test_the_recall_of_a_class_without_pixels_is_unknown() -> None:
    assert_allclose(accuracy_per_class(np.array([[3, 1], [0, 0]])), [3 / 4, np.nan])
