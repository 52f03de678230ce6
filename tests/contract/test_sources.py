"""What every raw layout must do, of clips and of boxes: a new one of a union needs a folder in CASES."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from tests.unit import test_detection_sources as boxes
from tests.unit import test_source_annotations as annotations
from tests.unit import test_source_clevrer as clevrer
from tests.unit import test_source_competition as competition
from tests.unit import test_source_frame_folders as frame_folders
from tests.unit import test_source_image_maps as image_maps
from tests.unit import test_source_lmdb as hands
from tests.unit import test_source_videos as videos

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.detection.sources import table as detection_table
from maskcast.data.sources import table
from maskcast.labels import KINDS, SPLITS
from maskcast.runner.run import run_stage

HEIGHT, WIDTH = 16, 16
Write = Callable[[Path], dict[str, Any]]


def write_competition(raw: Path) -> dict[str, Any]:
    for split in ("train", "val"):
        competition.write_video(raw / split / f"video_{len(split)}", masks=competition.some_masks())
    return {}


def write_clevrer(raw: Path) -> dict[str, Any]:
    clevrer.write_video(raw / "video_train/video_00003.mp4")
    clevrer.write_annotation(raw / "annotation_train/annotation_00003.json", clevrer.annotation())
    return {"frames": 4, "context": 2, "stride": 3}


def write_frame_folders(raw: Path) -> dict[str, Any]:
    for name in ("cat", "dog"):
        frame_folders.write_sequence(raw, name)
    return {"frames": 4, "splits": {}}


def write_annotations(raw: Path) -> dict[str, Any]:
    annotations.write_coco(raw)
    return annotations.COCO | {"frames": 3, "splits": {}}


def write_videos(raw: Path) -> dict[str, Any]:
    videos.write_video(raw / "a.mp4")
    return {"frames": 4}


def write_nothing(raw: Path) -> dict[str, Any]:
    return {"train": 1, "val": 1, "unlabeled": 1, "hidden": 1}


def write_green_screen(raw: Path) -> dict[str, Any]:
    return {"figures": {"videos": 2, "backgrounds": 2}, "seconds": 0.2, "splits": {"val": 0.5}}


def write_lmdb(raw: Path) -> dict[str, Any]:
    raw.rmdir()
    hands.write(raw)
    return {"lists": hands.LISTS}


def write_image_maps(raw: Path) -> dict[str, Any]:
    image_maps.write_maps(raw)
    return image_maps.MAPS


def write_photos(raw: Path) -> dict[str, Any]:
    image_maps.write_photos(raw)
    return image_maps.PASTE


CASES: dict[str, Write] = {
    "competition": write_competition,
    "clevrer": write_clevrer,
    "frame_folders": write_frame_folders,
    "annotations": write_annotations,
    "videos": write_videos,
    "synthetic": write_nothing,
    "synthetic_hands": write_nothing,
    "lmdb": write_lmdb,
    "image_maps": write_image_maps,
    "pasted_hands": write_photos,
    "green_screen": write_green_screen,
}
DETECTION_CASES: dict[str, Callable[[Path], Any]] = {
    "coco": boxes.coco,
    "voc": boxes.voc,
    "label_files": boxes.label_files,
}


def layouts(union: Any) -> set[str]:
    """Returns the layouts that a union of sources chooses among."""
    return {layout_of(member) for member in get_args(get_args(union)[0])}


def layout_of(config: Any) -> str:
    return str(get_args(config.model_fields["layout"].annotation)[0])


def test_every_layout_has_a_case() -> None:
    assert layouts(table.Source) == CASES.keys()
    assert layouts(detection_table.Source) == DETECTION_CASES.keys()


@pytest.mark.parametrize("config", get_args(get_args(table.Source)[0]), ids=layout_of)
def test_the_remedy_for_a_missing_split_names_keys_of_the_layout(config: Any) -> None:
    assert set(re.findall(r"source\.(\w+)", config.splits_come_from)) <= config.model_fields.keys()


@pytest.fixture(params=CASES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The params of a source of the clips in the folder `raw`."""
    (tmp_path / "raw").mkdir()
    return {"layout": request.param} | CASES[request.param](tmp_path / "raw")


def test_clips_are_listed_without_their_pixels_and_loaded_anywhere(source: dict[str, Any], tmp_path: Path) -> None:
    (config,) = (each for each in get_args(get_args(table.Source)[0]) if layout_of(each) == source["layout"])
    listing = config(**source).listing(tmp_path / "raw", height=HEIGHT, width=WIDTH, seed=0)
    assert listing.clips and len({clip.id for clip in listing.clips}) == len(listing.clips)
    assert {clip.split for clip in listing.clips} <= set(SPLITS)
    assert {clip.kind for clip in listing.clips} <= set(KINDS)
    names = {label_map.name for label_map in listing.maps}
    for clip in listing.clips:
        arrays = pickle.loads(pickle.dumps(clip)).load()  # as a worker does
        assert arrays.frames is None or (arrays.frames.dtype == np.uint8 and arrays.frames.shape[3] == 3)
        assert arrays.masks.keys() <= names
        assert bool(arrays.masks) or clip.kind != "labelled"
        lengths = {len(layer) for layer in (arrays.frames, *arrays.masks.values()) if layer is not None}
        assert len(lengths) == 1


def test_the_store_of_a_source_is_a_function_of_folder_and_params(source: dict[str, Any], tmp_path: Path) -> None:
    values = {"source": source, "height": HEIGHT, "width": WIDTH, "workers": 1, "required_splits": []}
    stores = []
    for name in ("first", "second"):
        run_stage("prepare_clips", values, raw=tmp_path / "raw", clips=tmp_path / name)
        stores.append(ClipStore(tmp_path / name))
    first, second = stores
    first.verify()
    assert first.digest == second.digest
    for clip in first.clips:
        if clip.has_frames:
            assert first.frames(clip).shape[1:] == (HEIGHT, WIDTH, 3)
        for name in first.maps:
            if (of_map := first.of(name)).has_masks(clip):
                assert of_map.masks(clip).shape[1:] == (HEIGHT, WIDTH)


@pytest.mark.parametrize("layout", DETECTION_CASES)
def test_boxes_are_listed_with_the_classes_that_name_them(layout: str, tmp_path: Path) -> None:
    config = DETECTION_CASES[layout](tmp_path)
    assert config.layout == layout
    listing = config.listing(tmp_path)
    found = boxes.boxes_of(listing)
    assert found
    assert {label for image in found.values() for label, _ in image} <= set(listing.classes)
