"""Raw layouts of labelled images: real sets by their counts, one set in all layouts, every malformed file."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from maskcast.data.detection.sources.base import DetectionListing
from maskcast.data.detection.sources.coco import CocoSource
from maskcast.data.detection.sources.label_files import LabelFilesSource
from maskcast.data.detection.sources.table import Source
from maskcast.data.detection.sources.voc import VocSource
from maskcast.errors import MaskcastError
from maskcast.params import Params, validate

BCCD = {
    "annotations": "BCCD/Annotations",
    "images": "BCCD/JPEGImages",
    "train": "BCCD/ImageSets/Main/train.txt",
    "val": "BCCD/ImageSets/Main/val.txt",
}
# Per image the class and x1, y1, x2, y2 of each box. The second one leaves its image, the third has no size.
BOXES: dict[str, list[tuple[str, list[float]]]] = {
    "2": [("dog", [1, 2, 11.5, 12]), ("cat", [20, 5, 45, 30])],
    "10": [],
    "11": [("dog", [7, 7, 7, 9])],
}


def images(folder: Path, suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True)
    for n, name in enumerate(BOXES):
        Image.new("RGB", (40, 30), (40 * n, 90, 90)).save(folder / f"{name}{suffix}", "JPEG")


def coco(raw: Path) -> CocoSource:
    images(raw / "pictures")
    ids = {"dog": 7, "cat": 0}
    content: dict[str, Any] = {
        "images": [
            {"id": 100 - n, "file_name": f"{name}.jpg", "height": 30, "width": 40} for n, name in enumerate(BOXES)
        ],
        "categories": [{"id": k, "name": name} for name, k in ids.items()],
        "annotations": [
            {
                "id": 10 * n + m,
                "image_id": 100 - n,
                "category_id": ids[name],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": 1,
            }
            for n, boxes in enumerate(BOXES.values())
            for m, (name, (x1, y1, x2, y2)) in enumerate(boxes)
        ],
    }
    content["annotations"].reverse()  # the order of the file is not that of the images
    (raw / "labels.json").write_text(json.dumps(content))
    return source({"layout": "coco", "train": {"annotations": "labels.json", "images": "pictures"}})


def voc(raw: Path) -> VocSource:
    images(raw / "JPEGImages")
    (raw / "Annotations").mkdir()
    (raw / "ImageSets/Main").mkdir(parents=True)
    (raw / "ImageSets/Main/train.txt").write_text("".join(f"{name}  1\n" for name in BOXES))
    for name, boxes in BOXES.items():
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for label, (x1, y1, x2, y2) in boxes
        )
        (raw / f"Annotations/{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    return source({"layout": "voc", "val": None})


def label_files(raw: Path) -> LabelFilesSource:
    images(raw / "training/images", ".JPEG")
    (raw / "training/labels").mkdir()
    for name, boxes in BOXES.items():
        content = {"labels": [label for label, _ in boxes], "bboxes": [box for _, box in boxes]}
        (raw / f"training/labels/{name}.yml").write_text(yaml.safe_dump(content))
    return source({"layout": "label_files", "val": None})


def source(values: dict[str, Any]) -> Any:
    class Holder(Params):
        source: Source

    return validate(Holder, {"source": values}, "params").source


def boxes_of(listing: DetectionListing, split: str = "train") -> dict[str, list[tuple[str, list[float]]]]:
    return {
        one.path.stem: [
            (listing.classes[k], box) for k, box in zip(one.labels_N, one.boxes_N4.tolist(), strict=True)
        ]
        for one in listing.splits[split]
    }


@pytest.mark.parametrize("make", [coco, voc, label_files])
def test_each_layout_gives_the_same_boxes(tmp_path: Path, make: Any) -> None:
    listing = make(tmp_path).listing(tmp_path)
    assert listing.classes == ("cat", "dog")
    found = boxes_of(listing)
    assert list(found) == ["2", "10", "11"]  # 2 before 10
    assert {name: sorted(boxes) for name, boxes in found.items()} == {
        name: sorted(boxes) for name, boxes in BOXES.items()
    }
    for one in listing.splits["train"]:
        assert one.boxes_N4.shape == (len(one.labels_N), 4)
        assert (one.boxes_N4.dtype, one.labels_N.dtype) == (np.float64, np.int64)
        assert one.path.is_file()
        assert one.crowd_N.tolist() == [False] * len(one.labels_N)


def test_coco_keeps_ids_sizes_and_crowds(tmp_path: Path) -> None:
    config = coco(tmp_path)
    content = json.loads((tmp_path / "labels.json").read_text())
    content["annotations"][-1]["iscrowd"] = 1
    (tmp_path / "labels.json").write_text(json.dumps(content))
    listing = config.listing(tmp_path)
    assert listing.original_ids == (0, 7)
    assert [one.id for one in listing.splits["train"]] == [100, 99, 98]
    assert {one.size for one in listing.splits["train"]} == {(30, 40)}
    assert [one.crowd_N.sum() for one in listing.splits["train"]] == [1, 0, 0]
    content["annotations"][-1]["attributes"] = {"occluded": False}  # a mask that was painted in CVAT is no crowd
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert not any(one.crowd_N.any() for one in config.listing(tmp_path).splits["train"])


def test_a_project_of_roboflow_may_be_called_as_one_of_its_classes(tmp_path: Path) -> None:
    config = coco(tmp_path)
    content = json.loads((tmp_path / "labels.json").read_text())
    content["categories"][0]["supercategory"] = "dog"
    content["categories"].insert(0, {"id": 3, "name": "dog", "supercategory": "none"})
    (tmp_path / "labels.json").write_text(json.dumps(content))
    listing = config.listing(tmp_path)
    assert (listing.classes, listing.original_ids) == (("cat", "dog"), (0, 7))
    assert {name: sorted(boxes) for name, boxes in boxes_of(listing).items()} == {
        name: sorted(boxes) for name, boxes in BOXES.items()
    }


def test_classes_may_be_named_in_their_order(tmp_path: Path) -> None:
    voc(tmp_path)
    listing = source({"layout": "voc", "val": None, "classes": ["bird", "dog", "cat"]}).listing(tmp_path)
    assert listing.classes == ("bird", "dog", "cat")
    assert listing.original_ids == (0, 1, 2)
    assert sorted(boxes_of(listing)["2"]) == sorted(BOXES["2"])


def test_the_real_voc_set(shared_data: Path) -> None:
    listing = source({"layout": "voc", **BCCD}).listing(shared_data / "bccd")
    assert listing.classes == ("Platelets", "RBC", "WBC")
    assert {split: len(images) for split, images in listing.splits.items()} == {"train": 205, "val": 87}
    sizes = np.concatenate(
        [one.boxes_N4[:, 2:] - one.boxes_N4[:, :2] for images in listing.splits.values() for one in images]
    )
    assert (sizes <= 0).any(axis=1).sum() == 2


def test_the_real_coco_set(shared_data: Path) -> None:
    files = {"annotations": "annotations/custom_train.json", "images": "train2017"}
    listing = source({"layout": "coco", "train": files}).listing(shared_data / "facemask_coco")
    assert listing.classes == ("mask_weared_incorrect", "with_mask", "without_mask")
    assert listing.original_ids == (0, 1, 2)
    images = listing.splits["train"]
    assert len(images) == 677
    labels = np.concatenate([one.labels_N for one in images])
    assert np.bincount(labels).tolist() == [103, 2443, 560]
    assert all(one.path.is_file() for one in images)


def test_label_files_made_of_a_real_set_give_its_boxes(tmp_path: Path, shared_data: Path) -> None:
    expected = source({"layout": "voc", **BCCD}).listing(shared_data / "bccd")
    for split, folder in {"train": "training", "val": "validation"}.items():
        (tmp_path / folder / "labels").mkdir(parents=True)
        (tmp_path / folder / "images").mkdir()
        for one in expected.splits[split]:
            names = [expected.classes[k] for k in one.labels_N]
            content = {"labels": names, "bboxes": [[int(v) for v in box] for box in one.boxes_N4]}
            (tmp_path / folder / "labels" / f"{one.path.stem}.yml").write_text(json.dumps(content))  # JSON is YAML
            (tmp_path / folder / "images" / f"{one.path.stem}.JPEG").symlink_to(one.path)
    listing = source({"layout": "label_files"}).listing(tmp_path)
    assert listing.classes == expected.classes
    for split in ("train", "val"):
        assert boxes_of(listing, split) == boxes_of(expected, split)


def coco_fault(raw: Path, *path: Any) -> CocoSource:
    config = coco(raw)
    content = json.loads((raw / "labels.json").read_text())
    *keys, last, value = path
    target = content
    for key in keys:
        target = target[key]
    target[last] = value
    (raw / "labels.json").write_text(json.dumps(content))
    return config


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (("annotations", 0, "bbox", [1, 2, float("nan"), 4]), "(id 20): bbox must be finite"),
        (("annotations", 0, "bbox", [1, 2, 3]), "(id 20): bbox must be 4 numbers"),
        (("annotations", 0, "bbox", [1, 2, 2**70, 3]), "(id 20): bbox must be 4 numbers"),
        (("annotations", 0, "category_id", 1), "(id 20): category_id 1 is not the id of a category"),
        (("annotations", 0, "image_id", 5), "(id 20): image_id 5 is not the id of an image"),
        (("annotations", 0, "id", 0), "id 0 occurs twice"),
        (("images", 1, "id", 100), "images[1] (id 100): id 100 occurs twice"),
        (("images", 0, "file_name", "../x.jpg"), "(id 100): file_name must be a relative path, not '../x.jpg'"),
        (("images", 0, "file_name", "/x.jpg"), "file_name must be a relative path"),
        (("images", 0, "file_name", "..%2Fx.jpg"), "file_name must be a relative path"),
        (("images", 0, "file_name", 7), "file_name must be a relative path, not 7"),
        (("images", 0, "height", "30"), "height must be an integer, not '30'"),
        (("images", []), "labels.json: images is empty"),
        (("annotations", None), "labels.json: annotations must be a list, not None"),
        (("annotations", 0, "bbox", None), "(id 20): bbox must be 4 numbers [x, y, width, height], not None"),
        (("annotations", 0, "bbox", [1, 2, None, 4]), "(id 20): bbox must be 4 numbers"),
        (("annotations", 0, "image_id", None), "image_id must be an integer, not None"),
        (("annotations", 0, None), "annotations[0]: must be an object, not None"),
        (("images", 0, "file_name", None), "file_name must be a relative path, not None"),
        (("images", 0, "id", None), "id must be an integer, not None"),
        (("categories", 0, "name", None), "(id 7): name must be a string, not None"),
        (("categories", 0, "name", "cat"), "occurs twice; make it unique"),
    ],
)
def test_malformed_coco_files_are_refused(tmp_path: Path, edit: tuple[Any, ...], line: str) -> None:
    refused(coco_fault(tmp_path, *edit), tmp_path, line)


def test_coco_splits_must_have_one_set_of_categories(tmp_path: Path) -> None:
    coco(tmp_path)
    content = json.loads((tmp_path / "labels.json").read_text())
    content["categories"][0]["name"] = "wolf"
    (tmp_path / "val.json").write_text(json.dumps(content))
    files = {"annotations": "labels.json", "images": "pictures"}
    config = source({"layout": "coco", "train": files, "val": files | {"annotations": "val.json"}})
    refused(config, tmp_path, "val.json: its categories differ from those of")


BOMB = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation>&y;</annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation><a>&x;</a></annotation>'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("<annotation>", "Annotations/2.xml: not the XML of an image (no element found"),
        (BOMB, "Annotations/2.xml: not the XML of an image (it has a DOCTYPE)"),
        (OUTSIDE, "Annotations/2.xml: not the XML of an image (it has a DOCTYPE)"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "not the XML of an image"),
        ("<annotation><object><name> </name></object></annotation>", "2.xml: object 1 has no name"),
        (
            "<annotation><object><name>dog</name></object></annotation>",
            "2.xml: xmin of object 1 must be a finite number, not None",
        ),
        (
            "<annotation><object><name>dog</name><bndbox><xmin>1</xmin><ymin>nan</ymin></bndbox></object></annotation>",
            "2.xml: ymin of object 1 must be a finite number, not 'nan'",
        ),
    ],
)
def test_malformed_xml_is_refused(tmp_path: Path, text: str, line: str) -> None:
    config = voc(tmp_path)
    (tmp_path / "Annotations/2.xml").write_text(text)
    refused(config, tmp_path, line)


def test_missing_parts_of_voc_are_named(tmp_path: Path) -> None:
    config = voc(tmp_path)
    refused(
        source({"layout": "voc", "val": None, "classes": ["dog"]}), tmp_path, "2.xml: unknown class 'cat'; add it"
    )
    refused(source({"layout": "voc"}), tmp_path, "ImageSets/Main/val.txt: no such text")
    (tmp_path / "ImageSets/Main/val.txt").write_text("\n")
    refused(source({"layout": "voc"}), tmp_path, "val.txt: lists no images")
    (tmp_path / "Annotations/10.xml").unlink()
    line = "Annotations/10.xml: no such file; each image needs its XML file"
    refused(config, tmp_path, line)
    (tmp_path / "JPEGImages/11.jpg").unlink()
    refused(config, tmp_path, "image '11' not found; it is listed in")
    shutil.rmtree(tmp_path / "JPEGImages")
    refused(config, tmp_path, "JPEGImages: folder not found")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("labels: [", "labels/2.yml: line 2: not valid YAML"),
        ("- 1", "2.yml: missing list 'labels'"),
        ("labels: [dog]", "2.yml: missing list 'bboxes'"),
        ("labels: [dog]\nbboxes: []", "2.yml: has 1 label and 0 bboxes"),
        ("labels: [dog]\nbboxes: [[1, 2, 3]]", "2.yml: box 1 must be [xmin, ymin, xmax, ymax], not [1, 2, 3]"),
        ("labels: [dog]\nbboxes: [[1, 2, 3, .nan]]", "2.yml: box 1 must be a finite number, not nan"),
        ("labels: [dog]\nbboxes: [[1, 2, 3, a]]", "2.yml: box 1 must be a finite number, not 'a'"),
        ("labels: !!python/object:os.system [ls]\nbboxes: []", "2.yml: line 1: not valid YAML"),
    ],
)
def test_malformed_label_files_are_refused(tmp_path: Path, text: str, line: str) -> None:
    config = label_files(tmp_path)
    (tmp_path / "training/labels/2.yml").write_text(text)
    refused(config, tmp_path, line)


def test_missing_parts_of_label_files_are_named(tmp_path: Path) -> None:
    config = label_files(tmp_path)
    second = shutil.copy(tmp_path / "training/labels/2.yml", tmp_path / "training/labels/2.yaml")
    refused(config, tmp_path, "has the same name as 2.")
    Path(second).unlink()
    refused(source({"layout": "label_files"}), tmp_path, "validation/images: folder not found")
    (tmp_path / "training/labels/11.yml").unlink()
    refused(config, tmp_path, "training: 1 image or label file without partner: labels/11.yml is missing")
    (tmp_path / "training/images/2.JPEG").unlink()
    refused(config, tmp_path, "2 image or label files without partner: images/2")
    for path in (tmp_path / "training/images").iterdir():
        path.unlink()
    refused(config, tmp_path, "training/images: contains no images")


def test_a_set_without_objects_needs_its_classes_named(tmp_path: Path) -> None:
    label_files(tmp_path)
    for path in (tmp_path / "training/labels").iterdir():
        path.write_text("labels: []\nbboxes: []\n")
    refused(source({"layout": "label_files", "val": None}), tmp_path, "list the classes in source.classes")
    named = source({"layout": "label_files", "val": None, "classes": ["dog"]}).listing(tmp_path)
    assert named.classes == ("dog",)


@pytest.mark.parametrize("path", ["/etc", "../x", ""])
def test_paths_stay_inside_the_data_set(path: str) -> None:
    with pytest.raises(MaskcastError, match=r"source\.images: .*relative path inside the data set"):
        source({"layout": "voc", "images": path})


def test_voc_names_may_hold_spaces_endings_and_flags(tmp_path: Path) -> None:
    voc(tmp_path)
    for old, new in (("2", "my photo 1"), ("11", "b.c")):
        (tmp_path / f"JPEGImages/{old}.jpg").rename(tmp_path / f"JPEGImages/{new}.jpg")
        (tmp_path / f"Annotations/{old}.xml").rename(tmp_path / f"Annotations/{new}.xml")
    (tmp_path / "Annotations/b.c.xml").rename(tmp_path / "Annotations/b.c.XML")
    lines = "\ufeffmy photo 1\r\n10.jpg\r\nb.c -1\r\n\r\n"
    (tmp_path / "ImageSets/Main/train.txt").write_text(lines, encoding="utf-8")
    found = boxes_of(source({"layout": "voc", "val": None}).listing(tmp_path))
    assert list(found) == ["my photo 1", "10", "b.c"]
    assert sorted(found["my photo 1"]) == sorted(BOXES["2"])
    (tmp_path / "ImageSets/Main/train.txt").write_text("my photo 2 -1\n")
    line = "(1 of 1 missing); add it, or fix the name; did you mean 'my photo 1'?"
    refused(source({"layout": "voc", "val": None}), tmp_path, line)


@pytest.mark.parametrize(
    ("size", "found"),
    [
        ("<size><width>40</width><height>30</height><depth>3</depth></size>", (30, 40)),
        ("<size><width>0</width><height>0</height></size>", None),
        ("<size><width/></size>", None),
        ("", None),
    ],
)
def test_the_size_that_voc_states_is_kept(tmp_path: Path, size: str, found: tuple[int, int] | None) -> None:
    config = voc(tmp_path)
    path = tmp_path / "Annotations/2.xml"
    path.write_text(path.read_text().replace("<annotation>", f"<annotation>{size}"))
    assert config.listing(tmp_path).splits["train"][0].size == found
    path.write_text("<annotation><size><width>wide</width><height>3</height></size></annotation>")
    refused(config, tmp_path, "2.xml: width of size must be a finite number, not 'wide'")


def test_nulls_in_coco_files_are_nothing_said_elsewhere(tmp_path: Path) -> None:
    config = coco_fault(tmp_path, "images", 0, "height", None)
    content = json.loads((tmp_path / "labels.json").read_text())
    content["annotations"][-1] |= {"iscrowd": None, "area": None, "segmentation": None}
    content["images"][1]["file_name"] = "sub\\10.jpg"  # as tools on Windows write it
    (tmp_path / "labels.json").write_text(json.dumps(content))
    one, two, _ = config.listing(tmp_path).splits["train"]
    assert (one.size, one.crowd_N.tolist(), two.size) == (None, [False, False], (30, 40))
    assert two.path == tmp_path / "pictures/sub/10.jpg"


def test_percent_encoded_names_of_coco_files_are_decoded(tmp_path: Path) -> None:
    """As the reader of clips does; a file whose name has a percent sign is found, too."""
    config = coco_fault(tmp_path, "images", 0, "file_name", "a%20b/x%205.jpg")
    (tmp_path / "pictures/a b").mkdir()
    (tmp_path / "pictures/2.jpg").rename(tmp_path / "pictures/a b/x 5.jpg")
    (tmp_path / "pictures/10.jpg").rename(tmp_path / "pictures/100%25.jpg")
    content = json.loads((tmp_path / "labels.json").read_text())
    content["images"][1]["file_name"] = "100%25.jpg"
    (tmp_path / "labels.json").write_text(json.dumps(content))
    one, two, _ = config.listing(tmp_path).splits["train"]
    assert (one.name, two.name) == ("a b/x 5.jpg", "100%25.jpg")
    assert one.path.is_file() and two.path.is_file()


def test_lists_labels_and_images_may_differ_in_case_and_unicode_form(tmp_path: Path) -> None:
    """macOS writes names decomposed, lists are typed by people."""
    config = voc(tmp_path)
    for folder, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
        name = "Caf\u00e9 1" if suffix == ".jpg" else "cafe\u0301 01"
        (tmp_path / folder / f"2{suffix}").rename(tmp_path / folder / f"{name}{suffix}")
    (tmp_path / "ImageSets/Main/train.txt").write_text("CAFE\u0301 1.JPG\n10\n011\n", "utf-8")
    found = config.listing(tmp_path).splits["train"]
    assert [one.path.stem for one in found] == ["Caf\u00e9 1", "10", "11"]
    assert [len(one.labels_N) for one in found] == [2, 0, 1]


def test_files_that_no_list_names_may_have_one_name_in_two_spellings(tmp_path: Path) -> None:
    config = voc(tmp_path)
    names = tmp_path / "ImageSets/Main/train.txt"
    names.write_text("10\n11\n")
    for path in (tmp_path / "JPEGImages/2.jpg", tmp_path / "Annotations/2.xml"):
        shutil.copy(path, path.with_stem("02"))
    assert [one.path.stem for one in config.listing(tmp_path).splits["train"]] == ["10", "11"]
    names.write_text("2\n")
    refused(config, tmp_path, "2.jpg: has the same name as ")
    names.write_text("10\n010\n")
    refused(config, tmp_path, f"{names}: '10' and '010' are names of one image; list it once")


def test_yaml_files_and_images_may_differ_in_case_and_zeros(tmp_path: Path) -> None:
    config = label_files(tmp_path)
    (tmp_path / "training/labels/2.yml").rename(tmp_path / "training/labels/002.yml")
    assert len(config.listing(tmp_path).splits["train"]) == 3


@pytest.mark.parametrize("name", ["null", "no", "[dog]", "' '"])
def test_a_label_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    config = label_files(tmp_path)
    (tmp_path / "training/labels/2.yml").rename(tmp_path / "training/labels/2.YAML")
    assert len(config.listing(tmp_path).splits["train"]) == 3
    (tmp_path / "training/labels/2.YAML").write_text(f"labels: [{name}]\nbboxes: [[1, 2, 3, 4]]")
    refused(config, tmp_path, "labels/2.YAML: label 1 must be a class name, not")


def refused(config: Any, raw: Path, line: str) -> None:
    with pytest.raises(MaskcastError, match=re.escape(line)) as raised:
        config.listing(raw)
    assert "\n" not in str(raised.value)


def test_what_voc_marks_difficult_need_not_be_found(tmp_path: Path) -> None:
    config = voc(tmp_path)
    path = tmp_path / "Annotations/2.xml"
    marked = path.read_text().replace("<name>cat</name>", "<name>cat</name><difficult>1</difficult>")
    path.write_text(marked.replace("<name>dog</name>", "<name>dog</name><difficult>Unspecified</difficult>"))
    found = {one.path.stem: one for one in config.listing(tmp_path).splits["train"]}
    assert dict(zip(("dog", "cat"), found["2"].crowd_N.tolist(), strict=True)) == {"dog": False, "cat": True}
    assert found["11"].crowd_N.tolist() == [False]
    path.write_text(marked.replace("<difficult>1", "<difficult>yes"))
    refused(config, tmp_path, "2.xml: difficult of object 2 must be 0 or 1, not 'yes'; fix it")


def test_corners_in_place_of_sizes_are_refused(tmp_path: Path) -> None:
    """Boxes of 10 x 8 pixels in images of 40 x 30."""
    config = coco(tmp_path)
    content = json.loads((tmp_path / "labels.json").read_text())
    places = [(x, y) for x in (8, 16, 24, 29) for y in (4, 12, 20)]

    def write(corners: list[tuple[int, int]], sizes: list[tuple[int, int]]) -> None:
        boxes = [[x, y, x + 10, y + 8] for x, y in corners] + [[x, y, 10, 8] for x, y in sizes]
        content["annotations"] = [
            {"id": n, "image_id": 100, "category_id": 7, "bbox": box} for n, box in enumerate(boxes)
        ]
        (tmp_path / "labels.json").write_text(json.dumps(content))

    write(places, [])
    line = "bbox must be [x, y, width, height]: 11 of 12 boxes leave their image, and none as [x1, y1"
    refused(config, tmp_path, line)
    write([], places)
    config.listing(tmp_path)
    write(places, [(20, 20)])  # which is no pair of corners
    config.listing(tmp_path)
