"""Files as CVAT, Label Studio, labelme, COCO, MOTS and Cityscapes write them, and what is wrong with others.

The samples follow the documented formats: CVAT's XML 1.1, Label Studio's export `JSON`, COCO's and YouTube-VIS' JSON,
KITTI MOTS' text, labelme's JSON, and the table of Cityscapes' scripts.
"""

import base64
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.labelling.exporting import export_labels
from maskcast.data.labelling.formats import brush
from maskcast.data.labelling.formats.cityscapes import TABLE
from maskcast.data.labelling.formats.names import frame_ids_of, frame_name
from maskcast.data.labelling.formats.table import get_format
from maskcast.data.labelling.importing import ImportReport, import_labels
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, single_map

H, W = 6, 9
FRAMES = 4
OPTIONS: dict[str, Any] = {"rename": {}, "empty": "background", "split": "train"}
# What label-studio-converter 0.0.59 makes of BRUSHED by brush.mask2rle.
ENCODED = [
    0,
    0,
    0,
    216,
    57,
    27,
    252,
    127,
    248,
    156,
    3,
    9,
    255,
    223,
    0,
    194,
    127,
    247,
    192,
    48,
    159,
    254,
    75,
    0,
    143,
    252,
]
BRUSHED = np.zeros((H, W), bool)
BRUSHED[1:4, 2:7] = BRUSHED[5, 8] = BRUSHED[0, 0] = True


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    """Two clips without labels."""
    with ClipWriter(
        tmp_path / "clips", height=H, width=W, maps=single_map(["background", "car", "dog"])
    ) as writer:
        for clip in ("street", "yard"):
            frames = np.zeros((FRAMES, H, W, 3), np.uint8)
            writer.add(clip, split="unlabeled", kind="unlabelled", frames=frames)
    return ClipStore(tmp_path / "clips")


Read = Callable[..., tuple[np.ndarray, ImportReport]]


@pytest.fixture
def read(store: ClipStore, tmp_path: Path) -> Read:
    """Writes a file and reads its labels; returns the masks of the clip `street` and the report."""

    def run(name: str, file: str, content: Any, **options: Any) -> tuple[np.ndarray, ImportReport]:
        path = tmp_path / file
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        report = import_labels(tmp_path / "back", get_format(name), path, store, **OPTIONS | options)
        found = ClipStore(tmp_path / "back")
        return found.masks(found.get("street")), report

    return run


def box(rows: slice, columns: slice, value: int = 1) -> np.ndarray:
    mask = np.zeros((H, W), np.uint8)
    mask[rows, columns] = value
    return mask


# CVAT


def cvat_images(*images: str) -> str:
    meta = "<meta><task><id>5</id><name>street</name><size>4</size><mode>annotation</mode></task></meta>"
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}{"".join(images)}</annotations>'


def image(shapes: str, name: str = "street_000001.png", number: int = 0) -> str:
    return f'<image id="{number}" name="{name}" width="{W}" height="{H}">{shapes}</image>'


def test_cvat_masks_are_relative_to_their_box_and_run_along_rows(read: Read) -> None:
    mask = '<mask label="car" source="manual" occluded="0" rle="1, 2, 1, 2" left="4" top="1" width="3" height="2" z_order="0"></mask>'
    masks, report = read("cvat-images", "annotations.xml", cvat_images(image(mask)))
    expected = np.zeros((H, W), np.uint8)
    expected[1, 5:7] = expected[2, 5:7] = 1  # by hand: .XX / .XX at row 1, column 4
    np.testing.assert_array_equal(masks[1], expected)
    assert (masks[[0, 2, 3]] == IGNORE).all()
    assert (report.clips, report.frames) == (1, 1)


def test_cvat_shapes_in_front_cover_those_behind(read: Read) -> None:
    shapes = (
        '<polygon label="dog" source="manual" occluded="0" points="1.00,1.00;5.00,1.00;5.00,5.00;1.00,5.00" z_order="2"/>'
        '<box label="car" source="manual" occluded="1" xtl="0.00" ytl="0.00" xbr="9.00" ybr="3.00" z_order="-1"/>'
        '<points label="car" points="1.00,1.00" z_order="0"/><tag label="car" source="manual"/>'
    )
    masks, _ = read("cvat-images", "annotations.xml", cvat_images(image(shapes)))
    expected = box(slice(0, 3), slice(0, 9))
    expected[1:5, 1:5] = 2
    np.testing.assert_array_equal(masks[1], expected)


def test_turned_boxes_and_ellipses_of_cvat(read: Read) -> None:
    turned = '<box label="car" xtl="2.00" ytl="2.00" xbr="8.00" ybr="4.00" rotation="90.00" z_order="0"/>'
    round_ = '<ellipse label="dog" cx="4.5" cy="3" rx="3" ry="2" z_order="0"/>'
    masks, _ = read("cvat-images", "a.xml", cvat_images(image(turned), image(round_, "street_000002.png", 1)))
    np.testing.assert_array_equal(masks[1], box(slice(0, 6), slice(4, 6)))
    y, x = np.mgrid[:H, :W] + 0.5
    inside = ((x - 4.5) / 3) ** 2 + ((y - 3) / 2) ** 2 < 1
    assert (masks[2] == 2)[inside].mean() > 0.95
    assert (masks[2] == 2)[~inside].mean() < 0.25


def test_an_export_of_cvat_as_an_archive_with_names_in_a_folder(store: ClipStore, tmp_path: Path) -> None:
    mask = '<mask label="car" rle="0, 4" left="0" top="0" width="2" height="2" z_order="0"/>'
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
        text = cvat_images(
            image(mask, "yard/000003.png"), image("", "street_000000.png", 1), image("", "sky.png", 2)
        )
        archive.writestr("annotations.xml", text)
    report = import_labels(tmp_path / "back", get_format("cvat-images"), tmp_path / "task.zip", store, **OPTIONS)
    found = ClipStore(tmp_path / "back")
    np.testing.assert_array_equal(found.masks(found.get("yard"))[3], box(slice(0, 2), slice(0, 2)))
    assert (found.masks(found.get("street"))[0] == 0).all()
    assert report.unmatched == [f"{tmp_path}/task.zip/annotations.xml: image 2 (sky.png)"]
    assert (report.frames, report.empty) == (2, 1)


def cvat_video(tracks: str, stop: int = FRAMES - 1) -> str:
    task = f"<id>5</id><name>street</name><size>4</size><mode>interpolation</mode><start_frame>0</start_frame><stop_frame>{stop}</stop_frame>"
    size = f"<original_size><width>{W}</width><height>{H}</height></original_size>"
    return f"<annotations><version>1.1</version><meta><task>{task}{size}</task></meta>{tracks}</annotations>"


def track(shapes: str, number: int = 0) -> str:
    return f'<track id="{number}" label="car" source="manual">{shapes}</track>'


def tracked_box(frame: int, left: int, *, key: int = 1, outside: int = 0, top: int = 0) -> str:
    place = f'xtl="{left}.00" ytl="{top}.00" xbr="{left + 2}.00" ybr="{top + 2}.00"'
    return f'<box frame="{frame}" keyframe="{key}" outside="{outside}" occluded="0" {place} z_order="0"></box>'


def left_edges(masks: np.ndarray) -> list[int | None]:
    return [int(np.argmax(mask[0] == 1)) if (mask[0] == 1).any() else None for mask in masks]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        # as CVAT writes it: every frame is listed
        (
            tracked_box(0, 0) + tracked_box(1, 2, key=0) + tracked_box(2, 4) + tracked_box(3, 4, outside=1),
            [0, 2, 4, None],
        ),
        # keyframes alone: interpolated, and held to the end
        (tracked_box(0, 0) + tracked_box(2, 4), [0, 2, 4, 4]),
        (tracked_box(0, 0) + tracked_box(3, 6, outside=1), [0, 2, 4, None]),
        # outside hides what follows, up to the next keyframe
        (tracked_box(0, 0) + tracked_box(1, 0, outside=1) + tracked_box(3, 5), [0, None, None, 5]),
        # a shape of the last frame but one, which CVAT exports without its end
        (tracked_box(2, 3), [None, None, 3, None]),
    ],
)
def test_tracks_of_cvat_are_interpolated_between_keyframes(
    shapes: str, expected: list[int | None], read: Read
) -> None:
    masks, report = read("cvat-video", "annotations.xml", cvat_video(track(shapes)))
    assert left_edges(masks) == expected
    assert report.frames == FRAMES


def test_older_files_of_cvat_tell_the_number_of_frames_alone(read: Read) -> None:
    text = cvat_video(track(tracked_box(0, 0) + tracked_box(2, 4)))
    text = text.replace("<start_frame>0</start_frame><stop_frame>3</stop_frame>", "")
    assert left_edges(read("cvat-video", "annotations.xml", text)[0]) == [0, 2, 4, 4]


def test_polygons_of_tracks_move_point_by_point_and_masks_hold_for_their_frame(read: Read) -> None:
    def polygon(frame: int, left: int) -> str:
        points = f"{left}.00,0.00;{left + 2}.00,0.00;{left + 2}.00,2.00;{left}.00,2.00"
        return f'<polygon frame="{frame}" keyframe="1" outside="0" occluded="0" points="{points}" z_order="0"/>'

    mask = '<mask frame="1" keyframe="1" outside="0" occluded="0" rle="0, 9" left="0" top="5" width="9" height="1" z_order="1"/>'
    text = cvat_video(track(polygon(0, 0) + polygon(3, 6)) + track(mask, 1))
    masks, _ = read("cvat-video", "annotations.xml", text)
    assert left_edges(masks) == [0, 2, 4, 6]
    assert (masks[:, 5] == 1).all(axis=1).tolist() == [False, True, False, False]


MASK = '<mask label="car" rle="0, 4" left="0" top="0" width="2" height="2" z_order="0"/>'
BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;&b;">]>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB + cvat_images(image(MASK)).partition("\n")[2], r"annotations.xml: not the XML of CVAT.*DOCTYPE.*; fix it or export"),
        (cvat_images(image(MASK))[:-40], r"annotations.xml: not the XML of CVAT for images \(.*\); fix it or export it again"),
        ("<html></html>", r"annotations.xml: no <annotations> with <image>; export `CVAT for images 1.1`"),
        (cvat_video(track(tracked_box(0, 0))), r"it has tracks: use --format cvat-video"),
        (cvat_images(image(MASK.replace("0, 4", "0, 4, 90"))), r"image 0 .*mask 1: the run lengths sum to 94, the box has 4"),
        (cvat_images(image(MASK.replace("0, 4", "0, -4"))), r"mask 1: the run lengths sum to -4"),
        (cvat_images(image(MASK.replace('left="0"', 'left="8"'))), r"mask 1: its box, 2x2 at 8,0, is not within the frame of 9x6"),
        (cvat_images(image(MASK.replace('top="0"', 'top="x"'))), r"mask 1: top must be a number, got 'x'; fix it"),
        (cvat_images(image(MASK.replace("0, 4", "a, b"))), r"mask 1: rle must be run lengths, got 'a, b'"),
        (cvat_images(image(MASK.replace("car", "cat"))), r"image 0 .*: no class 'cat'; did you mean 'car'\?"),
        (cvat_images(image(MASK.replace('label="car"', ""))), r"mask 1: has no label; give it one in CVAT"),
        (cvat_images(image(MASK).replace(f'width="{W}"', 'width="99999999"', 1)), r"expected 1 to 32768 pixels: fix it"),
        (cvat_images(image(MASK).replace(f'height="{H}"', 'height="7"', 1)), r"is 9x7, the clips of .* are 9x6"),
        (cvat_images(image(MASK), image(MASK)), r"image 0 .*: its id occurs twice"),
        (cvat_images(image(MASK), image(MASK, number=1)), r"frame 1 of clip 'street' is listed twice"),
        (cvat_images(image(MASK, "street_000009.png")), r"image 0 .*clip 'street' of .* has frames 0 to 3, not 9"),
        (cvat_images(image(MASK, "alley_000001.png")), r"has 1 frame, none of a clip"),
        (cvat_images(image('<polygon label="car" points="1,1;2,2"/>')), r"polygon 1: a polygon of 2 points has no area"),
        (cvat_images(image('<polygon label="car" points="1,1;2;3,3"/>')), r"polygon 1: points must be x,y;x,y;..., got"),
        (cvat_images(image('<polygon label="car" points="1,1;2e9,2;3,3"/>')), r"a point is far outside the frame"),
        (cvat_images(image('<box label="car" xtl="nan" ytl="0" xbr="1" ybr="1"/>')), r"xtl must be a number, got 'nan'"),
    ],
)  # fmt: skip
def test_faulty_files_of_cvat_for_images(content: str, message: str, read: Read, tmp_path: Path) -> None:
    refused(lambda: read("cvat-images", "annotations.xml", content), message, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB + cvat_video(""), r"annotations.xml: not the XML of CVAT for video.*DOCTYPE"),
        (cvat_images(image(MASK)), r"it has images: use --format cvat-images"),
        (cvat_video(track(tracked_box(1, 0) + tracked_box(1, 2))), r"track 0: its frame numbers must increase"),
        (cvat_video(track(tracked_box(1, 0)) * 2), r"track 0: its id occurs twice"),
        (cvat_video(track(tracked_box(7, 0))), r"track 0: has frames 7 to 7, the task 0 to 3"),
        (cvat_video(track(tracked_box(0, 0)), stop=9), r"frame 4: clip 'street' of .* has frames 0 to 3, not 4"),
        (cvat_video("").replace("<stop_frame>3</stop_frame>", "").replace("<size>4", "<size>"), r"meta has no frame count"),
        (cvat_video("").replace("<stop_frame>3", "<stop_frame>x"), r"stop_frame of meta must be a number of frames, got 'x"),
        (cvat_video("").replace("<width>9</width>", "<width>90</width>"), r"is 90x6, the clips of .* are 9x6"),
        (
            cvat_video(track(tracked_box(0, 0) + '<ellipse frame="3" cx="1" cy="1" rx="1" ry="1"/>')),
            r"track 0: changes from box to ellipse between keyframes",
        ),
        (
            cvat_video(track('<polygon frame="0" points="0,0;1,0;1,1"/><polygon frame="3" points="0,0;1,0;1,1;0,1"/>')),
            r"track 0: polygons of 3 and 4 points cannot be interpolated; export from CVAT",
        ),
    ],
)  # fmt: skip
def test_faulty_files_of_cvat_for_video(content: str, message: str, read: Read, tmp_path: Path) -> None:
    refused(lambda: read("cvat-video", "annotations.xml", content), message, tmp_path)


def refused(call: Callable[[], object], message: str, tmp_path: Path) -> None:
    with pytest.raises(MaskcastError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "back").exists()


# Label Studio


def task(
    *results: dict[str, Any], name: str = "/data/upload/1/0a1b2c3d-street_000001.png", **more: Any
) -> dict[str, Any]:
    annotation = {
        "id": 9,
        "completed_by": 1,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": False,
    }
    return {"id": 7, "annotations": [annotation], "predictions": [], "data": {"image": name}} | more


def region(kind: str, label: str = "car", tag: str | None = None, **value: Any) -> dict[str, Any]:
    frame = {
        "original_width": W,
        "original_height": H,
        "image_rotation": 0,
        "from_name": "labels",
        "to_name": "image",
    }
    return {"id": f"{kind}{label}", "type": kind, "value": value | {tag or kind: [label]}} | frame


def brushed(data: list[int], label: str = "car") -> dict[str, Any]:
    return region("brushlabels", label, format="rle", rle=data)


def test_brush_regions_of_label_studio_s_own_converter(read: Read) -> None:
    masks, report = read("label-studio", "export.json", [task(brushed(ENCODED))])
    np.testing.assert_array_equal(masks[1] == 1, BRUSHED)
    assert report.frames == 1
    np.testing.assert_array_equal(brush.decode(brush.encode(BRUSHED), (H, W), ""), BRUSHED)
    assert decoded_plainly(brush.encode(BRUSHED)) == decoded_plainly(ENCODED)


def decoded_plainly(data: list[int]) -> list[int]:
    """rle-pack's reader, word by word."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def take(size: int) -> int:
        nonlocal at
        at += size
        return int(bits[at - size : at], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        repeats, count = take(1), 0
        count = take(sizes[take(2)]) + 1
        out += [take(word)] * count if repeats else [take(word) for _ in range(count)]
    return out


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (20, 50), (300, 300)])
def test_brush_run_lengths_of_any_length(shape: tuple[int, int]) -> None:
    for seed in range(3):
        mask = np.random.default_rng(seed).random(shape) < (min(0.5, 90 / np.prod(shape)), 0.002, 0.0)[seed]
        np.testing.assert_array_equal(brush.decode(brush.encode(mask), shape, ""), mask)
        if mask.size < 1000:
            assert decoded_plainly(brush.encode(mask))[3::4] == (mask.ravel() * 255).tolist()


def test_pixels_that_the_browser_painted_are_told_by_their_opacity() -> None:
    """A literal block of one red pixel of half opacity and one clear pixel, as a browser's canvas has them."""
    values = [255, 0, 0, 128, 255, 0, 0, 0]
    bits = f"{8:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += f"000{7:03b}" + "".join(f"{value:08b}" for value in values)
    data = [int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8)]
    assert brush.decode(data, (1, 2), "").tolist() == [[True, False]]


def test_shapes_of_label_studio_are_percent_of_the_frame(read: Read) -> None:
    polygon = region("polygonlabels", points=[[0, 0], [100 / 3, 0], [100 / 3, 50], [0, 50]], closed=True)
    rectangle = region("rectanglelabels", "dog", x=200 / 3, y=50, width=100 / 3, height=50, rotation=0)
    masks, _ = read("label-studio", "export.json", [task(polygon, rectangle)])
    np.testing.assert_array_equal(masks[1], box(slice(0, 3), slice(0, 3)) + box(slice(3, 6), slice(6, 9), 2))


def test_addresses_of_local_files_may_be_quoted(read: Read) -> None:
    address = "/data/local-files/?d=images%5Cstreet_000002.png"
    masks, _ = read("label-studio", "export.json", [task(brushed(ENCODED), name=address)])
    np.testing.assert_array_equal(masks[2] == 1, BRUSHED)


def bitmask(label: str = "car", size: tuple[int, int] = (W, H)) -> dict[str, Any]:
    """Returns a region as a browser's canvas saves it: black where it was painted, else transparent."""
    shown = np.zeros((*size[::-1], 4), np.uint8)
    shown[..., 3][:H, :W] = np.where(BRUSHED, 255, 0)[: size[1], : size[0]]
    text = base64.b64encode(cv2.imencode(".png", shown)[1].tobytes()).decode()
    return region("bitmasklabels", label, imageDataURL=f"data:image/png;base64,{text}")


def test_bitmasks_of_label_studio_are_what_is_not_transparent(read: Read) -> None:
    masks, _ = read("label-studio", "export.json", [task(bitmask("dog"))])
    np.testing.assert_array_equal(masks[1] == 2, BRUSHED)


def test_regions_without_an_area_are_said(read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    points = region("keypointlabels", x=50, y=50, width=0.2)
    line = region("vectorlabels", vertices=[{"id": "a", "x": 1, "y": 1}], closed=False)
    comment = {"id": "c", "type": "textarea", "value": {"text": ["looks odd"]}}
    masks, _ = read("label-studio", "export.json", [task(points, line, comment, brushed(ENCODED))])
    np.testing.assert_array_equal(masks[1] == 1, BRUSHED)
    assert "left out 1 keypoint, 1 vector: they have no area" in capsys.readouterr().err


def test_the_image_of_a_task_is_the_text_that_names_one(read: Read) -> None:
    signed = "https://bucket.example/set/street_000003.png?X-Amz-Signature=0a1b"
    data = {"caption": "a street", "audio": "a.wav", "photo": signed}
    masks, _ = read("label-studio", "export.json", [task(brushed(ENCODED), data=data)])
    np.testing.assert_array_equal(masks[3] == 1, BRUSHED)


def test_a_task_may_have_several_images(read: Read) -> None:
    """As the interface `<Image valueList="$pages">` makes them; a region tells its image by number."""
    pages = [f"/data/upload/1/0a1b2c3d-street_{t:06d}.png" for t in (1, 3)]
    second = brushed(ENCODED, "dog") | {"item_index": 1}
    masks, report = read("label-studio", "export.json", [task(second, data={"pages": pages})])
    np.testing.assert_array_equal(masks[3] == 2, BRUSHED)
    assert (masks[1] == 0).all() and (masks[[0, 2]] == IGNORE).all()
    assert (report.frames, report.empty) == (2, 1)


def test_shape_and_label_may_be_two_items_of_one_id(read: Read) -> None:
    shape = region("brush", format="rle", rle=ENCODED)
    del shape["value"]["brush"]
    label = shape | {"type": "labels", "value": {"labels": ["dog"]}}
    masks, _ = read("label-studio", "export.json", [task(shape, label)])
    np.testing.assert_array_equal(masks[1] == 2, BRUSHED)


def test_what_is_not_annotated_stays_without_labels(read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"street_{t:06d}.png" for t in range(FRAMES)]
    predicted = {"predictions": [{"score": 0.5, "result": [brushed(ENCODED)]}], "annotations": []}
    cancelled = {"annotations": [{"was_cancelled": True, "result": [brushed(ENCODED)]}]}
    twice = {"annotations": [{"result": [brushed(ENCODED, "dog")], "ground_truth": True}, {"result": []}]}
    tasks = [
        task(name=names[0], id=1),  # looked at, nothing there
        task(name=names[1], id=2, **predicted),
        task(name=names[2], id=3, **cancelled),
        task(name=names[3], id=4, **twice),
    ]
    masks, report = read("label-studio", "export.json", tasks)
    assert (masks[0] == 0).all()
    assert (masks[1:3] == IGNORE).all()
    np.testing.assert_array_equal(masks[3] == 2, BRUSHED)
    assert (report.frames, report.empty) == (2, 1)
    assert "2 of 4 tasks have no annotations: they stay without labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"id": 1}, r"export.json: Label Studio's JSON is a list of tasks"),
        ([{"id": 1, "image": "a.png", "label": []}], r"tasks\[0\] \(id 1\): missing key 'data'.*not `JSON-MIN`"),
        ([task(brushed(ENCODED)), task(name="street_000002.png")], r"tasks\[1\] \(id 7\): its id occurs twice"),
        ([task(brushed(ENCODED), brushed(ENCODED))], r"region 'brushlabelscar' occurs twice"),
        ([task(brushed(ENCODED[:-6]))], r"region 1 \(brush\): rle ends early; export it again"),
        ([task(brushed([0, 0, 1, *ENCODED[3:]]))], r"rle has 472 values, a frame of 9x6 has 216"),
        ([task(brushed([255, 255, 255, 255, *ENCODED[4:]]))], r"rle has 4294967295 values"),
        ([task(brushed([*ENCODED[:6], 0b11111111, 0xFF, 0xFF, 0xFF]))], r"rle has more than the 216 values"),
        ([task(brushed([-1, 300]))], r"rle must be a list of bytes, 0 to 255"),
        ([task(brushed(ENCODED, "carr"))], r"no class 'carr'; did you mean 'car'\?"),
        ([task(region("brushlabels", format="png", rle=[]))], r"format must be rle, not 'png'"),
        ([task(brushed(ENCODED) | {"original_width": 90})], r"is 90x6, the clips of .* are 9x6"),
        ([task(brushed(ENCODED) | {"original_width": None})], r"a region has no original_width"),
        ([task(brushed(ENCODED) | {"image_rotation": 90})], r"the image was rotated while it was labelled"),
        ([task(region("polygonlabels", points=[[0, 0], [1]]))], r"region 1 \(polygon\): its numbers cannot be read"),
        ([task(brushed(ENCODED) | {"value": None})], r"value of a region must be an object, not None"),
        ([task(brushed(ENCODED), name="street_000004.png")], r"clip 'street' of .* has frames 0 to 3, not 4"),
        ([task(annotations=[{"result": 5}])], r"result must be a list of objects, not 5"),
        ([task(annotations=5)], r"annotations must be a list of objects, not 5"),
        ([task(brushed(ENCODED) | {"id": []}, brushed(ENCODED) | {"id": []})], r"region \[\] occurs twice"),
        ([task(bitmask() | {"value": {"bitmasklabels": ["car"]}})], r"imageDataURL must begin with data:image/png"),
        ([task(region("bitmasklabels", imageDataURL="data:image/png;base64,*"))], r"\(bitmask\): imageDataURL is not valid base64"),
        ([task(region("bitmasklabels", imageDataURL="data:image/png;base64,AAAA"))], r"\(bitmask\): not a readable image"),
        ([task(bitmask(size=(W + 1, H)))], r"region 1 \(bitmask\): its bitmask is 10x6, the frame 9x6"),
        ([task(region("videorectangle", tag="labels", sequence=[]))], r"has a videorectangle, which is not supported; draw brush,"),
        ([task(region("vectorlabels", vertices=[], closed=True))], r"has a vector, which is not supported; draw brush,"),
        ([task(data="a.png")], r"data must be an object, not 'a.png'"),
        ([task(annotations=[])], r"export.json: lists no labelled frame of a clip in"),
        ([], r"export.json: lists no labelled frame of a clip in"),
    ],
)  # fmt: skip
def test_faulty_files_of_label_studio(content: Any, message: str, read: Read, tmp_path: Path) -> None:
    refused(lambda: read("label-studio", "export.json", content), message, tmp_path)


# labelme

PATCH = np.array([[1, 0, 1], [1, 1, 1]], np.uint8)


def png(pixels: np.ndarray) -> str:
    return base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()


def labelme(*shapes: dict[str, Any], image: str = "street_000001.png", **more: Any) -> dict[str, Any]:
    content = {"version": "5.4.1", "flags": {}, "imagePath": image, "imageData": None}
    return content | {"shapes": list(shapes), "imageHeight": H, "imageWidth": W} | more


def shape(kind: str | None, *points: list[float], label: str = "car", **more: Any) -> dict[str, Any]:
    known = {"label": label, "points": list(points), "group_id": None, "shape_type": kind, "flags": {}}
    return known | {"mask": None} | more


SQUARE = shape("polygon", [1, 1], [4, 1], [4, 3], [1, 3])


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (SQUARE, box(slice(1, 3), slice(1, 4))),
        (shape(None, [1, 1], [4, 1], [4, 3], [1, 3]), box(slice(1, 3), slice(1, 4))),
        (shape("rectangle", [5, 4], [2, 1]), box(slice(1, 4), slice(2, 5))),  # from its last corner to its first
        (shape("rectangle", [2, 1], [5, 1], [5, 4], [2, 4]), box(slice(1, 4), slice(2, 5))),
        (shape("oriented_rectangle", [2, 1], [5, 1], [5, 4], [2, 4]), box(slice(1, 4), slice(2, 5))),
        (shape("circle", [4.5, 3], [6.2, 3]), box(slice(2, 4), slice(3, 6)) | box(slice(1, 5), slice(4, 5))),
        (shape("mask", [3, 2], [5, 3], mask=png(PATCH)), box(slice(2, 4), slice(3, 6)) - box(slice(2, 3), slice(4, 5))),
        (shape("mask", [3, 2], [5, 3], mask=png(PATCH * 255)), box(slice(2, 4), slice(3, 6)) - box(slice(2, 3), slice(4, 5))),
        (shape("mask", [-0.6, -1.4], [1, 0], mask=png(PATCH)), box(slice(0, 1), slice(0, 2))),
        (shape("mask", [7.8, 5], [9, 6], mask=png(PATCH)), box(slice(5, 6), slice(8, 9))),
    ],
)  # fmt: skip
def test_shapes_of_labelme(drawn: dict[str, Any], expected: np.ndarray, read: Read) -> None:
    masks, report = read("labelme", "any.json", labelme(drawn))
    np.testing.assert_array_equal(masks[1], expected)
    assert (masks[[0, 2, 3]] == IGNORE).all() and (report.frames, report.empty) == (1, 0)


def test_of_shapes_of_labelme_the_last_is_in_front(read: Read) -> None:
    masks, _ = read("labelme", "any.json", labelme(SQUARE, shape("rectangle", [0, 0], [2, 2], label="dog")))
    expected = box(slice(1, 3), slice(1, 4))
    expected[:2, :2] = 2
    np.testing.assert_array_equal(masks[1], expected)


def test_what_has_no_area_in_labelme_is_said(read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    message = r"any.json: 1 frame has only annotations without area, or `ignore`, and no other is of a clip; draw"
    with pytest.raises(MaskcastError, match=message):
        read("labelme", "any.json", labelme(shape("point", [1, 1]), shape("linestrip", [1, 1], [2, 2])))
    said = capsys.readouterr().err
    for kind in ("linestrip", "point"):
        assert f"any.json: shapes of kind {kind} have no area: they are left out, here and in other files" in said


def test_what_has_no_area_in_files_of_labelme_is_said_once(
    store: ClipStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels").mkdir()
    for t in range(3):
        content = labelme(SQUARE, shape("point", [1, 1]), image=f"street_00000{t}.png")
        (tmp_path / f"labels/{t}.json").write_text(json.dumps(content))
    import_labels(tmp_path / "back", get_format("labelme"), tmp_path / "labels", store, **OPTIONS)
    assert capsys.readouterr().err.count("have no area") == 1


def test_older_files_of_labelme_tell_no_size_and_windows_has_other_slashes(read: Read) -> None:
    content = labelme(SQUARE, image="..\\pictures\\street\\000001.jpg", imageHeight=None, imageWidth=None)
    masks, _ = read("labelme", "any.json", content)
    np.testing.assert_array_equal(masks[1], box(slice(1, 3), slice(1, 4)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"any.json: not a labelme file, which is an object with a list of shapes; remove"),
        ({"shapes": 5}, r"any.json: not a labelme file, which is an object with a list of shapes; remove"),
        (labelme(SQUARE, image=""), r"any.json: imagePath must be the path of its image, not ''; fix it"),
        (labelme(SQUARE) | {"shapes": [SQUARE, 7]}, r"any.json: shapes\[1\]: must be an object, not 7"),
        (labelme(SQUARE | {"label": None}), r"shapes\[0\]: label must be a string, not None; give it the name"),
        (labelme(SQUARE | {"label": "carr"}), r"any.json: no class 'carr'; did you mean 'car'\?"),
        (labelme(SQUARE, shape("cuboid", [0, 0])), r"shapes\[1\]: shape_type must be one of polygon, .*, not 'cuboid'"),
        (labelme(SQUARE | {"group_id": "a"}), r"\(polygon\): group_id must be null or an integer of at least 0"),
        (labelme(SQUARE | {"group_id": -1}), r"\(polygon\): group_id must be null or an integer of at least 0"),
        (labelme(shape("polygon", [1, 1], [4, 1])), r"shapes\[0\] \(polygon\): a polygon of 2 points has no area"),
        (labelme(shape("polygon", [1, 1], [4])), r"\(polygon\): points must be \[\[x, y\], ...\], not"),
        (labelme(SQUARE | {"points": None}), r"\(polygon\): points must be \[\[x, y\], ...\], not None"),
        (labelme(shape("polygon", [1, 1], [4, 1], [90, 3])), r"\(polygon\): a point is far outside the frame of 9x6"),
        (labelme(shape("circle", [1, 1])), r"\(circle\): has 1 point, and needs 2; draw it again"),
        (labelme(shape("mask", [1, 1], [4, 3])), r"\(mask\): mask must be a PNG in base64, not None"),
        (labelme(shape("mask", [1, 1], mask="*")), r"\(mask\): mask is not valid base64"),
        (labelme(shape("mask", [1, 1], mask="AAAA")), r"\(mask\): not a readable image"),
        (labelme(shape("mask", [1, 1], mask=png(np.zeros((2, 2, 3), np.uint8)))), r"mask must be a PNG of one channel"),
        (labelme(shape("mask", mask=png(PATCH))), r"\(mask\): has no points; draw"),
        (labelme(shape("mask", [9, 1], mask=png(PATCH))), r"\(mask\): its mask is outside the frame of 9x6"),
        (labelme(SQUARE, imageWidth=90), r"is 90x6, the clips of .* are 9x6"),
        (labelme(SQUARE, imageWidth="9"), r"imageHeight and imageWidth must be integers, not \[6, '9'\]; fix"),
        (labelme(SQUARE, image="street_000004.png"), r"clip 'street' of .* has frames 0 to 3, not 4"),
    ],
)  # fmt: skip
def test_faulty_files_of_labelme(content: Any, message: str, read: Read, tmp_path: Path) -> None:
    refused(lambda: read("labelme", "any.json", content), message, tmp_path)


# COCO and YouTube-VIS


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    """Returns what pycocotools decodes, which warns of numpy 2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return coco_mask.decode(packed)


def coco(*annotations: dict[str, Any], **more: Any) -> dict[str, Any]:
    names = [f"street_{t:06d}.png" for t in range(2)]
    images = [{"id": 10 + t, "file_name": name, "height": H, "width": W} for t, name in enumerate(names)]
    return {"images": images, "categories": [{"id": 3, "name": "car"}], "annotations": list(annotations)} | more


def annotated(segmentation: Any, number: int = 1, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 11, "category_id": 3, "segmentation": segmentation, "iscrowd": 0} | more


POLYGON = [1.3, 0.6, 7.9, 2.2, 6.0, 5.5, 2.1, 4.7]
# down the columns: rows 1 and 2 of columns 1 and 2
RUNS = {"size": [H, W], "counts": [H + 1, 2, 4, 2, H * W - H - 9]}


@pytest.mark.parametrize("form", ["polygons", "run lengths", "compressed"])
def test_the_three_forms_of_coco_s_masks(form: str, read: Read) -> None:
    packed = coco_mask.frPyObjects([POLYGON], H, W)[0]
    by_hand = box(slice(1, 3), slice(1, 3))
    compressed = {"size": [H, W], "counts": packed["counts"].decode()}
    given = {"polygons": [POLYGON], "run lengths": RUNS, "compressed": compressed}[form]
    masks, report = read("coco", "a.json", coco(annotated(given)))
    np.testing.assert_array_equal(masks[1], by_hand if form == "run lengths" else unpacked(packed))
    assert (masks[0] == 0).all()
    assert (masks[2:] == IGNORE).all(), "an image that is not listed is not background"
    assert (report.frames, report.empty) == (2, 1)


def test_cocovid_names_clips_and_frames_by_ids(read: Read) -> None:
    content = coco(annotated(RUNS), videos=[{"id": 1, "name": "street"}])
    for t, one in enumerate(content["images"]):
        one |= {"file_name": f"img{t}.jpg", "video_id": 1, "frame_id": 2 + t}
    masks, _ = read("coco", "a.json", content)
    assert [int((mask == 1).sum()) for mask in masks] == [0, 0, 0, 4]


def test_a_project_of_roboflow_may_be_called_as_its_only_class(read: Read) -> None:
    project = {"id": 0, "name": "car", "supercategory": "none"}
    content = coco(annotated(RUNS), categories=[project, {"id": 3, "name": "car", "supercategory": "car"}])
    masks, _ = read("coco", "_annotations.coco.json", content)
    assert int((masks[1] == 1).sum()) == 4


def youtube(
    *segmentations: Any, names: tuple[str, ...] = ("street/00001.jpg", "street/00003.jpg")
) -> dict[str, Any]:
    video = {"id": 5, "width": W, "height": H, "length": len(names), "file_names": list(names)}
    one = {"id": 1, "video_id": 5, "category_id": 3, "segmentations": list(segmentations), "iscrowd": 0}
    return {"videos": [video], "categories": [{"id": 3, "name": "car"}], "annotations": [one]}


def test_youtube_vis_has_a_mask_or_null_per_listed_frame(read: Read) -> None:
    masks, report = read("youtube-vis", "a.json", youtube(None, RUNS))
    assert [int((mask == 1).sum()) for mask in masks] == [0, 0, 0, 4]
    assert (masks[[0, 2]] == IGNORE).all()
    assert (masks[1] == 0).all()
    assert (report.frames, report.empty) == (2, 1)


def compressed(mask: np.ndarray) -> str:
    return coco_mask.encode(np.asfortranarray(mask))["counts"].decode()


def sa_v(*frames: Any, **more: Any) -> dict[str, Any]:
    """Returns what SA-V says of the clip `street`: two masklets, sizes in floats, as its files have them."""
    size = {"video_height": float(H), "video_width": float(W), "video_frame_count": 4.0}
    return {"video_id": "street", "masklet_id": [0, 4], "masklet": list(frames), **size} | more


EMPTY = {"size": [H, W], "counts": [H * W]}


def test_sa_v_has_masks_of_every_fourth_frame(read: Read) -> None:
    masks, report = read("youtube-vis", "a.json", sa_v([RUNS, EMPTY]), rename={"object": "car"})
    assert int((masks[0] == 1).sum()) == 4
    assert (masks[0] != IGNORE).all() and (masks[1:] == IGNORE).all()
    assert (report.frames, report.empty) == (1, 0)


def burst(*frames: Any, **more: Any) -> dict[str, Any]:
    """Returns what BURST says of the clip `street`: masks as strings, tracks by name."""
    one = {"id": 1, "width": W, "height": H, "seq_name": "street", "dataset": "LaSOT"}
    one |= {"annotated_image_paths": ["00001.jpg", "00003.jpg"], "track_category_ids": {"7": 3, "8": 3}}
    one |= {"segmentations": list(frames)} | more
    return {"sequences": [one], "categories": [{"id": 3, "name": "car"}], "split": "val"}


def test_burst_has_masks_of_the_tracks_that_are_seen(read: Read) -> None:
    shape = box(slice(1, 3), slice(1, 3))
    masks, report = read(
        "youtube-vis", "a.json", burst({}, {"8": {"rle": compressed(shape), "is_gt": True, "score": 1.0}})
    )
    np.testing.assert_array_equal(masks[3], shape)
    assert (masks[1] == 0).all() and (masks[[0, 2]] == IGNORE).all()
    assert (report.frames, report.empty) == (2, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("coco", coco(annotated({"size": [H, W], "counts": [3, 90]})), r"annotations\[0\] \(id 1\): counts of its RLE sum to 93"),
        ("coco", coco(annotated({"size": [W, H], "counts": [54]})), r"its RLE is of size \[9, 6\], its image \[6, 9\]"),
        ("coco", coco(annotated([])), r"segmentation is empty; a box is not a mask"),
        ("coco", coco({"id": 1, "image_id": 11, "category_id": 3, "bbox": [0, 0, 1, 1]}), r"a box is not a mask: export masks"),
        ("coco", coco(annotated(RUNS), annotated(RUNS)), r"annotations\[1\] \(id 1\): id 1 occurs twice"),
        ("coco", coco(annotated(RUNS, image_id=99)), r"image_id 99 is not the id of an image"),
        ("coco", coco(annotated(RUNS, category_id=4)), r"category_id 4 is not the id of a category"),
        ("coco", coco(annotated(RUNS), categories=[{"id": 3, "name": "kar"}]), r"no class 'kar'; did you mean 'car'"),
        ("coco", coco(categories=[{"id": 3, "name": "car"}, {"id": 4, "name": "car"}]), r"\(id 4\): name 'car' occurs twice; make it unique"),
        ("coco", coco(images=[{"id": 1, "file_name": "street_000000.png", "height": 10**9, "width": 1}]), r"expected 1 to 32768"),
        ("coco", coco(images=[{"id": 1, "height": H, "width": W}]), r"images\[0\] \(id 1\): missing key 'file_name'"),
        ("coco", coco(images=[]), r"images is empty"),
        ("coco", coco(annotated(RUNS, instance_id="x")), r"object number must be an integer"),
        ("coco", coco(videos=[{"id": 1, "name": "a"}], images=[{"id": 1, "video_id": [], "file_name": "a", "height": H, "width": W}]), r"video_id \[\] is not the id of a video"),
        ("coco", coco(videos=3), r"a.json: videos must be a list, not 3"),
        ("coco", [], r"a.json: must be an object"),
        ("coco", '{"images": [', r"a.json: not valid JSON"),
        ("youtube-vis", youtube(RUNS), r"segmentations must be one per frame of its video, 2, not 1"),
        ("youtube-vis", youtube(None, {"size": [H, W], "counts": [1]}), r"counts of its RLE sum to 1"),
        ("youtube-vis", youtube(RUNS, []), r"segmentations\[1\] \(id street/00003.jpg\): segmentation is empty; write"),
        ("youtube-vis", youtube(None, {"size": [H, W], "counts": [1]}), r"segmentations\[0\] \(id street/00003.jpg\): c"),
        ("youtube-vis", coco(), r"not YouTube-VIS, which is an object with the lists videos, categories, annotations"),
        ("youtube-vis", sa_v([RUNS]), r"a.json: masklet\[0\] must be one per masklet_id, 2, not 1; fix it"),
        ("youtube-vis", sa_v([RUNS, None], 3), r"a.json: masklet\[1\] must be one per masklet_id, 2, not 3; fix it"),
        ("youtube-vis", sa_v([RUNS, 5]), r"masklet\[1\]: segmentations\[0\] \(id street/00000.jpg\): segmentation must be"),
        ("youtube-vis", sa_v([RUNS, RUNS], masklet_id=[1, 1]), r"masklet\[1\] \(id 1\): id 1 occurs twice"),
        ("youtube-vis", sa_v([RUNS, RUNS], masklet_id=[1, -1]), r"must be an integer of at least 0, not -1"),
        ("youtube-vis", sa_v([RUNS, RUNS], video_height="x"), r"a.json: not labels of youtube-vis"),
        ("youtube-vis", burst({}), r"sequences\[0\] \(id 1\): segmentations must be one per annotated image, 2, not 1"),
        ("youtube-vis", burst({"9": {"rle": ""}}, {}), r"track '9' of segmentations is missing in track_category_ids"),
        ("youtube-vis", burst({"7": {"rle": "1"}}, {}), r"tracks\[0\]: segmentations\[0\] \(id LaSOT/street/00001.jpg\): "),
        ("youtube-vis", burst({"7": {}}, {}), r"a.json: not labels of youtube-vis \(missing key 'rle'\)"),
        ("youtube-vis", burst({}, {}, track_category_ids={"7": 4}), r"tracks\[0\] \(id 0\): category_id 4 is not the id of a category"),
        ("youtube-vis", youtube(None, RUNS, names=("street/00001.jpg", "street/00009.jpg")), r"has frames 0 to 3, not 9"),
    ],
)  # fmt: skip
def test_faulty_files_of_coco(name: str, content: Any, message: str, read: Read, tmp_path: Path) -> None:
    refused(lambda: read(name, "a.json", content), message, tmp_path)


# MOTS and Cityscapes


def test_lines_of_kitti_mots(read: Read) -> None:
    car, nothing = box(slice(0, 2), slice(0, 3)), box(slice(5, 6), slice(0, 9))
    lines = [f"1 1003 1 {H} {W} {compressed(car)}", f"1 10000 10 {H} {W} {compressed(nothing)}"]
    masks, report = read("mots-txt", "street.txt", "\n".join(lines) + "\n", first=0)
    np.testing.assert_array_equal(masks[1], np.where(nothing, IGNORE, car))
    assert (masks[[0, 2, 3]] == 0).all(), "a file of a clip is of all its frames"
    assert report.empty == 3


def test_names_of_mots_may_begin_with_the_mark_of_windows(read: Read, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("dog\ncar\n", "utf-8-sig")
    masks, _ = read("mots-txt", "street.txt", LINE, first=0)
    np.testing.assert_array_equal(masks[1], box(slice(0, 2), slice(0, 3), 2))


LINE = f"1 1003 1 {H} {W} {compressed(box(slice(0, 2), slice(0, 3)))}"


def of_frame(t: int) -> str:
    return f"{t}{LINE[1:]}"


@pytest.mark.parametrize(
    ("frames", "first", "labelled"),
    [
        ((0, 2), None, [0, 2]),  # KITTI MOTS shows it by a frame 0
        ((2, FRAMES), None, [1, 3]),  # MOTSChallenge by a frame after the last one
        ((2,), 0, [2]),
        ((2,), 1, [1]),
        ((), None, []),
    ],
)
def test_frames_of_mots_count_from_0_or_from_1(
    frames: tuple[int, ...], first: int | None, labelled: list[int], read: Read
) -> None:
    masks, report = read(
        "mots-txt", "street.txt", "".join(f"{of_frame(t)}\n" for t in frames) or "\n", first=first
    )
    assert np.flatnonzero(masks.any((1, 2))).tolist() == labelled
    assert report.frames == FRAMES


@pytest.mark.parametrize("other", [0, FRAMES])
def test_one_file_of_mots_shows_how_all_count(other: int, store: ClipStore, tmp_path: Path) -> None:
    folder = tmp_path / "instances_txt"
    folder.mkdir()
    (folder / "street.txt").write_text(of_frame(2))
    (folder / "yard.txt").write_text(of_frame(other))
    import_labels(tmp_path / "back", get_format("mots-txt"), folder, store, **OPTIONS)
    found = ClipStore(tmp_path / "back")
    masks = [found.masks(found.get(clip)).any((1, 2)).tolist() for clip in ("street", "yard")]
    shift = int(other == FRAMES)
    assert masks == [[t == 2 - shift for t in range(FRAMES)], [t == other - shift for t in range(FRAMES)]]


def test_images_of_mots_count_alike(store: ClipStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "instances" / "street"
    folder.mkdir(parents=True)
    for t in range(1, 1 + FRAMES):
        cv2.imwrite(str(folder / f"{t:06d}.png"), np.full((H, W), 1000 * (1 + t % 2), np.uint16))
    (folder.parent / "labels.txt").write_text("car\ndog\n")
    import_labels(tmp_path / "back", get_format("mots"), folder.parent, store, **OPTIONS)
    found = ClipStore(tmp_path / "back")
    assert found.masks(found.get("street"))[:, 0, 0].tolist() == [2, 1, 2, 1]
    assert "counted from" not in capsys.readouterr().err
    (folder / f"{FRAMES:06d}.png").unlink()
    import_labels(tmp_path / "again", get_format("mots"), folder.parent, store, **OPTIONS)
    found = ClipStore(tmp_path / "again")
    assert found.masks(found.get("street"))[:, 0, 0].tolist() == [IGNORE, 2, 1, 2]
    assert "counted from 0 (--first-frame 1: from 1)" in capsys.readouterr().err


def test_images_of_a_whole_video_show_how_they_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The clips show frames 0 to 5 of 9; a part of 1 to 6, or of what they do not show, proves nothing."""
    with ClipWriter(tmp_path / "clips", height=H, width=W, maps=single_map(["background", "car"])) as writer:
        for start in (0, 2):
            frames, meta = np.zeros((4, H, W, 3), np.uint8), {"video": "a.mp4", "start": start, "stride": 1}
            writer.add(f"a_{start:05d}", split="unlabeled", kind="unlabelled", frames=frames, meta=meta)
    store = ClipStore(tmp_path / "clips")
    for name, frames, first in (("whole", range(1, 7), 1), ("part", (1, 3, 6), 0), ("more", (1, 8), 0)):
        folder = tmp_path / name / "a"
        folder.mkdir(parents=True)
        (folder.parent / "labels.txt").write_text("car\n")
        for t in frames:
            cv2.imwrite(str(folder / f"{t:06d}.png"), np.full((H, W), 1, np.uint8))
        import_labels(tmp_path / f"{name}-back", get_format("png"), folder.parent, store, **OPTIONS)
        found = ClipStore(tmp_path / f"{name}-back")
        labelled = {clip.video_frames[t] for clip in found.clips for t in labelled_frames(found, clip)}
        assert labelled == {t - first for t in frames if t - first < 6}
        assert ("counted from 0 (--first-frame 1: from 1)" in capsys.readouterr().err) == (first == 0)


@pytest.mark.parametrize(
    ("frames", "first", "message"),
    [
        ((2,), None, r"street.txt: no line is of frame 0 or of a clip's last frame, .*; use --first-frame 0"),
        ((0, 2), 1, r"--first-frame 1: .*street.txt has a frame 0; remove the option"),
        ((2, FRAMES), 0, r"frame 4: clip 'street' of .* has frames 0 to 3, not 4"),
        ((0, FRAMES), None, r"frame 4: clip 'street' of .* has frames 0 to 3, not 4"),
        ((1 + FRAMES,), 1, r"frame 5: clip 'street' of .* has frames 0 to 3, not 4"),
    ],
)
def test_frames_of_mots_are_never_guessed(
    frames: tuple[int, ...], first: int | None, message: str, read: Read, tmp_path: Path
) -> None:
    content = "".join(f"{of_frame(t)}\n" for t in frames)
    refused(lambda: read("mots-txt", "street.txt", content, first=first), message, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LINE.replace("1003", "4003").replace(" 1 6", " 4 6"), r"street.txt: line 1: value 4003 is of class 4; allowed: 1 to 2"),
        (LINE.replace("1003", "2003"), r"line 1: object 2003 is not of class 1"),
        (f"{LINE}\n{LINE}", r"line 2: object 1003 occurs twice in frame 1"),
        (LINE.rpartition(" ")[0], r"line 1: must be frame, object, class, height, width, run lengths"),
        (LINE.rpartition(" ")[0] + " 0", r"objects\[0\]: counts of its RLE sum to 0, its image has 54"),
        (LINE.replace(f"{H} {W}", "9 9"), r"counts of its RLE sum to 54, its image has 81"),
        (LINE.replace("1 1003", "9 1003"), r"frame 9: clip 'street' of .* has frames 0 to 3, not 9"),
        (LINE.replace("1003", "2003").replace(" 1 6", " 2 6"), r"no class 'pedestrian'"),
    ],
)  # fmt: skip
def test_faulty_lines_of_mots(content: str, message: str, read: Read, tmp_path: Path) -> None:
    refused(lambda: read("mots-txt", "street.txt", content, first=0), message, tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "values", "message"),
    [
        ("mots", "street/000001.png", np.full((H, W), 3001, np.uint16), r"value 3001 is of class 3; allowed: 1 to 2"),
        ("mots", "street/000001.png", np.full((H, W, 3), (9, 0, 1), np.uint8), r"has .*, expected ids"),
        ("mots", "street/000001.png", np.zeros((H + 1, W), np.uint16), r"is 9x7, the clips of .* are 9x6"),
        ("mots", "street/000005.png", np.zeros((H, W), np.uint16), r"has frames 0 to 3, not 5"),
        ("cityscapes", "street_000000_000001_gtFine_labelIds.png", np.full((H, W), 34, np.uint8), r"value 34 is not an id of Cityscapes"),
        ("cityscapes", "street_000000_000001_gtFine_instanceIds.png", np.full((H, W), 40001, np.uint16), r"value 40001 is not an id"),
        ("cityscapes", "street_000000_000001_gtFine_labelIds.png", np.full((H, W), 33, np.uint8), r"no class 'bicycle'"),
    ],
)  # fmt: skip
def test_faulty_label_images(
    name: str, file: str, values: np.ndarray, message: str, store: ClipStore, tmp_path: Path
) -> None:
    path = tmp_path / "labels" / file
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), values)
    refused(
        lambda: import_labels(tmp_path / "back", get_format(name), tmp_path / "labels", store, **OPTIONS),
        message,
        tmp_path,
    )


@pytest.mark.parametrize("names", ["car\nperson\n", "_background_\ncar\nperson\n"])
def test_plain_masks_are_read_with_their_list_of_classes(names: str, store: ClipStore, tmp_path: Path) -> None:
    path = tmp_path / "labels/street/000001.png"
    path.parent.mkdir(parents=True)
    values = np.full((H, W), 1, np.uint8)
    values[0], values[1], values[2] = 0, 2, 255
    cv2.imwrite(str(path), values)
    options = {**OPTIONS, "rename": {"person": "car"}}
    refused(
        lambda: import_labels(tmp_path / "back", get_format("png"), path.parent, store, **options),
        r"street: has no labels.txt; write it beside the images, a class name a line",
        tmp_path,
    )
    (tmp_path / "labels/labels.txt").write_text(names)
    import_labels(tmp_path / "back", get_format("png"), tmp_path / "labels", store, **options)
    found = ClipStore(tmp_path / "back")
    assert found.masks(found.get("street"))[1][:, 0].tolist() == [0, 1, IGNORE, 1, 1, 1]
    (tmp_path / "labels/labels.txt").write_text("car\n")
    refused(
        lambda: import_labels(tmp_path / "again", get_format("png"), tmp_path / "labels", store, **OPTIONS),
        r"000001.png: holds the value 2; allowed: 0 to 1 \(car\) and 255: list all classes in labels.txt",
        tmp_path / "again",
    )


def test_plain_masks_may_have_a_first_class_that_is_called_background(tmp_path: Path) -> None:
    """The list then begins with the name of value 0, which is not read as a class."""
    maps, masks = single_map(["other", "background", "hand"]), np.zeros((1, H, W), np.uint8)
    masks[:, 1], masks[:, 2] = 1, 2
    with ClipWriter(tmp_path / "clips", height=H, width=W, maps=maps) as writer:
        frames = np.zeros((1, H, W, 3), np.uint8)
        writer.add("street", split="train", kind="labelled", frames=frames, masks={"mask": masks})
    store = ClipStore(tmp_path / "clips")
    export_labels(tmp_path / "out", get_format("png"), store, None, None)
    assert (tmp_path / "out/masks/labels.txt").read_text().split() == ["_background_", "background", "hand"]
    import_labels(tmp_path / "back", get_format("png"), tmp_path / "out", store, **OPTIONS)
    back = ClipStore(tmp_path / "back")
    np.testing.assert_array_equal(back.masks(back.get("street")), masks)


def test_a_png_that_is_cut_short_is_refused(store: ClipStore, tmp_path: Path) -> None:
    path = tmp_path / "labels/street/000001.png"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(1001, 1009, (H, W)).astype(np.uint16))
    path.write_bytes(path.read_bytes()[:40])
    refused(
        lambda: import_labels(tmp_path / "back", get_format("mots"), tmp_path / "labels", store, **OPTIONS),
        r"000001.png: .*; ",
        tmp_path,
    )


def test_ids_of_cityscapes_that_are_not_evaluated_have_no_label(store: ClipStore, tmp_path: Path) -> None:
    values = np.full((H, W), 26, np.uint16)  # car, a group whose members are not told apart
    values[0], values[1], values[2], values[3] = 4, 0, 26002, 1  # static, unlabeled, a car, the ego vehicle
    cv2.imwrite(str(tmp_path / "street_000000_000002_gtFine_instanceIds.png"), values)
    import_labels(
        tmp_path / "back",
        get_format("cityscapes"),
        tmp_path / "street_000000_000002_gtFine_instanceIds.png",
        store,
        **OPTIONS,
    )
    found = ClipStore(tmp_path / "back")
    assert found.masks(found.get("street"))[2][:, 0].tolist() == [IGNORE, 0, 1, IGNORE, 1, 1]


def test_the_official_table() -> None:
    evaluated = {label_id for _, label_id, _, left_out in TABLE if not left_out}
    assert evaluated == {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33}
    assert {label_id for _, label_id, told, _ in TABLE if told} == set(range(24, 34))
    assert [label_id for _, label_id, _, _ in TABLE] == list(range(34))


# names


@pytest.mark.parametrize("clip", ["street", "a_1", "a b", "50%", "x/y", "ü", "0a1b2c3d-street", ".."])
def test_names_of_frames_tell_clip_and_frame_exactly(clip: str) -> None:
    name = frame_name(clip, 12)
    assert "/" not in name
    for spelled in (name, f"images/{name}", f"C:\\data\\{name}", f"/data/upload/3/0123abcd-{name}"):
        assert (clip, 12) in frame_ids_of(spelled)


def test_names_of_others() -> None:
    assert frame_ids_of("street/00012.jpg") == [("street", 12)]
    assert frame_ids_of("sky.png") == []
