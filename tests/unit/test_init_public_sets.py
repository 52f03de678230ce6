"""`maskcast init` in folders that lie as public data sets, and the scripts of tools, have them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.lookalikes import frames_of, write_images, write_mp4

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.inspection.inspect_folder import inspect_folder
from maskcast.errors import MaskcastError
from maskcast.proposal.plan import plan_params
from maskcast.runner.run import run_stage

pytestmark = pytest.mark.usefixtures("untimed_steps")

LENGTH = 24
COLOURS = np.array([(0, 0, 0), (220, 20, 60), (0, 0, 142)], np.uint8)


def cityscapes(root: Path) -> None:
    """Writes all files that Cityscapes has of a frame, in folders of splits."""
    for k, city in enumerate(("train/aachen", "train/bochum", "val/lindau", "test/bonn")):
        frames, masks = frames_of(k, LENGTH)
        name = city.partition("/")[2] + "_000000_{:06d}"
        write_images(root / f"leftImg8bit/{city}", frames, f"{name}_leftImg8bit.png")
        gt = root / f"gtFine/{city}"
        write_images(gt, COLOURS[masks], f"{name}_gtFine_color.png")
        write_images(gt, masks.astype(np.uint16) * 1000, f"{name}_gtFine_instanceIds.png")
        write_images(gt, masks, f"{name}_gtFine_labelIds.png")
        write_images(gt, np.where(masks == 0, 255, masks).astype(np.uint8), f"{name}_gtFine_labelTrainIds.png")


def cells(root: Path) -> None:
    """Writes the form of the Cell Tracking Challenge: grey frames, marks of tracks, masks of some or all."""
    for k, name in enumerate(("01", "02")):
        frames, masks = frames_of(k, LENGTH)
        deep = (frames.astype(np.uint16).mean(-1) * 257).astype(np.uint16)
        write_images(root / name, deep, "t{:03d}.tif")
        write_images(root / f"{name}_GT/TRA", masks.astype(np.uint16) * 300, "man_track{:03d}.tif")
        write_images(root / f"{name}_ST/SEG", masks.astype(np.uint16) * 300, "man_seg{:03d}.tif")
        write_images(root / f"{name}_GT/SEG", masks[:2].astype(np.uint16) * 300, "man_seg{:03d}.tif")
        (root / f"{name}_GT/TRA/man_track.txt").write_text("300 0 23 0\n600 0 23 0\n")


def labelme(root: Path) -> None:
    """Writes what labelme's script for Pascal VOC makes of its files."""
    for k, name in enumerate(("a", "b")):
        frames, masks = frames_of(k, LENGTH)
        write_images(root / "JPEGImages", frames, name + "_{:04d}.jpg")
        write_images(root / "SegmentationClassPNG", masks, name + "_{:04d}.png", indexed=True)
        write_images(root / "SegmentationObjectPNG", masks, name + "_{:04d}.png", indexed=True)
        write_images(root / "SegmentationClassVisualization", frames // 2, name + "_{:04d}.jpg")
    (root / "class_names.txt").write_text("_background_\ncar\nperson\n")


def mots(root: Path) -> None:
    """Writes KITTI MOTS: class * 1000 + object, 10000 where nobody says what is there."""
    for k, name in enumerate(("0000", "0001")):
        frames, masks = frames_of(k, LENGTH)
        values = (masks * np.uint16(1000) + (masks > 0)).astype(np.uint16)
        values[:, :2] = 10_000
        write_images(root / f"training/image_02/{name}", frames, "{:06d}.png")
        write_images(root / f"instances/{name}", values, "{:06d}.png")


def vistas(root: Path) -> None:
    """Writes Mapillary Vistas: images of labels, of objects and of segments for each image."""
    for k, split in enumerate(("training", "validation")):
        frames, masks = frames_of(k, LENGTH)
        write_images(root / f"{split}/images", frames, "{:04d}.jpg")
        write_images(root / f"{split}/v2.0/instances", masks * np.uint16(256), "{:04d}.png")
        write_images(root / f"{split}/v2.0/labels", masks, "{:04d}.png", indexed=True)
        write_images(root / f"{split}/v2.0/panoptic", COLOURS[masks], "{:04d}.png")


FOUND: dict[str, tuple[Callable[[Path], None], dict[str, object]]] = {
    "Cityscapes": (
        cityscapes,
        {
            "images": "leftImg8bit/*/{clip}/{frame}_leftImg8bit.png",
            "masks": "gtFine/*/{clip}/{frame}_gtFine_labelIds.png",
            "splits": {"val": ("lindau",), "test": ("bonn",)},
        },
    ),
    "Cell Tracking Challenge": (
        cells,
        {"images": "{clip}", "masks": "{clip}_ST/SEG", "offset": 0, "encoding": "binary"},
    ),
    "labelme": (
        labelme,
        {
            "images": "JPEGImages/{clip}_{frame}.jpg",
            "masks": "SegmentationClassPNG/{clip}_{frame}.png",
            "classes": ["_background_", "car", "person"],
        },
    ),
    "KITTI MOTS": (
        mots,
        {
            "masks": "instances/{clip}",
            "label_divisor": 1000,
            "classes": ["background", "car", "pedestrian"],
            "ignore": 10_000,
        },
    ),
    "Mapillary Vistas": (vistas, {"masks": "{clip}/v2.0/labels", "splits": {"val": ("validation",)}}),
}


@pytest.mark.parametrize("name", FOUND)
def test_masks_of_classes_are_found_among_all_that_a_set_has(name: str, tmp_path: Path) -> None:
    write, expected = FOUND[name]
    write(tmp_path / "raw")
    start = plan_params(tmp_path / "raw")
    source = start.findings.source
    assert {key: source.get(key) for key in expected} == expected
    assert start.clips["train"] >= 1 and start.clips["val"] >= 1
    params = {"source": source, "height": 40, "width": 64, "workers": 1}
    run_stage("prepare_clips", params, raw=tmp_path / "raw", clips=tmp_path / "clips")
    store, lengths = ClipStore(tmp_path / "clips"), set()
    for clip in store.clips:
        sequence, start_frame = clip.id.rsplit("_", 1)
        number = sorted(start.findings.sequences).index(sequence)
        seed = {"Cityscapes": [0, 1, 3, 2]}.get(name, [0, 1])[number]
        truth = frames_of(seed, LENGTH)[1][int(start_frame) :][: clip.num_frames]
        if source.get("encoding") == "binary":
            truth = (truth > 0).astype(np.uint8)
        masks = store.masks(clip)
        lengths.add(clip.num_frames)
        rows = slice(2, None) if name == "KITTI MOTS" else slice(None)
        np.testing.assert_array_equal(masks[:, rows], truth[:, rows])
        assert name != "KITTI MOTS" or (masks[:, :2] == 255).all()
    assert lengths == {22}


def test_segments_of_cityscapes_are_of_the_frames_that_its_script_names(tmp_path: Path) -> None:
    names = {1: "road", 2: "car"}
    categories = [{"id": k, "name": name} for k, name in names.items()]
    for k, (split, city) in enumerate((("train", "aachen"), ("val", "lindau"))):
        frames, masks = frames_of(k, LENGTH)
        base = city + "_000000_{:06d}"
        write_images(tmp_path / f"leftImg8bit/{split}/{city}", frames, f"{base}_leftImg8bit.png")
        segments = np.stack([masks, 0 * masks, 0 * masks], -1)
        file = tmp_path / f"gtFine/cityscapes_panoptic_{split}.json"
        write_images(file.with_suffix(""), segments, f"{base}_gtFine_panoptic.png")
        images = [
            {
                "id": base.format(t),
                "height": 40,
                "width": 64,
                "file_name": f"{base.format(t)}_gtFine_leftImg8bit.png",
            }
            for t in range(LENGTH)
        ]
        annotations = [
            {
                "image_id": base.format(t),
                "file_name": f"{base.format(t)}_gtFine_panoptic.png",
                "segments_info": [{"id": value, "category_id": value} for value in names],
            }
            for t in range(LENGTH)
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        file.write_text(json.dumps(content))
    start = plan_params(tmp_path)
    assert start.findings.source["classes"] == ["background", "car", "road"]
    assert start.findings.labelled == {"aachen": LENGTH, "lindau": LENGTH}
    assert start.findings.source["splits"] == {"val": ("lindau",)}


def test_instances_of_vistas_without_its_labels_are_refused(tmp_path: Path) -> None:
    vistas(tmp_path)
    for place in ("training", "validation"):
        for name in ("labels", "panoptic"):
            shutil.rmtree(tmp_path / place / "v2.0" / name)
        for path in (tmp_path / place / "v2.0/instances").iterdir():
            values = np.asarray(Image.open(path))
            Image.fromarray(
                np.where(values, values + 1, [256 * 13] * 32 + [256 * 21] * 32).astype(np.uint16)
            ).save(path)
    with pytest.raises(MaskcastError, match=r"values hold class \* 256 \+ object, as the instances of Mapillary"):
        inspect_folder(tmp_path)


def test_pictures_for_people_are_left_out(tmp_path: Path) -> None:
    labelme(tmp_path)
    assert (
        "48 images left out: SegmentationClassVisualization holds pictures of masks"
        in inspect_folder(tmp_path).warnings
    )


def test_images_that_no_pattern_finds_are_said(tmp_path: Path) -> None:
    mots(tmp_path)
    assert not any("left out" in warning for warning in inspect_folder(tmp_path).warnings)
    write_images(tmp_path / "other/deep", frames_of(5, 3)[0], "{:06d}.png")
    said = (
        "3 images are left out, e.g. other/deep/000000.png: no pattern finds them (training/image_02/{clip}, inst"
    )
    assert any(warning.startswith(said) for warning in inspect_folder(tmp_path).warnings)


@pytest.mark.parametrize(
    ("other", "labelled", "splits"),
    [("val/a", True, {"val": ("val/a",)}), ("test/a", False, {"val": ("train/a",), "hidden": ("test/a",)})],
)
def test_sequences_of_one_name_in_two_folders_stay_apart(
    other: str, labelled: bool, splits: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    for k, name in enumerate(("train/a", "train/b", other)):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / f"images/{name}", np.roll(frames, 9 * k, 2) + np.uint8(9 * k), "{:04d}.jpg")
        if name != other or labelled:
            write_images(tmp_path / f"labels/{name}", masks, "{:04d}.png")
    found = inspect_folder(tmp_path)
    assert (found.source["images"], found.source["masks"]) == ("images/{clip}/{clip}", "labels/{clip}/{clip}")
    assert found.source["splits"] == splits
    assert not any("left out" in warning for warning in found.warnings)


def test_colours_of_segments_are_no_classes(tmp_path: Path) -> None:
    for k, name in enumerate(("a", "b")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / f"images/{name}", frames, "{:04d}.jpg")
        write_images(tmp_path / f"panoptic/{name}", COLOURS[masks], "{:04d}.png")
    assert not any("panoptic form" in warning for warning in inspect_folder(tmp_path).warnings)
    content = {"images": [], "annotations": [{"segments_info": [{"id": 1, "category_id": 1}]}], "categories": []}
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    said = "panoptic.json is COCO's panoptic form: colours of such masks number segments, not classes. "
    assert any(warning.startswith(said) for warning in inspect_folder(tmp_path).warnings)


@pytest.mark.parametrize("place", ["{kind}/{name}", "{name}/{kind}"])
@pytest.mark.parametrize(("masks", "jpeg"), [(True, True), (True, False), (False, True)])
def test_what_is_made_of_frames_is_left_aside_and_said(
    place: str, masks: bool, jpeg: bool, tmp_path: Path
) -> None:
    """Depth of 16 bits, thumbnails, previews and flow in colours have the names of frames, and may come first."""
    for k, name in enumerate(("a", "b", "c")):
        frames, truth = frames_of(k, LENGTH)
        deep = (truth.astype(np.uint16) + 1) * 900  # looks like masks
        for kind, images in (
            ("rgb", frames),
            ("depth", deep),
            ("Thumbnails", frames[:, ::4, ::4]),
            ("optical_flow", COLOURS[truth]),
            ("preview", frames[::2] // 2),
            ("thumbs", frames[:, ::8, ::8]),
        ):
            ending = "jpg" if jpeg and kind != "depth" else "png"
            write_images(tmp_path / place.format(kind=kind, name=name), images, f"{{:04d}}.{ending}")
        if masks:
            write_images(tmp_path / place.format(kind="masks", name=name), truth, "{:04d}.png")
    found = inspect_folder(tmp_path)
    assert found.source["images"] == place.format(kind="rgb", name="{clip}")
    assert found.source.get("masks") == (place.format(kind="masks", name="{clip}") if masks else None)
    assert list(found.sequences.values()) == [LENGTH] * 3 and found.sizes == {(40, 64): 3}
    first = place.format(kind="depth", name="a")
    said = "made from frames or videos, as the name 'depth' says; rename it if it is not"
    assert f"72 images left out: {first} and 2 folders more, {said}" in found.warnings
    told = [warning for warning in found.warnings if "made from frames" in warning]
    assert len(told) == 5 and not any("no pattern finds them" in warning for warning in found.warnings)


def test_names_of_what_is_made_of_frames_may_be_those_of_frames(tmp_path: Path) -> None:
    """Where there are no others, of a sequence, and of folders that have other images."""
    for k, name in enumerate(("a", "b")):
        write_images(tmp_path / f"alone/preview/{name}", frames_of(k, LENGTH)[0], "{:04d}.jpg")
    assert inspect_folder(tmp_path / "alone").source["images"] == "preview/{clip}"
    for k, name in enumerate(("dog", "flow")):
        frames, truth = frames_of(k, LENGTH)
        write_images(tmp_path / f"sequence/JPEGImages/{name}", frames, "{:04d}.jpg")
        write_images(tmp_path / f"sequence/Annotations/{name}", truth, "{:04d}.png")
    assert list(inspect_folder(tmp_path / "sequence").labelled) == ["dog", "flow"]
    for k, name in enumerate(("dog", "depth")):
        write_images(tmp_path / f"others/{name}", frames_of(k, LENGTH)[0], f"{name}_{{:04d}}.jpg")
    assert list(inspect_folder(tmp_path / "others").sequences) == ["depth", "dog"]


def test_thumbnails_of_videos_are_no_frames(tmp_path: Path) -> None:
    for k, name in enumerate(("a", "b")):
        frames, truth = frames_of(k, LENGTH)
        write_mp4(tmp_path / f"{name}.mp4", frames)
        write_images(tmp_path / f"thumbs/{name}", frames[:, ::4, ::4], "{:04d}.jpg")
        write_images(tmp_path / f"masks/{name}", truth, "{:05d}.png")
    found = inspect_folder(tmp_path)
    assert (found.source["images"], found.source["masks"]) == ("{clip}.mp4", "masks/{clip}")
    assert any(warning.startswith("48 images left out: thumbs/a and 1 folder more") for warning in found.warnings)


def test_sets_whose_val_has_masks_of_first_frames_alone_are_scored_on_others(tmp_path: Path) -> None:
    """YouTube-VOS, MOSE and LVOS ask for what follows the first frame."""
    for k, name in enumerate(("train/a", "train/b", "train/c", "valid/d", "valid/e")):
        split, _, video = name.partition("/")
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / f"{split}/JPEGImages/{video}", frames, "{:05d}.jpg")
        write_images(
            tmp_path / f"{split}/Annotations/{video}", masks[: 1 if split == "valid" else LENGTH], "{:05d}.png"
        )
    start = plan_params(tmp_path)
    assert start.findings.source["splits"] == {"val": ("c",), "unlabeled": ("d", "e")}
    said = "the 2 sequences of val count as unlabelled: 4% of their frames have masks, 100% of others, so no "
    assert any(warning.startswith(said) for warning in start.findings.warnings)
    assert start.clips["unlabeled"] == 2 and start.clips["val"] == 1


def test_splits_stand_in_names_of_folders_with_other_words(tmp_path: Path) -> None:
    """UAVid has `uavid_train`, a folder for each sequence in it, and a `test` without masks."""
    for k, name in enumerate(("train/seq1", "train/seq2", "val/seq16", "test/seq21")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / f"uavid_{name}/Images", frames, "{:06d}.png")
        if "test" not in name:
            write_images(tmp_path / f"uavid_{name}/Labels", COLOURS[masks], "{:06d}.png")
    assert inspect_folder(tmp_path).source["splits"] == {"val": ("seq16",), "hidden": ("seq21",)}


def test_a_sequence_whose_name_holds_the_word_test_is_none_for_tests(tmp_path: Path) -> None:
    for k, name in enumerate(("street", "my-test", "train", "beach")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / f"frames/{name}", frames, "{:04d}.jpg")
        write_images(tmp_path / f"masks/{name}", masks, "{:04d}.png")
    assert inspect_folder(tmp_path).source["splits"].keys() == {"val"}


def kitti(root: Path) -> None:
    """Writes KITTI's semantics: ids, ids with objects, and colours of each image."""
    frames, masks = frames_of(0, 2 * LENGTH)
    write_images(root / "training/image_2", frames, "{:06d}_10.png")
    write_images(root / "training/instance", masks * np.uint16(256) + np.uint16(1), "{:06d}_10.png")
    write_images(root / "training/semantic", masks, "{:06d}_10.png")
    write_images(root / "training/semantic_rgb", COLOURS[masks], "{:06d}_10.png")


def bdd(root: Path) -> None:
    """Writes BDD100K's semantics: ids and colours of each image, in folders of splits."""
    for k, split in enumerate(("train", "val")):
        frames, masks = frames_of(k, LENGTH)
        write_images(root / f"images/10k/{split}", frames, "{:08d}.jpg")
        write_images(root / f"labels/sem_seg/masks/{split}", masks, "{:08d}.png")
        write_images(root / f"labels/sem_seg/colormaps/{split}", COLOURS[masks], "{:08d}.png")


def isic(root: Path) -> None:
    """Writes ISIC: superpixels in colours beside the frames, masks elsewhere."""
    frames, masks = frames_of(0, 2 * LENGTH)
    write_images(root / "ISIC-2017_Training_Data", frames, "ISIC_{:07d}.jpg")
    write_images(root / "ISIC-2017_Training_Data", COLOURS[masks[::-1]], "ISIC_{:07d}_superpixels.png")
    gt = root / "ISIC-2017_Training_Part1_GroundTruth"
    write_images(gt, (masks > 0) * np.uint8(255), "ISIC_{:07d}_segmentation.png")


def blended(root: Path) -> None:
    """Writes frames with their masks over them beside the frames, in folders that come first."""
    for k, name in enumerate(("a", "b")):
        frames, masks = frames_of(k, LENGTH)
        write_images(root / name / "masks", masks, "{:04d}.png")
        for folder, images in (("images", frames), ("blend", frames // 2), ("annotated", frames // 3)):
            write_images(root / name / folder, images, "{:04d}.png")


@pytest.mark.parametrize(
    ("write", "images", "masks"),
    [
        (kitti, "training/image_2", "training/semantic"),
        (bdd, "images/10k", "labels/sem_seg/masks"),
        (isic, "ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
        (blended, "{clip}/images", "{clip}/masks"),
    ],
)
def test_frames_and_masks_are_told_from_what_shows_them(
    write: Callable[[Path], None], images: str, masks: str, tmp_path: Path
) -> None:
    write(tmp_path)
    source = inspect_folder(tmp_path).source
    assert source["images"].startswith(images) and source["masks"].startswith(masks)


MASKS_EACH = {  # where a set has masks of one class or object each
    "a folder of each, in that of the sequence": "masks/{name}/{each}/{{:04d}}.png",
    "the sequence in that of each": "masks/{each}/{name}/{{:04d}}.png",
    "names": "masks/{name}_{{:04d}}_{each}.png",
}


@pytest.mark.parametrize("form", MASKS_EACH)
def test_masks_of_one_class_each_are_not_taken_one_for_all(form: str, tmp_path: Path) -> None:
    for k, name in enumerate(("a", "b")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / "frames", frames, name + "_{:04d}.png") if form == "names" else write_images(
            tmp_path / "frames" / name, frames, "{:04d}.png"
        )
        for value, each in ((1, "car"), (2, "person")):
            path = Path(MASKS_EACH[form].format(name=name, each=each))
            write_images(tmp_path / path.parent, (masks == value) * np.uint8(255), path.name)
    said = r"car.* and .*person.* mark different pixels of the same frames, e.g. one class or object each"
    with pytest.raises(MaskcastError, match=said):
        inspect_folder(tmp_path)


def test_masks_of_numbered_objects_may_overlap_and_are_not_taken_one_for_all(tmp_path: Path) -> None:
    """SA-V's val has a folder for each object, and masks of every fourth frame in it."""
    for k, name in enumerate(("sav_000001", "sav_000002")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / "JPEGImages_24fps" / name, frames, "{:05d}.jpg")
        for number in range(2):
            for t in range(0, LENGTH, 4):  # the second covers the first
                mask = (masks[t : t + 1] > (1 - number)) * np.uint8(255)
                write_images(tmp_path / f"Annotations_6fps/{name}/{number:03d}", mask, "{:05d}.png", t)
    with pytest.raises(MaskcastError, match=r"/000 .* and .*/001 .* mark different pixels of the same frames"):
        inspect_folder(tmp_path)


def test_why_masks_cannot_be_read_is_said(tmp_path: Path) -> None:
    """There are no rules for classes in red and numbers in alpha, but those of BDD100K."""
    for k, name in enumerate(("a", "b")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / "images" / name, frames, f"{name}-{{:07d}}.jpg")
        rgba = np.stack([masks * 70, masks * 0, masks * 0, masks * 7], -1)
        write_images(tmp_path / "bitmasks" / name, rgba, f"{name}-{{:07d}}.png")
    with pytest.raises(
        MaskcastError,
        match=r"no mask can be read: .*png: has labels both in its colours and in its alpha channel; export",
    ):
        inspect_folder(tmp_path)


def test_colours_without_black_have_the_most_frequent_for_background(tmp_path: Path) -> None:
    """CholecSeg8k has no black; the lowest colour is that of an instrument."""
    for k, name in enumerate(("a", "b")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / "images" / name, frames, "{:04d}.png")
        write_images(
            tmp_path / "masks" / name,
            np.array([(200, 10, 10), (10, 200, 10), (10, 10, 200)], np.uint8)[masks],
            "{:04d}.png",
        )
    found = inspect_folder(tmp_path)
    assert found.source["classes"][0] == found.source["values"]["#c80a0a"] == "background"
    assert any("and #c80a0a, the value of most pixels, as the background" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    "places", [("masks/{}", "colored_masks/{}"), ("{}/gt", "{}/gt_color"), ("semantic", "semanticRGB")]
)
def test_masks_are_told_from_the_same_in_colours(places: tuple[str, str], tmp_path: Path) -> None:
    """A sequence may be called after colours: its masks are no others'."""
    for k, name in enumerate(("street", "street_color")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / "frames" / name, frames, "{:04d}.jpg")
        for place, pixels in zip(places, (masks, COLOURS[masks]), strict=True):
            write_images(tmp_path / place.format(name) / ("" if "{}" in place else name), pixels, "{:04d}.png")
    found = inspect_folder(tmp_path)
    assert found.source["encoding"] == "index" and {*found.labelled} == {"street", "street_color"}
