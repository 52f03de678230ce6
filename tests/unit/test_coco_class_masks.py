"""COCO numbers of masks whose overlap is known by construction."""

import numpy as np
import pytest
from faster_coco_eval.core import mask as rle

from maskcast.evaluation.coco.class_masks import SegmentationAP
from maskcast.evaluation.coco.evaluator import SUMMARY_LINES, Truth, evaluate
from maskcast.evaluation.metrics import confusion


def square(top: int, left: int, class_id: int = 1, side: int = 20) -> np.ndarray:
    mask = np.zeros((1, 40, 60), np.uint8)
    mask[0, top : top + side, left : left + side] = class_id
    return mask


def score(target: np.ndarray, prediction: np.ndarray, confidence: np.ndarray | None = None) -> dict[str, float]:
    ap = SegmentationAP(5)
    counts = np.stack([confusion(*frames, 5) for frames in zip(target, prediction, strict=True)])
    ap.add(counts, target, prediction, confidence)
    return ap.compute()


def test_perfect_masks_score_one_under_the_twelve_names() -> None:
    values = score(square(5, 5), square(5, 5))
    assert list(values) == list(SUMMARY_LINES)
    assert values["AP"] == values["AR1"] == values["AR100"] == values["AP_small"] == pytest.approx(1)
    assert np.isnan(values["AP_medium"])  # 400 pixels are small; no medium target exists
    assert np.isnan(values["AP_large"])


def test_a_shift_passes_the_thresholds_below_its_iou() -> None:
    # 20 x 20 moved by 3: 17 / 23 = 0.739 passes .50 .55 .60 .65 .70, half of the ten thresholds.
    values = score(square(5, 5), square(5, 8))
    assert values["AP"] == pytest.approx(0.5)
    assert values["AP50"] == pytest.approx(1)
    assert values["AP75"] == pytest.approx(0)


def test_classes_are_averaged_and_absent_ones_left_out() -> None:
    target = np.maximum(square(5, 5, 1), square(5, 35, 2))
    assert score(target, square(5, 5, 1))["AP"] == pytest.approx(0.5)  # classes 3 and 4 never occur


def test_a_surer_false_alarm_ranks_before_the_hit() -> None:
    target = np.concatenate([square(5, 5), np.zeros((1, 40, 60), np.uint8)])
    prediction = np.concatenate([square(5, 5), square(5, 5)])  # the second frame holds nothing
    confidence = np.full((2, 40, 60), 100, np.uint8)
    confidence[1] = 200
    assert score(target, prediction, confidence)["AP"] == pytest.approx(0.5)
    confidence[1] = 50
    assert score(target, prediction, confidence)["AP"] == pytest.approx(1)


def test_ignored_pixels_hold_no_false_alarm() -> None:
    target = square(5, 5)
    target[0, :, 30:] = 255
    assert score(target, np.maximum(square(5, 5), square(5, 35, 2)))["AP"] == pytest.approx(1)


def test_nothing_found_is_zero_and_nothing_to_find_is_nan() -> None:
    empty = np.zeros((1, 40, 60), np.uint8)
    assert score(square(5, 5), empty)["AP"] == 0
    assert np.isnan(score(empty, square(5, 5))["AP"])


def test_the_numbers_are_those_of_general_instances() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        size = rng.integers(4, 13, 2)  # blocks of 10 x 10 pixels: instances of every range of areas
        target = rng.integers(0, 4, (6, *size), dtype=np.uint8).repeat(10, 1).repeat(10, 2)
        noise = (rng.random((6, *size)) < rng.random((6, 1, 1))).repeat(10, 1).repeat(10, 2)
        prediction = np.where(noise, rng.integers(0, 5, target.shape, dtype=np.uint8), target)
        prediction[5] = 0
        target[4] = rng.integers(0, 2)
        target[:, :, 13] = 255
        confidence = rng.integers(0, 256, target.shape, dtype=np.uint8)
        confidence[:3] = 200  # equal scores rank in the order of the frames
        for sure in (confidence, None):
            expected = _of_instances(target, prediction, sure)
            np.testing.assert_array_equal(list(score(target, prediction, sure).values()), expected)


def _of_instances(target: np.ndarray, prediction: np.ndarray, confidence: np.ndarray | None) -> list[float]:
    truths, found = [], []
    for n, (true, predicted) in enumerate(zip(target, prediction, strict=True)):
        for k in range(1, 5):
            for records, mask in ((truths, true == k), (found, (predicted == k) & (true != 255))):
                if mask.any():
                    shape = rle.encode(np.asfortranarray(mask, np.uint8))
                    record = {"image_id": n, "category_id": k, "segmentation": shape, "area": int(mask.sum())}
                    certain = 1.0 if confidence is None else float(confidence[n][mask].mean()) / 255
                    records.append(record | {"score": certain})
    images = [{"id": n, "height": target.shape[1], "width": target.shape[2]} for n in range(len(target))]
    categories = [{"id": k, "name": str(k)} for k in range(1, 5)]
    return list(evaluate(Truth(images, categories, truths), found, "segm").summary.values())


def test_it_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    score(square(5, 5), square(5, 8))
    assert capfd.readouterr() == ("", "")
