"""The command evaluate-coco end to end: what it prints, writes and refuses; matches and pictures behind it."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval.core import mask as rle
from PIL import Image

from maskcast.__main__ import main
from maskcast.evaluation.coco.evaluator import Truth, evaluate
from maskcast.evaluation.coco.matches import match
from maskcast.report import detection_pictures
from maskcast.report.detection_files import write_report
from maskcast.report.paint import PAPER

BOX = [8, 8, 16, 16]
ONE = {"image_id": 1, "category_id": 1, "bbox": BOX, "area": 256}


def content(folder: Path) -> tuple[Path, Path]:
    """Image 1: found. Image 2: missed, and a false alarm. Image 3: nothing to find. Image 4: a crowd."""
    mask = {"segmentation": [[8, 8, 24, 8, 24, 24, 8, 24]], "area": 256, "category_id": 1, "bbox": BOX}
    truth: dict[str, Any] = {
        "images": [{"id": n, "file_name": f"img/{n}.png", "height": 40, "width": 60} for n in (1, 2, 3, 4)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [mask | {"id": n, "image_id": n, "iscrowd": int(n == 4)} for n in (1, 2, 4)],
    }
    far = {"bbox": [40, 20, 10, 10], "segmentation": [[40, 20, 50, 20, 50, 30, 40, 30]]}
    one = {"category_id": 1, "bbox": BOX, "segmentation": mask["segmentation"]}
    results = [
        one | {"image_id": 1, "score": 0.9},
        one | {"image_id": 2, "score": 0.6} | far,
        one | {"image_id": 4, "score": 0.5},
        one | {"image_id": 3, "score": 0.1},
    ]
    (folder / "images/img").mkdir(parents=True)
    for n in (1, 2, 3, 4):
        Image.new("RGB", (60, 40), (90, 90, 90)).save(folder / f"images/img/{n}.png")
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "dt.json").write_text(json.dumps(results))
    return folder / "gt.json", folder / "dt.json"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_prints_the_twelve_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    truth, results = content(tmp_path)
    assert main(["evaluate-coco", str(truth), str(results)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "bbox: 4 detections, 3 truths, 4 images"
    assert len(lines) == 13
    # Recall .5 at precision 1, and no more: 51 of 101 places.
    assert lines[1] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.505"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dt.json", "gt.json", "images"]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_it_writes_a_report(tmp_path: Path, kind: str) -> None:
    truth, results = content(tmp_path)
    out = tmp_path / "new/report"
    command = ["evaluate-coco", str(truth), str(results), "--kind", kind, "--out", str(out)]
    assert main([*command, "--images", str(tmp_path / "images")]) == 0
    assert json.loads((out / "metrics.json").read_text())["AP50"] == pytest.approx(51 / 101)
    assert (out / "table.txt").read_text().splitlines()[3].endswith("area= small | maxDets=100 ] = 0.505")
    (category,) = rows(out / "per_category.csv")
    assert category == {
        "id": "1",
        "category": "cat",
        "truths": "2",
        "detections": "4",
        "AP": "0.504950",
        "AP50": "0.504950",
        "AP75": "0.504950",
        "AR100": "0.500000",
    }
    assert (out / "per_category.md").read_text().splitlines()[2].startswith("| 1 | cat | 2 | 4 | 0.504950 |")
    curve = rows(out / "precision_recall.csv")
    assert [row["recall"] for row in curve[::50]] == ["0.00", "0.50", "1.00"]
    assert np.mean([float(row["IoU=0.50"]) for row in curve]) == pytest.approx(51 / 101, abs=1e-6)
    # F1 is highest when the surest detection alone counts: 2 / 3; from .6 on 2 / 4.
    worst, best = rows(out / "per_image.csv")[0], rows(out / "per_image.csv")[-1]
    assert list(worst.values()) == ["2", "img/2.png", "0.000000", "0.000000", "0", "0", "1"]
    assert list(worst) == ["id", "file_name", "AP", "f1", "right", "false_alarms", "missed"]
    assert (best["f1"], best["false_alarms"], best["missed"]) == ("1.000000", "0", "0")
    assert "highest at a score of 0.9000" in (out / "README.md").read_text()
    page = (out / "report.html").read_text()
    assert 'aria-label="Mean over categories, precision by recall' in page
    assert all(f"</svg>{name}</li>" in page for name in curve[0] if name != "recall")
    assert page.count("data:image/png;base64,") == 4  # of the best and worst images
    pictures = sorted(path.name for path in (out / "pictures").iterdir())
    assert [name.split("_")[0] for name in pictures] == ["01", "02", "03", "04"]
    assert pictures[-1] == "04_2.png"
    last = pixels(out / "pictures/04_2.png")
    assert (last == detection_pictures.MISSED).all(axis=2).any()
    assert not (last == detection_pictures.FALSE_ALARM).all(axis=2).any()
    assert len(pixels(out / "pictures.png")) == 2 * len(last)


def test_pictures_bear_the_names_of_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, results = content(tmp_path)
    titles, draw = [], detection_pictures.grid
    monkeypatch.setattr(detection_pictures, "grid", lambda *given: titles.append(given[1]) or draw(*given))
    command = ["evaluate-coco", str(truth), str(results), "--out", str(tmp_path / "report")]
    assert main([*command, "--images", str(tmp_path / "images")]) == 0
    assert titles[-1].startswith("img/2.png · F1 0.000 at IoU 0.50")


def test_pictures_find_percent_encoded_names(tmp_path: Path) -> None:
    truth, results = content(tmp_path)
    (tmp_path / "images/img/2.png").rename(tmp_path / "images/img/a b.png")
    _write(truth, json.loads(truth.read_text().replace("img/2.png", "img/a%20b.png")))
    command = ["evaluate-coco", str(truth), str(results), "--out", str(tmp_path / "report")]
    assert main([*command, "--images", str(tmp_path / "images")]) == 0
    assert (tmp_path / "report/pictures/04_2.png").is_file()


def test_masks_are_drawn_where_the_picture_shows_them() -> None:
    """Of three columns, the panel shows the middle one; the mask was taken from the first."""
    mask_HW = np.zeros((9, 3 * detection_pictures.PANEL_WIDTH), np.uint8)
    mask_HW[:, 1::3] = 1
    record = {"segmentation": rle.encode(np.asfortranarray(mask_HW))}
    image_HWC = np.full((*mask_HW.shape, 3), 90, np.uint8)
    shape = detection_pictures._Shape(record, (0, 0, 0), "")
    panel = np.array(detection_pictures._draw_shapes(image_HWC, [shape], "segm"))
    assert (panel[:, :, 0] < 90).mean() > 0.9


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_what_is_missed_is_dashed_and_lines_stand_out_of_any_image(kind: str) -> None:
    side = detection_pictures.PANEL_WIDTH
    mask_HW = np.zeros((side, side), np.uint8)
    mask_HW[100:201, 50:351] = 1
    segmentation = rle.encode(np.asfortranarray(mask_HW))
    record = {"segmentation": segmentation, "bbox": rle.toBbox(segmentation).tolist()}
    drawn = {}
    for colour in (detection_pictures.FOUND, detection_pictures.MISSED):
        image_HWC = np.full((side, side, 3), colour, np.uint8)  # the worst: an image of the line's own colour
        shape = detection_pictures._Shape(record, colour, "")
        panel = detection_pictures._draw_shapes(image_HWC, [shape], kind)
        assert (panel == PAPER).all(-1).sum() > 800
        drawn[colour] = (panel[200, 60:340] == colour).all(-1).mean()
    assert drawn[detection_pictures.FOUND] == 1 and 0.5 < drawn[detection_pictures.MISSED] < 0.9


def test_labels_of_one_place_lie_side_by_side_in_the_panel() -> None:
    places: list[detection_pictures.Rectangle] = []
    for wanted in [(460.0, 2.0, 520.0, 12.0)] * 6 + [(3.0, 40.0, 60.0, 50.0)] * 2:
        places.append(detection_pictures._free_position(wanted, places, (480, 100)))
    for n, (left, top, right, bottom) in enumerate(places):
        assert 0 <= left < right < 480 and 0 <= top < bottom < 100
        for other in places[:n]:
            assert right < other[0] or other[2] < left or bottom < other[1] or other[3] < top
    assert places[6] == (3.0, 40.0, 60.0, 50.0), "a label stays where it covers none"
    full = [(0.0, 0.0, 479.0, 99.0)]
    assert detection_pictures._free_position((3.0, 40.0, 60.0, 50.0), full, (480, 100)) == (3.0, 40.0, 60.0, 50.0)


def test_the_same_files_give_the_same_report(tmp_path: Path) -> None:
    truth, results = content(tmp_path)
    for out in ("a", "b"):
        images = ["--images", str(tmp_path / "images")]
        assert main(["evaluate-coco", str(truth), str(results), *images, "--out", str(tmp_path / out)]) == 0
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) > 10
    for file in files:
        contents = [(tmp_path / out / file).read_bytes() for out in ("a", "b")]
        one, other = (re.sub(rb"Written [^<]* UTC", b"", each) for each in contents)  # a minute may pass
        assert one == other, file


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["evaluate-coco", *map(str, arguments)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_bad_input_ends_in_one_line_and_leaves_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    truth, results = content(tmp_path)
    out, images = tmp_path / "out", tmp_path / "images"
    assert "missing list 'images'" in refused(capfd, _write(tmp_path / "x.json", {}), results, "--out", out)
    assert "requires --out; give a new folder" in refused(capfd, truth, results, "--images", images)
    assert "no such folder (--images)" in refused(capfd, truth, results, "--images", tmp_path / "y", "--out", out)
    (images / "img/2.png").write_bytes(b"no image")
    assert "img/2.png: not a readable image" in refused(capfd, truth, results, "--images", images, "--out", out)
    nameless = json.loads(truth.read_text())
    del nameless["images"][1]["file_name"]
    line = refused(capfd, _write(tmp_path / "x.json", nameless), results, "--images", images, "--out", out)
    assert "[1] (id 2): missing key 'file_name'" in line
    nameless["images"][1]["file_name"] = 2
    line = refused(capfd, _write(tmp_path / "x.json", nameless), results, "--images", images, "--out", out)
    assert "[1] (id 2): file_name must be a string, not 2" in line
    nameless["images"][1]["file_name"] = "%2E%2E/images/img/2.png"
    line = refused(capfd, _write(tmp_path / "x.json", nameless), results, "--images", images, "--out", out)
    assert "[1] (id 2): file_name must be a relative path, not '%2E%2E/images/img/2.png'" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dt.json", "gt.json", "images", "x.json"]
    out.mkdir()
    assert "already exists (--out)" in refused(capfd, truth, results, "--out", out)
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate-coco", str(truth), str(results), "--kind", "keypoints"])
    assert "invalid choice" in capfd.readouterr().err


def _write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_help_teaches_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom maskcast.__main__ import main\nmain(['--help'])\n"
        "print(sorted({'torch', 'numpy', 'cv2', 'faster_coco_eval', 'matplotlib'} & set(sys.modules)))"
    )
    overview = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "evaluate-coco" in overview
    assert overview.splitlines()[-1] == "[]"
    command = [sys.executable, "-m", "maskcast", "evaluate-coco", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for word in ("GT.json", "DT.json", "--kind", "--images", "--out", "segmentation", "score", "examples:"):
        assert word in text


def test_matches_count_equal_scores_together_and_leave_crowds_out() -> None:
    truth = Truth([{"id": 1}, {"id": 2}], [{"id": 1, "name": "cat"}], [ONE, ONE | {"image_id": 2, "iscrowd": 1}])
    boxes = [(1, BOX, 0.5), (1, [40, 8, 16, 16], 0.5), (2, BOX, 0.9), (2, [10, 10, 4, 4], 0.8)]
    results = [{"image_id": i, "category_id": 1, "bbox": box, "score": s} for i, box, s in boxes]
    matches = match(evaluate(truth, results, "bbox"))
    assert matches.threshold == 0.5
    assert matches.true_positive_D.tolist() == [True, False, False, False]
    assert matches.false_positive_D.tolist() == [False, True, False, False]
    assert matches.matched_G.tolist() == [True, False]
    assert matches.f1_I.tolist() == pytest.approx([2 / 3, 1])


def test_a_detection_matches_at_iou_50_alone() -> None:
    """A second detection that fits better takes the truth at higher IoU thresholds, not here."""
    truth = Truth([{"id": 1}], [{"id": 1, "name": "cat"}], [ONE])
    results = [
        {"image_id": 1, "category_id": 1, "bbox": [8, 12, 16, 16], "score": 0.9},  # IoU 192 / 320
        {"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.8},
    ]
    matches = match(evaluate(truth, results, "bbox"))
    assert matches.true_positive_D.tolist() == [True, False]
    assert matches.threshold == 0.9


def test_a_crowded_image_has_no_false_alarm_for_its_number_of_objects() -> None:
    """COCO looks at the surest 100 detections of an image and category; pictures and f1 tell of all."""
    boxes = [[20 * n, 0, 16, 16] for n in range(150)]
    truth = Truth([{"id": 1}], [{"id": 1, "name": "cat"}], [ONE | {"bbox": box} for box in boxes])
    found = [ONE | {"bbox": box, "score": 1 - n / 1000} for n, box in enumerate(boxes)]
    scores = evaluate(truth, found, "bbox")
    assert scores.summary["AR100"] == pytest.approx(100 / 150)
    matches = match(scores)
    assert (
        matches.true_positives_I.tolist(),
        matches.false_positives_I.tolist(),
        matches.false_negatives_I.tolist(),
    ) == ([150], [0], [0])
    assert matches.f1_I.tolist() == [1]


@pytest.mark.parametrize("truths", [[ONE], []])
@pytest.mark.parametrize("results", [[ONE | {"score": 0.5}], []])
def test_a_report_needs_neither_truths_nor_detections(
    tmp_path: Path, truths: list[Any], results: list[Any]
) -> None:
    truth = Truth([{"id": 1}], [{"id": 1, "name": "cat"}], truths)
    write_report(tmp_path, evaluate(truth, results, "bbox"))
    (category,) = rows(tmp_path / "per_category.csv")
    assert category["AP"] == ("" if not truths else "1.000000" if results else "0.000000")
    assert rows(tmp_path / "per_image.csv")[0]["f1"] == f"{len(truths) == len(results):.6f}"


def test_nothing_found_is_all_missed() -> None:
    truth = Truth([{"id": 1}], [{"id": 1, "name": "cat"}], [ONE])
    matches = match(evaluate(truth, [], "bbox"))
    assert matches.threshold == 0
    assert (matches.false_negatives_I.tolist(), matches.f1_I.tolist()) == ([1], [0])


def test_images_without_detections_and_the_rules_of_lvis_are_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    truth, results = content(tmp_path)
    assert main(["evaluate-coco", str(truth), str(results)]) == 0
    assert not capfd.readouterr().err
    results.write_text(json.dumps(json.loads(results.read_text())[:1]))
    images = json.loads(truth.read_text())
    images["images"][0]["not_exhaustive_category_ids"] = []
    truth.write_text(json.dumps(images))
    assert main(["evaluate-coco", str(truth), str(results)]) == 0
    text = capfd.readouterr().err
    assert "3 of 4 images have no detection: all of their objects count as missed" in text
    assert "gt.json: is of LVIS" in text and "is scored by COCO's rules" in text
