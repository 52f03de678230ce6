"""COCO numbers: published answers, cases computed by hand, crowds, areas, curves and categories."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskcast.evaluation.coco.evaluator import SUMMARY_LINES, CocoScores, Kind, Truth, build_evaluation, evaluate
from maskcast.evaluation.coco.files import read_detections, read_truth

# shared/data/fixtures/SOURCE.txt: what cocoapi published for these files, in full digits.
PUBLISHED = {
    "bbox": [
        0.5045806987249628,
        0.6969727247299577,
        0.5729816669904824,
        0.5856257209410443,
        0.5193996948036719,
        0.5013978986347466,
        0.38681277964578054,
        0.5936795762842003,
        0.595352982877607,
        0.6398109626113442,
        0.5664205978994309,
        0.5642905982905982,
    ],
    "segm": [
        0.3195452758576433,
        0.5622883972521636,
        0.29892653412086784,
        0.3873740315997837,
        0.31018272403369485,
        0.3269339071005138,
        0.2682297225711534,
        0.41544868114906375,
        0.4168394992198818,
        0.4694498622754236,
        0.37675922666197265,
        0.3814715099715099,
    ],
}
A, B = [10, 10, 40, 40], [100, 10, 40, 40]


def truth(*boxes: list[int], images: int = 1, **keys: Any) -> Truth:
    """All boxes in image 1 and of category 7; category 9 has none."""
    annotations = [{"image_id": 1, "category_id": 7, "bbox": box, "area": box[2] * box[3]} | keys for box in boxes]
    categories = [{"id": 9, "name": "dog"}, {"id": 7, "name": "cat"}]
    return Truth([{"id": n} for n in range(1, images + 1)], categories, annotations)


def found(box: list[float], score: float = 0.9, category: int = 7, image: int = 1) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


@pytest.fixture(scope="module", params=["bbox", "segm"])
def published(request: pytest.FixtureRequest, shared_data: Path) -> CocoScores:
    kind: Kind = request.param
    folder = shared_data / "fixtures/coco_val2014_100"
    truths = read_truth(folder / "instances_val2014_100.json", kind)
    results = read_detections(folder / f"instances_val2014_fake{kind}100_results.json", truths, kind)
    return evaluate(truths, results, kind)


def test_the_published_numbers_come_out(published: CocoScores) -> None:
    assert list(published.summary) == list(SUMMARY_LINES)
    np.testing.assert_allclose(list(published.summary.values()), PUBLISHED[published.kind], rtol=0, atol=1e-9)


def test_the_table_is_the_one_of_coco(published: CocoScores, shared_data: Path) -> None:
    text = (shared_data / "fixtures/coco_val2014_100/val2014_fake_eval_res.txt").read_text()
    section = text.split(f"type={published.kind}")[1].split("-----")[0]
    theirs = [line.replace("Precision (AP)", "Precision  (AP)") for line in section.splitlines() if " @[ " in line]
    theirs = [line.replace("Recall    (AR)", "Recall     (AR)") for line in theirs]
    assert published.table().splitlines() == theirs


def test_a_category_at_a_time_scores_as_all_at_once(published: CocoScores) -> None:
    whole = build_evaluation(published.truth, published.detections, published.kind)
    whole.run()
    np.testing.assert_array_equal(list(published.summary.values()), whole.stats[: len(SUMMARY_LINES)])
    np.testing.assert_array_equal(published.precision_TRK, whole.eval["precision"][..., 0, -1])
    np.testing.assert_array_equal(published.recall_TK, whole.eval["recall"][..., 0, -1])


def test_memory_does_not_grow_with_images_times_categories() -> None:
    images = [{"id": n} for n in range(1000)]
    categories = [{"id": n, "name": str(n)} for n in range(20)]
    annotations = [{"image_id": n, "category_id": n % 20, "bbox": A, "area": 1600} for n in range(1000)]
    detections = [found(A, category=n % 20, image=n) for n in range(1000)]
    tracemalloc.start()
    scores = evaluate(Truth(images, categories, annotations), detections, "bbox")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert scores.summary["AP"] == pytest.approx(1)
    assert peak < 6e6  # 3.5 MB; all 20,000 pairs at once take 10


def test_categories_and_curves_average_to_the_summary(published: CocoScores) -> None:
    ap = [one.AP for one in published.per_category]
    assert np.nanmean(ap) == pytest.approx(published.summary["AP"], abs=1e-12)
    assert np.nanmean([one.AR100 for one in published.per_category]) == pytest.approx(published.summary["AR100"])
    assert sum(one.truths for one in published.per_category) == 839 - 9  # 9 are crowds
    assert sum(one.detections for one in published.per_category) == len(published.detections)
    means = {name: curve.mean() for name, curve in published.curves().items()}
    names = {"IoU=0.50:0.95": "AP", "IoU=0.50": "AP50", "IoU=0.75": "AP75"}
    assert means == pytest.approx({curve: published.summary[name] for curve, name in names.items()}, abs=1e-12)


def test_a_false_alarm_between_two_hits() -> None:
    scores = evaluate(truth(A, B), [found(A, 0.9), found([200, 200, 40, 40], 0.8), found(B, 0.7)], "bbox")
    # Precision 1 up to recall .50 (51 of the 101 places), then 2 of 3.
    assert scores.summary["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert scores.summary["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert scores.summary["AR1"] == pytest.approx(0.5)
    assert scores.summary["AR10"] == scores.summary["AR100"] == pytest.approx(1)
    assert scores.curves()["IoU=0.50"][[0, 50, 51, 100]] == pytest.approx([1, 1, 2 / 3, 2 / 3])


def test_a_shift_passes_the_thresholds_below_its_iou() -> None:
    # 40 x 40 moved by 7: 33 / 47 = 0.702 passes .50 .55 .60 .65 .70.
    scores = evaluate(truth(A), [found([17, 10, 40, 40])], "bbox")
    assert scores.summary["AP"] == pytest.approx(0.5)
    assert (scores.summary["AP50"], scores.summary["AP75"]) == pytest.approx((1, 0))


def test_areas_sort_the_truths() -> None:
    scores = evaluate(truth([0, 0, 31, 31], [50, 50, 60, 60]), [found([50, 50, 60, 60])], "bbox")
    assert (scores.summary["AP_small"], scores.summary["AP_medium"]) == pytest.approx((0, 1))
    assert np.isnan(scores.summary["AP_large"])
    assert scores.table().splitlines()[5].endswith("area= large | maxDets=100 ] = -1.000")
    assert "AP_large" not in scores.flat()
    assert scores.flat()["truths"] == 2


def test_a_crowd_takes_detections_and_is_never_missed() -> None:
    crowd = Truth(
        [{"id": 1}],
        [{"id": 7, "name": "cat"}],
        [*truth(A).annotations, *truth([100, 100, 80, 80], iscrowd=1).annotations],
    )
    # Both surer detections lie inside the crowd: their IoU with it is intersection over their own area, 1.
    inside = [found([100, 100, 20, 20], 0.99), found([150, 150, 20, 20], 0.98)]
    assert evaluate(crowd, [*inside, found(A)], "bbox").summary["AP"] == pytest.approx(1)
    assert evaluate(crowd, [found(A)], "bbox").summary["AR100"] == pytest.approx(1)
    assert evaluate(truth(A), [*inside, found(A)], "bbox").summary["AP"] == pytest.approx(1 / 3)
    assert evaluate(crowd, [found(A)], "bbox").per_category[0].truths == 1


def test_categories_are_not_mixed() -> None:
    scores = evaluate(truth(A), [found(A, category=9)], "bbox")
    cat, dog = scores.per_category
    assert (cat.id, cat.name, cat.truths, cat.detections, cat.AP) == (7, "cat", 1, 0, 0)
    assert (dog.id, dog.name, dog.truths, dog.detections) == (9, "dog", 0, 1)
    assert np.isnan([dog.AP, dog.AP50, dog.AP75, dog.AR100]).all()


def test_ids_of_annotations_play_no_part() -> None:
    """Pycocotools takes a truth with id 0 for one that was not found."""
    zero = truth(A, B)
    zero = Truth(zero.images, zero.categories, [one | {"id": n} for n, one in enumerate(zero.annotations)])
    assert evaluate(zero, [found(A), found(B)], "bbox").summary["AP"] == pytest.approx(1)


def test_nothing_found_is_zero_and_nothing_to_find_is_nan() -> None:
    nothing = evaluate(truth(A), [], "bbox")
    assert (nothing.summary["AP"], nothing.summary["AR100"]) == (0, 0)
    for results in ([], [found(A)]):
        none = evaluate(truth(), results, "bbox")
        assert np.isnan(list(none.summary.values())).all()
        assert np.isnan(none.curves()["IoU=0.50"]).all()
        assert none.flat() == {"images": 1, "truths": 0, "detections": len(results)}


def test_it_changes_nothing_that_it_is_given(capfd: pytest.CaptureFixture[str]) -> None:
    truths, results = truth(A, B), [found(A)]
    before = repr((truths, results))
    evaluate(truths, results, "bbox")
    assert repr((truths, results)) == before
    assert capfd.readouterr() == ("", "")
