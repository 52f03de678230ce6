"""`maskcast init`, then prepare_clips, in folders that lie as sets of labelled videos have them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask
from tests.lookalikes import HEIGHT, WIDTH, frames_of, write_images

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import MaskcastError
from maskcast.proposal import duration
from maskcast.proposal.write import Start, plan
from maskcast.runner.run import run_stage

LENGTH = 24


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are not timed: what they take is no matter of these tests."""
    monkeypatch.setattr(duration, "_measured", lambda *_: (0.1, 0.01))


def prepared(raw: Path, clips: Path, **more: Any) -> tuple[Start, ClipStore]:
    """Returns what `init` finds in a folder, and the clips that come of it."""
    start = plan(raw)
    source = start.found.source | more
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
    source = start.found.source
    assert source["images"] == "leftImg8bit_sequence/*/{clip}/{frame}_leftImg8bit.png"
    assert source["masks"] == "gtFine/*/{clip}/{frame}_gtFine_labelIds.png"
    assert source["splits"] == {"val": ("lindau",)} and len(source["classes"]) == 34
    said = (
        "6 images left out: leftImg8bit/train/aachen and 2 folders more, because all frames of their videos are "
        "there, e.g. leftImg8bit_sequence/train/aachen"
    )
    assert start.found.warnings[0] == said
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
    assert not any("all frames of their videos" in warning for warning in plan(tmp_path).found.warnings)


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
    assert start.found.source["masks"] == "panoptic_maps/*/{clip}"
    assert start.found.source["splits"] == {"val": ("0002",)}
    assert videos_by_split(store) == {"train": {"0000", "0001"}, "val": {"0002"}}
    for clip in store.clips:
        truth = frames_of(int(clip.meta["video"]), LENGTH)[1][clip.meta["start"] :][: clip.num_frames]
        np.testing.assert_array_equal(store.masks(clip), truth)


def test_frames_in_folders_of_splits_may_have_their_masks_in_one(tmp_path: Path) -> None:
    for k, place in enumerate(("train/a", "train/b", "val/c")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / "frames" / place, frames, "{:04d}.jpg")
        write_images(tmp_path / "masks" / place[-1], masks, "{:04d}.png")
    source = plan(tmp_path).found.source
    assert (source["images"], source["splits"]) == ("frames/*/{clip}", {"val": ("c",)})


def test_splits_are_told_by_names_that_run_words_together(tmp_path: Path) -> None:
    """Nothing may be learnt from what MoCA-Mask and SUN-SEG have for tests."""
    for k, place in enumerate(("TrainDataset_per_sq/a", "TrainDataset_per_sq/b", "TestDataset_per_sq/c")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / place / "Imgs", frames, "{:05d}.jpg")
        write_images(tmp_path / place / "GT", (masks > 0) * np.uint8(255), "{:05d}.png")
    assert plan(tmp_path).found.source["splits"] == {"val": ("a",), "test": ("c",)}


def test_a_test_with_masks_of_first_frames_is_hidden(tmp_path: Path) -> None:
    for k, name in enumerate(("train/a", "train/b", "train/c", "test/d")):
        split, _, video = name.partition("/")
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / f"{split}/JPEGImages/{video}", frames, "{:05d}.jpg")
        write_images(
            tmp_path / f"{split}/Annotations/{video}", masks[: 1 if split == "test" else LENGTH], "{:05d}.png"
        )
    start = plan(tmp_path)
    assert start.found.source["splits"] == {"val": ("c",), "hidden": ("d",)}
    said = "the 1 sequence of test count as hidden: 4% of their frames have masks, 100% of others, so no forecast"
    assert any(warning.startswith(said) for warning in start.found.warnings)


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
        plan(tmp_path)


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
    start = plan(tmp_path)
    assert start.found.source["images"] == "frames/*/*/{clip}"
    assert start.found.labelled == {f"v{n}": LENGTH for n in range(4)} and not start.found.warnings
    assert start.found.source["splits"] == {"val": ("v2", "v3")}
