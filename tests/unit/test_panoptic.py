"""Masks whose values hold a class and an object, written as the tools of KITTI-STEP, VIPSeg and Cityscapes do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.lookalikes import HEIGHT, WIDTH, frames_of, write_images

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.images import resize_masks
from maskcast.data.labelling.formats.cityscapes import TABLE
from maskcast.errors import MaskcastError
from maskcast.proposal.plan import plan_params
from maskcast.runner.run import run_stage

pytestmark = pytest.mark.usefixtures("untimed_steps")

LENGTH = 22
CITYSCAPES = [name for name, *_ in TABLE]
TRAINED = """road
sidewalk
building
wall
fence
pole
traffic light
traffic sign
vegetation
terrain
sky
person
rider
car
truck
bus
train
motorcycle
bicycle""".splitlines()


class Truth(NamedTuple):
    """What a set says of pixels (T, H, W): classes by the set's ids, objects from 1 on, 0 for none."""

    frames: np.ndarray
    semantic: np.ndarray
    instance: np.ndarray


def street(seed: int, ids: tuple[int, int, int, int, int], void: int) -> Truth:
    """Returns a sequence of ids for road, sky, cars, people and plants: a border without labels, two cars."""
    frames, squares = frames_of(seed, LENGTH)
    semantic = np.array([ids[0], ids[2], ids[3]])[squares]
    semantic[:, : HEIGHT // 2][squares[:, : HEIGHT // 2] == 0] = ids[1]
    instance = np.array([0, 1, 300 if void == 255 else 2])[squares]
    semantic[:, HEIGHT // 2 :, -10:][squares[:, HEIGHT // 2 :, -10:] == 0] = ids[4]
    semantic[:, -4:, :8], instance[:, -4:, :8] = ids[2], 2
    semantic[:, :2], instance[:, :2] = void, 0
    return Truth(frames, semantic, instance)


def kitti_step(root: Path) -> list[Truth]:
    """Writes KITTI-STEP as the tutorial of deeplab2 arranges it; see its create_step_panoptic_maps.py."""
    found = []
    for k, place in enumerate(("train/0000", "train/0001", "val/0002")):
        truth = street(k, (0, 10, 13, 11, 8), 255)
        panoptic = truth.semantic * 1000 + truth.instance  # its INSTANCE_LABEL_DIVISOR
        semantic_id, instance_id = panoptic // 1000, panoptic % 1000
        maps = np.stack([semantic_id, instance_id // 256, instance_id % 256], -1).astype(np.uint8)
        write_images(root / f"images/{place}", truth.frames, "{:06d}.png")
        write_images(root / f"panoptic_maps/{place}", maps, "{:06d}.png")
        found.append(truth)
    return found


def vipseg(root: Path) -> list[Truth]:
    """Writes VIPSeg as its README has it: stuff is its category, a thing is category * 100 + instance."""
    found = []
    for k, name in enumerate(("0_wHszJTCcT3M", "12_4Lo9pCjJKLQ", "7_aaaXJTCcT3a")):
        truth = street(k, (20, 30, 103, 61, 17), 0)
        masks = np.where(truth.instance > 0, truth.semantic * 100 + truth.instance - 1, truth.semantic)
        truth.semantic[truth.semantic == 0] = 255  # no label
        write_images(root / f"imgs/{name}", truth.frames, "{:08d}.jpg", 3)
        write_images(root / f"panomasks/{name}", masks.astype(np.uint16), "{:08d}.png", 3)
        found.append(truth)
    return found


def cityscapes(root: Path) -> list[Truth]:
    """Writes instanceIds alone, as json2instanceImg.py makes them: groups and stuff have the id of the class."""
    found = []
    for k, city in enumerate(("train/aachen", "train/bochum", "val/lindau")):
        truth = street(k, (7, 23, 26, 24, 21), 0)
        truth.semantic[:, -4:, -6:] = 24  # a group of people
        truth.instance[:, -4:, -6:] = 0
        ids = np.where(truth.instance > 0, truth.semantic * 1000 + truth.instance - 1, truth.semantic)
        name = city.partition("/")[2] + "_000000_{:06d}"
        write_images(root / f"leftImg8bit/{city}", truth.frames, f"{name}_leftImg8bit.png")
        write_images(root / f"gtFine/{city}", ids.astype(np.uint16), f"{name}_gtFine_instanceIds.png")
        found.append(truth)
    return found


def void_65535(root: Path) -> list[Truth]:
    """Writes class * 1000 + object, and the greatest value of 16 bits where there is no label."""
    found = []
    for k, name in enumerate("abc"):
        truth = street(k, (7, 23, 26, 24, 21), 255)
        truth.instance[truth.instance == 300] = 2
        ids = np.where(truth.instance > 0, truth.semantic * 1000 + truth.instance - 1, truth.semantic)
        ids[truth.semantic == 255] = 65535
        write_images(root / f"images/{name}", truth.frames, "{:03d}.png")
        write_images(root / f"masks/{name}", ids.astype(np.uint16), "{:03d}.png")
        found.append(truth)
    return found


SETS: dict[str, tuple[Callable[[Path], list[Truth]], dict[str, Any]]] = {
    "KITTI-STEP": (
        kitti_step,
        {
            "images": "images/*/{clip}",
            "masks": "panoptic_maps/*/{clip}",
            "label_divisor": 65536,
            "classes": TRAINED,
            "ignore": 255,
        },
    ),
    "VIPSeg": (
        vipseg,
        {
            "images": "imgs/{clip}",
            "masks": "panomasks/{clip}",
            "label_divisor": 100,
            "ignore": 0,
            "classes": ["background", *(f"class {k}" for k in range(1, 104))],
        },
    ),
    "Cityscapes": (
        cityscapes,
        {"masks": "gtFine/*/{clip}/{frame}_gtFine_instanceIds.png", "label_divisor": 1000, "classes": CITYSCAPES},
    ),
    "65535 for no label": (void_65535, {"masks": "masks/{clip}", "label_divisor": 1000, "ignore": 65535}),
}


@pytest.mark.parametrize("name", SETS)
def test_classes_and_objects_of_panoptic_sets_are_told_apart(name: str, tmp_path: Path) -> None:
    write, expected = SETS[name]
    truths = write(tmp_path / "raw")
    start = plan_params(tmp_path / "raw")
    source = start.findings.source
    assert {key: source.get(key) for key in expected} == expected
    told = f"values hold class * {expected['label_divisor']} + object: source.instances: true keeps the objects"
    assert any(told in warning for warning in start.findings.warnings)
    params = {"source": source | {"instances": True}, "height": HEIGHT, "width": WIDTH, "workers": 1}
    run_stage("prepare_clips", params, raw=tmp_path / "raw", clips=tmp_path / "clips")
    store = ClipStore(tmp_path / "clips")
    assert len(store.clips) == 3
    for clip, truth in zip(sorted(store.clips, key=lambda clip: clip.id), truths, strict=True):
        masks, objects = (store.of(layer).masks(clip) for layer in ("mask", "objects"))
        np.testing.assert_array_equal(masks, truth.semantic)
        np.testing.assert_array_equal(objects > 0, truth.instance > 0)
        wanted = {(c, i) for c, i in zip(truth.semantic.ravel(), truth.instance.ravel(), strict=True) if i}
        found = set(zip(truth.semantic.ravel(), truth.instance.ravel(), objects.ravel(), strict=True))
        assert len({one for one in found if one[1]}) == len(wanted) == len(clip.objects["objects"])
        assert all(clip.objects["objects"][int(number)] == class_id for class_id, i, number in found if i)


def write_one(folder: Path, mask: np.ndarray) -> dict[str, Any]:
    """Writes two sequences of one frame; returns params that are still to be completed."""
    for name in ("a", "b"):
        frames, _ = frames_of(0, 1)
        write_images(folder / f"images/{name}", frames, "{:03d}.png")
        write_images(folder / f"masks/{name}", mask[None], "{:03d}.png")
    source = {"layout": "frame_folders", "images": "images/{clip}", "masks": "masks/{clip}", "frames": 1}
    return source | {"splits": {"val": 0.5}}


def prepared(raw: Path, source: dict[str, Any], **more: str) -> np.ndarray:
    clips = raw.parent / "clips"
    params = {"source": source, "height": HEIGHT, "width": WIDTH, "workers": 1} | more
    run_stage("prepare_clips", params, raw=raw, clips=clips)
    store = ClipStore(clips)
    return store.masks(store.clips[0])[0]


def test_values_name_the_classes_that_values_hold(tmp_path: Path) -> None:
    """Those that the benchmark of Cityscapes leaves out, and MOTS' value for no label, are none."""
    mask = np.full((HEIGHT, WIDTH), 7, np.uint16)
    mask[:8], mask[8:16, :8], mask[8:16, 8:16], mask[30:] = 3, 24_000, 24_007, 24
    values = {"3": "ignore", "7": "road", "24": "person"}
    source = write_one(tmp_path / "raw", mask) | {"label_divisor": 1000}
    found = prepared(tmp_path / "raw", source | {"classes": ["road", "person"], "values": values})
    wanted = np.zeros_like(found)
    wanted[:8], wanted[8:16, :16], wanted[30:] = 255, 1, 1
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("mask", "keys", "line"),
    [
        (np.array([[7, 34_001]]), {"label_divisor": 1000, "classes": CITYSCAPES}, "the class 34 ("),
        (np.array([[7, 50]]), {"label_divisor": 1000, "classes": CITYSCAPES}, "the class 50 ("),
        (
            np.array([[[13, 0, 1], [10, 0, 0]]]),
            {"label_divisor": 1000, "classes": CITYSCAPES},
            "source.label_divisor: 1000 is for numbers, but this mask contains colours; use 65536 for colours,",
        ),
        (
            np.array([[13, 12]], np.uint8),
            {"label_divisor": 65536, "classes": TRAINED},
            "source.label_divisor: 65536 is for colours, but this mask is grey; use 65536 for colours",
        ),
        (np.array([[7, 8]]), {"label_divisor": 1000, "encoding": "binary"}, "label_divisor is for classes"),
        (
            np.array([[7, 8]]),
            {"label_divisor": 1000, "values": {"#000000": "background"}},
            "with label_divisor, values name classes by number, e.g. {11: person}",
        ),
        (
            np.array([[7, 8]]),
            {"label_divisor": 70_000},
            "source.label_divisor: input should be less than or equal",
        ),
    ],
)
def test_what_does_not_split_is_one_line(
    mask: np.ndarray, keys: dict[str, Any], line: str, tmp_path: Path
) -> None:
    kind = np.uint8 if mask.ndim == 3 or mask.dtype == np.uint8 else np.uint16
    whole = np.resize(mask.astype(kind), (HEIGHT, WIDTH, *mask.shape[2:]))
    source = write_one(tmp_path / "raw", whole)
    with pytest.raises(MaskcastError) as caught:
        prepared(tmp_path / "raw", source | keys)
    assert line in str(caught.value)


def test_numbers_of_objects_and_colours_that_people_chose_do_not_split(tmp_path: Path) -> None:
    cells = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) // 6  # 0 to 426
    few = np.resize(np.array([1, 2, 300, 640], np.uint16), (HEIGHT, WIDTH))
    steps = np.resize(np.array([0, 0, 0, 0, 0, 0, 0, 1, 2, 301, 302, 601], np.uint16), (HEIGHT, WIDTH))
    reds = np.resize(np.array([[[0, 0, 0], [64, 0, 0], [128, 0, 0], [192, 0, 0]]], np.uint8), (HEIGHT, WIDTH, 3))
    for name, mask in (("cells", cells), ("few", few), ("steps", steps), ("reds", reds)):
        for clip in ("a", "b"):
            frames, _ = frames_of(0, LENGTH)
            write_images(tmp_path / f"{name}/images/{clip}", frames, "{:03d}.png")
            write_images(tmp_path / f"{name}/masks/{clip}", np.stack([mask] * LENGTH), "{:03d}.png")
        assert "label_divisor" not in plan_params(tmp_path / name).findings.source, name


def test_label_ids_have_the_names_of_cityscapes(tmp_path: Path) -> None:
    """Also where an image has few of them; those of training have the 19 names, and 255 for no label."""
    for tail, ids, names, ignore in (
        ("labelIds", (7, 23, 26, 33, 21), CITYSCAPES, None),
        ("labelTrainIds", (0, 10, 13, 18, 8), TRAINED, 255),
    ):
        for k, city in enumerate(("train/aachen", "val/lindau")):
            truth = street(k, ids, 255 if ignore else 0)
            name = city.partition("/")[2] + "_000000_{:06d}"
            root = tmp_path / tail
            write_images(root / f"leftImg8bit/{city}", truth.frames, f"{name}_leftImg8bit.png")
            masks = truth.semantic.astype(np.uint8)
            write_images(root / f"gtFine/{city}", masks, f"{name}_gtFine_{tail}.png")
        found = plan_params(tmp_path / tail).findings
        assert found.source["classes"] == names and found.source["encoding"] == "index"
        assert found.source.get("ignore") == ignore and "values" not in found.source
        assert found.reasons["classes"].endswith("; names are those of the table of Cityscapes")


def coco_panoptic(root: Path) -> dict[str, np.ndarray]:
    """Writes COCO's folders of photographs, as panopticapi reads them (rgb2id, pq_compute).

    Returns:
        Of each photograph (H, W): 0 wall, 1 person, 2 tie, 255 no label.
    """
    categories = [(199, "wall-other-merged", 0), (1, "person", 1), (32, "tie", 1)]
    found, images, annotations = {}, [], []
    for k, name in enumerate(("000000000139", "000000000285", "000000000632", "000000000724", "000000000776")):
        frame, squares = (one[0] for one in frames_of(k, 1, ((HEIGHT, WIDTH), (WIDTH, HEIGHT))[k % 2]))
        ids = np.array([3_226_956, 70_000 + k, 257])[squares]  # segments of an image
        ids[:3] = 0
        png = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], -1).astype(np.uint8)
        write_images(root / "val2017", frame[None], f"{name}.jpg")
        write_images(root / "annotations/panoptic_val2017", png[None], f"{name}.png")
        size = {"height": frame.shape[0], "width": frame.shape[1]}
        images.append({"id": int(name), "file_name": f"{name}.jpg", **size})
        segments = [
            {"id": number, "category_id": category[0], "area": int((ids == number).sum()), "iscrowd": 0}
            for number, category in zip((3_226_956, 70_000 + k, 257), categories, strict=True)
        ]
        annotations.append({"image_id": int(name), "file_name": f"{name}.png", "segments_info": segments})
        found[name] = np.where(ids == 0, 255, squares)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": number, "name": name, "isthing": thing, "supercategory": "s", "color": [1, 2, 3]}
            for number, name, thing in categories
        ],
    }
    (root / "annotations/panoptic_val2017.json").write_text(json.dumps(content))
    return found


def test_segments_of_cocos_panoptic_form_have_the_classes_of_its_json(tmp_path: Path) -> None:
    truth = coco_panoptic(tmp_path / "raw")
    objects = [{"id": 1, "image_id": 139, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}]
    images = [{"id": 139, "file_name": "000000000139.jpg", "height": HEIGHT, "width": WIDTH}]
    instances = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "raw/annotations/instances_val2017.json").write_text(json.dumps(instances))
    start = plan_params(tmp_path / "raw")
    source = start.findings.source
    assert (source["layout"], source["format"]) == ("annotations", "coco")
    assert source["labels"] == ["annotations/panoptic_val2017.json"]
    assert (source["images"], source["frames"]) == ("val2017/{clip}.jpg", 1)
    assert source["classes"] == ["background", "person", "tie", "wall-other-merged"]
    params = {"source": source | {"instances": True}, "height": HEIGHT, "width": WIDTH, "workers": 1}
    run_stage("prepare_clips", params, raw=tmp_path / "raw", clips=tmp_path / "clips")
    store = ClipStore(tmp_path / "clips")
    assert len(store.clips) == len(truth)
    of_theirs = np.zeros(256, np.uint8)
    of_theirs[[0, 1, 2, 255]] = 3, 1, 2, 255
    for clip in store.clips:
        wanted = of_theirs[resize_masks(truth[clip.id.partition("_")[0]][None], HEIGHT, WIDTH)]
        np.testing.assert_array_equal(store.of("mask").masks(clip), wanted)
        assert sorted(clip.objects["objects"].values()) == [1, 2, 3]
        np.testing.assert_array_equal(store.of("objects").masks(clip) > 0, wanted != 255)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda one: one["annotations"][0]["segments_info"].pop(), "is missing in its segments_info; export both"),
        (lambda one: one["annotations"][0].update(image_id=7), "image_id 7 is not the id of an image of"),
        (
            lambda one: one["annotations"][0]["segments_info"][0].update(category_id=7),
            "category_id 7 is not the id of a category; fix it",
        ),
        (lambda one: one["annotations"][0].pop("file_name"), "panoptic_val2017.json: "),
        (lambda one: one["annotations"][0].update(file_name="none.png"), "none.png: no such"),
        (lambda one: one["annotations"][0].update(file_name="../x.png"), "file_name must be a path below"),
        (lambda one: one.update(images=[5]), "panoptic_val2017.json: "),
        (
            lambda one: one["images"][0].update(height=float(HEIGHT)),
            "height must be an integer, not 40.0; fix it",
        ),
        (
            lambda one: one["annotations"][0]["segments_info"][0].update(id="7"),
            "id '7' of a segment must be an integer",
        ),
        (lambda one: one["annotations"].insert(1, 5), "panoptic_val2017.json: "),
        (lambda one: one["images"][0].update(height=HEIGHT + 2), "is 64x40 (width x height); export both"),
    ],
)
def test_what_is_wrong_with_cocos_panoptic_form_is_one_line(
    change: Callable[[dict[str, Any]], object], line: str, tmp_path: Path
) -> None:
    coco_panoptic(tmp_path / "raw")
    source = plan_params(tmp_path / "raw").findings.source
    path = tmp_path / "raw/annotations/panoptic_val2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(MaskcastError) as caught:
        prepared(tmp_path / "raw", source | {"splits": {"val": 0.4}}, on_error="fail")
    assert line in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_masks_of_classes_are_taken_before_segments(tmp_path: Path) -> None:
    truth = coco_panoptic(tmp_path)
    for name, mask in truth.items():
        write_images(tmp_path / "masks", mask.astype(np.uint8)[None], f"{name}.png")
    found = plan_params(tmp_path).findings
    assert (found.source["layout"], found.source["masks"]) == ("frame_folders", "masks/{clip}.png")
    said = "5 images left out: annotations/panoptic_val2017 has segment ids, and there are class masks"
    assert said in found.warnings
