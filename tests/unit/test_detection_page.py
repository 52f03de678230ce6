"""The page of a detector's evaluation: scores, categories, curves and images of known detections."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskcast.evaluation.coco.evaluator import CocoScores, Truth, evaluate
from maskcast.markup import Html
from maskcast.report.detection_page import detection_sections


def scored() -> CocoScores:
    """One red box that is found, one blue that is not, and a category without truth."""
    categories = [{"id": 1, "name": "blue"}, {"id": 2, "name": "<red>"}, {"id": 3, "name": "green"}]
    boxes = [{"id": n, "image_id": 1, "category_id": n, "bbox": [20 * n, 4, 10, 10]} for n in (1, 2)]
    annotations = [one | {"area": 100, "iscrowd": 0} for one in boxes]
    truth = Truth([{"id": 1, "width": 80, "height": 20, "file_name": "street/a.jpg"}], categories, annotations)
    found = [{"image_id": 1, "category_id": 2, "bbox": [40, 4, 10, 10], "score": 0.9}]
    return evaluate(truth, found, "bbox")


@pytest.fixture
def sections(tmp_path: Path) -> Mapping[str, Html]:
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "pictures/01_1.png")
    return detection_sections(scored(), tmp_path, "val")


def rows(text: str) -> list[list[str]]:
    cells = [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]
    return [row for row in cells if row]


def test_sections_lead_from_the_whole_to_the_single_image(sections: Mapping[str, Html]) -> None:
    assert list(sections) == ["Scores", "By category", "Precision over recall", "Images", "What the scores mean"]
    assert "AP 0.5000</strong>, AP50 0.5000: 2 truths in 1 image, 1 detection." in sections["Scores"]
    header, row = rows(sections["Scores"])
    values = dict(zip(header, row, strict=True))
    assert values["AP_small"] == "0.5000" and values["AP_large"] == "n/a"
    assert "These images also selected the best epoch of the training" in sections["Scores"]


def test_images_bear_the_names_of_their_files(sections: Mapping[str, Html]) -> None:
    assert "<figcaption>street/a.jpg</figcaption>" in sections["Images"]
    assert 'alt="street/a.jpg: truth and detections"' in sections["Images"] and "01_1" not in sections["Images"]


def test_the_worst_category_is_first_and_one_without_truth_is_last(sections: Mapping[str, Html]) -> None:
    _, *found = rows(sections["By category"])
    assert [row[0] for row in found] == ["blue", "&lt;red&gt;", "green"]
    assert [row[1] for row in found] == ["0.0000", "1.0000", "n/a"]
    assert found[1][-2:] == ["1", "1"]


def test_the_table_of_categories_says_that_it_leaves_out_crowds(
    sections: Mapping[str, Html], tmp_path: Path
) -> None:
    assert "leave out" not in sections["By category"]
    found = scored()
    blue, red = found.truth.annotations
    truth = Truth(found.truth.images, found.truth.categories, [blue, red, blue | {"id": 3, "iscrowd": 1}])
    shown = detection_sections(evaluate(truth, found.detections, "bbox"), tmp_path / "none", "train")
    assert "Images" not in shown
    assert ": 3 truths in 1 image" in shown["Scores"] and "selected" not in shown["Scores"]
    assert "worst AP first, those without truths last; its truths leave out 1 crowd<" in shown["By category"]


def test_images_have_a_key_and_a_text(sections: Mapping[str, Html]) -> None:
    images = sections["Images"]
    for name in ("found", "missed, dashed", "false alarm", "crowd, may be found or not"):
        assert f"{name}</li>" in images
    assert 'alt="street/a.jpg: truth and detections" src="data:image/png;base64,' in images
    assert "polyline" in sections["Precision over recall"]
