"""What `labels import` cannot put into clips as it is in the file is said, and never becomes background."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskcast.data.clip_store.labelled_frames import LABELLED_FRAMES, labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.labelling.exporting import export_labels
from maskcast.data.labelling.formats.table import get_format
from maskcast.data.labelling.importing import ImportReport, import_labels
from maskcast.labels import IGNORE, LabelMap

FRAMES, HEIGHT, WIDTH = 6, 20, 40
CLASSES = ("background", "car", "person")
MAPS = (LabelMap("mask", CLASSES), LabelMap("objects", CLASSES, "instances"))
CVAT = '<annotations><version>1.1</version><image id="0" name="v_000001.png" width="40" height="20">'


@pytest.fixture
def bare(tmp_path: Path) -> ClipStore:
    with ClipWriter(tmp_path / "bare", height=HEIGHT, width=WIDTH, maps=MAPS) as writer:
        frames = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
        writer.add("v", split="unlabeled", kind="unlabelled", frames=frames)
    return ClipStore(tmp_path / "bare")


def read(store: ClipStore, form: str, path: Path, name: str = "mask") -> tuple[ClipStore, ImportReport]:
    root = store.root.with_name("back")
    given = {"rename": {}, "empty": "background", "split": None, "first": None}
    report = import_labels(root, get_format(form), path, store.of(name), **given)
    return ClipStore(root, name), report


def coco(path: Path, size: tuple[int, int], *polygons: tuple[int, list[float]], **more: Any) -> Path:
    """Writes a file of one image, the frame 1; each polygon is of a class, the persons are 2."""
    image = {"id": 1, "file_name": "v_000001.png", "height": size[0], "width": size[1]}
    annotations = [
        {"id": k, "image_id": 1, "category_id": category, "segmentation": [polygon], "bbox": [0, 0, 1, 1]} | more
        for k, (category, polygon) in enumerate(polygons)
    ]
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "person"}]
    path.write_text(json.dumps({"images": [image], "categories": categories, "annotations": annotations}))
    return path


def square(x: float, y: float, side: float) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def lines(report: ImportReport) -> str:
    return "\n".join(report.lines(Path("clips")))


def test_objects_without_a_pixel_at_the_size_of_the_clips_have_no_label(bare: ClipStore, tmp_path: Path) -> None:
    persons = [(2, square(40 * k, 40, 4)) for k in range(1, 9)]
    flat = (1, [1, 1, 5, 5, 1, 1])
    path = coco(tmp_path / "a.json", (200, 400), (1, square(0, 100, 100)), flat, *persons)
    store, report = read(bare, "coco", path)
    mask = store.masks(store.get("v"))[1]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[10:, :10] = 1
    expected[4, 4:36:4] = IGNORE
    np.testing.assert_array_equal(mask, expected)
    assert "warning: 9 regions have no pixel at the size of the clips: left out" in lines(report)


def test_a_region_that_others_cover_is_not_lost(bare: ClipStore, tmp_path: Path) -> None:
    path = coco(tmp_path / "a.json", (20, 40), (1, square(2, 2, 4)), (2, square(0, 0, 10)))
    assert "no pixel" not in lines(read(bare, "coco", path)[1])


@pytest.mark.parametrize("form", ["cvat-video", "mots-txt", "coco", "png"])
def test_frames_without_labels_stay_so_through_formats_of_whole_clips(
    form: str, bare: ClipStore, tmp_path: Path
) -> None:
    masks = np.full((FRAMES, HEIGHT, WIDTH), IGNORE, np.uint8)
    masks[[1, 4]] = 0
    masks[[1, 4], 3:9, 3:9], masks[4, 0] = 1, IGNORE
    meta, own = {LABELLED_FRAMES: ["mask"]}, {LABELLED_FRAMES: {"mask": [1, 4]}}
    frames = bare.frames(bare.get("v"))
    with ClipWriter(tmp_path / "known", height=HEIGHT, width=WIDTH, maps=MAPS, meta=meta) as writer:
        writer.add("v", split="train", kind="labelled", frames=frames, masks={"mask": masks}, meta=own)
    export_labels(tmp_path / "out", get_format(form), ClipStore(tmp_path / "known", "mask"), None, None)
    store, report = read(bare, form, tmp_path / "out")
    clip = store.get("v")
    assert list(labelled_frames(store, clip)) == [1, 4]
    np.testing.assert_array_equal(store.masks(clip), masks)
    assert (report.frames, report.repeated) == (2, 0)
    assert ("4 frames are wholly `ignore`: left without labels" in lines(report)) == (form[-3:] in ("deo", "txt"))


def test_a_frame_that_is_painted_as_ignore_loses_its_label(bare: ClipStore, tmp_path: Path) -> None:
    with ClipWriter(tmp_path / "known", height=HEIGHT, width=WIDTH, maps=MAPS) as writer:
        masks = {"mask": np.ones((FRAMES, HEIGHT, WIDTH), np.uint8)}
        writer.add("v", split="train", kind="labelled", frames=bare.frames(bare.get("v")), masks=masks)
    path = tmp_path / "a.xml"
    box = '<box label="ignore" xtl="0" ytl="0" xbr="40" ybr="20" z_order="0"/></image>'
    car = box.replace("ignore", "car").replace('xbr="40"', 'xbr="9"')
    path.write_text(
        f"{CVAT}{box}{CVAT[CVAT.index('<image') :].replace('0001', '0002')}{car}</annotations>".replace(
            'id="0" name="v_000002', 'id="1" name="v_000002'
        )
    )
    store, report = read(ClipStore(tmp_path / "known", "mask"), "cvat-images", path)
    clip = store.get("v")
    assert list(labelled_frames(store, clip)) == [0, 2, 3, 4, 5]
    assert (store.masks(clip)[1] == IGNORE).all()
    assert report.ignored == 1


@pytest.mark.parametrize(("number", "warned"), [({}, True), ({"track_id": 4}, False)])
def test_objects_without_a_number_are_said(number: dict[str, int], warned: bool, tmp_path: Path) -> None:
    with ClipWriter(tmp_path / "bare", height=HEIGHT, width=WIDTH, maps=MAPS) as writer:
        frames = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
        writer.add("v", split="unlabeled", kind="unlabelled", frames=frames)
    path = coco(tmp_path / "a.json", (HEIGHT, WIDTH), (1, square(0, 0, 9)), **number)
    content = json.loads(path.read_text())
    content["images"].append(content["images"][0] | {"id": 2, "file_name": "v_000000.png"})
    content["annotations"].append(content["annotations"][0] | {"id": 9, "image_id": 2})
    path.write_text(json.dumps(content))
    store, report = read(ClipStore(tmp_path / "bare"), "coco", path, "objects")
    assert len(store.get("v").objects["objects"]) == (2 if warned else 1)
    text = "warning: 2 regions have no object number: each is a new object in every frame"
    assert (text in lines(report)) == warned


LABELME = {"imagePath": "v_000001.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}
KEYPOINT = {"id": "a", "type": "keypointlabels", "value": {"x": 1, "y": 1, "keypointlabels": ["person"]}}
STUDIO_TASK = {"id": 1, "data": {"image": "v_000001.png"}}
TRACK = '<track id="0" label="person"><points frame="1" points="1,1" outside="0" keyframe="1"/></track>'


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("cvat-images", f'{CVAT}<tag label="person" source="manual"/></image></annotations>'),
        ("cvat-images", f'{CVAT}<points label="person" points="3,3" z_order="0"/></image></annotations>'),
        ("cvat-images", f'{CVAT}<skeleton label="person" z_order="0"/></image></annotations>'),
        (
            "cvat-video",
            f"<annotations><meta><task><name>v</name><size>6</size></task></meta>{TRACK}</annotations>",
        ),
        ("labelme", LABELME | {"shapes": [{"label": "person", "points": [[1, 1]], "shape_type": "point"}]}),
        ("label-studio", [STUDIO_TASK | {"annotations": [{"result": [KEYPOINT]}]}]),
    ],
)
def test_a_frame_of_which_only_marks_without_area_are_known_is_not_background(
    form: str, content: Any, bare: ClipStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second file gives the frame 2 a label, so that there is one."""
    folder = tmp_path / "labels"
    folder.mkdir()
    suffix = "xml" if "cvat" in form else "json"
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / f"a.{suffix}").write_text(text)
    if form == "cvat-images":
        box = '<box label="car" xtl="0" ytl="0" xbr="9" ybr="9" z_order="0"/></image></annotations>'
        (folder / "b.xml").write_text(CVAT.replace("0001", "0002") + box)
    elif form == "labelme":
        shape = {"label": "car", "points": [[0, 0], [9, 9]], "shape_type": "rectangle"}
        (folder / "b.json").write_text(json.dumps(LABELME | {"imagePath": "v_000002.png", "shapes": [shape]}))
    elif form == "label-studio":
        (folder / "b.json").write_text(
            json.dumps([STUDIO_TASK | {"data": {"image": "v_000002.png"}, "annotations": [{"result": []}]}])
        )
    store, report = read(bare, form, folder)
    assert 1 not in labelled_frames(store, store.get("v"))
    assert 2 in labelled_frames(store, store.get("v"))
    assert "1 frame has only annotations without area, which were left out: left without labels" in lines(report)
    assert "no area" in capsys.readouterr().err


def test_tasks_of_several_annotators_are_said(
    bare: ClipStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [
        STUDIO_TASK | {"annotations": [{"result": []}, {"result": []}]},
        {"id": 2, "data": {"image": "v_000002.png"}, "annotations": [{"result": []}, {"was_cancelled": True}]},
    ]
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    read(bare, "label-studio", tmp_path / "a.json")
    text = "1 of 2 tasks have several annotations: of each, the last marked as ground truth is used, else the last"
    assert text in capsys.readouterr().err
