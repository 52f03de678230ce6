"""COCO files of others: what is read, and one clear line for each fault."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval.core import mask as rle

from maskcast.data.coco.masks import sum_run_lengths
from maskcast.errors import MaskcastError
from maskcast.evaluation.coco.evaluator import Kind, evaluate
from maskcast.evaluation.coco.files import read_detections, read_truth

HEIGHT, WIDTH = 40, 60
SQUARE = [[10, 5, 30, 5, 30, 25, 10, 25]]


def compressed(polygons: list[list[float]], height: int = HEIGHT, width: int = WIDTH) -> dict[str, Any]:
    packed = rle.segmToRle(polygons, width, height)
    return {"size": [height, width], "counts": packed["counts"].decode()}


def runs(polygons: list[list[float]]) -> dict[str, Any]:
    flat = rle.decode(rle.segmToRle(polygons, WIDTH, HEIGHT)).ravel(order="F")
    edges = np.flatnonzero(np.diff(np.r_[0, flat, 1 - flat[-1]]))
    return {"size": [HEIGHT, WIDTH], "counts": np.diff(np.r_[0, edges]).tolist()}


def truth_content() -> dict[str, Any]:
    box = {"category_id": 3, "bbox": [10, 5, 20, 20], "area": 400, "iscrowd": 0, "segmentation": SQUARE}
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH} for n in (4, 8)],
        "categories": [{"id": 0, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [box | {"id": 0, "image_id": 4}, box | {"id": 9, "image_id": 8, "iscrowd": 1}],
    }


def results_content() -> list[dict[str, Any]]:
    one = {"image_id": 4, "category_id": 3, "bbox": [10, 5, 20, 20], "score": 0.5}
    return [one | {"segmentation": compressed(SQUARE)}, one | {"image_id": 8, "segmentation": runs(SQUARE)}]


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(tmp_path: Path, truth: Any, results: Any, kind: Kind) -> float:
    checked = read_truth(written(tmp_path / "gt.json", truth), kind)
    return evaluate(checked, read_detections(written(tmp_path / "dt.json", results), checked, kind), kind).summary[
        "AP"
    ]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_boxes_and_masks_of_all_forms_are_read(tmp_path: Path, kind: Kind) -> None:
    forms = [SQUARE, compressed(SQUARE), runs(SQUARE)]
    for truth_form in forms:
        truth = truth_content()
        truth["annotations"][0]["segmentation"] = truth_form
        for form in forms:
            results = results_content()
            results[0]["segmentation"] = form
            assert read(tmp_path, truth, results, kind) == pytest.approx(1)


def test_the_area_of_a_mask_sorts_it_even_where_a_box_stands_beside_it(tmp_path: Path) -> None:
    """Pycocotools takes the box's area if there is a box: a false alarm could change its size class."""
    results = [*results_content(), results_content()[0] | {"segmentation": compressed([[0, 0, 9, 0, 9, 9]])}]
    results[2] |= {"bbox": [0, 0, 50, 50], "score": 0.9}
    truth = read_truth(written(tmp_path / "gt.json", truth_content()), "segm")
    small = evaluate(truth, read_detections(written(tmp_path / "dt.json", results), truth, "segm"), "segm")
    assert small.summary["AP_small"] == pytest.approx(0.5)


def test_optional_keys_are_optional(tmp_path: Path) -> None:
    truth = truth_content()
    for one in truth["images"]:
        del one["file_name"], one["height"], one["width"]  # boxes need no sizes
    for one in truth["annotations"]:
        del one["segmentation"], one["iscrowd"]
    assert read(tmp_path, truth, results_content(), "bbox") == pytest.approx(1)


def change(*path: Any) -> Callable[[Any], None]:
    """Returns an edit: sets the value at the keys that come before it, or removes the last key (`del`)."""
    *keys, last, value = path

    def edit(content: Any) -> None:
        for key in keys:
            content = content[key]
        if value is del_:
            del content[last]
        else:
            content[last] = value

    return edit


del_ = object()
A, D = "annotations", "segmentation"
TRUTH_FAULTS = {
    "an image stands twice": (change("images", 1, "id", 4), r"gt.json: images\[1\] \(id 4\): id 4 occurs twice"),
    "an annotation stands twice": (change(A, 1, "id", 0), r"annotations\[1\] \(id 0\): id 0 occurs twice"),
    "a category stands twice": (change("categories", 1, "id", 0), r"categories\[1\] \(id 0\): id 0 occurs twice"),
    "no such image": (
        change(A, 1, "image_id", 5),
        r"annotations\[1\] \(id 9\): image_id 5 is not the id of an image of .*4 to 8",
    ),
    "no such category": (
        change(A, 0, "category_id", 1),
        r"\(id 0\): category_id 1 is not the id of a category of .*0 to 3",
    ),
    "no images": (change("images", del_), r"gt.json: missing list 'images' \(found: categories, annotations\)"),
    "empty images": (change("images", []), "images is empty"),
    "empty categories": (change("categories", []), "categories is empty"),
    "annotations no list": (change(A, {}), "annotations must be a list, not {}"),
    "an image without id": (change("images", 0, "id", del_), r"images\[0\]: missing key 'id' \(found: file_name"),
    "an id of text": (change("images", 0, "id", "4"), "id must be an integer, not '4'"),
    "an id of float": (change(A, 0, "image_id", 4.0), "image_id must be an integer, not 4.0"),
    "an id in a list": (
        change(A, 0, "id", [0]),
        r"annotations\[0\] \(id \[0\]\): id must be an integer, not \[0\]",
    ),
    "ids in lists": (change("categories", [{"id": [1], "name": "x"}]), r"id must be an integer, not \[1\]"),
    "a huge id": (change(A, 0, "id", 10**20), "id must be an integer, not 1000"),
    "a category without name": (
        change("categories", 0, "name", del_),
        r"categories\[0\] \(id 0\): missing key 'name'",
    ),
    "an annotation is no object": (change(A, 0, [1]), r"annotations\[0\]: must be an object, not \[1\]"),
    "a short box": (change(A, 1, "bbox", [1, 2, 3]), r"\(id 9\): bbox must be 4 numbers .*, not \[1, 2, 3\]"),
    "a box of text": (change(A, 1, "bbox", [1, 2, 3, "4"]), r"bbox must be 4 numbers .*'4'"),
    "a box of nothing": (change(A, 1, "bbox", [1, 2, 3, None]), "bbox must be 4 numbers .*None"),
    "a nested box": (change(A, 1, "bbox", [[1, 2, 3, 4]]), "bbox must be 4 numbers"),
    "a NaN box": (change(A, 0, "bbox", [1, 2, 3, float("nan")]), r"\(id 0\): bbox must be finite"),
    "an infinite box": (change(A, 0, "bbox", [1, 2, float("inf"), 4]), "bbox must be finite"),
    "a box out of all bounds": (change(A, 0, "bbox", [1e300, 2, 3, 4]), r"finite and below 1e\+09 pixels, not"),
    "a negative box": (
        change(A, 0, "bbox", [1, 2, -3, 4]),
        "bbox must have a width and height of at least 0, not",
    ),
    "no box": (
        change(A, 0, "bbox", del_),
        r"\(id 0\): missing key 'bbox'; it has 'segmentation': use --kind segm",
    ),
    "no area": (change(A, 0, "area", del_), "missing key 'area' .*; add it: the pixels of the mask"),
    "a negative area": (change(A, 0, "area", -1), "area must be finite and at least 0, not -1"),
    "an area of true": (change(A, 0, "area", True), "area must be a number, not True"),
    "an area of text": (change(A, 0, "area", "9"), "area must be a number, not '9'"),
    "a crowd of 2": (change(A, 0, "iscrowd", 2), "iscrowd must be 0 or 1, not 2"),
}
MASK_FAULTS = {
    "no size": (change("images", 0, "height", del_), r"gt.json: images\[0\] \(id 4\): missing key 'height'"),
    "no mask": (change(A, 0, D, []), r"\(id 0\): missing key 'segmentation'; it has 'bbox': use --kind bbox"),
    "a zero width": (change("images", 0, "width", 0), "width must be at least 1 pixel, not 0"),
    "an odd polygon": (change(A, 0, D, [[1, 2, 3, 4, 5, 6, 7]]), r"\(id 0\): a polygon has 7 numbers; expected"),
    "a polygon of two points": (change(A, 0, D, [[1, 2, 3, 4]]), "a polygon has 4 numbers; expected"),
    "a flat polygon": (change(A, 0, D, [1, 2, 3, 4, 5, 6]), "a polygon has no numbers"),
    "a NaN polygon": (change(A, 0, D, [[1, 2, 3, 4, 5, float("nan")]]), "values that are not finite numbers"),
    "a polygon of text": (change(A, 0, D, [[1, 2, 3, 4, 5, "6"]]), "values that are not finite numbers"),
    "a mask of text": (change(A, 0, D, "abc"), "segmentation must be a list of polygons .* or RLE"),
    "an RLE without size": (change(A, 0, D, {"counts": "abc"}), "segmentation must be a list of polygons"),
    "an RLE of another size": (
        change(A, 0, D, compressed(SQUARE, WIDTH, HEIGHT)),
        r"\(id 0\): its RLE is of size \[60, 40\], its image \[40, 60\]; resize",
    ),
    "runs too short": (
        change(A, 0, D, {"size": [HEIGHT, WIDTH], "counts": [5, 9]}),
        "counts of its RLE sum to 14, its image has 2400 pixels; encode it again",
    ),
    "negative runs": (change(A, 0, D, {"size": [HEIGHT, WIDTH], "counts": [-1, 2401]}), "integers of at least 0"),
    "runs of text": (change(A, 0, D, {"size": [HEIGHT, WIDTH], "counts": ["9"]}), "integers of at least 0"),
    "a string too short": (
        change(A, 0, D, {"size": [HEIGHT, WIDTH], "counts": "52"}),
        "counts of its RLE sum to 7, its image has 2400 pixels",
    ),
    "a string cut within a value": (
        change(A, 0, D, {"size": [HEIGHT, WIDTH], "counts": "52o"}),
        "not a COCO run-length string",
    ),
    "a string of other characters": (
        change(A, 0, D, {"size": [HEIGHT, WIDTH], "counts": "5\u00e9 "}),
        "not a COCO run-length string",
    ),
    "an empty string": (change(A, 0, D, {"size": [HEIGHT, WIDTH], "counts": ""}), "not a COCO run-length string"),
    "counts of nothing": (
        change(A, 0, D, {"size": [HEIGHT, WIDTH], "counts": None}),
        "not a COCO run-length string",
    ),
    "negative values in a string": (
        # 100, -1 and 2301 sum up to the image.
        change(A, 0, D, {"size": [HEIGHT, WIDTH], "counts": "T3OmW2"}),
        "counts of its RLE go below 0",
    ),
}
RESULT_FAULTS = {
    "no such image": (
        change(1, "image_id", 5),
        r"dt.json\[1\]: image_id 5 is not the id of an image .*\(1 of 2\); .*4 to 8",
    ),
    "no such category": (
        change(1, "category_id", 5),
        r"dt.json\[1\]: category_id 5 is not the id of a category of the",
    ),
    "no score": (change(1, "score", del_), r"dt.json\[1\]: missing key 'score' .*; add it"),
    "a NaN score": (change(1, "score", float("nan")), r"dt.json\[1\]: score must be finite, not nan"),
    "a score of text": (change(0, "score", "0.5"), r"dt.json\[0\]: score must be a number, not '0.5'"),
    "a score of true": (change(0, "score", True), r"dt.json\[0\]: score must be a number, not True"),
    "a box of true": (change(0, "bbox", [0, 0, 5, True]), r"dt.json\[0\]: bbox must be 4 numbers"),
    "an image id of true": (change(0, "image_id", True), r"dt.json\[0\]: image_id must be an integer, not True"),
    "a score of nothing": (change(0, "score", None), r"dt.json\[0\]: score must be a number, not None"),
    "no box": (
        change(1, "bbox", del_),
        r"dt.json\[1\]: missing key 'bbox'; it has 'segmentation': use --kind segm",
    ),
    "a negative box": (change(1, "bbox", [0, 0, 5, -1]), "bbox must have a width and height of at least 0"),
    "a short box": (change(0, "bbox", [0, 0, 5]), r"dt.json\[0\]: bbox must be 4 numbers"),
    "no object": (change(0, 5), r"dt.json\[0\]: must be an object, not 5"),
}


def refused(tmp_path: Path, truth: Any, results: Any, kind: Kind, line: str) -> None:
    with pytest.raises(MaskcastError, match=line) as raised:
        read(tmp_path, truth, results, kind)
    assert "\n" not in str(raised.value)
    assert re.match(r".*(gt\.json|dt\.json|images of the ground truth)", str(raised.value))


@pytest.mark.parametrize("fault", [*TRUTH_FAULTS, *MASK_FAULTS])
def test_a_faulty_truth_is_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    edit, line = (TRUTH_FAULTS | MASK_FAULTS)[fault]
    content = truth_content()
    edit(content)
    refused(tmp_path, content, results_content(), "segm" if fault in MASK_FAULTS else "bbox", line)


@pytest.mark.parametrize("fault", RESULT_FAULTS)
def test_faulty_results_are_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    edit, line = RESULT_FAULTS[fault]
    content = results_content()
    edit(content)
    refused(tmp_path, truth_content(), content, "bbox", line)


def test_masks_asked_of_results_that_hold_boxes(tmp_path: Path) -> None:
    boxes = [{key: value for key, value in one.items() if key != D} for one in results_content()]
    refused(
        tmp_path,
        truth_content(),
        boxes,
        "segm",
        r"dt.json\[0\]: missing key 'segmentation'; it has 'bbox': use --kind",
    )


def test_a_faulty_mask_among_the_results_is_named(tmp_path: Path) -> None:
    results = results_content()
    results[0][D]["counts"] += "5"
    refused(tmp_path, truth_content(), results, "segm", r"dt.json\[0\]: counts of its RLE sum to")


def test_results_of_another_image_set(tmp_path: Path) -> None:
    results = [one | {"image_id": 100 + n} for n, one in enumerate(results_content())]
    line = "dt.json: results of another image set: none of its image ids, e.g. 100, .*2 ids, 4 to 8"
    refused(tmp_path, truth_content(), results, "bbox", line)


@pytest.mark.parametrize(
    ("truth", "results", "line"),
    [
        ("{", [], r"gt.json: not valid JSON \(.*line 1"),
        ("\ud83d".encode("utf-8", "surrogatepass").decode("latin-1"), [], "gt.json: not valid JSON"),
        ([], truth_content(), "gt.json: must be an object .*not a list; give results as the second file"),
        ("7", [], "gt.json: must be an object .*, not 7"),
        (truth_content(), truth_content(), "dt.json: results must be a list of detections, not an object"),
        (truth_content(), "null", "dt.json: results must be a list of detections, not None"),
        (truth_content(), [], "dt.json: contains no detections; run the detector"),
        (truth_content(), "[{]", "dt.json: not valid JSON"),
    ],
)
def test_other_things_than_coco_files_are_refused(tmp_path: Path, truth: Any, results: Any, line: str) -> None:
    refused(tmp_path, truth, results, "bbox", line)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MaskcastError, match=r"nowhere.json: no such JSON file"):
        read_truth(tmp_path / "nowhere.json", "bbox")
    with pytest.raises(MaskcastError, match="cannot be read"):
        read_truth(tmp_path, "bbox")


def test_run_lengths_are_decoded_as_the_library_does() -> None:
    rng = np.random.default_rng(0)
    texts, sizes = [], []
    for n in range(200):
        height, width = rng.integers(1, 90, 2)
        mask = (rng.uniform(size=(height, width)) < rng.uniform()).astype(np.uint8)
        if n % 2:  # blobs: long runs, values of several characters
            mask = np.kron(mask, np.ones((9, 9), np.uint8))
        texts.append(rle.encode(np.asfortranarray(mask))["counts"].decode())
        sizes.append(mask.size)
    totals, sound = sum_run_lengths(texts)
    np.testing.assert_array_equal(totals, sizes)
    assert sound.all()
    longer = [text + "5" for text in texts]
    assert (sum_run_lengths(longer)[0] != sizes).all()


def test_sizes_of_masks_may_be_whole_floats(tmp_path: Path) -> None:
    truth, results = truth_content(), results_content()
    expected = read(tmp_path, truth, results, "segm")
    for record in (*truth["annotations"], *results):
        if isinstance(record["segmentation"], dict):
            record["segmentation"]["size"] = [float(HEIGHT), float(WIDTH)]
    runs_of_first = runs(SQUARE) | {"size": [float(HEIGHT), float(WIDTH)]}
    assert read(tmp_path, truth, results, "segm") == expected
    results[0]["segmentation"] = runs_of_first
    read(tmp_path, truth, results, "segm")
    refused(
        tmp_path,
        truth,
        [results[0] | {"segmentation": runs_of_first | {"size": [HEIGHT + 0.5, WIDTH]}}],
        "segm",
        "size",
    )
