"""`maskcast init`, then prepare_clips, in folders that lie as sets of labelled videos have them."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask
from PIL import Image
from tests.lookalikes import HEIGHT, WIDTH, davis, frames_of, write_images

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.inspection.inspect_folder import inspect_folder
from maskcast.errors import MaskcastError
from maskcast.proposal.plan import ParamsPlan, plan_params
from maskcast.runner.run import run_stage

pytestmark = pytest.mark.usefixtures("untimed_steps")

LENGTH = 24


def prepared(raw: Path, clips: Path, **more: Any) -> tuple[ParamsPlan, ClipStore]:
    """Returns what `init` finds in a folder, and the clips that come of it."""
    start = plan_params(raw)
    source = start.findings.source | more
    params = {"source": source, "height": HEIGHT, "width": WIDTH, "workers": 1, "required_splits": []}
    run_stage("prepare_clips", params, raw=raw, clips=clips)
    return start, ClipStore(clips)


def videos_by_split(store: ClipStore) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for clip in store.clips:
        found.setdefault(clip.split, set()).add(clip.meta["video"])
    return found


def cityscapes_sequences(root: Path, kinds: Sequence[str] = ("gtFine",)) -> dict[str, np.ndarray]:
    """Writes snippets of 30 frames, of which the twentieth has labels and lies in `leftImg8bit`, too.

    Returns:
        Ids of each city's frames.
    """
    truth = {}
    for k, place in enumerate(("train/aachen", "train/bochum", "val/lindau")):
        city = place.partition("/")[2]
        ids = []
        for snippet in range(2):
            frames, masks = frames_of(2 * k + snippet, 30)
            numbers = (snippet, 0) if city == "aachen" else (0, 294 + 309 * snippet)  # of bochum one long count
            name = f"{city}_{numbers[0]:06d}_{{:06d}}"
            one = f"{city}_{numbers[0]:06d}_{numbers[1] + 19:06d}"
            write_images(
                root / f"leftImg8bit_sequence/{place}", frames, f"{name}_leftImg8bit.png", first=numbers[1]
            )
            write_images(root / f"leftImg8bit/{place}", frames[19:20], f"{one}_leftImg8bit.png")
            for kind in kinds:
                labels = np.array([7, 26, 24], np.uint8)[masks[19:20]] * np.uint8(kind == "gtFine")
                write_images(root / f"{kind}/{place}", labels, f"{one}_{kind}_labelIds.png")
                write_images(root / f"{kind}/{place}", labels * np.uint16(1000), f"{one}_{kind}_instanceIds.png")
            marked = np.arange(30) == 19
            ids.append(np.where(marked[:, None, None], np.array([7, 26, 24])[masks], 255))
        truth[city] = np.concatenate(ids)
    return truth


@pytest.mark.parametrize("kinds", [("gtFine",), ("gtCoarse", "gtFine")])
def test_sequences_of_cityscapes_are_taken_before_their_labelled_frames(
    kinds: Sequence[str], tmp_path: Path
) -> None:
    """Those lie beside the sequences in a zip of their own; coarse labels lie beside fine ones."""
    truth = cityscapes_sequences(tmp_path / "raw", kinds)
    start, store = prepared(tmp_path / "raw", tmp_path / "clips")
    source = start.findings.source
    assert source["images"] == "leftImg8bit_sequence/*/{clip}/{frame}_leftImg8bit.png"
    assert source["masks"] == "gtFine/*/{clip}/{frame}_gtFine_labelIds.png"
    assert source["splits"] == {"val": ("lindau",)} and len(source["classes"]) == 34
    said = (
        "6 images left out: leftImg8bit/train/aachen and 2 folders more, because all frames of their videos are "
        "present, e.g. leftImg8bit_sequence/train/aachen"
    )
    assert start.findings.warnings[0] == said
    for clip in store.clips:
        first = clip.meta["start"]
        assert first // 30 == (first + clip.num_frames - 1) // 30  # of one snippet
        np.testing.assert_array_equal(store.masks(clip), truth[clip.meta["video"]][first:][: clip.num_frames])


def test_other_pictures_of_few_names_are_not_left_out(tmp_path: Path) -> None:
    """Also where each of them has the name of a frame of a longer sequence."""
    for k, name in enumerate(("a", "b")):
        frames, masks = frames_of(k, 2 * LENGTH)
        write_images(tmp_path / "short" / name, frames, "{:04d}.png")
        write_images(tmp_path / "masks" / name, masks, "{:04d}.png")
        write_images(tmp_path / "long" / name, np.tile(frames[::-1], (10, 1, 1, 1)), "{:04d}.png")
    assert not any("all frames of their videos" in warning for warning in plan_params(tmp_path).findings.warnings)


def test_masks_in_folders_of_splits_tell_those_of_frames_that_lie_together(tmp_path: Path) -> None:
    """KITTI-STEP splits `training` by its masks; nothing may be learnt from the sequences of `val`."""
    for k, (split, name) in enumerate((("train", "0000"), ("train", "0001"), ("val", "0002"), ("test", "0000"))):
        frames, masks = frames_of(k, LENGTH)
        write_images(
            tmp_path / f"raw/{'testing' if split == 'test' else 'training'}/image_02/{name}", frames, "{:06d}.png"
        )
        if split != "test":
            write_images(tmp_path / f"raw/panoptic_maps/{split}/{name}", masks, "{:06d}.png")
    start, store = prepared(tmp_path / "raw", tmp_path / "clips")
    assert start.findings.source["masks"] == "panoptic_maps/*/{clip}"
    assert start.findings.source["splits"] == {"val": ("0002",)}
    assert videos_by_split(store) == {"train": {"0000", "0001"}, "val": {"0002"}}
    for clip in store.clips:
        truth = frames_of(int(clip.meta["video"]), LENGTH)[1][clip.meta["start"] :][: clip.num_frames]
        np.testing.assert_array_equal(store.masks(clip), truth)


def test_frames_in_folders_of_splits_may_have_their_masks_in_one(tmp_path: Path) -> None:
    for k, place in enumerate(("train/a", "train/b", "val/c")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / "frames" / place, frames, "{:04d}.jpg")
        write_images(tmp_path / "masks" / place[-1], masks, "{:04d}.png")
    source = plan_params(tmp_path).findings.source
    assert (source["images"], source["splits"]) == ("frames/*/{clip}", {"val": ("c",)})


def test_splits_are_told_by_names_that_run_words_together(tmp_path: Path) -> None:
    """Nothing may be learnt from what MoCA-Mask and SUN-SEG have for tests."""
    for k, place in enumerate(("TrainDataset_per_sq/a", "TrainDataset_per_sq/b", "TestDataset_per_sq/c")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / place / "Imgs", frames, "{:05d}.jpg")
        write_images(tmp_path / place / "GT", (masks > 0) * np.uint8(255), "{:05d}.png")
    assert plan_params(tmp_path).findings.source["splits"] == {"val": ("a",), "test": ("c",)}


def test_a_test_with_masks_of_first_frames_is_hidden(tmp_path: Path) -> None:
    for k, name in enumerate(("train/a", "train/b", "train/c", "test/d")):
        split, _, video = name.partition("/")
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / f"{split}/JPEGImages/{video}", frames, "{:05d}.jpg")
        write_images(
            tmp_path / f"{split}/Annotations/{video}", masks[: 1 if split == "test" else LENGTH], "{:05d}.png"
        )
    start = plan_params(tmp_path)
    assert start.findings.source["splits"] == {"val": ("c",), "hidden": ("d",)}
    said = "the 1 sequence of test count as hidden: 4% of their frames have masks, 100% of others, so no forecast"
    assert any(warning.startswith(said) for warning in start.findings.warnings)


@pytest.mark.parametrize("most", ["street", "park"])
def test_the_video_that_has_most_parts_is_learnt_from(most: str, tmp_path: Path) -> None:
    for name in ("street", "park"):
        for k in range(3 if name == most else 1):
            frames, masks = frames_of(k, LENGTH)
            write_images(tmp_path / f"{name}/{name}_{k}/rgb", frames, "{:04d}.png")
            write_images(tmp_path / f"{name}/{name}_{k}/mask", masks, "{:04d}.png")
    other = "park" if most == "street" else "street"
    found = plan_params(tmp_path).findings
    assert len(found.labelled) == 4 and found.source["splits"] == {"val": (f"{other}_0",)}


def test_lists_of_splits_may_have_other_words_in_their_names(tmp_path: Path) -> None:
    """DAVIS has `test-dev.txt`, sequences that nothing may learn from, with masks of first frames."""
    for k, name in enumerate(("bear", "boat", "camel", "aerobatics")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / f"raw/JPEGImages/480p/{name}", frames, "{:05d}.jpg")
        marked = masks[: 1 if name == "aerobatics" else LENGTH]
        write_images(tmp_path / f"raw/Annotations/480p/{name}", (marked > 0) * np.uint8(255), "{:05d}.png")
    (tmp_path / "raw/ImageSets/2017").mkdir(parents=True)
    for split, names in (("train", "bear\nboat\n"), ("val", "camel\n"), ("test-dev", "aerobatics\n")):
        (tmp_path / f"raw/ImageSets/2017/{split}.txt").write_text(names)
    start, store = prepared(tmp_path / "raw", tmp_path / "clips")
    assert start.findings.source["splits"] == {"val": ("camel",), "hidden": ("aerobatics",)}
    assert videos_by_split(store) == {"train": {"bear", "boat"}, "val": {"camel"}, "hidden": {"aerobatics"}}


def test_texts_of_images_that_are_called_after_splits_are_no_lists(tmp_path: Path) -> None:
    """Thousands of them took seconds to read."""
    for k, name in enumerate(("a", "b", "c")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / f"frames/{name}", frames, "{:05d}.jpg")
        write_images(tmp_path / f"masks/{name}", masks, "{:05d}.png")
    (tmp_path / "labels").mkdir()
    for k in range(100):
        (tmp_path / f"labels/test_{k:06d}.txt").write_text("c\n")
    assert plan_params(tmp_path).findings.source["splits"]["test"] == ("c",)
    (tmp_path / "labels/test_000100.txt").write_text("c\n")
    assert "test" not in plan_params(tmp_path).findings.source["splits"]


def test_a_gap_between_folders_of_frames_is_told_by_the_folder(tmp_path: Path) -> None:
    for k, name in enumerate(("a", "b", "c")):
        for t, (frame, mask) in enumerate(zip(*frames_of(k, LENGTH), strict=True)):
            if (name, t) != ("b", 5):
                write_images(tmp_path / f"{name}/{t:04d}", frame[None], "rgb.png")
                write_images(tmp_path / f"{name}/{t:04d}", mask[None], "mask.png")
    assert plan_params(tmp_path).findings.warnings[0].endswith("(they do not go on at 0006/rgb.png)")


def test_parts_of_one_video_are_not_scored_on_where_others_are_learnt_from(tmp_path: Path) -> None:
    """CholecSeg8k has folders of 80 frames in a folder of each operation."""
    names = ("video01/video01_00080", "video01/video01_00160", "video09/video09_01263", "video12/video12_15750")
    for k, name in enumerate((*names, "video12/video12_15830")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / name, frames, "frame_{}_endo.png", 80)
        colours = np.array([(127, 127, 127), (210, 140, 140), (255, 114, 114)], np.uint8)
        write_images(tmp_path / name, colours[masks], "frame_{}_endo_color_mask.png", 80)
    found = plan_params(tmp_path).findings
    assert found.source["images"] == "*/{clip}/{frame}_endo.png"
    assert found.source["splits"] == {"val": ("video12_15750", "video12_15830")}
    assert "; those of one video or scene stay together" in found.reasons["splits"]


def virtual_kitti(root: Path, scenes: Sequence[str]) -> None:
    for k, scene in enumerate(scenes):
        frames, masks = frames_of(k, LENGTH)
        for dark, weather in enumerate(("clone", "fog", "15-deg-left", "rain")):
            place = f"{scene}/{weather}/frames"
            write_images(root / f"rgb/{place}/rgb/Camera_0", frames // (1 + dark), "rgb_{:05d}.jpg")
            write_images(root / f"seg/{place}/classSegmentation/Camera_0", masks, "classgt_{:05d}.png")


def test_a_scene_of_virtual_kitti_is_not_scored_on_in_other_weather(tmp_path: Path) -> None:
    virtual_kitti(tmp_path, ("Scene01", "Scene02", "Scene06"))
    found = plan_params(tmp_path).findings
    assert found.source["images"] == "rgb/{clip}/{clip}/frames/rgb/Camera_0"
    assert found.source["masks"] == "seg/{clip}/{clip}/frames/classSegmentation/Camera_0"
    assert scenes_of(found.sequences) == {"Scene01", "Scene02", "Scene06"}
    assert len(scenes_of(found.source["splits"]["val"])) == 1
    assert not any("show one scene" in warning for warning in found.warnings)


def scenes_of(names: Iterable[str]) -> set[str]:
    """Returns the scenes of which all sequences are among some, of three; none may be split."""
    found = Counter(name.partition("/")[0] for name in names)
    assert len({*found.values()}) == 1, found
    return {*found}


def test_variants_of_one_scene_are_said(tmp_path: Path) -> None:
    virtual_kitti(tmp_path, ("Scene01",))
    found = plan_params(tmp_path).findings
    assert found.source["images"] == "rgb/Scene01/{clip}/frames/rgb/Camera_0"
    said = "all sequences are in Scene01: if they show one scene, scores on val say little about others"
    assert said in found.warnings


def test_parts_of_videos_that_lie_in_one_folder_stay_together_by_their_names(tmp_path: Path) -> None:
    for k, part in enumerate(("01_00080", "01_00160", "02_00080", "02_00160", "03_00000")):
        name = f"video{part}"
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / f"{name}/rgb", frames, "{:04d}.png")
        write_images(tmp_path / f"{name}/mask", masks, "{:04d}.png")
    found = plan_params(tmp_path).findings
    parts = {name.partition("_")[0] for name in found.source["splits"]["val"]}
    assert len(parts) == 1 and len(found.source["splits"]["val"]) == (1 if parts == {"video03"} else 2)


def test_cameras_of_a_drive_are_not_scored_on_beside_each_other(tmp_path: Path) -> None:
    """Of cameras that show nearly the same, as those of KITTI, one is read."""
    for k, place in enumerate(("0001/image_02", "0001/image_03", "0002/image_02", "0002/image_03")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / f"rgb/{place}", frames, "{:06d}.png")
        write_images(tmp_path / f"seg/{place}", masks, "{:06d}.png")
    assert plan_params(tmp_path).findings.source["images"] == "rgb/{clip}/image_02"
    for folder in ("rgb", "seg"):
        shutil.rmtree(tmp_path / folder / "0002")
    said = "sequences are named after cameras (image_02, image_03): if they show one scene, set split_by: time and"
    assert any(warning.startswith(said) for warning in plan_params(tmp_path).findings.warnings)


def cameras(root: Path, scenes: Sequence[str], unlabelled: Sequence[str] = ()) -> None:
    """Writes sequences of two cameras in folders of scenes; the masks are beside the frames."""
    for k, place in enumerate(f"{scene}/{camera}" for scene in scenes for camera in ("camA", "camB")):
        frames, masks = frames_of(k, LENGTH)
        write_images(root / place / "rgb", np.roll(frames, 7 * k, 2) + np.uint8(9 * k), "{:06d}.jpg", 1)
        if place not in unlabelled:
            write_images(root / place / "mask", masks, "{:06d}.png", 1)


@pytest.mark.parametrize("scenes", [("scene 1", "Scene-2", "sc\u00e8ne3"), ("kitchen", "yard")])
def test_all_cameras_of_scenes_are_read_and_stay_together(scenes: Sequence[str], tmp_path: Path) -> None:
    cameras(tmp_path, scenes)
    found = plan_params(tmp_path).findings
    assert (found.source["images"], found.source["masks"]) == ("{clip}/{clip}/rgb", "{clip}/{clip}/mask")
    assert len(found.labelled) == 2 * len(scenes)
    assert len(scenes_of(found.source["splits"]["val"])) == 1 and len(found.source["splits"]["val"]) == 2
    assert not any("left out" in warning for warning in found.warnings)
    (tmp_path / "val.txt").write_text(f"{scenes[1].upper()}\n{scenes[0]}/camB/rgb/000001.jpg\n")
    val = {f"{scenes[1]}/camA", f"{scenes[1]}/camB", f"{scenes[0]}/camB"}
    assert {*plan_params(tmp_path).findings.source["splits"]["val"]} == val


@pytest.mark.parametrize("cameras_called", [("left", "right"), ("cam0", "cam1")])
@pytest.mark.parametrize("scenes", [("kitchen", "street", "park"), ("2024-01-01", "2024-01-02", "2024-01-03")])
def test_scenes_in_folders_of_cameras_stay_together(
    cameras_called: Sequence[str], scenes: Sequence[str], tmp_path: Path
) -> None:
    for k, place in enumerate(f"{camera}/{scene}" for camera in cameras_called for scene in scenes):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / place / "rgb", np.roll(frames, 7 * k, 2) + np.uint8(9 * k), "{:06d}.jpg", 1)
        write_images(tmp_path / place / "mask", masks, "{:06d}.png", 1)
    found = plan_params(tmp_path).findings
    assert {*found.sequences} == {f"{camera}/{scene}" for camera in cameras_called for scene in scenes}
    (scored,) = {name.partition("/")[2] for name in found.source["splits"]["val"]}
    assert {*found.source["splits"]["val"]} == {f"{camera}/{scored}" for camera in cameras_called}


def test_cameras_without_masks_of_a_scene_that_is_scored_on_are_not_learnt_from(tmp_path: Path) -> None:
    scenes = ("s1", "s2", "s3")
    cameras(tmp_path, scenes, [f"{scene}/camB" for scene in scenes])
    start = plan_params(tmp_path)
    splits = start.findings.source["splits"]
    (scored,) = {name.partition("/")[0] for name in splits["val"]}
    assert splits.keys() == {"val", "hidden"} and splits["hidden"] == (f"{scored}/camB",)
    assert start.clips["unlabeled"] == 2


def test_a_camera_beside_the_only_sequence_with_masks_is_not_learnt_from(tmp_path: Path) -> None:
    cameras(tmp_path, ("s1", "s2"), ["s1/camB", "s2/camA", "s2/camB"])
    start = plan_params(tmp_path)
    found = start.findings
    assert found.source["split_by"] == "time" and {*found.labelled} == {"s1/camA"}
    assert found.source["splits"].keys() == {"val", "hidden"}
    assert found.source["splits"]["hidden"] == ("s1/camB",)
    assert "; unlabeled: the 2 without masks; hidden: the 1 " in found.reasons["splits"]


def test_cameras_without_any_masks_are_all_found(tmp_path: Path) -> None:
    cameras(tmp_path, ("s1", "s2", "s3"), [f"s{k}/cam{camera}" for k in (1, 2, 3) for camera in "AB"])
    found = inspect_folder(tmp_path)
    assert found.source["images"] == "{clip}/{clip}/rgb" and len(found.sequences) == 6


def test_copies_in_another_size_are_no_other_sequences(tmp_path: Path) -> None:
    """DAVIS has its sequences as `480p` and as `1080p`: one must not be trained on if the other is scored on."""
    davis(tmp_path)
    for kind in ("JPEGImages", "Annotations"):
        shutil.copytree(tmp_path / kind / "480p", tmp_path / kind / "1080p")
        for path in (tmp_path / kind / "1080p").rglob("*.*"):
            with Image.open(path) as image:
                larger = image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)
            larger.save(path)
    found = inspect_folder(tmp_path)
    assert found.source["images"] in ("JPEGImages/480p/{clip}", "JPEGImages/1080p/{clip}")
    assert len(found.sequences) == 4


def test_sequences_of_one_name_in_folders_of_splits_keep_their_splits(tmp_path: Path) -> None:
    """LoveDA: both places occur in each split."""
    for k, place in enumerate(("Train/Rural", "Train/Urban", "Val/Rural", "Val/Urban")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / place / "images_png", np.roll(frames, 9 * k, 1) + np.uint8(9 * k), "{:d}.png")
        write_images(tmp_path / place / "masks_png", masks, "{:d}.png")
    source = inspect_folder(tmp_path).source
    assert (source["images"], source["masks"]) == ("{clip}/{clip}/images_png", "{clip}/{clip}/masks_png")
    assert source["splits"] == {"val": ("Val/Rural", "Val/Urban")}


@pytest.mark.parametrize("files", ["labels.json", "{}/labels.json"])
def test_labels_in_files_of_several_cameras_are_all_read(files: str, tmp_path: Path) -> None:
    """A file in the folder of a camera names the images of that camera."""
    places = [f"s{k}/cam{camera}" for k in (1, 2, 3) for camera in "AB"]
    cameras(tmp_path, ("s1", "s2", "s3"), places)
    contents: dict[str, dict[str, list[Any]]] = {}
    for place in places:
        content = contents.setdefault(files.format(place), {"images": [], "annotations": []})
        for path in sorted((tmp_path / place / "rgb").iterdir()):
            name = path.name if "{}" in files else path.relative_to(tmp_path).as_posix()
            image = {"id": len(content["images"]), "file_name": name, "height": HEIGHT, "width": WIDTH}
            polygon = {"category_id": 1, "segmentation": [[4, 4, 20, 4, 9, 30]]}
            content["images"].append(image)
            content["annotations"].append({"id": image["id"], "image_id": image["id"]} | polygon)
    for file, content in contents.items():
        content["categories"] = [{"id": 1, "name": "car"}]
        (tmp_path / file).write_text(json.dumps(content))
    found = inspect_folder(tmp_path)
    assert found.source["images"] == "{clip}/{clip}/rgb" and len(found.labelled) == 6
    assert len(scenes_of(found.source["splits"]["val"])) == 1


def test_no_clip_goes_over_the_end_of_a_video_of_cityscapes_vps(tmp_path: Path) -> None:
    """Its names count videos, frames of all, and every fifth frame of the video: six of these are too few."""
    for split in ("train", "val"):
        for video in range(3):
            frames, masks = frames_of(video, 6)
            for t in range(6):
                name = f"{video:04d}_{6 * video + t:04d}_frankfurt_{video % 2:06d}_{300 * video + 5 * t + 4:06d}"
                write_images(tmp_path / split / "img", frames[t : t + 1], f"{name}_newImg8bit.png")
                write_images(tmp_path / split / "panoptic_inst", masks[t : t + 1], f"{name}_final_mask.png")
    with pytest.raises(
        MaskcastError, match="the sequences have 6, 6 frames without a gap in their numbers: a clip"
    ):
        plan_params(tmp_path)


def test_frames_of_burst_lie_in_folders_of_splits_and_of_data_sets(tmp_path: Path) -> None:
    """All of them are found that its files name."""
    for k, (split, file) in enumerate((("train", "train"), ("val", "all_classes"))):
        sequences = []
        for n, data in enumerate(("ArgoVerse", "YFCC100M")):
            frames, masks = frames_of(2 * k + n, LENGTH)
            write_images(tmp_path / f"frames/{split}/{data}/v{2 * k + n}", frames, "frame{:04d}.jpg", 1)
            packed = [coco_mask.encode(np.asfortranarray((mask == 1).astype(np.uint8))) for mask in masks]
            sequences.append(
                {
                    "dataset": data,
                    "seq_name": f"v{2 * k + n}",
                    "width": WIDTH,
                    "height": HEIGHT,
                    "annotated_image_paths": [f"frame{t + 1:04d}.jpg" for t in range(LENGTH)],
                    "segmentations": [{"1": {"rle": one["counts"].decode()}} for one in packed],
                    "track_category_ids": {"1": 7},
                }
            )
        path = tmp_path / f"annotations/{split}/{file}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"sequences": sequences, "categories": [{"id": 7, "name": "car"}]}))
    start = plan_params(tmp_path)
    assert start.findings.source["images"] == "frames/*/*/{clip}"
    assert start.findings.labelled == {f"v{n}": LENGTH for n in range(4)} and not start.findings.warnings
    assert start.findings.source["splits"] == {"val": ("v2", "v3")}


NAMES = ["others", *(f"class of VSPW {k}" for k in range(1, 125))]
VSPW = {name: str(k) for k, name in sorted(enumerate(NAMES), key=lambda one: one[1])}


def test_vspw_has_its_names_and_what_it_gives_no_label(tmp_path: Path) -> None:
    """Values are few of 0 to 124, and 255; a list names all, so that a class that no mask looked at has is one."""
    ids = np.array([15, 49, 124], np.uint8)
    for k, (split, name) in enumerate((("train", "1_a"), ("train", "2_b"), ("val", "3_c"), ("test", "4_d"))):
        frames, masks = frames_of(k, LENGTH)
        masks = ids[masks]
        masks[:, :2], masks[:, 2:4] = 255, 0
        write_images(tmp_path / f"raw/data/{name}/origin", frames, "{:08d}.jpg", 301)
        if split != "test":
            write_images(tmp_path / f"raw/data/{name}/mask", masks, "{:08d}.png", 301)
        with (tmp_path / f"raw/{split}.txt").open("a") as file:
            file.write(f"{name}\n")
    (tmp_path / "raw/label_num_dic_final.json").write_text(json.dumps(VSPW))
    start, store = prepared(tmp_path / "raw", tmp_path / "clips")
    assert start.findings.source["classes"] == NAMES and start.findings.source["ignore"] == 255
    assert videos_by_split(store) == {"train": {"1_a", "2_b"}, "val": {"3_c"}, "hidden": {"4_d"}}
    for clip in (one for one in store.clips if one.split != "hidden"):
        truth = ids[frames_of(int(clip.meta["video"][0]) - 1, LENGTH)[1]][clip.meta["start"] :][: clip.num_frames]
        truth[:, :2], truth[:, 2:4] = 255, 0
        np.testing.assert_array_equal(store.masks(clip), truth)


@pytest.mark.parametrize("form", ["label_num_dic_final.json", "panoVIPSeg_categories.json"])
def test_vipseg_has_its_names(form: str, tmp_path: Path) -> None:
    """Ids of the second list, which lies beside its frames of 720 rows, are one less than those in the masks."""
    for k, name in enumerate(("12_a", "13_b")):
        frames, masks = frames_of(k, LENGTH)
        values = np.array([20, 6100, 6201], np.uint16)[masks]
        values[:, :2], values[:, -2:] = 0, 30
        write_images(tmp_path / f"raw/images/{name}", frames, "{:08d}.jpg")
        write_images(tmp_path / f"raw/panomasks/{name}", values, "{:08d}.png")
    categories = [{"id": k - 1, "name": name, "color": [k, 1, 2]} for k, name in enumerate(NAMES) if k]
    (tmp_path / "raw" / form).write_text(json.dumps(VSPW if form.startswith("label") else categories))
    start, store = prepared(tmp_path / "raw", tmp_path / "clips")
    source = start.findings.source
    assert source["classes"][1:] == NAMES[1:] and (source["label_divisor"], source["ignore"]) == (100, 0)
    for clip in store.clips:
        truth = np.array([20, 61, 62])[frames_of(int(clip.meta["video"][1]) - 2, LENGTH)[1]]
        truth[:, :2], truth[:, -2:] = 255, 30
        np.testing.assert_array_equal(store.masks(clip), truth[clip.meta["start"] :][: clip.num_frames])


def test_ids_of_other_things_are_no_names_of_classes(tmp_path: Path) -> None:
    for k, name in enumerate(("a", "b")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / f"frames/{name}", frames, "{:04d}.jpg")
        write_images(tmp_path / f"masks/{name}", masks, "{:04d}.png")
    for name, content in (
        ("label_counts", {"car": 2, "person": 7}),
        ("labels", {"car": 1, "person": "two"}),
        ("classes", [{"name": "car", "id": 1}]),
        ("label_of", 5),
        ("class", {"background": 0, "car": 1}),  # the masks have three
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "labels_damaged.json").write_text("{")
    assert plan_params(tmp_path).findings.source["classes"] == ["background", "class 1", "class 2"]
    (tmp_path / "label_ids.json").write_text(json.dumps({"person": 2, "car": 1}))
    assert plan_params(tmp_path).findings.source["classes"] == ["background", "car", "person"]


def test_names_of_colours_may_stand_in_json(tmp_path: Path) -> None:
    """EndoVis 2018 has `labels.json`."""
    colours = [[0, 0, 0], [0, 255, 0], [125, 255, 12]]
    for k in range(2):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / f"seq_{k}/left_frames", frames, "frame{:03d}.png")
        write_images(tmp_path / f"seq_{k}/labels", np.array(colours, np.uint8)[masks], "frame{:03d}.png")
    names = ("background-tissue", "instrument-shaft", "suction-instrument")
    listed = [{"name": name, "color": colour, "classid": 0} for name, colour in zip(names, colours, strict=True)]
    (tmp_path / "labels.json").write_text(json.dumps(listed))
    assert plan_params(tmp_path).findings.source["values"] == dict(
        zip(("#000000", "#00ff00", "#7dff0c"), names, strict=True)
    )


def bdd100k(root: Path) -> None:
    """Writes its segmentation tracking: red is the class, green marks, blue and alpha the number of the object."""
    for k, place in enumerate(("train/0000f77c-6257be58", "train/000f8d37-d4c09a0f", "val/b1c66a42-6f7d68ca")):
        frames, masks = frames_of(k, LENGTH)
        marks = 8 * (masks == 1)
        marks[:, 8:12] |= (masks[:, 8:12] > 0) * 1  # ignore
        marks[:, 12:16] |= (masks[:, 12:16] > 0) * 2  # crowd
        numbers = np.array([0, 5, 263])[masks]
        rgba = np.stack([np.array([0, 3, 1])[masks], marks, numbers >> 8, numbers & 255], -1).astype(np.uint8)
        rgba[0] = 0  # a frame without objects
        name = place.partition("/")[2] + "-{:07d}"
        write_images(root / f"images/seg_track_20/{place}", frames, f"{name}.jpg", 1)
        write_images(root / f"labels/seg_track_20/bitmasks/{place}", rgba, f"{name}.png", 1)
        write_images(
            root / f"labels/seg_track_20/colormaps/{place}", rgba[..., :3] * np.uint8(9), f"{name}.png", 1
        )
        path = root / f"labels/seg_track_20/rles/{place}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps([{"name": "x.jpg", "videoName": "x", "frameIndex": 0, "labels": [{"id": "1"}]}])
        )


def test_bitmasks_of_bdd100k_have_classes_and_objects(tmp_path: Path) -> None:
    """What is marked as a crowd, or to be ignored, has no label."""
    bdd100k(tmp_path / "raw")
    start, store = prepared(tmp_path / "raw", tmp_path / "clips", instances=True)
    source = start.findings.source
    assert (source["images"], source["masks"]) == (
        "images/seg_track_20/*/{clip}",
        "labels/seg_track_20/bitmasks/*/{clip}",
    )
    assert source["classes"][:4] == ["background", "pedestrian", "rider", "car"] and len(source["classes"]) == 9
    assert source["splits"] == {"val": ("b1c66a42-6f7d68ca",)}
    for clip in store.clips:
        squares = frames_of(sorted(start.findings.sequences).index(clip.meta["video"]), LENGTH)[1]
        squares[0] = 0
        squares = squares[clip.meta["start"] :][: clip.num_frames]
        truth = np.array([0, 3, 1])[squares]
        truth[:, 8:16][squares[:, 8:16] > 0] = 255
        np.testing.assert_array_equal(store.of("mask").masks(clip), truth)
        objects = store.of("objects").masks(clip)
        np.testing.assert_array_equal(objects > 0, (truth > 0) & (truth != 255))
        assert sorted(clip.objects["objects"].values()) == [1, 3]


def test_run_lengths_of_bdd100k_and_mots_are_said(tmp_path: Path) -> None:
    bdd100k(tmp_path / "bdd")
    for name in ("bitmasks", "colormaps"):
        shutil.rmtree(tmp_path / f"bdd/labels/seg_track_20/{name}")
    said = (
        "labels/seg_track_20/rles/train/0000f77c-6257be58.json and others like it are Scalabel's, as BDD100K's "
        "polygons and rles are, and are not read: take the masks of the same frames (bitmasks), put it beside"
    )
    assert any(warning.startswith(said) for warning in plan_params(tmp_path / "bdd").findings.warnings)
    for k, name in enumerate(("MOTS20-02", "MOTS20-05")):
        write_images(tmp_path / f"mots/train/{name}/img1", frames_of(k, LENGTH)[0], "{:06d}.jpg", 1)
        path = tmp_path / f"mots/train/{name}/gt/gt.txt"
        path.parent.mkdir()
        path.write_text("1 2001 2 1080 1920 WSV:2d;1O10000O10\n1 2002 2 1080 1920 abc\n")
    said = "train/MOTS20-02/gt/gt.txt is MOTS' text of run lengths, and is not read: take its images of the same"
    assert any(warning.startswith(said) for warning in plan_params(tmp_path / "mots").findings.warnings)


@pytest.mark.parametrize(
    ("names", "sequences"),
    [
        (("sh010.{}", "sh020.{}", "sh030.{}"), 3),  # as renderers and programs for compositing write frames
        (("1305031452.{}", "1305031453.{}", "1305031454.{}"), 1),  # times, as TUM's RGB-D sets have them
    ],
)
def test_a_dot_before_the_number_of_a_frame_ends_the_name_of_its_sequence(
    names: tuple[str, ...], sequences: int, tmp_path: Path
) -> None:
    for k, name in enumerate(names):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / "plates", frames, name.format("{:04d}") + ".png")
        write_images(tmp_path / "mattes", masks, name.format("{:04d}") + ".png")
    found = plan_params(tmp_path).findings
    assert found.source["images"] == ("plates/{clip}.{frame}.png" if sequences > 1 else "plates/{frame}.png")
    assert len(found.labelled) == sequences and sum(found.labelled.values()) == 3 * LENGTH


@pytest.mark.parametrize("indexed", [False, True])
def test_values_that_number_the_objects_of_each_sequence_are_no_classes(indexed: bool, tmp_path: Path) -> None:
    """DAVIS 2017 has a palette; YouTube-VOS and MOSE have greys, too, in copies that people make."""
    for k, count in enumerate((3, 1, 2, 3)):
        frames, masks = frames_of(k, LENGTH)
        masks[:, :6, :9] = 3
        masks[masks > count] = 0
        write_images(tmp_path / f"JPEGImages/{k}", frames, "{:05d}.jpg")
        write_images(tmp_path / f"Annotations/{k}", masks, "{:05d}.png", indexed=indexed)
    found = plan_params(tmp_path).findings
    notes = [warning for warning in found.warnings if "object" in warning]
    assert notes == [
        "masks: most sequences hold 1, 2, ... without gaps, up to 1 in some and 3 in others, as if objects were "
        "numbered (DAVIS 2017, YouTube-VOS): if they are, set classes: [background, object] and encoding: binary; "
        "instances: true keeps them apart"
    ]
    as_told = {"classes": ["background", "object"], "encoding": "binary", "instances": True}
    _, store = prepared(tmp_path, tmp_path / "clips", **as_told)
    assert {len(clip.objects["objects"]) for clip in store.clips} == {1, 2, 3}


@pytest.mark.parametrize("nested", [False, True])
def test_classes_of_all_sequences_or_within_others_are_not_taken_for_objects(nested: bool, tmp_path: Path) -> None:
    for k in range(4):
        frames, masks = frames_of(k, LENGTH)
        masks = masks.clip(0, 1 + k % 2) if nested else masks
        write_images(tmp_path / f"frames/{k}", frames, "{:05d}.jpg")
        write_images(tmp_path / f"masks/{k}", masks, "{:05d}.png")
    assert not [warning for warning in plan_params(tmp_path).findings.warnings if "object" in warning]
