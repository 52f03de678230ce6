"""Clips whose masks stand in files of other tools, written here as these export them; masks are drawn by hand."""

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from tests.videos import encode_frames

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.footage import Footage
from maskcast.data.sources.annotations import AnnotationsSource
from maskcast.data.sources.base import Listing
from maskcast.data.sources.load_window import load_window
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, LabelError
from maskcast.runner.run import run_stage

HEIGHT, WIDTH = 4, 6
COCO = {"format": "coco", "labels": ["labels.json"], "classes": ["background", "car", "person"]}
# Three forms of one mask: the pixels of rows 1 and 2, columns 2 to 4. Run lengths go column by column.
POLYGON = [[2, 1, 5, 1, 5, 3, 2, 3]]
COUNTS = {"size": [HEIGHT, WIDTH], "counts": [9, 2, 2, 2, 2, 2, 5]}
TEXT = {"size": [HEIGHT, WIDTH], "counts": "9220003"}
SQUARE = np.array([[0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]])


def write_frames(folder: Path, names: Sequence[str], size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), 20 * k, np.uint8)).save(folder / name)


def coco(images: Sequence[str], annotations: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """Returns a file as CVAT and others export it, images and annotations numbered from 1."""
    sizes = {"width": WIDTH, "height": HEIGHT}
    known = {"iscrowd": 0, "area": 6.0, "bbox": [2, 1, 3, 2]}
    return {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": ""},
        "categories": [{"id": 1, "name": "car", "supercategory": ""}, {"id": 2, "name": "person"}],
        "images": [{"id": k, **sizes, "file_name": name} for k, name in enumerate(images, 1)],
        "annotations": [{"id": k, **known, **one} for k, one in enumerate(annotations, 1)],
    } | more


def one(image: int, mask: Any = POLYGON, category: int = 1, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": mask, **more}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def numbered(clip: str, count: int = 3) -> list[str]:
    return [f"{clip}/{k:05d}.png" for k in range(count)]


def write_coco(raw: Path, clips: Sequence[str] = ("video1", "video2"), **more: Any) -> None:
    """Writes sequences of 3 frames, in each of which one car stands."""
    names = [name for clip in clips for name in numbered(clip)]
    write_frames(raw, names)
    write_json(raw / "labels.json", coco(names, [one(k + 1, **more) for k in range(len(names))]))


def list_raw(raw: Path, **params: Any) -> Listing:
    return AnnotationsSource(**COCO | {"frames": 3, "splits": {}} | params).listing(
        raw, height=None, width=None, seed=0
    )


def masks_of(listing: Listing, name: str = "mask") -> list[np.ndarray]:
    return [pickle.loads(pickle.dumps(clip.load))().masks[name] for clip in listing.clips]


def test_polygons_and_both_run_lengths_are_one_mask(tmp_path: Path) -> None:
    write_frames(tmp_path, numbered("video1"))
    masks = [one(1, POLYGON), one(2, COUNTS, 2), one(3, TEXT)]
    write_json(tmp_path / "labels.json", coco(numbered("video1"), masks))
    (found,) = masks_of(list_raw(tmp_path))
    assert (found == np.stack([SQUARE, 2 * SQUARE, SQUARE])).all()


def test_labels_of_another_size_are_resized_to_frames_of_the_same_aspect_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `labels import` does: pixels of the frame have the label at their centre."""
    masks = [one(1, POLYGON, track_id=3), one(2, COUNTS, 2, track_id=4), one(3, TEXT, track_id=3)]
    write_json(tmp_path / "labels.json", coco(numbered("video1"), masks))
    drawn = np.stack([SQUARE, 2 * SQUARE, SQUARE])
    for size, expected in (
        ((3 * HEIGHT, 3 * WIDTH), drawn.repeat(3, axis=1).repeat(3, axis=2)),
        ((HEIGHT // 2, WIDTH // 2), drawn[:, 1::2, 1::2]),
    ):
        write_frames(tmp_path, numbered("video1"), size)
        listing = list_raw(tmp_path, instances=True)
        assert (masks_of(listing)[0] == expected).all()
        assert (masks_of(listing, "objects")[0] == np.array([0, 3, 4])[expected]).all()
    params = {"source": COCO | {"layout": "annotations", "frames": 3, "splits": {}}, "required_splits": []}
    run_stage("prepare_clips", params, raw=tmp_path, clips=tmp_path / "clips")
    said = "masks of clip 'video1_00000' are 6x4 (width x height), a size other than its frames' and of the same"
    assert said in capsys.readouterr().err
    write_frames(tmp_path, numbered("video1"), (HEIGHT, WIDTH + 1))
    with pytest.raises(LabelError, match=r"is 6x4, .*\.png is 7x4 \(width x height\); export both at one size"):
        masks_of(list_raw(tmp_path))


def test_what_stands_later_in_the_file_is_in_front(tmp_path: Path) -> None:
    write_frames(tmp_path, ["video1/00000.png"])
    masks = [one(1), one(1, [[3, 0, 5, 0, 5, 2, 3, 2]], 2)]
    write_json(tmp_path / "labels.json", coco(["video1/00000.png"], masks))
    (found,) = masks_of(list_raw(tmp_path, frames=1))
    assert found[0].tolist() == [[0, 0, 0, 2, 2, 0], [0, 0, 1, 2, 2, 0], [0, 0, 1, 1, 1, 0], [0] * 6]


NAMES = {
    "as they lie": ("{clip}", "video1/00000.png", "video1/00000.png"),
    "backslashes": ("{clip}", "video1/00000.png", "video1\\00000.png"),
    "a folder above": ("images/default/{clip}", "images/default/video1/00000.png", "video1/00000.png"),
    "a folder that is not there": ("{clip}", "video1/00000.png", "images/video1/00000.png"),
    "another machine's": ("frames/{clip}", "frames/video1/00000.png", "/home/ann/work/video1/00000.png"),
    "another ending and case": ("{clip}", "video1/frame_000000.jpg", "video1/frame_000000.PNG"),
    "one flat folder": ("images/{clip}_{frame}.png", "images/clip_000000.png", "clip_000000.png"),
    "uploaded to Label Studio": ("images/{clip}_{frame}.png", "images/clip_0.png", "images/1234abcd-clip_0.png"),
    "of Label Studio's local files": ("{clip}", "video1/0 0.png", "/data/local-files/?d=set%2Fvideo1%2F0%200.png"),
    "uploaded, and no folder kept": ("{clip}", "video1/00000.png", "data/upload/7/1234abcd-00000.png"),
    "uploaded, and made an address": (
        "images/{clip}_{frame}.png",
        "images/Lange Straße (2)_0.png",
        "images/1234abcd-Lange_Straße_2_0.png",
    ),
    "Roboflow": (
        "*/{clip}-{frame}_jpg.rf.*.jpg",
        "train/street_mp4-0_jpg.rf.0f3a.jpg",
        "street_mp4-0_jpg.rf.0f3a.jpg",
    ),
}


@pytest.mark.parametrize("case", NAMES)
def test_an_image_is_found_by_the_name_that_a_tool_gives_it(case: str, tmp_path: Path) -> None:
    images, path, name = NAMES[case]
    write_frames(tmp_path, [path])
    write_json(tmp_path / "labels.json", coco([name], [one(1)]))
    (found,) = masks_of(list_raw(tmp_path, images=images, frames=1))
    assert (found[0] == SQUARE).all()


def test_files_that_lie_with_their_sequences_may_call_frames_alike(tmp_path: Path) -> None:
    for category, clip in enumerate(("video1", "video2"), 1):
        write_frames(tmp_path, [f"{clip}/0.png"])
        write_json(tmp_path / clip / "result.json", coco(["0.png"], [one(1, category=category)]))
    found = masks_of(list_raw(tmp_path, labels=["*/result.json"], frames=1))
    assert [mask.max() for mask in found] == [1, 2]
    write_json(tmp_path / "result.json", coco(["0.png"], [one(1)]))
    with pytest.raises(
        LabelError, match=r"images\[0\] \(0\.png\): '0\.png' may be video1/0 or video2/0; write the"
    ):
        list_raw(tmp_path, labels=["result.json"], frames=1)


def test_images_without_objects_may_lack_their_size(tmp_path: Path) -> None:
    """Label Studio writes null for what it could not open, e.g. of a task that was skipped."""
    write_frames(tmp_path, numbered("video1"))
    content = coco(numbered("video1"), [one(1)])
    content["images"][2] |= {"width": None, "height": None}
    write_json(tmp_path / "labels.json", content)
    (found,) = masks_of(list_raw(tmp_path, empty="background"))
    assert (found == np.stack([SQUARE, 0 * SQUARE, 0 * SQUARE])).all()
    content["images"][0] |= {"width": None, "height": None}
    write_json(tmp_path / "labels.json", content)
    with pytest.raises(MaskcastError, match=r"images\[0\] \(id 1\): height must be an integer, not None; fix it"):
        list_raw(tmp_path)


def test_files_of_coco_are_called_as_the_folders_of_their_images(tmp_path: Path) -> None:
    for category, subset in enumerate(("Train", "Val"), 1):
        write_frames(tmp_path, [f"images/{subset}/0.png"])
        write_json(tmp_path / f"annotations/instances_{subset}.json", coco(["0.png"], [one(1, category=category)]))
    found = masks_of(list_raw(tmp_path, labels=["annotations/*.json"], images="images/{clip}", frames=1))
    assert [mask.max() for mask in found] == [1, 2]


def test_frames_without_objects_have_no_label_unless_the_owner_says_so(tmp_path: Path) -> None:
    write_frames(tmp_path, numbered("video1", 4))
    write_json(tmp_path / "labels.json", coco(numbered("video1"), [one(1)]))  # two listed in vain, one not at all
    listing = list_raw(tmp_path, frames=4)
    (found,) = masks_of(listing)
    assert (found[0] == SQUARE).all() and (found[1:] == IGNORE).all()
    assert listing.notes == [
        "2 frames listed without objects: without labels (source.empty: unlabelled)",
        "1 of 4 frames in 1 labelled sequence have labels",
    ]
    listing = list_raw(tmp_path, frames=4, empty="background")
    (found,) = masks_of(listing)
    assert (found[1:3] == 0).all() and (found[3] == IGNORE).all()
    assert "2 frames listed without objects: background (source.empty: background)" in listing.notes


def test_objects_keep_their_numbers_through_time(tmp_path: Path) -> None:
    write_frames(tmp_path, numbered("video1", 2))
    left, right = [[0, 0, 2, 0, 2, 4, 0, 4]], [[4, 0, 6, 0, 6, 4, 4, 4]]
    tracks = [one(1, left, attributes={"track_id": 7}), one(1, right, track_id=9), one(2, left, instance_id=9)]
    write_json(tmp_path / "labels.json", coco(numbered("video1", 2), tracks))
    arrays = list_raw(tmp_path, frames=2, instances=True).clips[0].load()
    assert arrays.masks["objects"][:, 0].tolist() == [[7, 7, 0, 0, 9, 9], [9, 9, 0, 0, 0, 0]]
    assert arrays.objects == {"objects": {7: 1, 9: 1}}
    assert (arrays.masks["mask"] == (arrays.masks["objects"] > 0)).all()


def test_numbers_beyond_those_of_a_map_become_ranks(tmp_path: Path) -> None:
    write_frames(tmp_path, numbered("video1", 1))
    masks = [one(1, [[0, 0, 2, 0, 2, 4, 0, 4]], track_id=0), one(1, [[4, 0, 6, 0, 6, 4, 4, 4]], 2, track_id=10**6)]
    write_json(tmp_path / "labels.json", coco(numbered("video1", 1), masks))
    arrays = list_raw(tmp_path, frames=1, instances=True).clips[0].load()
    assert arrays.masks["objects"][0, 0].tolist() == [1, 1, 0, 0, 2, 2]
    assert arrays.objects == {"objects": {1: 1, 2: 2}}


def test_a_clip_with_more_objects_than_ids_is_refused(tmp_path: Path) -> None:
    frames = [tmp_path / f"{t}.png" for t in range(2)]
    for path in frames:
        Image.fromarray(np.zeros((256, 256, 3), np.uint8)).save(path)
    numbers_HW = np.arange(256 * 256).reshape(256, 256)

    def labels(shift: int) -> Callable[[Any, Path], tuple[np.ndarray, np.ndarray]]:
        return lambda size, image: (np.ones(size, np.uint8), numbers_HW + shift)

    assert len(load_window(Footage(frames[:1]), [labels(-1)], instances=True).objects["objects"]) == 65535
    with pytest.raises(MaskcastError, match=r"0\.png: its clip has 65536 objects, at most 65535 are possible"):
        load_window(Footage(frames), [labels(-1), labels(0)], instances=True)


def test_a_clip_with_a_frame_without_labels_has_classes_alone(tmp_path: Path) -> None:
    write_frames(tmp_path, numbered("video1", 2))
    write_json(tmp_path / "labels.json", coco(numbered("video1", 1), [one(1, track_id=1)]))
    assert list_raw(tmp_path, frames=2, instances=True).clips[0].load().masks.keys() == {"mask"}


def test_objects_that_the_file_does_not_tell_apart_are_refused(tmp_path: Path) -> None:
    write_coco(tmp_path, ["video1"])
    with pytest.raises(LabelError, match=r"'car' has no object id .* or leave out source\.instances"):
        list_raw(tmp_path, instances=True)
    write_json(
        tmp_path / "labels.json", coco(numbered("video1"), [one(1, track_id=1), one(2, category=2, track_id=1)])
    )
    with pytest.raises(LabelError, match="object 1 is 'person' here and 'car' in another frame of its sequence"):
        list_raw(tmp_path, instances=True)


def test_an_object_of_youtube_vis_is_an_annotation(tmp_path: Path) -> None:
    frames = numbered("a1", 3)
    write_frames(tmp_path / "train/JPEGImages", frames)
    content = {
        "videos": [{"id": 1, "width": WIDTH, "height": HEIGHT, "length": 3, "file_names": frames}],
        "categories": [{"id": 1, "name": "car"}, {"id": 26, "name": "person"}],
        "annotations": [
            {"id": 301, "video_id": 1, "category_id": 26, "iscrowd": 0, "segmentations": [None, COUNTS, TEXT]}
        ],
    }
    write_json(tmp_path / "train/instances.json", content)
    params = {"format": "youtube-vis", "labels": ["train/instances.json"], "images": "train/JPEGImages/{clip}"}
    listing = list_raw(tmp_path, **params, instances=True, empty="background")
    arrays = listing.clips[0].load()
    assert (arrays.masks["mask"] == np.stack([0 * SQUARE, 2 * SQUARE, 2 * SQUARE])).all()
    assert arrays.objects == {"objects": {301: 2}} and arrays.masks["objects"].max() == 301


VIDEO_XML = """<annotations><version>1.1</version><meta><task><id>4</id><name>my task</name><size>3</size>
<mode>interpolation</mode><start_frame>0</start_frame><stop_frame>2</stop_frame>
<original_size><width>32</width><height>16</height></original_size><source>street.mp4</source></task></meta>
<track id="0" label="car" source="manual">
<polygon frame="0" keyframe="1" outside="0" occluded="0" points="4.0,2.0;8.0,2.0;8.0,6.0;4.0,6.0" z_order="0"/>
<polygon frame="1" keyframe="0" outside="0" occluded="0" points="6.0,2.0;10.0,2.0;10.0,6.0;6.0,6.0" z_order="0"/>
<polygon frame="2" keyframe="1" outside="1" occluded="0" points="8.0,2.0;12.0,2.0;12.0,6.0;8.0,6.0" z_order="0"/>
</track></annotations>"""


@pytest.mark.parametrize("images", ["{clip}.mp4", "frames/{clip}"])
def test_tracks_of_cvat_are_of_the_video_or_the_images_that_were_uploaded(images: str, tmp_path: Path) -> None:
    if images.endswith(".mp4"):
        write_film(tmp_path / "street.mp4", 3)
    else:
        write_frames(tmp_path, [f"frames/street/{k}.png" for k in range(1, 4)], (16, 32))
    (tmp_path / "annotations.xml").write_text(VIDEO_XML)
    params = {"format": "cvat-video", "labels": ["annotations.xml"], "images": images, "empty": "background"}
    arrays = list_raw(tmp_path, **params, instances=True).clips[0].load()
    assert [np.flatnonzero(frame[3]).tolist() for frame in arrays.masks["mask"]] == [
        [4, 5, 6, 7],
        [6, 7, 8, 9],
        [],
    ]
    assert arrays.objects == {"objects": {1: 1}}
    (tmp_path / "annotations.xml").write_text(VIDEO_XML.replace("<stop_frame>2", "<stop_frame>3"))
    with pytest.raises(LabelError, match="frame 3 of 'street', which has 3, counted from 0"):
        list_raw(tmp_path, **params)


def test_a_negative_number_is_no_frame(tmp_path: Path) -> None:
    write_film(tmp_path / "street.mp4", 3)
    content = coco(["x.png"], [one(1)], videos=[{"id": 1, "name": "street"}])
    content["images"][0] |= {"video_id": 1, "frame_id": -1}
    write_json(tmp_path / "labels.json", content)
    with pytest.raises(LabelError, match="frame -1 of 'street', which has 3, counted from 0"):
        list_raw(tmp_path, images="{clip}.mp4")


def write_film(path: Path, count: int) -> None:
    encode_frames(path, np.zeros((count, 16, 32, 3), np.uint8), rate=10)


def tracked(frame: int, left: int, *, number: int = 0, task: str = "", end: bool = True) -> str:
    """Returns a box of one frame, as CVAT writes a shape: with its end in the next."""
    sides = f'xtl="{left}.00" ytl="2.00" xbr="{left + 4}.00" ybr="6.00"'
    shapes = [f'<box frame="{frame}" keyframe="1" outside="0" occluded="0" {sides} z_order="0"></box>']
    shapes += [f'<box frame="{frame + 3}" keyframe="1" outside="1" occluded="0" {sides} z_order="0"></box>'] * end
    return f'<track id="{number}" label="car" source="manual" {task}>{"".join(shapes)}</track>'


STEPS = "<start_frame>1</start_frame><stop_frame>9</stop_frame><frame_filter>step=3</frame_filter>"
SIZE = "<original_size><width>32</width><height>16</height></original_size>"
# A job tells no name, and the size beside it; a track that ends beyond the last frame is one of older releases.
TRACKS = tracked(4, 8) + tracked(7, 20, number=1)
JOB = f"<annotations><meta><job><id>5</id><size>3</size>{STEPS}</job>{SIZE}</meta>{TRACKS}</annotations>"
AT = {4: [8, 9, 10, 11], 7: [20, 21, 22, 23]}


def columns(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask[3] == 1).tolist()


def test_a_job_of_cvat_is_of_the_only_video_and_of_every_third_frame_of_it(tmp_path: Path) -> None:
    write_film(tmp_path / "street.mp4", 9)
    (tmp_path / "annotations.xml").write_text(JOB)
    params = {"format": "cvat-video", "labels": ["annotations.xml"], "images": "{clip}.mp4", "frames": 9}
    (mask,) = masks_of(list_raw(tmp_path, **params, empty="background"))
    assert [frame for frame in range(9) if (mask[frame] != IGNORE).all()] == [1, 4, 7]
    assert {frame: columns(mask[frame]) for frame in (1, 4, 7)} == AT | {1: []}
    assert (mask[[0, 2, 3, 5, 6, 8]] == IGNORE).all(), "nobody has seen these in CVAT"


def test_jobs_of_one_video_have_tracks_of_their_own(tmp_path: Path) -> None:
    write_film(tmp_path / "street.mp4", 4)
    for name, first, label in (("job1", 0, "car"), ("job2", 2, "person")):
        meta = f"<start_frame>{first}</start_frame><stop_frame>{first + 1}</stop_frame><size>2</size>"
        shape = tracked(first, 8, end=False).replace('label="car"', f'label="{label}"')
        xml = f"<annotations><meta><job>{meta}</job>{SIZE}</meta>{shape}</annotations>"
        (tmp_path / f"{name}.xml").write_text(xml)
    params = {"format": "cvat-video", "labels": ["*.xml"], "images": "{clip}.mp4", "frames": 4}
    arrays = list_raw(tmp_path, **params, instances=True, empty="background").clips[0].load()
    assert arrays.objects == {"objects": {1: 1, 2: 2}}
    assert [int(frame.max()) for frame in arrays.masks["objects"]] == [1, 0, 2, 0]


@pytest.mark.parametrize("other", ["", tracked(2, 8, end=False)])
def test_jobs_that_overlap_are_refused_whatever_they_say(other: str, tmp_path: Path) -> None:
    write_film(tmp_path / "street.mp4", 5)
    for name, first, shapes in (("job1", 0, tracked(2, 8, end=False)), ("job2", 2, other)):
        meta = f"<start_frame>{first}</start_frame><stop_frame>{first + 2}</stop_frame><size>3</size>"
        xml = f"<annotations><meta><job>{meta}</job>{SIZE}</meta>{shapes}</annotations>"
        (tmp_path / f"{name}.xml").write_text(xml)
    params = {"format": "cvat-video", "labels": ["*.xml"], "images": "{clip}.mp4", "frames": 5}
    same = r"job2.xml: frame 2: the same frame as .*job1.xml: frame 2; where jobs overlap, export their task, "
    with pytest.raises(LabelError, match=same):
        list_raw(tmp_path, **params)


def test_a_class_that_is_renamed_and_that_no_frame_has_is_said(tmp_path: Path) -> None:
    write_coco(tmp_path)
    notes = list_raw(tmp_path, rename={"carr": "person"}).notes
    assert "source.rename: {'carr': person}: no labelled frame has 'carr'; did you mean 'car'?" in notes
    assert not any("rename" in note for note in list_raw(tmp_path, rename={"car": "person"}).notes)


@pytest.mark.parametrize("images", ["{clip}/images", "images/{clip}_{frame}.PNG"])
def test_images_that_cvat_exports_beside_tracks_tell_the_frame_of_the_video(images: str, tmp_path: Path) -> None:
    folder = images.partition("/")[0].replace("{clip}", "my task")
    root = tmp_path / folder / "images" if folder != "images" else tmp_path / folder
    write_frames(root, [f"frame_{k:06d}.PNG" for k in (1, 4, 7)], (16, 32))
    (root.parent / "annotations.xml").write_text(JOB)
    labels = [(root.parent / "annotations.xml").relative_to(tmp_path).as_posix()]
    (mask,) = masks_of(list_raw(tmp_path, format="cvat-video", labels=labels, images=images, empty="background"))
    assert [columns(frame) for frame in mask] == [[], AT[4], AT[7]]


def test_frames_by_number_alone_are_refused_where_images_may_have_been_sorted_by_name(tmp_path: Path) -> None:
    write_frames(tmp_path, [f"street/{k}.png" for k in range(11)], (16, 32))
    (tmp_path / "annotations.xml").write_text(VIDEO_XML)
    params = {"format": "cvat-video", "labels": ["annotations.xml"], "images": "{clip}"}
    with pytest.raises(
        LabelError, match=r"sorted the images of 'street' by name, 0\.png, 1\.png, 10\.png, \.\.\.; export"
    ):
        list_raw(tmp_path, **params)
    (tmp_path / "street/10.png").unlink()
    assert columns(masks_of(list_raw(tmp_path, **params))[0][1]) == [6, 7, 8, 9]


def test_tasks_of_a_project_of_cvat_count_on_from_each_other(tmp_path: Path) -> None:
    tasks = "".join(
        f"<task><id>{n}</id><name>task {n}</name><size>3</size><subset>{subset}</subset>"
        "<start_frame>0</start_frame><stop_frame>2</stop_frame><frame_filter></frame_filter>"
        f"{SIZE}<source>street{n}.mp4</source></task>"
        for n, subset in ((7, "train"), (8, "train"), (9, "val"))
    )
    shapes = [(7, "train", 1, 4), (8, "train", 3 + 1, 8), (9, "val", 1, 12)]  # without end, beyond stop_frame
    tracks = "".join(
        tracked(frame, left, number=k, task=f'task_id="{n}" subset="{subset}"', end=False)
        for k, (n, subset, frame, left) in enumerate(shapes)
    )
    project = f"<annotations><meta><project><tasks>{tasks}</tasks></project></meta>{tracks}</annotations>"
    (tmp_path / "annotations.xml").write_text(project)
    for n in (7, 8, 9):
        write_film(tmp_path / f"street{n}.mp4", 3)
    params = {"format": "cvat-video", "labels": ["annotations.xml"], "empty": "background"}
    masks = masks_of(list_raw(tmp_path, **params, images="{clip}.mp4"))
    assert [[columns(frame)[:1] for frame in mask] for mask in masks] == [[[], [left], []] for left in (4, 8, 12)]
    shape = '<polygon label="car" points="8.00,2.00;12.00,2.00;12.00,6.00;8.00,6.00" z_order="0"/>'
    image = '<image id="4" name="frame_000004" subset="train" task_id="8" width="32" height="16">'
    (tmp_path / "images.xml").write_text(project.replace(tracks, f"{image}{shape}</image>"))
    by_name = params | {"format": "cvat-images", "labels": ["images.xml"]}
    kinds = {clip.id: clip for clip in list_raw(tmp_path, **by_name, images="{clip}.mp4").clips}
    assert {name for name, clip in kinds.items() if clip.kind == "labelled"} == {"street8_00000"}
    assert columns(kinds["street8_00000"].load().masks["mask"][1]) == AT[4]
    for subset, count in (("train", 6), ("val", 3)):
        write_frames(tmp_path / "images" / subset, [f"frame_{k:06d}.PNG" for k in range(count)], (16, 32))
    train, val = masks_of(list_raw(tmp_path, **params, images="images/{clip}", window_step=6))
    assert ([columns(frame)[:1] for frame in train], [columns(frame)[:1] for frame in val]) == (
        [[], [4], []],
        [[], [12], []],
    )


def test_images_of_cvat_s_project_lie_in_a_folder_for_each_subset(tmp_path: Path) -> None:
    shape = '<polygon label="{}" points="2.00,1.00;5.00,1.00;5.00,3.00;2.00,3.00" z_order="0"></polygon>'
    images = "".join(
        f'<image id="0" name="img0.png" subset="{subset}" task_id="39" width="6" height="4">'
        f"{shape.format(label)}</image>"
        for subset, label in (("Train", "car"), ("Test", "person"))
    )
    for subset in ("Train", "Test"):
        write_frames(tmp_path / "images" / subset, ["img0.png"])
    (tmp_path / "annotations.xml").write_text(f"<annotations><meta><project/></meta>{images}</annotations>")
    params = {"format": "cvat-images", "labels": ["annotations.xml"], "images": "images/{clip}", "frames": 1}
    assert [mask.max() for mask in masks_of(list_raw(tmp_path, **params))] == [2, 1]  # Test, Train


@pytest.mark.parametrize("form", ["cvat-images", "coco"])
def test_frames_of_a_video_by_cvat_s_names_are_found_in_the_video(form: str, tmp_path: Path) -> None:
    corners = [8, 2, 12, 2, 12, 6, 8, 6]
    points = ";".join(f"{x}.00,{y}.00" for x, y in zip(corners[::2], corners[1::2], strict=True))
    shape = f'<polygon label="car" points="{points}" z_order="0"/>'
    image = f'<image id="2" name="frame_000002" width="32" height="16">{shape}</image>'
    meta = "<meta><task><name>a</name></task><source>{}.mp4</source></meta>"
    xml = f"<annotations>{meta}{image}</annotations>"
    for clip in ("street", "yard"):
        write_film(tmp_path / f"{clip}.mp4", 3)
        (tmp_path / clip).mkdir()
        if form == "coco":
            content = coco(["frame_000002.PNG"], [one(1, [corners])])
            content["images"][0] |= {"width": 32, "height": 16}
            write_json(tmp_path / clip / "labels", content)
        else:
            (tmp_path / clip / "labels").write_text(xml.format(clip))
    for mask in masks_of(list_raw(tmp_path, format=form, labels=["*/labels"], images="{clip}.mp4")):
        assert columns(mask[2]) == [8, 9, 10, 11] and (mask[:2] == IGNORE).all()


def test_names_are_translated(tmp_path: Path) -> None:
    write_coco(tmp_path, ["video1"])
    with pytest.raises(
        LabelError, match=r"no class 'car'; did you mean 'cars'\? .* source\.rename: {'car': OURS}"
    ):
        list_raw(tmp_path, classes=["background", "cars"])
    for ours, value in (("cars", 1), ("background", 0), ("ignore", IGNORE)):
        (found,) = masks_of(list_raw(tmp_path, classes=["background", "cars"], rename={"car": ours}))
        assert (found == np.where(SQUARE, value, 0)).all()
    with pytest.raises(ValidationError, match=r"source\.rename: {'car': bus}: no class 'bus'"):
        list_raw(tmp_path, rename={"car": "bus"})


def test_files_of_before_a_class_was_added_are_said(tmp_path: Path) -> None:
    """Its objects are background there, though nobody could draw them."""
    for k, known in enumerate(("car", "car", "person", "all"), 1):
        write_frames(tmp_path, numbered(f"video{k}"))
        content = coco(numbered(f"video{k}"), [one(t, category=2 if known == "person" else 1) for t in (1, 2)])
        content["categories"] = [each for each in content["categories"] if known in (each["name"], "all")]
        write_json(tmp_path / f"labels/round{k}.json", content)
    said = list_raw(tmp_path, labels=["labels/*.json"], rename={"person": "person"}).warnings
    assert [line.partition("; ")[0] for line in said] == [
        "warning: labels/round1.json and 1 other label file do not know person: its pixels count as background in "
        "4 frames",
        "warning: labels/round3.json does not know car: its pixels count as background in 2 frames",
    ]
    said = list_raw(
        tmp_path, labels=["labels/round[12].json"], classes=["background", "vehicle"], rename={"car": "vehicle"}
    )
    assert "know" not in " ".join(said.warnings)


@pytest.mark.parametrize(
    ("form", "shape", "frames"), [("cvat-images", "image", "1 frame"), ("cvat-video", "track", "3 frames")]
)
def test_labels_of_a_task_of_cvat_are_its_classes(form: str, shape: str, frames: str, tmp_path: Path) -> None:
    write_frames(tmp_path, numbered("video1"))
    polygon = '<{} frame="0" points="2,1;5,1;5,3;2,3" outside="0" occluded="0" keyframe="1"/>'
    shapes = {
        "image": f'<image id="0" name="video1/00000.png" width="{WIDTH}" height="{HEIGHT}">'
        '<polygon label="car" points="2,1;5,1;5,3;2,3"/></image>',
        "track": f'<track id="0" label="car">{polygon.format("polygon")}</track>',
    }
    (tmp_path / "labels.xml").write_text(
        "<annotations><version>1.1</version><meta><task><name>video1</name><size>3</size><labels><label><name>car"
        f"</name></label></labels></task></meta>{shapes[shape]}</annotations>"
    )
    (said,) = list_raw(tmp_path, format=form, labels=["labels.xml"]).warnings
    assert said.startswith(
        f"warning: labels.xml does not know person: its pixels count as background in {frames}; "
    )


def test_a_list_of_classes_without_the_background_is_refused(tmp_path: Path) -> None:
    write_coco(tmp_path, ["video1"])
    with pytest.raises(
        LabelError, match=r"'car' has objects, but is the first .* classes: \[background, car, \.\.\.\]"
    ):
        list_raw(tmp_path, classes=["car", "person"])
    (found,) = masks_of(list_raw(tmp_path, classes=["other", "person"], rename={"car": "other"}))
    assert not found.any()


def test_sequences_without_labels_are_unlabelled(tmp_path: Path) -> None:
    write_coco(tmp_path)
    write_frames(tmp_path, [*numbered("video3"), *numbered("video4")])
    listing = list_raw(tmp_path, splits={"val": ["video1"], "hidden": ["video4"], "test": ["video3"]})
    assert [(clip.id, clip.split, clip.kind) for clip in listing.clips] == [
        ("video1_00000", "val", "labelled"),
        ("video2_00000", "train", "labelled"),
        ("video4_00000", "hidden", "hidden"),
    ]
    reason = "has no labels; put it into unlabeled, or into hidden if nothing may learn from it"
    assert listing.skipped == [("video3", reason)]
    splits = {clip.id: clip.split for clip in list_raw(tmp_path, splits={"val": 0.5}).clips}
    assert (
        sorted(splits.values()) == ["train", "unlabeled", "unlabeled", "val"]
        and splits["video3_00000"] == "unlabeled"
    )
    by_time = list_raw(tmp_path, split_by="time", frames=1, window_step=1, splits={"val": 0.34}).clips
    assert [clip.split for clip in by_time if clip.id.startswith("video1")] == ["train", "train", "val"]
    assert {clip.split for clip in by_time if clip.id.startswith("video3")} == {"unlabeled"}
    named = {"val": 0.34, "test": ["Video2"], "hidden": ["video04"]}
    by_time = list_raw(tmp_path, split_by="time", frames=1, window_step=1, splits=named).clips
    assert [clip.split for clip in by_time if clip.id.startswith("video1")] == ["train", "train", "val"]
    whole = {f"video{k}": {clip.split for clip in by_time if clip.id.startswith(f"video{k}")} for k in (2, 3, 4)}
    assert whole == {"video2": {"test"}, "video3": {"unlabeled"}, "video4": {"hidden"}}


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown image": (
        coco(numbered("video1"), [one(9)]),
        r"annotations\[0\] \(id 1\): image_id 9 is not the id of an image of",
    ),
    "no category": (
        coco(numbered("video1"), [{"image_id": 1, "segmentation": POLYGON}]),
        r"annotations\[0\] \(id 1\): missing key 'category_id'",
    ),
    "unknown category": (
        coco(numbered("video1"), [one(1, category=3)]),
        "category_id 3 is not the id of a category of",
    ),
    "counts": (
        coco(numbered("video1"), [one(1, {"size": [4, 6], "counts": [9, 2]})]),
        "counts of its RLE sum to 11, its image has 24 pixels; encode it again",
    ),
    "size of counts": (
        coco(numbered("video1"), [one(1, {"size": [6, 4], "counts": [24]})]),
        r"its RLE is of size \[6, 4\], its image \[4, 6\]; resize one of them",
    ),
    "box": (coco(numbered("video1"), [one(1, [])]), "segmentation is empty; a box is not a mask: export masks or"),
    "two points": (
        coco(numbered("video1"), [one(1, [[1, 1, 2, 2]])]),
        "a polygon has 4 numbers; expected x and y",
    ),
    "outside": (coco(numbered("video1"), [one(1, [[0, 0, 90, 0, 90, 90]])]), "a point .* is far outside"),
    "twice": (coco([*numbered("video1"), "VIDEO1/00000.png"], [one(1), one(4)]), "the same frame as .* leave"),
    "two ids": (coco(numbered("video1"), [one(1), one(1, id=1)]), r"annotations\[1\] \(id 1\): id 1 occurs twice"),
    "no image": (
        coco(numbered("video7"), [one(1)]),
        r"labels no frame .* \(no image: .*images\[0\] \(video7/00000.png",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_one_line_that_names_the_place(fault: str, tmp_path: Path) -> None:
    content, message = FAULTS[fault]
    write_frames(tmp_path, numbered("video1"))
    write_json(tmp_path / "labels.json", content)
    with pytest.raises(MaskcastError, match=message) as caught:
        list_raw(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_frames_whose_image_is_missing_are_told(tmp_path: Path) -> None:
    write_coco(tmp_path)
    (tmp_path / "video2/00001.png").unlink()
    listing = list_raw(tmp_path)
    assert listing.skipped[0][0] == "labels.json"
    assert listing.skipped[0][1].startswith("no image of 1 frame, first ")
    assert listing.skipped[0][1].endswith("labels.json: images[4] (video2/00001.png)")
    assert listing.skipped[1][0] == "video2" and "a window needs 3" in listing.skipped[1][1]


@pytest.mark.parametrize(("size", "hint"), [((6, 4), "one of them is rotated: "), ((8, 14), "")])
def test_images_of_another_size_stop_the_stage(size: tuple[int, int], hint: str, tmp_path: Path) -> None:
    write_coco(tmp_path, ["video1"])
    write_frames(tmp_path, numbered("video1"), size)
    (clip,) = list_raw(tmp_path).clips
    with pytest.raises(LabelError, match=f"is 6x4, .*00000.png is {size[1]}x{size[0]} .*; {hint}export both"):
        clip.load()


def test_files_of_labels_are_named_below_the_folder(tmp_path: Path) -> None:
    write_coco(tmp_path)
    with pytest.raises(MaskcastError, match=r"none\.json: label file not found; fix source\.labels"):
        list_raw(tmp_path, labels=["none.json"])
    for path in ("/etc/labels.json", "../labels.json", ""):
        with pytest.raises(ValidationError, match="must be a relative path inside the data set"):
            list_raw(tmp_path, labels=[path])
    for path in (".", "labels**.json"):
        with pytest.raises(ValidationError, match="must be a path or pattern"):
            list_raw(tmp_path, labels=[path])


def test_a_store_is_prepared_from_coco_with_classes_and_objects(tmp_path: Path) -> None:
    write_coco(tmp_path / "raw", track_id=5)
    source = COCO | {"layout": "annotations", "frames": 3, "splits": {"val": 0.5}, "instances": True}
    run_stage("prepare_clips", {"source": source, "workers": 1}, raw=tmp_path / "raw", clips=tmp_path / "clips")
    store = ClipStore(tmp_path / "clips", "mask")
    assert store.classes == ("background", "car", "person") and sorted(clip.split for clip in store.clips) == [
        "train",
        "val",
    ]
    for clip in store.clips:
        assert (store.masks(clip) == SQUARE).all()
        assert (store.of("objects").masks(clip) == 5 * SQUARE).all()
