"""AP of each image: by hand, and equal to COCO's AP where the image is the only one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskcast.evaluation.coco import image_scores
from maskcast.evaluation.coco.evaluator import Kind, Truth, evaluate
from maskcast.evaluation.coco.files import read_detections, read_truth
from maskcast.evaluation.coco.image_scores import average_precision

A, B = [10, 10, 40, 40], [100, 10, 40, 40]


def one(image: int, category: int, box: list[float], **keys: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "area": 1600, **keys}


def test_images_are_scored_alone_by_the_categories_of_their_truth() -> None:
    truths = [
        *(one(5, 7, box) for box in (A, B)),
        one(5, 9, A),
        one(3, 7, A),
        one(8, 9, A, iscrowd=1),
        one(4, 9, B),
    ]
    categories = [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}]
    found = [
        one(5, 7, A, score=0.9),
        one(5, 7, [200, 200, 9, 9], score=0.8),  # false, between two hits
        one(5, 7, B, score=0.7),
        one(5, 9, A, score=0.1),  # the only one of its category: no other image's scores count
        one(3, 7, [10, 10, 40, 30], score=0.9),  # IoU 0.75: right at six of ten thresholds
        one(3, 9, A, score=1.0),  # of a category without truth there
        one(8, 9, A, score=1.0),
        one(2, 7, A, score=1.0),
    ]
    images = [{"id": n} for n in (8, 5, 4, 3, 2)]
    ap = average_precision(evaluate(Truth(images, categories, truths), found, "bbox"))
    cats = (51 * 1 + 50 * 2 / 3) / 101  # precision 1 up to recall 0.5, then 2/3
    np.testing.assert_allclose(ap, [np.nan, (cats + 1) / 2, 0, 0.6, np.nan], atol=1e-12)
    assert np.isnan(average_precision(evaluate(Truth(images, categories, []), found, "bbox"))).all()
    np.testing.assert_array_equal(
        average_precision(evaluate(Truth(images, categories, truths), [], "bbox")), [np.nan, 0, 0, 0, np.nan]
    )


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_it_is_the_ap_of_a_set_of_one_image(
    kind: Kind, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared_data / "fixtures/coco_val2014_100"
    truth = read_truth(folder / "instances_val2014_100.json", kind)
    found = read_detections(folder / f"instances_val2014_fake{kind}100_results.json", truth, kind)
    monkeypatch.setattr(image_scores, "CHUNK", 50)
    ap = average_precision(evaluate(truth, found, kind))
    for place in range(0, len(truth.images), 4):
        image = truth.images[place]
        own, hits = (
            [one for one in each if one["image_id"] == image["id"]] for each in (truth.annotations, found)
        )
        alone = evaluate(Truth([image], truth.categories, own), hits, kind).summary["AP"]
        assert ap[place] == pytest.approx(alone, abs=1e-12, nan_ok=True)
