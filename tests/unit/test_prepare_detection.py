"""prepare_detection and the set it writes: boxes by the rule, bytes as they were, the same bytes each time."""

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskcast.data.detection import writer as detection_writer
from maskcast.data.detection.dataset import DetectionSet
from maskcast.data.detection.sources.base import LabelledImage
from maskcast.data.detection.writer import DetectionWriter, fit_boxes
from maskcast.data.images import read_image
from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.evaluation.coco.evaluator import evaluate
from maskcast.evaluation.coco.files import read_truth
from maskcast.runner.run import run_stage

SOURCE = {"layout": "coco", "train": {"annotations": "labels.json", "images": "pictures"}}


def write_raw(raw: Path, count: int = 10, size: tuple[int, int] = (40, 30), suffix: str = "jpg") -> Path:
    """Writes images of noise; image n holds one box [n, 2, 10, 8] of category 5 (n even) or 9."""
    rng = np.random.default_rng(0)
    (raw / "pictures/sub").mkdir(parents=True)
    truth: dict[str, Any] = {
        "images": [],
        "categories": [{"id": 9, "name": "dog"}, {"id": 5, "name": "cat"}],
        "annotations": [],
    }
    for n in range(count):
        name = f"sub/{n}.{suffix}"
        pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(raw / "pictures" / name)
        truth["images"].append({"id": 50 + n, "file_name": name, "width": size[0], "height": size[1]})
        box = {"id": n, "image_id": 50 + n, "category_id": 9 if n % 2 else 5, "bbox": [n, 2, 10, 8], "area": 80}
        truth["annotations"].append(box)
    (raw / "labels.json").write_text(json.dumps(truth))
    return raw


def edit(raw: Path, *boxes: list[float], **keys: Any) -> None:
    """Replaces the boxes of the first image."""
    truth = json.loads((raw / "labels.json").read_text())
    rest = truth["annotations"][1:]
    own = [{"id": 1000 + n, "image_id": 50, "category_id": 5, "bbox": box} | keys for n, box in enumerate(boxes)]
    truth["annotations"] = own + rest
    (raw / "labels.json").write_text(json.dumps(truth))


def prepare(raw: Path, out: Path, *, all_train: bool = False, **params: Any) -> DetectionSet:
    """Prepares a folder; with ``all_train`` all its images are trained on, and copies of them are `val`."""
    both = {}
    if all_train:
        shutil.copytree(raw / "pictures", raw / "copies", dirs_exist_ok=True)
        both = {"val": {"annotations": "labels.json", "images": "copies"}}
    run_stage("prepare_detection", {"source": SOURCE | both} | params, raw=raw, dataset=out)
    return DetectionSet(out)


def test_a_set_is_written_and_opened(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw")
    data = prepare(raw, tmp_path / "set", val_share=0.3)
    assert data.classes == ("cat", "dog")
    assert data.original_ids == (5, 9)
    assert data.num_classes == 2
    assert data.unlabeled == ()
    train, val = data.split("train"), data.split("val")
    assert (len(train), len(val)) == (7, 3)
    assert sorted(train.ids + val.ids) == list(range(50, 60))
    for split in (train, val):
        for place, image_id in enumerate(split.ids):
            n = image_id - 50
            assert split.boxes(place).tolist() == [[n, 2, n + 10, 10]]
            assert split.labels(place).tolist() == [n % 2]
            assert (split.boxes(place).dtype, split.labels(place).dtype) == (np.float32, np.int64)
            original = raw / f"pictures/sub/{n}.jpg"
            assert split.paths[place].read_bytes() == original.read_bytes()
            image = split.image(place)
            assert (image.shape, image.dtype) == ((30, 40, 3), np.uint8)
            np.testing.assert_array_equal(image, read_image(original))
    about = data.about["splits"]["train"]
    assert about["images"] == 7
    assert sum(about["boxes_per_class"].values()) == about["boxes"]["kept"] == 7


def test_its_files_are_coco_ground_truths(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw")
    edit(raw, [1, 2, 10, 8], [20, 5, 10, 10], iscrowd=1)
    data = prepare(raw, tmp_path / "set", all_train=True)
    truth = read_truth(data.split("val").truth, "bbox")
    assert [category["id"] for category in truth.categories] == [0, 1]
    assert [one["id"] for one in truth.annotations] == list(range(1, 12))
    results = [{**one, "score": 1.0} for one in truth.annotations if not one["iscrowd"]]
    assert evaluate(truth, results, "bbox").summary["AP"] == pytest.approx(1)
    assert data.split("val").boxes(0).shape == (0, 4)  # crowds are for the evaluator
    assert data.split("val").labels(0).shape == (0,)


def test_the_rule_for_boxes() -> None:
    boxes = np.array(
        [
            [1, 2, 30, 20],
            [-5, 2, 30, 20],
            [1, 2, 300, 200],
            [9, 9, 9, 20],
            [20, 9, 10, 20],
            [39.5, 2, 80, 20],
            [50, 2, 80, 20],
            [5, 5, 5.9, 20],
            [0, 0, 40, 30],
        ],
        float,
    )
    fates = ["kept", "clipped", "clipped", "degenerate", "degenerate", *["under_1_px"] * 3, "kept"]
    placed, found = fit_boxes(boxes, (30, 40), (30, 40))
    assert found == fates
    assert placed[[0, 1, 2, 8]].tolist() == [[1, 2, 30, 20], [0, 2, 30, 20], [1, 2, 40, 30], [0, 0, 40, 30]]
    half, found = fit_boxes(boxes[[0, 1]], (30, 40), (15, 20))
    assert half.tolist() == [[0.5, 1, 15, 10], [0, 1, 15, 10]]
    assert fit_boxes(np.array([[1.0, 1, 2.9, 20]]), (30, 40), (15, 20))[1] == ["under_1_px"]
    assert fit_boxes(np.zeros((0, 4)), (30, 40), (30, 40))[1] == []


def test_what_was_dropped_and_clipped_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    raw = write_raw(tmp_path / "raw")
    edit(raw, [-5, 2, 10, 8], [3, 3, 0, 8], [3, 3, 8, -1], [39.5, 0, 8, 8])
    data = prepare(raw, tmp_path / "set", all_train=True)
    about = data.about["splits"]["train"]
    assert about["boxes"] == {"kept": 9, "clipped": 1, "degenerate": 2, "under_1_px": 1}
    assert [one["why"] for one in about["dropped"]] == ["degenerate", "degenerate", "under_1_px"]
    assert about["dropped"][2] == {
        "image": "sub/0.jpg",
        "class": "cat",
        "box": [39.5, 0, 47.5, 8],
        "why": "under_1_px",
    }
    assert data.split("train").boxes(0).tolist() == [[0, 2, 5, 10]]
    line = "train: 10 images, 10 boxes (1 clipped to their image); dropped 3 (2 without a positive size, 1 under"
    assert line in capfd.readouterr().err


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_large_images_are_shrunk_with_their_boxes(tmp_path: Path, suffix: str) -> None:
    raw = write_raw(tmp_path / "raw", size=(80, 60), suffix=suffix)
    train = prepare(raw, tmp_path / "set", max_size=40).split("train")
    assert train.image(0).shape == (30, 40, 3)
    n = train.ids[0] - 50
    assert train.boxes(0).tolist() == [[n / 2, 1, n / 2 + 5, 5]]
    assert train.paths[0].name == f"{n}.{suffix}" + (".png" if suffix == "bmp" else "")
    if suffix == "png":  # the mean of each four pixels
        whole = read_image(raw / f"pictures/sub/{n}.png").astype(float)
        np.testing.assert_allclose(train.image(0), whole.reshape(30, 2, 40, 2, 3).mean(axis=(1, 3)), atol=0.51)
    sizes = {(image["width"], image["height"]) for image in json.loads(train.truth.read_text())["images"]}
    assert sizes == {(40, 30)}


def test_a_limit_draws_the_same_images_of_the_same_files(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw")
    data = prepare(raw, tmp_path / "a", all_train=True, limit=4)
    ids = data.split("train").ids
    assert len(ids) == 4
    assert ids == sorted(ids) == data.split("val").ids
    assert prepare(raw, tmp_path / "b", all_train=True, limit=4, seed=1).split("train").ids != ids
    assert len(prepare(raw, tmp_path / "c", all_train=True, limit=99).split("train")) == 10


def test_unlabeled_images_are_found_by_pattern(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw")
    for name in ("a/10", "a/2", "b/2"):
        path = raw / f"more/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (9, 9, 9)).save(path)
    (raw / "more/a/notes.txt").write_text("x")
    data = prepare(raw, tmp_path / "set", unlabeled="more/**/*")
    assert [path.name for path in data.unlabeled] == ["a_2.png", "a_10.png", "b_2.png"]
    assert read_image(data.unlabeled[0]).shape == (8, 8, 3)
    assert [path.name for path in prepare(raw, tmp_path / "one", unlabeled="more/a/*").unlabeled] == [
        "2.png",
        "10.png",
    ]
    with pytest.raises(MaskcastError, match=r"no image matches unlabeled 'less/\*'; fix the pattern"):
        prepare(raw, tmp_path / "none", unlabeled="less/*")
    for pattern in (".", "more/a**"):
        with pytest.raises(MaskcastError, match=r"unlabeled: .*must be a path or pattern, e\.g\."):
            prepare(raw, tmp_path / "none", unlabeled=pattern)


def test_images_with_boxes_are_not_unlabeled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_raw(tmp_path / "raw")
    Image.new("RGB", (8, 8), (9, 9, 9)).save(raw / "pictures/other.png")
    data = prepare(raw, tmp_path / "set", unlabeled="**/*")
    assert [path.name for path in data.unlabeled] == ["other.png"]
    assert "unlabeled: 1 image; 10 with labels are left out\n" in capsys.readouterr().err
    with pytest.raises(MaskcastError, match=r"all images that unlabeled 'pictures/sub/\*' matches have labels"):
        prepare(raw, tmp_path / "none", unlabeled="pictures/sub/*")


def test_copies_of_images_in_two_splits_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(write_raw(tmp_path / "raw"), tmp_path / "set", all_train=True)
    line = "warning: 10 of 10 images of split 'val' are also in split 'train', e.g. in 'sub/0.jpg' and 'sub/0.jpg'"
    assert line in capsys.readouterr().err


def test_a_copy_that_was_saved_again_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_raw(tmp_path / "raw", suffix="png")
    shutil.copytree(raw / "pictures", raw / "copies")
    Image.open(raw / "pictures/sub/3.png").save(raw / "copies/sub/3.png", compress_level=1)
    assert (raw / "pictures/sub/3.png").read_bytes() != (raw / "copies/sub/3.png").read_bytes()
    prepare(raw, tmp_path / "set", all_train=True)
    assert "warning: 10 of 10 images of split 'val' are also in split 'train'" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(4))
def test_varied_copies_of_an_image_are_held_out_together(tmp_path: Path, seed: int) -> None:
    raw = write_raw(tmp_path / "raw", count=12)
    truth = json.loads((raw / "labels.json").read_text())
    for n, image in enumerate(truth["images"]):
        name = f"sub/street{n // 3}_jpg.rf.{n:032x}.jpg"
        (raw / "pictures" / image["file_name"]).rename(raw / "pictures" / name)
        image["file_name"] = name
    (raw / "labels.json").write_text(json.dumps(truth))
    data = prepare(raw, tmp_path / "set", val_share=0.5, seed=seed)
    train, val = (
        {path.name.partition(".rf.")[0] for path in data.split(split).paths} for split in ("train", "val")
    )
    assert (len(train), len(val), train & val) == (2, 2, set())


def test_equal_params_give_equal_bytes(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw")
    shutil.copytree(raw / "pictures", raw / "more")
    params: dict[str, Any] = {"unlabeled": "more/sub/*", "limit": 5, "max_size": 20}
    one, two = prepare(raw, tmp_path / "a", **params), prepare(raw, tmp_path / "b", **params)
    assert digest_tree(one.root) == digest_tree(two.root)
    assert one.digest == two.digest
    assert prepare(raw, tmp_path / "c", **params | {"max_size": 21}).digest != one.digest


def test_images_name_the_set(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw")
    digest = prepare(raw, tmp_path / "a").digest
    Image.new("RGB", (40, 30), (1, 2, 3)).save(raw / "pictures/sub/0.jpg")
    assert prepare(raw, tmp_path / "b").digest != digest


def test_the_real_voc_set_loses_its_two_bad_boxes(tmp_path: Path, shared_data: Path) -> None:
    source = {
        "layout": "voc",
        "annotations": "Annotations",
        "images": "JPEGImages",
        "train": "ImageSets/Main/train.txt",
        "val": "ImageSets/Main/val.txt",
    }
    run_stage(
        "prepare_detection",
        {"source": source, "max_size": 64},
        raw=shared_data / "bccd/BCCD",
        dataset=tmp_path / "set",
    )
    data = DetectionSet(tmp_path / "set")
    dropped = [one for split in ("train", "val") for one in data.about["splits"][split]["dropped"]]
    assert [(one["image"], one["why"]) for one in dropped if one["why"] == "degenerate"] == [
        ("BloodImage_00343.jpg", "degenerate"),
        ("BloodImage_00338.jpg", "degenerate"),
    ]
    assert data.split("train").image(0).shape == (48, 64, 3)


def refused(raw: Path, out: Path, line: str, **params: Any) -> None:
    with pytest.raises(MaskcastError, match=re.escape(line)) as raised:
        prepare(raw, out, **params)
    assert "\n" not in str(raised.value)
    assert not out.exists()
    assert not out.with_name(f"{out.name}.partial").exists()


def test_broken_images_are_named(tmp_path: Path) -> None:
    raw, out = write_raw(tmp_path / "raw"), tmp_path / "set"
    image = raw / "pictures/sub/3.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    refused(raw, out, "sub/3.jpg: the image is damaged")
    image.write_bytes(b"text")
    refused(raw, out, "sub/3.jpg: not a readable image")
    image.unlink()
    refused(raw, out, "sub/3.jpg: image not found")
    Image.new("RGB", (30, 40)).save(image)
    refused(raw, out, "sub/3.jpg: is 40x30 pixels (height x width), its labels are for 30x40")


def test_no_image_is_written_any_more_once_an_error_is_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, running = detection_writer.write_image, set()

    def slow_write(path: Path, *args: Any) -> Any:
        running.add(path)
        if path.name != "0.jpg":
            time.sleep(0.2)
        written = write(path, *args)
        running.remove(path)
        return written

    monkeypatch.setattr(detection_writer, "write_image", slow_write)
    raw = write_raw(tmp_path / "raw", count=4)
    images = [
        LabelledImage(
            n, raw / f"pictures/sub/{n}.jpg", f"{n}.jpg", np.zeros((0, 4)), *np.zeros((2, 0), int), (1, 1)
        )
        for n in range(4)
    ]
    writer = DetectionWriter(tmp_path / "set", ["cat"], [5], None)
    with pytest.raises(MaskcastError) as raised:  # what is named holds the frames, and all in them, alive
        writer.add_split("train", images)
    assert not running
    assert "its labels are for 1x1" in str(raised.value)


def test_other_faults_are_named(tmp_path: Path) -> None:
    raw, out = write_raw(tmp_path / "raw", count=2), tmp_path / "set"
    refused(raw, out, "val_share: 0.9 of 2 images leaves none to train on", val_share=0.9)
    refused(raw, out, "params.val_share: ", val_share=0)
    refused(raw, out, "params.limit: ", limit=0)
    refused(raw, out, "params.unlabeled: ", unlabeled="/etc/*")
    refused(raw, out, "params.source.layout: no layout 'xml'; allowed: coco", source={"layout": "xml"})
    truth = json.loads((raw / "labels.json").read_text())
    truth["images"][1]["file_name"] = truth["images"][0]["file_name"]
    (raw / "labels.json").write_text(json.dumps(truth))
    refused(raw, out, "train: two images are named 'sub/0.jpg'", all_train=True)
    (raw / "labels.json").write_text("[")
    refused(raw, out, "labels.json: not valid JSON")
    (raw / "labels.json").unlink()
    refused(raw, out, "labels.json: no such JSON file")


@pytest.mark.parametrize("seed", range(4))
def test_an_image_that_stands_twice_is_not_learnt_from_and_scored_on(tmp_path: Path, seed: int) -> None:
    raw = write_raw(tmp_path / "raw", count=4)
    truth = json.loads((raw / "labels.json").read_text())
    truth["images"][1]["file_name"] = truth["images"][0]["file_name"]
    (raw / "labels.json").write_text(json.dumps(truth))
    refused(raw, tmp_path / "set", "sub/0.jpg: listed twice in train, so val_share", val_share=0.5, seed=seed)


def test_only_a_whole_set_is_opened(tmp_path: Path) -> None:
    data = prepare(write_raw(tmp_path / "raw"), tmp_path / "set")
    with pytest.raises(MaskcastError, match=r"split 'test' not found \(found: train, val\); prepare"):
        data.split("test")
    path = data.split("train").truth
    whole = path.read_text()
    for content in (whole.replace("bbox", "b"), whole[:-9]):
        path.write_text(content)
        with pytest.raises(
            MaskcastError, match=r"train.json: not found, or its checksum differs from dataset.json"
        ):
            data.split("train")
    path.unlink()
    with pytest.raises(MaskcastError, match=r"train.json: not found, or"):
        data.split("train")
    about = tmp_path / "set/dataset.json"
    for content, line in [
        ("{", "dataset.json: not a maskcast-detection/1 description"),
        ("7", "dataset.json: not a maskcast-detection/1 description"),
        ("{}", r"not a maskcast-detection/1 description \(format: Field required"),
        (about.read_text().replace("detection/1", "detection/0"), r"not a maskcast-detection/1 .*\(format: Input"),
    ]:
        about.write_text(content)
        with pytest.raises(MaskcastError, match=line):
            DetectionSet(tmp_path / "set")
    about.unlink()
    with pytest.raises(
        MaskcastError, match=r"dataset\.json: not found; give the folder that prepare_detection wrote"
    ):
        DetectionSet(tmp_path / "set")


def in_shares(raw: Path) -> Path:
    """Gives the boxes of the images, 30x40, in shares of height and width."""
    truth = json.loads((raw / "labels.json").read_text())
    for one in truth["annotations"]:
        one["bbox"] = [value / side for value, side in zip(one["bbox"], [40, 30, 40, 30], strict=True)]
    (raw / "labels.json").write_text(json.dumps(truth))
    return raw


def test_boxes_in_shares_are_refused_with_the_key_and_taken_with_it(tmp_path: Path) -> None:
    raw = in_shares(write_raw(tmp_path / "raw"))
    with pytest.raises(
        MaskcastError, match=r"^source\.boxes: all boxes of train are between 0 and 1.* to shares$"
    ):
        prepare(raw, tmp_path / "set")
    assert not (tmp_path / "set").exists()
    pixels = prepare(write_raw(tmp_path / "pixels"), tmp_path / "one").split("train")
    run_stage("prepare_detection", {"source": SOURCE | {"boxes": "shares"}}, raw=raw, dataset=tmp_path / "set")
    shares = DetectionSet(tmp_path / "set").split("train")
    for n in range(len(pixels)):
        np.testing.assert_allclose(shares.boxes(n), pixels.boxes(n), atol=1e-4)
    with pytest.raises(MaskcastError, match=r"source\.boxes: sub/0\.jpg of train has a box up to 10, but shares"):
        source = SOURCE | {"boxes": "shares"}
        run_stage("prepare_detection", {"source": source}, raw=tmp_path / "pixels", dataset=tmp_path / "x")


def test_a_split_whose_boxes_are_all_dropped_is_an_error(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", count=4)
    truth = json.loads((raw / "labels.json").read_text())
    for one in truth["annotations"]:
        one["bbox"] = [10, 10, 0, 5]
    (raw / "labels.json").write_text(json.dumps(truth))
    with pytest.raises(MaskcastError, match=r"no usable box in train \(3 without a positive size, 0 under 1"):
        prepare(raw, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_the_size_that_labels_state_is_held_against_the_image(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", size=(40, 20))
    truth = json.loads((raw / "labels.json").read_text())
    truth["images"][3] |= {"height": 40, "width": 20}
    (raw / "labels.json").write_text(json.dumps(truth))
    with pytest.raises(
        MaskcastError, match=r"3\.jpg: is 20x40 pixels .*, its labels are for 40x20; .*delete its EXIF"
    ):
        prepare(raw, tmp_path / "set", all_train=True)
    truth["images"][3] |= {"height": 41, "width": 20}
    (raw / "labels.json").write_text(json.dumps(truth))
    with pytest.raises(MaskcastError, match="labels are for 41x20; use the image that was labelled"):
        prepare(raw, tmp_path / "set", all_train=True)


def test_an_image_that_is_not_there_is_told_with_the_one_most_like_it(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw")
    (raw / "pictures/sub/3.jpg").rename(raw / "pictures/sub/3.JPG")
    with pytest.raises(
        MaskcastError, match=r"sub/3\.jpg: image not found; add it, or .*; did you mean '3\.JPG'\?"
    ):
        prepare(raw, tmp_path / "set")


def test_names_that_are_almost_alike_and_classes_without_boxes_are_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = write_raw(tmp_path / "raw")
    truth = json.loads((raw / "labels.json").read_text())
    truth["categories"][0]["name"] = "Cat "
    truth["categories"].append({"id": 11, "name": "bird"})
    (raw / "labels.json").write_text(json.dumps(truth))
    prepare(raw, tmp_path / "set")
    text = capfd.readouterr().err
    assert (
        "warning: classes 'cat' and 'Cat ' differ only in case, spaces or Unicode form, but each is a class"
        in text
    )
    assert "warning: 1 class has no usable box, so nothing is learnt of bird" in text
    prepare(raw, tmp_path / "few", limit=2)
    assert "no usable box" not in capfd.readouterr().err  # others may have some
