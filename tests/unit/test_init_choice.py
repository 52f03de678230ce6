"""`maskcast init` where folders hold several kinds of masks, or what it does not read, of the same frames."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.lookalikes import frames_of, write_images

from maskcast.data.inspection.inspect_folder import inspect_folder
from maskcast.errors import MaskcastError

LENGTH = 24
COLOURS = np.array([(0, 0, 0), (0, 0, 63), (0, 127, 127)], np.uint8)
Writer = Callable[[Path, str, np.ndarray, np.ndarray], None]


def tiktok(root: Path, video: str, frames: np.ndarray, masks: np.ndarray) -> None:
    """A folder of parts of the body comes before that of masks."""
    write_images(root / video / "images", frames, "{:04d}.png")
    write_images(root / video / "masks", (masks > 0) * np.uint8(255), "{:04d}.png")
    write_images(root / video / "densepose", COLOURS[masks], "{:04d}.png")


def egohos(root: Path, video: str, frames: np.ndarray, masks: np.ndarray) -> None:
    write_images(root / video / "image", frames, "{:04d}.png")
    write_images(root / video / "label", masks, "{:04d}.png")
    write_images(root / video / "contact", np.uint8(masks > 0), "{:04d}.png")


def scannet(root: Path, video: str, frames: np.ndarray, masks: np.ndarray) -> None:
    write_images(root / video / "color", frames, "{}.jpg")
    write_images(root / video / "instance-filt", masks * np.uint8(3), "{}.png")
    write_images(root / video / "label-filt", masks, "{}.png")


def isaid(root: Path, video: str, frames: np.ndarray, masks: np.ndarray) -> None:
    """Endings of names differ between the two folders of masks."""
    write_images(root / video / "images", frames, "P{:04d}.png")
    write_images(root / video / "Semantic_masks", COLOURS[masks], "P{:04d}_instance_color_RGB.png")
    write_images(root / video / "Instance_masks", COLOURS[masks] * 2, "P{:04d}_instance_id_RGB.png")


def supervisely(root: Path, video: str, frames: np.ndarray, masks: np.ndarray) -> None:
    write_images(root / video / "img", frames, "{:04d}.png")
    write_images(root / video / "masks_human", COLOURS[masks], "{:04d}.png")
    write_images(root / video / "masks_machine", masks, "{:04d}.png")


def apolloscape(root: Path, video: str, frames: np.ndarray, masks: np.ndarray) -> None:
    write_images(root / "ColorImage" / video, frames, "{:06d}.jpg")
    write_images(root / "Label" / video, masks, "{:06d}_bin.png")
    write_images(root / "Label" / video, masks * np.uint16(1000), "{:06d}_instanceIds.png")


def rellis(root: Path, video: str, frames: np.ndarray, masks: np.ndarray) -> None:
    write_images(root / video / "camera_node", frames, "frame{:06d}.jpg")
    write_images(root / video / "camera_node_label_color", COLOURS[masks], "frame{:06d}.png")
    write_images(root / video / "camera_node_label_id", masks, "frame{:06d}.png")


def kitti360(root: Path, video: str, frames: np.ndarray, masks: np.ndarray) -> None:
    """How sure the labels are is stored in 16 bits of grey."""
    write_images(root / "data_2d_raw" / video / "image_00/data_rect", frames, "{:010d}.png")
    labels = root / "data_2d_semantics/train" / video / "image_00"
    write_images(labels / "confidence", frames.mean(-1).astype(np.uint16) * 257, "{:010d}.png")
    write_images(labels / "instance", masks * np.uint16(1000), "{:010d}.png")
    write_images(labels / "semantic", masks, "{:010d}.png")
    write_images(labels / "semantic_rgb", COLOURS[masks], "{:010d}.png")


def phenobench(root: Path, video: str, frames: np.ndarray, masks: np.ndarray) -> None:
    write_images(root / video / "images", frames, "{:05d}.png")
    write_images(root / video / "plant_instances", masks * np.uint16(7), "{:05d}.png")
    write_images(root / video / "semantics", masks.astype(np.uint16), "{:05d}.png")


def cihp(root: Path, video: str, frames: np.ndarray, masks: np.ndarray) -> None:
    write_images(root / video / "Images", frames, "{:07d}.jpg")
    write_images(root / video / "Categories", COLOURS[masks], "{:07d}.png")
    write_images(root / video / "Category_ids", masks, "{:07d}.png")
    write_images(root / video / "Human_ids", np.uint8(masks > 0), "{:07d}.png")


def cvppp(root: Path, video: str, frames: np.ndarray, masks: np.ndarray) -> None:
    """All lie in one folder."""
    write_images(root / video, frames, "plant{:03d}_rgb.png")
    write_images(root / video, (masks == 1) * np.uint8(255), "plant{:03d}_centers.png")
    write_images(root / video, masks, "plant{:03d}_label.png")


def robust_mis(root: Path, video: str, frames: np.ndarray, masks: np.ndarray) -> None:
    """Each frame has a folder; the masks lay among the photographs before."""
    for t, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
        write_images(root / "Training" / video / str(1500 * t), frame[None], "raw.png")
        write_images(root / "Training" / video / str(1500 * t), mask[None], "instrument_instances.png")


CHOSEN: dict[str, tuple[Writer, dict[str, str]]] = {
    "TikTok": (tiktok, {"masks": "{clip}/masks"}),
    "EgoHOS": (egohos, {"masks": "{clip}/label"}),
    "ScanNet": (scannet, {"masks": "{clip}/label-filt"}),
    "iSAID": (isaid, {"masks": "{clip}/Semantic_masks", "mask_suffix": "_instance_color_RGB"}),
    "Supervisely": (supervisely, {"masks": "{clip}/masks_machine"}),
    "RELLIS-3D": (rellis, {"masks": "{clip}/camera_node_label_id"}),
    "KITTI-360": (kitti360, {"masks": "data_2d_semantics/train/{clip}/image_00/semantic"}),
    "PhenoBench": (phenobench, {"masks": "{clip}/semantics"}),
    "CIHP": (cihp, {"masks": "{clip}/Category_ids"}),
    "CVPPP": (cvppp, {"masks": "{clip}/{frame}_label.png"}),
    "ROBUST-MIS": (robust_mis, {"masks": "Training/{clip}/{frame}/instrument_instances.png"}),
    "ApolloScape": (apolloscape, {"masks": "Label/{clip}", "mask_suffix": "_bin"}),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_masks_of_classes_are_chosen(name: str, tmp_path: Path) -> None:
    write, expected = CHOSEN[name]
    for k, video in enumerate(("a1", "b2", "c3")):
        write(tmp_path, video, *frames_of(k, LENGTH))
    found = inspect_folder(tmp_path)
    assert {key: found.source.get(key) for key in expected} == expected
    assert found.labelled == dict.fromkeys(("a1", "b2", "c3"), LENGTH)


def test_masks_whose_names_end_otherwise_are_not_left_out_in_silence(tmp_path: Path) -> None:
    """CelebAMask-HQ has a mask for each part of a face in one folder."""
    for k, name in enumerate(("a", "b")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / "img" / name, frames, "{:05d}.jpg")
        for value, part in ((1, "hair"), (2, "skin")):
            write_images(tmp_path / "anno" / name, (masks == value) * np.uint8(255), "{:05d}_" + part + ".png")
    with pytest.raises(MaskcastError, match=r"hair.*skin.* mark different pixels of the same frames"):
        inspect_folder(tmp_path)


@pytest.mark.parametrize("names", ["Trainingset Testset", "trainset testset"])
def test_splits_are_told_by_folders_called_sets(names: str, tmp_path: Path) -> None:
    """FBMS: nothing may be learnt from its `Testset`."""
    learnt, tested = names.split()
    for k, place in enumerate((f"{learnt}/cars1", f"{learnt}/dogs01", f"{tested}/cats01")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / place, frames, "{:03d}.jpg")
        write_images(tmp_path / place / "GroundTruth", masks, "{:03d}_gt.png")
    assert inspect_folder(tmp_path).source["splits"]["test"] == ("cats01",)


def test_splits_below_folders_of_places_are_no_traceback(tmp_path: Path) -> None:
    """ACDC has folders of splits in folders of weather."""
    for k, place in enumerate(("fog/train/GOPR0475", "night/train/GOPR0351", "rain/val/GP010400")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / "rgb_anon" / place, frames, "a_frame_{:06d}_rgb_anon.png")
        write_images(tmp_path / "rgb_anon" / f"{place}_ref", frames, "a_frame_{:06d}_rgb_ref_anon.png")
        write_images(tmp_path / "gt" / place, masks, "a_frame_{:06d}_gt_labelIds.png")
        write_images(tmp_path / "gt" / place, frames, "a_frame_{:06d}_gt_invGray.png")
    warnings = inspect_folder(tmp_path).warnings
    assert any(
        "write * for each folder whose name differs, or {clip} if names occur in several)" in warning
        for warning in warnings
    )


def test_masks_of_roboflow_are_of_the_frames_of_one_video(tmp_path: Path) -> None:
    """Its hashes are no numbers of frames."""
    for k, split in enumerate(("train", "train", "valid")):
        frames, masks = frames_of(k, LENGTH)
        for t in range(LENGTH):
            name = f"street{k}-{t:04d}_jpg.rf.{(LENGTH * k + t) * 7919:032x}"
            write_images(tmp_path / split, frames[t : t + 1], f"{name}.jpg")
            write_images(tmp_path / split, masks[t : t + 1], f"{name}_mask.png")
        (tmp_path / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, car\n2, dog\n")
    found = inspect_folder(tmp_path)
    assert found.source["classes"] == ["background", "car", "dog"] and found.source["splits"] == {
        "val": ("valid",)
    }
    assert [[len(run) for run in found.runs(name)] for name in ("train", "valid")] == [[LENGTH, LENGTH], [LENGTH]]


def test_frames_without_masks_in_several_folders_are_all_found(tmp_path: Path) -> None:
    for k, place in enumerate(("P01/P01_01", "P02/P02_03", "P03/P03_04")):
        write_images(tmp_path / "rgb_frames" / place, frames_of(k, LENGTH)[0], "{:05d}.jpg")
    found = inspect_folder(tmp_path)
    assert found.source["images"] == "rgb_frames/*/{clip}" and len(found.sequences) == 3


def test_the_ends_of_names_may_differ_from_photograph_to_photograph(tmp_path: Path) -> None:
    """WoodScape's name the camera after the number."""
    rng = np.random.default_rng(0)
    for k in range(12):
        name = f"{k:05d}_{('FV', 'RV', 'MVL', 'MVR')[k % 4]}.png"
        frames, masks = frames_of(k, 1)
        write_images(tmp_path / "rgb_images", np.roll(frames, rng.integers(60), 2), name)
        write_images(tmp_path / "annotations/gtLabels", masks, name)
    source = inspect_folder(tmp_path).source
    assert (source["images"], source["masks"]) == ("rgb_images/{clip}.png", "annotations/gtLabels/{clip}.png")


def test_frames_of_few_greys_are_frames_where_a_file_labels_them(tmp_path: Path) -> None:
    """LIVECell's look like masks."""
    images, annotations = [], []
    for k in range(2):
        _, masks = frames_of(k, LENGTH)
        write_images(tmp_path / "images" / f"well{k}", masks * np.uint8(20) + 90, "{:04d}.tif")
        for t, mask in enumerate(masks):
            images.append({"id": len(images), "file_name": f"well{k}/{t:04d}.tif", "height": 40, "width": 64})
            outlines, _ = cv2.findContours(np.uint8(mask == 1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            polygons = [outline.ravel().tolist() for outline in outlines]
            annotations.append(
                images[-1] | {"image_id": images[-1]["id"], "category_id": 1, "segmentation": polygons}
            )
    categories = [{"id": 1, "name": "cell"}]
    (tmp_path / "cells.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    assert inspect_folder(tmp_path).source["classes"] == ["background", "cell"]


UNREAD: dict[str, Any] = {  # file: content
    "annotations/default.json": {"items": [{"id": "a/0", "annotations": [{"type": "polygon", "points": [1, 2]}]}]},
    "P01_01.json": {"video_annotations": [{"annotations": [{"type": "polygon", "segments": [[[1, 2]]]}]}]},
    "0000.jpg___objects.json": {"instances": [{"type": "polygon", "points": [1, 2, 3]}]},
    "export.ndjson": {"data_row": {}, "projects": {"p": {"labels": [{"mask": {"url": ""}}]}}},
    "tissue.xml": '<Annotations><Region><Vertices><Vertex X="1" Y="2"/></Vertices></Region></Annotations>',
}


@pytest.mark.parametrize("name", UNREAD)
def test_files_that_may_hold_labels_are_said(name: str, tmp_path: Path) -> None:
    for k, video in enumerate(("a", "b")):
        write_images(tmp_path / "frames" / video, frames_of(k, LENGTH)[0], "{:04d}.jpg")
    path, content = tmp_path / name, UNREAD[name]
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    said = f"{name} seems to hold outlines or masks in a format that is not read: export COCO from the tool"
    assert any(warning.startswith(said) for warning in inspect_folder(tmp_path).warnings)


@pytest.mark.parametrize(("ids", "expected"), [((0, 11, 13, 255), "ignore"), ((0, 64, 128, 255), "class 255")])
def test_255_beside_ids_with_gaps_is_no_label(ids: tuple[int, ...], expected: str, tmp_path: Path) -> None:
    """Beside greys that people tell apart it is a class."""
    for k, name in enumerate(("a", "b")):
        frames, masks = frames_of(k, LENGTH)
        masks[:, :3] = 3
        write_images(tmp_path / "frames" / name, frames, "{:04d}.jpg")
        write_images(tmp_path / "masks" / name, np.array(ids, np.uint8)[masks], "{:04d}.png")
    assert inspect_folder(tmp_path).source["values"]["255"] == expected


def test_a_background_that_no_pixel_has_is_said(tmp_path: Path) -> None:
    """The trimaps of Oxford's pets are 1, 2 and 3."""
    for k, name in enumerate(("a", "b")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / "frames" / name, frames, "{:04d}.jpg")
        write_images(tmp_path / "trimaps" / name, np.array([2, 1, 3], np.uint8)[masks], "{:04d}.png")
    said = (
        "masks: no pixel has the value 0, and 94% have 2: if 2 is the background, map each value in source.values"
    )
    assert any(warning.startswith(said) for warning in inspect_folder(tmp_path).warnings)


@pytest.mark.parametrize("masks", [False, True])
def test_frames_are_taken_rather_than_their_cut_outs(masks: bool, tmp_path: Path) -> None:
    """Without alpha, which frames lose, a cut-out is the frame, or black where a tool made it so."""
    for k, name in enumerate(("v1", "v2")):
        frames, labels = frames_of(k, LENGTH)
        write_images(tmp_path / "images" / name, frames, "{:03d}.jpg")
        alpha = (labels > 0)[..., None] * np.uint8(255)
        write_images(tmp_path / "cutouts" / name, np.concatenate([frames, alpha], 3), "{:03d}.png")
        if masks:
            write_images(tmp_path / "masks" / name, alpha[..., 0], "{:03d}.png")
    found = inspect_folder(tmp_path)
    assert found.source["images"] == "images/{clip}"
    assert found.source.get("masks") == ("masks/{clip}" if masks else None)
    said = "48 images left out: cutouts/v1 and 1 folder more, cut-outs of frames, e.g. of images/v1. Their alpha "
    assert any(warning.startswith(said) for warning in found.warnings)


def test_sequences_with_an_alpha_channel_are_no_cut_outs_of_others(tmp_path: Path) -> None:
    for k, name in enumerate(("v1", "v2")):
        frames, labels = frames_of(k, LENGTH)
        alpha = (labels > 0)[..., None] * np.uint8(255)
        pictures = np.concatenate([frames, alpha], 3) if k else frames
        write_images(tmp_path / "images" / name, 255 - pictures if k else pictures, "{:03d}.png")
    found = inspect_folder(tmp_path)
    assert [*found.sequences] == ["v1", "v2"]
    assert any(warning.startswith("1 sequence has frames with transparent pixels") for warning in found.warnings)


def test_names_that_windows_numbered_are_of_several_sequences(tmp_path: Path) -> None:
    for k, name in enumerate(("walk 1", "walk 2")):
        frames, labels = frames_of(k, LENGTH)
        write_images(tmp_path / "frames", frames, f"{name} ({{}}).jpg", first=1)
        write_images(tmp_path / "masks", labels, f"{name} ({{}}).png", first=1)
    found = inspect_folder(tmp_path)
    assert (found.source["images"], found.source["masks"]) == (
        "frames/{clip} ({frame}).jpg",
        "masks/{clip} ({frame}).png",
    )
    assert found.labelled == {"walk 1": LENGTH, "walk 2": LENGTH}
