"""maskcast init on folders whose masks stand in files of labels, then prepare_clips, as users run both."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from faster_coco_eval.core import mask as coco_mask
from PIL import Image
from tests.lookalikes import HEIGHT, WIDTH, frames_of, write_images, write_mp4

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.inspection.inspect_folder import inspect_folder
from maskcast.data.inspection.label_patterns import label_patterns
from maskcast.data.sources.label_lists import match_label_files, unlisted_warning
from maskcast.errors import MaskcastError
from maskcast.proposal.plan import plan_params
from maskcast.proposal.report import format_plan
from maskcast.runner.run import run_stage

pytestmark = pytest.mark.usefixtures("untimed_steps")

LENGTH = 24
Truth = dict[str, np.ndarray]  # ids of the two squares by sequence


def runs(mask: np.ndarray) -> list[int]:
    """Returns COCO's run lengths: column by column, background first."""
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]]).astype(int)
    ends = np.flatnonzero(np.diff(flat))  # of each run
    counts: list[int] = np.diff(ends, prepend=0).tolist()
    return counts


def shown(masks: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields frame, id and mask of all that is seen."""
    for t, mask in enumerate(masks):
        for k in range(1, masks.max() + 1):
            if (mask == k).any():
                yield t, k, mask == k


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Returns left, top, right and bottom."""
    rows, columns = np.flatnonzero(mask.any(1)).tolist(), np.flatnonzero(mask.any(0)).tolist()
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def dump(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


CATEGORIES = [{"id": 1, "name": "blue"}, {"id": 2, "name": "red"}, {"id": 3, "name": "never seen"}]


def cvat_coco(root: Path) -> Truth:
    """Writes CVAT's export `COCO 1.0` of brush masks: uncompressed run lengths, all of them crowds."""
    truth, images, annotations = {}, [], []
    for n in range(3):
        frames, truth[f"clip{n}"] = frames_of(n, LENGTH)
        write_images(root / "images/default", frames, f"clip{n}_{{:06d}}.png")
        first = len(images) + 1
        names = [f"clip{n}_{t:06d}.png" for t in range(LENGTH)]
        images += [
            {"id": first + t, "width": WIDTH, "height": HEIGHT, "file_name": names[t]} for t in range(LENGTH)
        ]
        for t, k, mask in shown(truth[f"clip{n}"]):
            one = {"id": len(annotations) + 1, "image_id": first + t, "category_id": k, "iscrowd": 1}
            counts = {"counts": runs(mask), "size": [HEIGHT, WIDTH]}
            track = {"occluded": False, "track_id": k, "keyframe": True}
            annotations.append(
                one | {"segmentation": counts, "area": 1, "bbox": [0, 0, 1, 1], "attributes": track}
            )
    content = {"licenses": [], "info": {}, "categories": CATEGORIES, "images": images, "annotations": annotations}
    dump(root / "annotations/instances_default.json", content)
    return truth


def youtube_vis(root: Path) -> Truth:
    """Writes YouTube-VIS's form: an annotation is an object, with null where it is not seen."""
    truth, videos, annotations = {}, [], []
    for n in range(3):
        clip = f"{n}ab"
        frames, truth[clip] = frames_of(n, LENGTH)
        write_images(root / "train/JPEGImages" / clip, frames, "{:05d}.jpg")
        names = [f"{clip}/{t:05d}.jpg" for t in range(LENGTH)]
        videos.append({"id": n, "width": WIDTH, "height": HEIGHT, "length": LENGTH, "file_names": names})
        masks: dict[int, list[Any]] = defaultdict(lambda: [None] * LENGTH)
        for t, k, mask in shown(truth[clip]):
            masks[k][t] = {"counts": runs(mask), "size": [HEIGHT, WIDTH]}
        for k, own in masks.items():
            one = {"id": len(annotations) + 1, "video_id": n, "category_id": k, "segmentations": own}
            annotations.append(one | {"iscrowd": 0, "bboxes": [None] * LENGTH, "areas": [None] * LENGTH})
    content = {"info": {}, "videos": videos, "categories": CATEGORIES, "annotations": annotations}
    dump(root / "train/instances.json", content)
    return truth


def roboflow(root: Path) -> Truth:
    """Writes Roboflow's `COCO Segmentation`: frames of a video drawn into two folders, polygons, ids from 0."""
    truth = {}
    categories = [{"id": 0, "name": "objects", "supercategory": "none"}, *CATEGORIES[:2]]
    files: dict[str, dict[str, Any]] = {
        split: {"info": {}, "categories": categories, "images": [], "annotations": []}
        for split in ("train", "valid")
    }
    for n in range(2):
        frames, truth[f"street{n}_mp4"] = frames_of(n, LENGTH)
        for t in range(LENGTH):
            split = "valid" if t % 5 == 2 else "train"
            content, folder = files[split], root / split
            folder.mkdir(parents=True, exist_ok=True)
            name = f"street{n}_mp4-{t}_jpg.rf.{hashlib.md5(bytes([n, t])).hexdigest()}.jpg"
            Image.fromarray(frames[t]).save(folder / name)
            image = {"id": len(content["images"]), "file_name": name, "height": HEIGHT, "width": WIDTH}
            content["images"].append(image | {"extra": {"name": f"street{n}_mp4-{t}.jpg"}})
            for _, k, mask in shown(truth[f"street{n}_mp4"][t : t + 1]):
                left, top, right, bottom = box(mask)
                polygon = [left, top, right, top, right, bottom, left, bottom, left, top]
                one = {"id": len(content["annotations"]), "image_id": image["id"], "category_id": k, "iscrowd": 0}
                content["annotations"].append(one | {"segmentation": [polygon], "area": 1, "bbox": [0, 0, 1, 1]})
    for split, content in files.items():
        dump(root / split / "_annotations.coco.json", content)
    return truth


def cvat_video(root: Path) -> Truth:
    """Writes CVAT's export `CVAT for video 1.1` of two tasks beside the videos that were uploaded."""
    truth = {}
    for n in range(2):
        frames, truth[f"street{n}"] = frames_of(n, LENGTH)
        write_mp4(root / f"videos/street{n}.mp4", frames)
        boxes: dict[int, str] = defaultdict(str)
        for t, k, mask in shown(truth[f"street{n}"]):
            sides = "".join(
                f' {key}="{side}.0"' for key, side in zip(("xtl", "ytl", "xbr", "ybr"), box(mask), strict=True)
            )
            boxes[k] += f'<box frame="{t}" keyframe="1" outside="0" occluded="0"{sides} z_order="0"/>'
        tracks = [
            f'<track id="{k}" label="{("blue", "red")[k - 1]}" source="manual">{own}</track>'
            for k, own in boxes.items()
        ]
        task = f"<task><name>my task {n}</name><size>{LENGTH}</size><source>street{n}.mp4</source>"
        task += f"<original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size></task>"
        (root / f"task{n}").mkdir()
        (root / f"task{n}/annotations.xml").write_text(
            f"<annotations><version>1.1</version><meta>{task}</meta>{''.join(tracks)}</annotations>"
        )
    return truth


def labelme(root: Path) -> Truth:
    """Writes labelme's form: a JSON beside each image, with a mask of each object; X-AnyLabeling's is the same."""
    truth = {}
    for n in range(3):
        clip = f"street{n}"
        frames, truth[clip] = frames_of(n, LENGTH)
        write_images(root / clip, frames, "{:04d}.png")
        shapes: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for t, k, mask in shown(truth[clip]):
            left, top, right, bottom = box(mask)
            picture = io.BytesIO()
            Image.fromarray(mask[top:bottom, left:right].astype(np.uint8)).save(picture, "PNG")
            one = {"label": ("blue", "red")[k - 1], "group_id": k, "shape_type": "mask", "flags": {}}
            text = base64.encodebytes(picture.getvalue()).decode()
            shapes[t].append(one | {"points": [[left, top], [right - 1, bottom - 1]], "mask": text})
        for t in range(LENGTH):
            size = {"imageHeight": HEIGHT, "imageWidth": WIDTH, "imageData": None}
            content = {"version": "5.4.1", "flags": {}, "shapes": shapes[t], "imagePath": f"{t:04d}.png"} | size
            dump(root / clip / f"{t:04d}.json", content)
    return truth


EXPORTS: dict[str, tuple[Callable[[Path], Truth], dict[str, Any]]] = {
    "CVAT's COCO": (
        cvat_coco,
        {
            "format": "coco",
            "labels": ["annotations/instances_default.json"],
            "images": "images/default/{clip}_{frame}.png",
        },
    ),
    "YouTube-VIS": (
        youtube_vis,
        {
            "format": "youtube-vis",
            "labels": ["train/instances.json"],
            "images": "train/JPEGImages/{clip}",
            "empty": "background",
        },
    ),
    "labelme": (
        labelme,
        {
            "format": "labelme",
            "labels": ["*/*.json"],
            "images": "{clip}",
        },
    ),
    "Roboflow": (
        roboflow,
        {
            "format": "coco",
            "labels": ["*/_annotations.coco.json"],
            "images": "*/{clip}-{frame}_jpg.rf.*.jpg",
        },
    ),
    "CVAT for video": (
        cvat_video,
        {
            "format": "cvat-video",
            "labels": ["*/annotations.xml"],
            "images": "videos/{clip}.mp4",
        },
    ),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_becomes_clips_with_the_masks_that_were_drawn(name: str, tmp_path: Path) -> None:
    write, expected = EXPORTS[name]
    truth = write(tmp_path / "raw")
    start = plan_params(tmp_path / "raw")
    source = start.findings.source
    assert {key: source.get(key) for key in expected} == expected
    assert source["classes"] == ["background", "blue", "red"]
    assert not start.left_out and not start.findings.warnings
    params = yaml.safe_load(start.text(tmp_path / "raw"))["prepare_clips"]
    run_stage("prepare_clips", params, raw=tmp_path / "raw", clips=tmp_path / "clips")
    store = ClipStore(tmp_path / "clips")
    assert {clip.split for clip in store.clips} == {"train", "val"}
    assert {clip.meta["video"] for clip in store.clips} == truth.keys()
    for clip in store.clips:
        first = clip.meta["start"]
        assert (store.masks(clip) == truth[clip.meta["video"]][first : first + clip.num_frames]).all()


def compressed(mask: np.ndarray) -> dict[str, Any]:
    """Returns a mask as COCO's tools write it."""
    packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": packed["size"], "counts": packed["counts"].decode()}


def sa_v(root: Path) -> Truth:
    """Writes SA-V's form: videos, masks of every fourth frame by hand, and others that a model made."""
    truth = {}
    for n in range(3):
        name = f"sav_{n:06d}"
        frames, masks = frames_of(n, 2 * LENGTH)
        place = root / f"sav_00{n % 2}"
        write_mp4(place / f"{name}.mp4", frames)
        truth[name] = np.where((np.arange(2 * LENGTH) % 4 == 0)[:, None, None], masks > 0, 255)
        sizes = {"video_height": float(HEIGHT), "video_width": float(WIDTH), "video_frame_count": 2.0 * LENGTH}
        own = {"video_id": name, "masklet_id": [2, 5], **sizes}
        by_hand = [[compressed(mask == k) for k in (1, 2)] for mask in masks[::4]]
        dump(place / f"{name}_manual.json", own | {"masklet": by_hand})
        made = [[compressed(mask == 0)] * 2 for mask in masks[::4]]
        dump(place / f"{name}_auto.json", own | {"masklet": made})
    return truth


def burst(root: Path) -> Truth:
    """Writes BURST's form: frames by data set and sequence, and a file of all beside those of some classes."""
    truth, sequences = {}, []
    for n, data in enumerate(("LaSOT", "LaSOT", "YFCC100M")):
        name = f"v é {n}"
        frames, masks = frames_of(n, 2 * LENGTH)
        write_images(root / "frames/train" / data / name, frames, "frame{:04d}.jpg", 1)
        marked = np.arange(2 * LENGTH) % 5 == 0
        truth[name] = np.where(marked[:, None, None], masks, 255)
        seen: list[dict[str, Any]] = [{} for _ in masks]
        for t, k, mask in shown(masks):
            seen[t][str(10 + k)] = {"rle": compressed(mask)["counts"], "is_gt": True}
        one = {"id": n, "width": WIDTH, "height": HEIGHT, "seq_name": name, "dataset": data, "fps": 30}
        one["annotated_image_paths"] = [f"frame{t + 1:04d}.jpg" for t in np.flatnonzero(marked)]
        sequences.append(one | {"track_category_ids": {"11": 1, "12": 2}, "segmentations": seen[::5]})
    for file, own in (("all_classes", sequences), ("common_classes", sequences[:1])):
        content = {"sequences": own, "categories": CATEGORIES, "split": "train"}
        dump(root / f"annotations/train/{file}.json", content)
    return truth


SPARSE: dict[str, tuple[Callable[[Path], Truth], dict[str, Any]]] = {
    "SA-V": (
        sa_v,
        {
            "labels": ["*/*_manual.json"],
            "images": "*/{clip}.mp4",
            "classes": ["background", "object"],
        },
    ),
    "BURST": (
        burst,
        {
            "labels": ["annotations/train/all_classes.json"],
            "images": "frames/train/*/{clip}",
            "classes": ["background", "blue", "red"],
        },
    ),
}


@pytest.mark.parametrize("name", SPARSE)
def test_files_of_some_frames_become_clips_with_masks_of_these(name: str, tmp_path: Path) -> None:
    write, expected = SPARSE[name]
    truth = write(tmp_path / "raw")
    start = plan_params(tmp_path / "raw")
    source = start.findings.source
    assert {key: source.get(key) for key in expected} == expected and not start.left_out
    assert (source["format"], source["empty"]) == ("youtube-vis", "background")
    params = yaml.safe_load(start.text(tmp_path / "raw"))["prepare_clips"]
    run_stage("prepare_clips", params, raw=tmp_path / "raw", clips=tmp_path / "clips")
    store = ClipStore(tmp_path / "clips")
    assert {clip.meta["video"] for clip in store.clips} == truth.keys()
    for clip in store.clips:
        first = clip.meta["start"]
        assert (store.masks(clip) == truth[clip.meta["video"]][first : first + clip.num_frames]).all()


def test_masklets_keep_their_numbers_in_the_frames_that_have_masks(tmp_path: Path) -> None:
    """Every fourth frame is one that SA-V labels."""
    sa_v(tmp_path / "raw")
    source = plan_params(tmp_path / "raw").findings.source | {
        "stride": 4,
        "frames": 4,
        "window_step": 16,
        "instances": True,
    }
    run_stage("prepare_clips", {"source": source}, raw=tmp_path / "raw", clips=tmp_path / "clips")
    store = ClipStore(tmp_path / "clips", "objects")
    assert len(store.clips) == 9
    for clip in store.clips:
        masks = frames_of(int(clip.meta["video"][-1]), 2 * LENGTH)[1][clip.meta["start"] :: 4][:4]
        assert (store.masks(clip) == np.array([0, 2, 5])[masks]).all()


def test_labels_without_an_image_are_said(tmp_path: Path) -> None:
    truth = burst(tmp_path)
    shutil.rmtree(tmp_path / "frames/train/LaSOT" / next(iter(truth)))
    said = "no image of 10 labelled frames, first .*all_classes.json: sequences.0..file_names.0. .LaSOT/v é 0/fr"
    assert any(re.match(said, warning) for warning in inspect_folder(tmp_path).warnings)


def test_frames_of_all_splits_are_found_where_a_file_lies_beside_each(tmp_path: Path) -> None:
    truth = cvat_coco(tmp_path)
    content = json.loads((tmp_path / "annotations/instances_default.json").read_text())
    shutil.rmtree(tmp_path / "annotations")
    for split, sequences in (("train", list(truth)[:2]), ("valid", list(truth)[2:])):
        for name in sequences:
            (tmp_path / split / name).mkdir(parents=True)
            for path in sorted((tmp_path / "images/default").glob(f"{name}_*")):
                path.rename(tmp_path / split / name / path.name)
        dump(tmp_path / f"{split}.json", parts_of(content, sequences))
    shutil.rmtree(tmp_path / "images")
    start = plan_params(tmp_path)
    assert start.findings.source["images"] == "*/{clip}" and start.findings.source["splits"] == {"val": ("clip2",)}
    assert start.clips.keys() == {"train", "val"} and not start.left_out


def parts_of(content: dict[str, Any], sequences: Sequence[str]) -> dict[str, Any]:
    """Returns what a file of COCO has of some sequences."""
    images = [one for one in content["images"] if one["file_name"].split("_")[0] in sequences]
    ids = {one["id"] for one in images}
    return content | {"images": images, "annotations": [a for a in content["annotations"] if a["image_id"] in ids]}


@pytest.mark.parametrize("apart", [False, True])
def test_files_of_labels_tell_the_split_and_frames_may_lie_in_one_folder(apart: bool, tmp_path: Path) -> None:
    """Frames of several sequences lie in one folder, or in one of each split."""
    cvat_coco(tmp_path)
    frames = tmp_path / "images/default"
    text = (tmp_path / "annotations/instances_default.json").read_text()
    for old, new in (("clip0", "ash"), ("clip1", "elm"), ("clip2", "oak")):  # numbers of frames alone
        text = text.replace(old, new)
        for path in frames.glob(f"{old}_*"):
            path.rename(path.with_name(path.name.replace(old, new)))
    shutil.rmtree(tmp_path / "annotations")
    for split, sequences in (("train", ("elm", "oak")), ("val", ("ash",))):
        dump(tmp_path / f"annotations/instances_{split}.json", parts_of(json.loads(text), sequences))
        if apart:
            (tmp_path / split).mkdir()
            for path in [path for name in sequences for path in frames.glob(f"{name}_*")]:
                path.rename(tmp_path / split / path.name)
    if apart:
        shutil.rmtree(tmp_path / "images")
    start = plan_params(tmp_path)
    pattern = "*/{clip}_{frame}.*" if apart else "images/default/{clip}_{frame}.png"
    assert (start.findings.source["images"], start.findings.source["splits"]) == (pattern, {"val": ("ash",)})
    assert sum(start.findings.labelled.values()) == 3 * LENGTH and not start.left_out


def test_what_was_found_is_said(tmp_path: Path) -> None:
    cvat_coco(tmp_path)
    said = " ".join(format_plan(plan_params(tmp_path), tmp_path, tmp_path / "params.yaml").split())
    assert "masks in files of COCO, frames by sequence: images images/default/{clip}_{frame}.png" in said
    assert "labels annotations/instances_default.json" in said and "3 with masks on 72 of 72 frames" in said
    assert "objects have numbers: source.instances keeps them" in said
    assert "pixels background: " in said and "classes background, blue, red" in said


def test_a_folder_of_labels_alone_is_no_sequence(tmp_path: Path) -> None:
    cvat_coco(tmp_path)
    for path in sorted((tmp_path / "images/default").iterdir()):
        folder = tmp_path / path.name.partition("_")[0]
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    shutil.rmtree(tmp_path / "images")
    start = plan_params(tmp_path)
    assert start.findings.source["images"] == "{clip}" and not start.left_out


def edited(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_frames_without_objects_are_asked_about(tmp_path: Path) -> None:
    cvat_coco(tmp_path)

    def empty(content: dict[str, Any]) -> None:
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] % 6]

    edited(tmp_path / "annotations/instances_default.json", empty)
    found = inspect_folder(tmp_path)
    assert found.warnings[-1].startswith("12 frames listed without objects: not labelled; set source.")


def test_frames_without_objects_are_background_where_too_few_have_any(tmp_path: Path) -> None:
    cvat_coco(tmp_path)

    def left(content: dict[str, Any]) -> None:
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] % LENGTH in range(1, 9)]

    path = tmp_path / "annotations/instances_default.json"
    edited(path, left)
    found = plan_params(tmp_path).findings
    assert found.source["empty"] == "background" and sum(found.labelled.values()) == 3 * LENGTH
    assert found.warnings[-1].startswith("48 frames listed without objects: background; set source.empty to")
    path.write_text(path.read_text()[:-9])
    with pytest.raises(MaskcastError, match=r"instances_default\.json: "):
        inspect_folder(tmp_path)


def test_a_class_that_means_no_label_is_none(tmp_path: Path) -> None:
    cvat_coco(tmp_path)

    def rename(content: dict[str, Any]) -> None:
        for one, name in zip(content["categories"], ("Background", "void", "never seen"), strict=True):
            one["name"] = name

    edited(tmp_path / "annotations/instances_default.json", rename)
    edited(
        tmp_path / "annotations/instances_default.json",
        lambda content: content["annotations"].append(content["annotations"][0] | {"id": 10**6, "category_id": 3}),
    )
    source = inspect_folder(tmp_path).source
    assert source["classes"] == ["background", "never seen"]
    assert source["rename"] == {"void": "ignore", "Background": "background"}


def test_spellings_of_one_class_are_one_class(tmp_path: Path) -> None:
    labelme(tmp_path)
    usual = inspect_folder(tmp_path)
    assert usual.source["classes"][1:] and "rename" not in usual.source and not usual.warnings
    name = usual.source["classes"][1]

    def respell(path: Path, spelling: str) -> None:
        text = path.read_text()
        path.write_text(text.replace(f'"label": "{name}"', f'"label": "{spelling}"'))
        assert path.read_text() != text

    for t, spelling in enumerate(("Käste", "Ka\u0308ste", "KÄSTE ", "Käste")):
        respell(tmp_path / f"street1/{t:04d}.json", spelling)
    start = plan_params(tmp_path)
    found = start.findings
    assert sorted(found.source["classes"][1:]) == sorted([*usual.source["classes"][1:], "Käste"])
    assert found.source["rename"] == {"Ka\u0308ste": "Käste", "KÄSTE ": "Käste"}
    assert {"Ka\u0308ste", "KÄSTE "}.isdisjoint(found.classes["street1"]) and "Käste" in found.classes["street1"]
    (warning,) = found.warnings
    assert "differ only in case, spaces or Unicode form, so they are one class; if not, edit" in warning
    assert not start.left_out


def test_files_of_labelme_name_their_images_and_what_has_no_label(tmp_path: Path) -> None:
    labelme(tmp_path)
    for path in (tmp_path / "street0").glob("*.json"):  # where labelme was given a folder for its files
        edited(path, lambda content: content.update(imagePath="..\\street0\\" + content["imagePath"]))
        path.rename(tmp_path / path.name)
    edited(tmp_path / "street1/0003.json", lambda content: content["shapes"][0].update(label="__ignore__"))
    edited(tmp_path / "street1/0003.json", lambda content: content["shapes"][1].update(label="_background_"))
    dump(tmp_path / "street1/notes.json", {"none": "of labelme"})
    start = plan_params(tmp_path)
    assert start.findings.source["rename"] == {"__ignore__": "ignore", "_background_": "background"}
    labels = start.findings.source["labels"]
    assert (labels[0], labels[1], labels[-1]) == ("*.json", "street1/0000.json", "street2/*.json")
    assert len(start.findings.labelled) == 3 and start.findings.labelled["street0"] == LENGTH
    path = tmp_path / "street2/0007.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(MaskcastError, match=r"street2/0007\.json: "):
        inspect_folder(tmp_path)


def test_files_of_boxes_alone_are_for_detection(tmp_path: Path) -> None:
    cvat_coco(tmp_path)

    def boxes(content: dict[str, Any]) -> None:
        for one in content["annotations"]:
            one["segmentation"] = []

    edited(tmp_path / "annotations/instances_default.json", boxes)
    with pytest.raises(MaskcastError, match=r"images with boxes, no videos: .* export polygons or masks in place"):
        inspect_folder(tmp_path)


def test_a_file_of_other_frames_is_said(tmp_path: Path) -> None:
    cvat_coco(tmp_path)
    for path in (tmp_path / "images/default").iterdir():
        path.rename(path.with_name("my" + path.name))
    with pytest.raises(MaskcastError, match=r"instances_default\.json: labels no frame of the sequences that"):
        inspect_folder(tmp_path)


def test_a_class_of_one_sequence_alone_is_for_training(tmp_path: Path) -> None:
    cvat_coco(tmp_path)
    assert plan_params(tmp_path).findings.source["splits"] == {"val": ("clip2",)}
    path = tmp_path / "annotations/instances_default.json"
    content = json.loads(path.read_text())
    of_clip2 = {image["id"] for image in content["images"] if image["file_name"].startswith("clip2")}
    content["annotations"] = [
        one for one in content["annotations"] if one["category_id"] == 1 or one["image_id"] in of_clip2
    ]
    path.write_text(json.dumps(content))
    assert plan_params(tmp_path).findings.source["splits"] == {"val": ("clip0",)}


def test_one_labelled_sequence_is_cut_by_time_and_others_are_unlabelled(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 60)
    write_images(tmp_path / "one", frames, "{:04d}.png")
    write_images(tmp_path / "two", frames_of(1, LENGTH)[0], "{:04d}.png")
    images = [{"id": t, "width": WIDTH, "height": HEIGHT, "file_name": f"one/{t:04d}.png"} for t in range(60)]
    annotations = [
        {"id": n, "image_id": t, "category_id": k, "segmentation": {"counts": runs(mask), "size": [HEIGHT, WIDTH]}}
        for n, (t, k, mask) in enumerate(shown(masks))
    ]
    dump(tmp_path / "labels.json", {"images": images, "categories": CATEGORIES, "annotations": annotations})
    start = plan_params(tmp_path)
    assert (
        start.findings.source["split_by"] == "time" and start.clips["unlabeled"] == 1 and start.clips["val"] == 1
    )
    assert not any("left out" in warning for warning in start.findings.warnings)
    assert start.findings.source["splits"].keys() == {"val"}  # others are unlabeled without being named
    (tmp_path / "test.txt").write_text("two\n")
    start = plan_params(tmp_path)
    assert start.findings.source["splits"]["hidden"] == ("two",) and start.clips["hidden"] == 1


UNREAD: dict[str, tuple[str, str, str]] = {  # of a sequence: file, what it holds, what is said
    "SA-1B": (
        "sa_1.json",
        '{"image": {"image_id": 1}, "annotations": [{"segmentation": {"size": [2, 2], "counts": "1"}, '
        '"predicted_iou": 0.9, "stability_score": 0.9}]}',
        "sa_1.json and others like it are SA-1B's, and are not read: make one COCO file of them, put",
    ),
    "V7": (
        "annotations/0000.json",
        '{"version": "2.0", "item": {"name": "0000.png", "slots": []}, "annotations": [{"name": "car", '
        '"polygon": {"paths": [[{"x": 1, "y": 1}]]}, "slot_names": ["0"]}]}',
        "annotations/0000.json and others like it are V7's, and are not read: export its labels as COCO, put",
    ),
    "JSON-MIN": (
        "project-1.json",
        '[{"image": "/data/upload/1/0000.png", "id": 1, "label": [{"points": [[1, 1]], "polygonlabels": ["car"], '
        '"original_width": 9, "original_height": 9}], "annotator": 1, "annotation_id": 1}]',
        "project-1.json is Label Studio's JSON-MIN, and is not read: export its JSON, put it beside the frames",
    ),
    "VIA": (
        "via_region_data.json",
        '{"0000.png9": {"filename": "0000.png", "size": 9, "regions": [{"shape_attributes": {"name": "polygon", '
        '"all_points_x": [1], "all_points_y": [1]}, "region_attributes": {}}], "file_attributes": {}}}',
        "via_region_data.json is VIA's, and is not read: export its labels as COCO, put it beside the frames",
    ),
    "VIA's CSV": (
        "via_export_csv.csv",
        "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
        '0000.png,9,"{}",1,0,"{""name"":""polygon"",""all_points_x"":[1],""all_points_y"":[1]}","{}"\n',
        "via_export_csv.csv is VIA's, and is not read: export its labels as COCO, put it beside the frames",
    ),
    "Kaggle's run lengths": (
        "train.csv",
        "ImageId,EncodedPixels,ClassId\n0000.png,1 3 10 5,1\n",
        "train.csv is a table of run lengths, as in competitions of Kaggle, .* PNG masks with the names of their",
    ),
    "Supervisely": (
        "ann/0000.png.json",
        '{"description": "", "size": {"height": 9, "width": 9}, "objects": [{"classTitle": "car", "geometryType": '
        '"polygon", "points": {"exterior": [[1, 1]], "interior": []}}]}',
        "ann/0000.png.json and others like it are Supervisely's, and are not read: export its labels as COCO, put",
    ),
    "YOLO's boxes": (
        "labels/0000.txt",
        "0 0.645312 0.105208 0.246875 0.122917\n",
        "labels/0000.txt and others like it are YOLO's boxes, .* masker learns from masks: label polygons",
    ),
    "YOLO": (
        "labels/0000.txt",
        "0 0.5 0.50 .25 1e-1\n3 0.1 0.1 0.2 0.1 0.2 0.2\n",
        "labels/0000.txt and others like it are YOLO's, .* export COCO .*from_yolo .*as_coco\\), put",
    ),
}


@pytest.mark.parametrize("form", UNREAD)
def test_files_of_labels_that_are_not_read_are_said(form: str, tmp_path: Path) -> None:
    file, content, said = UNREAD[form]
    for n in range(2):
        write_images(tmp_path / f"street{n}", frames_of(n, LENGTH)[0], "{:04d}.png")
    (tmp_path / "notes.txt").write_text("1 2 3 4 5\n")  # of no image
    (tmp_path / "a.csv").write_text("frame,weather\n0000.png,sun\n")
    (tmp_path / "a_submission.csv").write_text("ImageId,EncodedPixels\n0000.png,1 1\n")
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    (warning,) = inspect_folder(tmp_path).warnings
    assert re.match(said, warning) and warning.endswith("and run init again")


def test_an_export_that_is_not_unpacked_is_said(tmp_path: Path) -> None:
    write_mp4(tmp_path / "street.mp4", frames_of(0, LENGTH)[0])
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
        archive.writestr("annotations.xml", "<annotations/>")
    said = "task.zip is an archive, which is not inspected: unpack the labels in it, put it beside the frames"
    assert any(warning.startswith(said) for warning in inspect_folder(tmp_path).warnings)


def test_augmented_copies_of_roboflow_are_refused(tmp_path: Path) -> None:
    roboflow(tmp_path)
    image = next((tmp_path / "train").glob("*.jpg"))
    image.with_name(image.name.partition(".rf.")[0] + ".rf.0123456789abcdef.jpg").write_bytes(image.read_bytes())
    with pytest.raises(
        MaskcastError, match=r"shows the frame of .* once more, as augmented .* without augmentation"
    ):
        inspect_folder(tmp_path)


def test_an_export_of_roboflow_may_lie_deeper(tmp_path: Path) -> None:
    roboflow(tmp_path / "training/data")
    source = inspect_folder(tmp_path).source
    assert source["images"].startswith("training/data/*/{clip}")
    (tmp_path / "training/data/train").rename(tmp_path / "old")
    with pytest.raises(MaskcastError, match=r"several depths \(old, training/data/.*; give one folder with train"):
        inspect_folder(tmp_path)


def test_gaps_between_labelled_frames_are_said(tmp_path: Path) -> None:
    roboflow(tmp_path)
    for path in (tmp_path / "train").glob("*-13_*"):
        path.unlink()
    assert any(
        "a gap in the frame numbers, which no clip spans" in one for one in inspect_folder(tmp_path).warnings
    )


def test_frames_of_roboflow_may_have_letters_before_their_numbers(tmp_path: Path) -> None:
    roboflow(tmp_path)
    for split in ("train", "valid"):
        file = tmp_path / split / "_annotations.coco.json"
        file.write_text(file.read_text().replace("_mp4-", "_t"))
        for path in (tmp_path / split).glob("*.jpg"):
            path.rename(path.with_name(path.name.replace("_mp4-", "_t")))
    found = inspect_folder(tmp_path)
    assert found.source["images"] == "*/{clip}_{frame}_jpg.rf.*.jpg"
    assert found.labelled == {"street0": LENGTH, "street1": LENGTH}


def test_images_of_roboflow_may_have_been_of_several_forms(tmp_path: Path) -> None:
    roboflow(tmp_path)
    content = (tmp_path / "valid/_annotations.coco.json").read_text()
    (tmp_path / "valid/_annotations.coco.json").write_text(content.replace("_jpg.rf.", "_png.rf."))
    for path in (tmp_path / "valid").glob("*.jpg"):
        path.rename(path.with_name(path.name.replace("_jpg.rf.", "_png.rf.")))
    found = inspect_folder(tmp_path)
    assert found.source["images"] == "*/{clip}-{frame}_*.rf.*.jpg"
    assert sum(found.labelled.values()) == 2 * LENGTH


def test_tasks_of_label_studio_are_found_by_the_names_of_uploaded_images(tmp_path: Path) -> None:
    tasks = []
    for n in range(2):
        frames, masks = frames_of(n, LENGTH)
        write_images(tmp_path / "frames", frames, f"street{n}_{{:04d}}.png")
        for t, mask in enumerate(masks):
            left, top, right, bottom = box(mask == 1)
            corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
            points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in corners]
            region = {"id": "a", "type": "polygonlabels", "original_width": WIDTH, "original_height": HEIGHT}
            region |= {"image_rotation": 0, "value": {"points": points, "polygonlabels": ["car"]}}
            data = {"image": f"/data/upload/1/0123abcd-street{n}_{t:04d}.png"}
            tasks.append({"id": len(tasks) + 1, "data": data, "annotations": [{"id": 1, "result": [region]}]})
    dump(tmp_path / "project-1.json", tasks)
    start = plan_params(tmp_path)
    assert start.findings.source["format"] == "label-studio" and start.findings.source["labels"] == [
        "project-1.json"
    ]
    assert sum(start.findings.labelled.values()) == 2 * LENGTH and not start.left_out


@pytest.mark.parametrize(
    ("labels", "others", "patterns"),
    [
        (["a.xml", "b.xml", "c.xml"], ["d.json"], ["*.xml"]),
        (["a.xml", "b.xml"], ["notes.xml"], ["a.xml", "b.xml"]),
        (["labels/clip1.json", "labels/clip2.json"], ["labels/classes.json"], ["labels/clip*.json"]),
        (["a/annotations.xml", "b/annotations.xml"], ["a/notes.xml"], ["*/annotations.xml"]),
        (["a/1.json", "b/2.json"], ["a/1.xml"], ["*/*.json"]),
        (["a/1.json", "a/2.json", "b/c/1.json"], [], ["a/*.json", "b/c/1.json"]),
        (["s/sav_09_manual.json", "s/sav_10_manual.json"], ["s/sav_09_auto.json"], ["s/*_manual.json"]),
        (["annotations/instances_train.json", "annotations/instances_val.json"],
         ["annotations/captions_train.json"], ["annotations/instances_*.json"]),
        (["a/annotations.xml"], [], ["a/annotations.xml"]),
    ],
)  # fmt: skip
def test_label_files_are_listed_by_a_pattern_that_matches_no_other(
    labels: list[str], others: list[str], patterns: list[str], tmp_path: Path
) -> None:
    for name in [*labels, *others]:
        dump(tmp_path / name, {})
    assert label_patterns(tmp_path, [tmp_path / name for name in labels]) == patterns


def test_labels_that_are_added_later_are_used_or_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two videos with annotations are given to init; a third is added later, with a class of its own."""
    raw = tmp_path / "raw"
    cvat_video(tmp_path / "all")
    shutil.copytree(tmp_path / "all", raw)
    params = yaml.safe_load(plan_params(raw).text(raw))["prepare_clips"]
    write_mp4(raw / "videos/street2.mp4", frames_of(2, LENGTH)[0])
    text = (raw / "task1/annotations.xml").read_text().replace("street1", "street2").replace("my task 1", "mine")
    (raw / "task2").mkdir()
    (raw / "task2/annotations.xml").write_text(text)
    run_stage("prepare_clips", params, raw=raw, clips=tmp_path / "clips")
    store = ClipStore(tmp_path / "clips")
    assert {clip.meta["video"] for clip in store.clips if clip.kind == "labelled"} == {
        "street0",
        "street1",
        "street2",
    }
    params["source"]["labels"] = ["task0/annotations.xml", "task1/annotations.xml"]
    capsys.readouterr()
    (raw / "voc.xml").write_text("<annotation><object/></annotation>")
    run_stage("prepare_clips", params, raw=raw, clips=tmp_path / "two")
    advice = re.search(
        "warning: 1 label file is not used: not in source.labels, but like the files that are "
        r"\(task2/annotations.xml\); add the path, or a pattern, e.g. '(.*)'",
        capsys.readouterr().err,
    )
    assert advice is not None
    tasks = [raw / f"task{k}/annotations.xml" for k in range(3)]
    assert match_label_files(raw, advice[1]) == tasks
    tasks[0].rename(raw / "task0/first.xml")
    warning = unlisted_warning(raw, "cvat-video", tasks[1:])
    assert warning is not None and warning.endswith(
        "(task0/first.xml); add the path, or a pattern, e.g. '**/*.xml'"
    )
    assert raw / "task0/first.xml" in match_label_files(raw, "**/*.xml")
    (raw / "task0/first.xml").rename(tasks[0])
    params["source"]["labels"] = ["*/annotations.xml"]
    (raw / "task2/annotations.xml").write_text(text.replace('label="red"', 'label="green"'))
    with pytest.raises(
        MaskcastError, match=r"task2/annotations\.xml: .*no class 'green'; .*add it to source\.clas"
    ):
        run_stage("prepare_clips", params, raw=raw, clips=tmp_path / "three")


def test_only_files_of_the_kind_of_the_listed_ones_are_missed(tmp_path: Path) -> None:
    listed = {"segmentation": [[1, 2, 3, 4, 5, 6]]}
    dump(tmp_path / "a.json", {"images": [], "annotations": [listed]})
    dump(tmp_path / "captions.json", {"images": [], "annotations": [{"caption": "a car"}]})
    dump(tmp_path / "keypoints.json", {"images": [], "annotations": [listed | {"keypoints": []}]})
    assert unlisted_warning(tmp_path, "coco", [tmp_path / "a.json"]) is None
    large = {"images": ["x" * (3 << 20)], "annotations": [listed]}
    dump(tmp_path / "later/b.json", large)
    assert "(later/b.json)" in (unlisted_warning(tmp_path, "coco", [tmp_path / "a.json"]) or "")
    dump(tmp_path / "sav/1_manual.json", {"masklet": []})
    dump(tmp_path / "sav/1_auto.json", {"masklet": []})
    assert unlisted_warning(tmp_path, "youtube-vis", [tmp_path / "sav/1_manual.json"]) is None


def labelme_in_the_root(root: Path) -> Truth:
    """Writes labelme's files beside images that all lie in one folder."""
    truth = labelme(root)
    for file in sorted(root.glob("*/*")):
        name = f"{file.parent.name}_{file.name}"
        if file.suffix == ".json":
            edited(file, lambda content, name=name: content.update(imagePath=name.replace("json", "png")))
        file.rename(root / name)
    return truth


def coco_in_the_root(root: Path) -> Truth:
    """Writes a file of COCO for each of two parts of the sequences into the root."""
    truth = cvat_coco(root)
    whole = root / "annotations/instances_default.json"
    content = json.loads(whole.read_text())
    dump(root / "lab1.json", parts_of(content, ["clip0", "clip1"]))
    dump(root / "lab2.json", parts_of(content, ["clip2"]))
    whole.unlink()
    return truth


@pytest.mark.parametrize("write", [labelme_in_the_root, coco_in_the_root])
def test_the_record_of_a_fetched_data_set_is_no_label_file(write: Callable[[Path], Truth], tmp_path: Path) -> None:
    truth = write(tmp_path / "mine")
    params = yaml.safe_load(plan_params(tmp_path / "mine").text(tmp_path / "mine"))
    assert params["prepare_clips"]["source"]["labels"] == ["*.json"]
    raw = tmp_path / "raw"
    run_stage("fetch_dataset", {"uri": str(tmp_path / "mine")}, raw=raw)
    assert (raw / "SOURCE.json").is_file()
    run_stage("prepare_clips", params["prepare_clips"], raw=raw, clips=tmp_path / "clips")
    store = ClipStore(tmp_path / "clips")
    assert {clip.meta["video"] for clip in store.clips if clip.kind == "labelled"} == truth.keys()
    again = plan_params(raw).findings.source  # as of the folder that was fetched
    assert again == plan_params(tmp_path / "mine").findings.source


def labelled_twice(root: Path, *, coco: Sequence[int], labelme: Sequence[int], png: Sequence[int]) -> None:
    """Writes four sequences with labels of three kinds, each of some of the sequences."""
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for n in range(4):
        frames, masks = frames_of(n, LENGTH)
        write_images(root / f"images/s{n}", frames, "{:04d}.png")
        if n in png:
            write_images(root / f"masks/s{n}", masks, "{:04d}.png")
        if n in coco:
            first = len(images)
            size = {"width": WIDTH, "height": HEIGHT}
            images += [size | {"id": first + t, "file_name": f"s{n}/{t:04d}.png"} for t in range(LENGTH)]
            annotations += [
                {"id": len(annotations) + i, "image_id": first + t, "category_id": k, "iscrowd": 0}
                | {"segmentation": compressed(mask)}
                for i, (t, k, mask) in enumerate(shown(masks))
            ]
        for t in range(LENGTH if n in labelme else 0):
            triangle = {"label": "blue", "shape_type": "polygon", "points": [[1, 1], [9, 1], [9, 9]]}
            size = {"imageHeight": HEIGHT, "imageWidth": WIDTH, "imageData": None}
            content = {"shapes": [triangle], "imagePath": f"{t:04d}.png", "flags": {}} | size
            dump(root / f"images/s{n}/{t:04d}.json", content)
    if coco:
        dump(root / "coco.json", {"images": images, "categories": CATEGORIES, "annotations": annotations})


@pytest.mark.parametrize(
    ("coco", "labelme", "png", "said"),
    [
        ((0, 1), (2, 3), (), r"48 frames .* in images/s2/0000\.json and 47 more \(labelme\), .* of COCO:"),
        ((0, 1), (), (2, 3), r"48 frames .* in coco\.json \(COCO\), which are not read beside masks: make one"),
        ((0, 1, 2, 3), (), (1, 2, 3), r"24 frames .* in coco\.json \(COCO\)"),
        ((0, 1), (1,), (), None),
        ((0, 1), (), (0, 1), None),
        ((), (1,), (1, 2, 3), None),
    ],
)  # fmt: skip
def test_labels_of_a_second_kind_are_said_where_the_first_has_none(
    coco: Sequence[int], labelme: Sequence[int], png: Sequence[int], said: str | None, tmp_path: Path
) -> None:
    labelled_twice(tmp_path, coco=coco, labelme=labelme, png=png)
    warnings = [line for line in inspect_folder(tmp_path).warnings if "one kind of all labels" in line]
    assert len(warnings) == (said is not None)
    if said is not None:
        assert re.match(said, warnings[0]) and "`maskcast labels import --format " in warnings[0]


@pytest.mark.parametrize("png", [(), (2, 3)])
def test_a_label_file_is_read_once_or_twice_if_it_is_large(
    png: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled_twice(tmp_path, coco=(0, 1), labelme=(), png=png)
    opened, open_file = list[Any](), os.open
    monkeypatch.setattr(
        os, "open", lambda path, *rest, **more: opened.append(path) or open_file(path, *rest, **more)
    )
    small = inspect_folder(tmp_path)
    assert opened.count(tmp_path / "coco.json") == 1
    monkeypatch.setattr("maskcast.data.inspection.label_kinds.KEPT_BYTES", 0)
    large = inspect_folder(tmp_path)
    assert opened.count(tmp_path / "coco.json") == 1 + 2
    assert (small.source, small.warnings) == (large.source, large.warnings)


@pytest.mark.parametrize("form", UNREAD)
def test_labels_that_are_not_read_are_said_beside_masks_where_these_lack(form: str, tmp_path: Path) -> None:
    """What tools write for an image lies beside others of its sequence; for a whole set, names paths."""
    file, content, _ = UNREAD[form]
    labelled_twice(tmp_path, coco=(), labelme=(), png=(0, 1))
    for n in (0, 1):  # these have masks, so that nothing is lost
        each = tmp_path / f"labels/s{n}/0000{Path(file).suffix}"
        dump(each, None)
        each.write_text(content.replace("0000.png", f"s{n}/0000.png"))
    assert not any("one kind" in line for line in inspect_folder(tmp_path).warnings)
    path = tmp_path / f"labels/s2/0000{Path(file).suffix}"
    dump(path, None)
    path.write_text(content)
    (warning,) = (line for line in inspect_folder(tmp_path).warnings if "one kind" in line)
    assert warning.startswith("labels/s2/0000.") and warning.endswith(
        "frames without masks: make one kind of all labels, unless these are predictions"
    )
    path.unlink()
    whole = tmp_path / f"all{Path(file).suffix}"
    whole.write_text(content.replace("0000.png", "s3/0000.png"))
    named = "0000.png" in content
    assert any("one kind" in line for line in inspect_folder(tmp_path).warnings) == named
