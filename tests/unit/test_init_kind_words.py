"""maskcast init: frames and masks told apart by a word in their names."""

from pathlib import Path

import numpy as np
import pytest
from tests.lookalikes import frames_of, write_images, write_mp4

from maskcast.data.inspection.inspect_folder import inspect_folder
from maskcast.data.sources.frame_folders import FrameFoldersSource
from maskcast.errors import MaskcastError

# Names of frames and of masks, `{s}` for the sequence, with the patterns that init writes
NAMES = {
    "one sequence": ("frame_{:04d}.png", "mask_{:04d}.png", "frame_{frame}.png", "mask_{frame}.png"),
    "no separator": ("img{:04d}.jpg", "label{:04d}.png", "img{frame}.jpg", "label{frame}.png"),
    "unusual word": ("rgb_{:04d}.png", "roi_{:04d}.png", "rgb_{frame}.png", "roi_{frame}.png"),
    "word of masks only": ("{:04d}.png", "mask_{:04d}.png", "{frame}.png", "mask_{frame}.png"),
    "word before the number": (
        "s{s}_frame_{:04d}.png",
        "s{s}_mask_{:04d}.png",
        "{clip}_frame_{frame}.png",
        "{clip}_mask_{frame}.png",
    ),
    "word at the start": (
        "img_s{s}_{:04d}.png",
        "mask_s{s}_{:04d}.png",
        "img_{clip}_{frame}.png",
        "mask_{clip}_{frame}.png",
    ),
    "mask at the start": (
        "s{s}_{:04d}.png",
        "mask_s{s}_{:04d}.png",
        "{clip}_{frame}.png",
        "mask_{clip}_{frame}.png",
    ),
    "folder each": (
        "s{s}/img_{:d}.jpg",
        "s{s}/mask_{:d}.png",
        "{clip}/img_{frame}.jpg",
        "{clip}/mask_{frame}.png",
    ),
    "two folders": (
        "images/s{s}_frame_{:04d}.png",
        "masks/s{s}_mask_{:04d}.png",
        "images/{clip}_frame_{frame}.png",
        "masks/{clip}_mask_{frame}.png",
    ),
    "photographs": ("img_{s}.jpg", "mask_{s}.png", "img_{clip}.jpg", "mask_{clip}.png"),
}
ANIMALS = ("cat", "cow", "dog", "fox", "hen")


def write(root: Path, name: str, images: np.ndarray, **fields: object) -> None:
    for number, image in enumerate(images, 1):
        path = root / name.format(number, **fields)
        write_images(path.parent, image[None], path.name)


@pytest.mark.parametrize("form", NAMES)
def test_a_word_in_names_tells_frames_from_masks(form: str, tmp_path: Path) -> None:
    frame_name, mask_name, images, masks = NAMES[form]
    several = "{s}" in frame_name
    photographs = "{:" not in frame_name
    for k, s in enumerate(ANIMALS if photographs else "123" if several else "1"):
        frames, labels = frames_of(k, 1 if photographs else 24 if several else 60)
        write(tmp_path, frame_name, frames, s=s)
        write(tmp_path, mask_name, labels, s=s)
    found = inspect_folder(tmp_path)
    assert (found.source["images"], found.source["masks"]) == (images, masks)
    assert found.labelled == found.sequences and sum(found.labelled.values()) == (
        5 if photographs else 72 if several else 60
    )
    assert not any("left out" in one or "no frames" in one for one in found.warnings)
    source = FrameFoldersSource.model_validate(found.source | {"frames": found.frames})
    listing = source.listing(tmp_path, height=None, width=None, seed=0)
    assert not listing.skipped and all(clip.split in ("train", "val") for clip in listing.clips)
    for clip in listing.clips:
        assert "mask" not in clip.id


@pytest.mark.parametrize(("between", "first"), [("_", 0), ("_frame", 1), (" ", 0)])
def test_masks_of_videos_in_one_folder_are_found_by_the_videos_in_their_names(
    between: str, first: int, tmp_path: Path
) -> None:
    for name in ("walk", "run", "jump"):
        frames, masks = frames_of(len(name), 48)
        write_mp4(tmp_path / f"videos/{name}.mp4", frames)
        for t in range(first, 48, 8):
            write_images(tmp_path / "masks", masks[t : t + 1], f"{name}{between}{{:04d}}.png", t)
    found = inspect_folder(tmp_path)
    assert found.source["images"] == "videos/{clip}.mp4"
    assert found.source["masks"] == f"masks/{{clip}}{between}{{frame}}.png"
    assert found.labelled == dict.fromkeys(("walk", "run", "jump"), 6)


def test_videos_beside_the_folders_of_their_masks_lack_no_frames(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        frames, masks = frames_of(len(name), 24)
        write_mp4(tmp_path / f"{name}.mp4", frames)
        write(tmp_path / name, "{:05d}.png", masks)
    found = inspect_folder(tmp_path)
    source = FrameFoldersSource.model_validate(found.source | {"frames": found.frames})
    notes = source.listing(tmp_path, height=None, width=None, seed=0).notes
    assert len(found.labelled) == 2 and not any("no frames" in note for note in notes)


@pytest.mark.parametrize("case", ["case_{:03d}", "{word}"])
def test_the_number_of_nnu_nets_channel_belongs_to_no_name(case: str, tmp_path: Path) -> None:
    for k in range(12):
        name = case.format(k, word=f"{'abc'[k % 3]}{'wxyz'[k // 3]}")
        frames, masks = frames_of(k, 1)
        write(tmp_path, f"imagesTr/{name}_0000.png", frames)
        write(tmp_path, f"labelsTr/{name}.png", masks)
    found = inspect_folder(tmp_path)
    assert (found.source["images"], found.source["masks"]) == ("imagesTr/{clip}_0000.png", "labelsTr/{clip}.png")
    assert sum(found.labelled.values()) == sum(found.sequences.values()) == 12


@pytest.mark.parametrize("words", [("left_", "right_"), ("walk_", "jump_"), ("before_", "after_"), ("a", "b")])
def test_words_that_tell_sequences_apart_are_none_of_masks(words: tuple[str, ...], tmp_path: Path) -> None:
    for k, word in enumerate(words):
        write(tmp_path, f"{word}{{:04d}}.png", frames_of(k, 24)[0])
    found = inspect_folder(tmp_path)
    assert "masks" not in found.source and not found.labelled
    assert sum(found.sequences.values()) == 48


def test_a_dark_beginning_does_not_make_a_sequence_masks_of_another(tmp_path: Path) -> None:
    for k, word in enumerate(("walk", "jump")):
        frames = frames_of(k, 24)[0]
        frames[: 8 * k] = 0
        write(tmp_path, f"{word}_{{:04d}}.png", frames)
    assert sorted(inspect_folder(tmp_path).sequences) == ["jump", "walk"]


NO_PAIRS = (
    ("s{s}_frame_cam1_{:04d}.png", "s{s}_mask_cam1_{:04d}.png"),
    ("frames/{:04d}.png", "masks/a{s}_mask_b_{:04d}.png"),
)


@pytest.mark.parametrize(("frame_name", "mask_name"), NO_PAIRS)
def test_masks_that_belong_to_no_frame_are_refused(frame_name: str, mask_name: str, tmp_path: Path) -> None:
    for k, s in enumerate("123"):
        frames, labels = frames_of(k, 24)
        write(tmp_path, frame_name, frames, s=s)
        write(tmp_path, mask_name, labels, s=s)
    with pytest.raises(MaskcastError, match=r"give (masks the names of their frames|each sequence a folder)"):
        inspect_folder(tmp_path)


def test_a_film_of_masked_people_is_no_mask(tmp_path: Path) -> None:
    for k, word in enumerate(("masked_man", "old_man")):
        write(tmp_path, f"{word}_{{:04d}}.png", frames_of(k, 24)[0])
    assert sorted(inspect_folder(tmp_path).sequences) == ["masked_man", "old_man"]
