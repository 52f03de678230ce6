"""Frames and masks are paired by a rule that is said, and what does not pair is listed with it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import layers_of
from tests.unit.test_source_competition import some_masks, write_video
from tests.videos import encode_frames

from maskcast.data.frame_names import consecutive_runs
from maskcast.data.sources.base import Listing
from maskcast.data.sources.competition import CompetitionSource
from maskcast.data.sources.frame_folders import FrameFoldersSource
from maskcast.data.sources.pairing import numbers_of
from maskcast.errors import MaskcastError
from maskcast.serving.videos import Video

SIZE = (6, 8)


def frame(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), 20 * value, np.uint8)).save(path)


def mask(path: Path, value: int = 0) -> None:
    """Writes a mask whose class 1 fills row `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.zeros(SIZE, np.uint8)
    labels[value] = 1
    Image.fromarray(labels).save(path)


def film(path: Path, frames: int = 4) -> None:
    encode_frames(path, [np.full((*SIZE, 3), 60 * k, np.uint8) for k in range(frames)])


def listed(raw: Path, **params: Any) -> Listing:
    values = {"frames": 1, "window_step": 1, "splits": {}} | params
    return FrameFoldersSource(**values).listing(raw, height=None, width=None, seed=0)


def rows(listing: Listing) -> list[tuple[int, int | None]]:
    """Returns of each clip of one frame the number of the frame and the row that its mask marks."""
    found = []
    for clip in listing.clips:
        frames, masks = layers_of(clip.load())
        marked = (masks[0] == 1).any(axis=1).nonzero()[0]
        found.append((round(int(frames[0, 0, 0, 0]) / 20), int(marked[0]) if len(marked) else None))
    return found


ALIKE = [(0, 0), (1, 1), (2, 2)]
NAMES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "CamVid": (
        "images/a/0016E5_{n:05d}.png",
        "labels/a/0016E5_{n:05d}_L.png",
        {"images": "images/{clip}", "masks": "labels/{clip}", "mask_suffix": "_L"},
    ),
    "CamVid, all sequences in one folder": (
        "raw/a_{n:06d}.png",
        "labelled/a_{n:06d}_L.png",
        {"images": "raw/{clip}_{frame}.png", "masks": "labelled/{clip}_{frame}_L.png"},
    ),
    "Cityscapes": (
        "leftImg8bit/train/a/a_000000_{n:06d}_leftImg8bit.png",
        "gtFine/train/a/a_000000_{n:06d}_gtFine_labelIds.png",
        {
            "images": "leftImg8bit/train/{clip}/{frame}_leftImg8bit.png",
            "masks": "gtFine/train/{clip}/{frame}_gtFine_labelIds.png",
        },
    ),
    "masks beside frames": (
        "a/{n:03d}.png",
        "a/{n:03d}_mask.png",
        {"images": "{clip}", "masks": "{clip}", "mask_suffix": "_mask"},
    ),
    "masks beside frames, by pattern": (
        "a/{n:03d}.png",
        "a/{n:03d}_mask.png",
        {"images": "{clip}/{frame}.png", "masks": "{clip}/{frame}_mask.png"},
    ),
    "masks beside frames, by ending": (
        "a/{n:03d}.bmp",
        "a/{n:03d}.png",
        {"images": "{clip}/{frame}.bmp", "masks": "{clip}/{frame}.png"},
    ),
    "frames in a folder, masks by pattern": (
        "a/{n:03d}.bmp",
        "a/{n:03d}.png",
        {"images": "{clip}", "masks": "{clip}/{frame}.png"},
    ),
    "endings and case": (
        "a/img/F_{n:03d}.PNG",
        "a/lab/f_{n}.png",
        {"images": "{clip}/img", "masks": "{clip}/lab"},
    ),
    "fixed folders in another case": (
        "IMG/Left/a/{n}.png",
        "Gt/a/{n}.png",
        {"images": "img/left/{clip}", "masks": "gt/{clip}"},
    ),
    "an accent in two forms": (
        "img/a/e\u0301_{n}.png",
        "gt/a/\u00e9_{n}.png",
        {"images": "img/{clip}", "masks": "gt/{clip}"},
    ),
    "another text": (
        "a/frame_{n:03d}.png",
        "m/a/label{n}.png",
        {"images": "{clip}/frame_{frame}.png", "masks": "m/{clip}/label{frame}.png"},
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_masks_find_their_frames_by_name(name: str, tmp_path: Path) -> None:
    images, masks, params = NAMES[name]
    for n in range(3):
        frame(tmp_path / images.format(n=n), n)
        mask(tmp_path / masks.format(n=n), n)
    listing = listed(tmp_path, **params)
    assert rows(listing) == ALIKE
    assert listing.skipped == []


def test_other_files_of_the_folder_are_no_masks(tmp_path: Path) -> None:
    for n in range(2):
        frame(tmp_path / f"img/a/a_{n}.png", n)
        mask(tmp_path / f"gt/a/a_{n}_labelIds.png", n)
        frame(tmp_path / f"gt/a/a_{n}_color.png", 9)
    assert rows(listed(tmp_path, images="img/{clip}", masks="gt/{clip}", mask_suffix="_labelIds")) == ALIKE[:2]


def test_masks_that_count_from_one_are_paired_by_offset(tmp_path: Path) -> None:
    for n in range(3):
        frame(tmp_path / f"img/a/{n}.png", n)
        mask(tmp_path / f"gt/a/m{n + 1}.png", n)
    listing = listed(tmp_path, images="img/{clip}", masks="gt/{clip}", offset=1)
    assert rows(listing) == ALIKE


def test_frames_without_a_number_have_no_offset(tmp_path: Path) -> None:
    for n, name in enumerate("xyz"):
        frame(tmp_path / f"img/a/{name}.png", n)
        mask(tmp_path / f"gt/a/m{n}.png", n)
    ((_, reason),) = listed(tmp_path, images="img/{clip}", masks="gt/{clip}", offset=0).skipped
    assert "img/a: 'x' has no numbers" in reason and "source.images, e.g. {clip}/image_{frame}.png" in reason


def test_the_rule_of_an_offset_speaks_of_the_numbers_in_names(tmp_path: Path) -> None:
    for n in range(3):
        frame(tmp_path / f"img/a/{10 + n}.png", n)
        mask(tmp_path / f"gt/a/{9 + n}.png", n)
    (skipped,) = listed(tmp_path, images="img/{clip}", masks="gt/{clip}", offset=0).skipped
    assert skipped[1].endswith("without a frame by the rule: mask N is of frame N - 0")


@pytest.mark.parametrize(("first", "offset"), [(0, None), (1, 1), (7, 7)])
def test_masks_beside_a_video_are_of_the_frames_of_their_numbers(
    first: int, offset: int | None, tmp_path: Path
) -> None:
    film(tmp_path / "a.MP4")
    for n in range(4):
        mask(tmp_path / f"a/{first + n:05d}.png", n)
    listing = listed(tmp_path, images="{clip}.mp4", masks="{clip}", offset=offset)
    masks = [layers_of(clip.load())[1][0].any(axis=1).nonzero()[0].tolist() for clip in listing.clips]
    assert masks == [[0], [1], [2], [3]]


def reason(listing: Listing) -> str:
    assert not listing.clips
    (one,) = dict(listing.skipped).values()
    assert "\n" not in one
    return one


@pytest.mark.parametrize(
    ("names", "params", "match"),
    [
        (["00001.png", "00002.png"], {}, r"00001\.png: the first mask has the number 1, .* set source\.offset: 1"),
        (["00003.png", "00004.png"], {"offset": 0}, r"00004\.png: .*\.offset: 0 it is the mask of frame 4"),
        (["00000_2.png"], {}, r"'00000_2' has 2 numbers, so its frame is ambiguous; let \{frame\} stand"),
        (["first.png"], {}, r"'first' has no numbers"),
        (["m0.png", "n0.png"], {}, r"n0\.png: m0\.png has the same number"),
    ],
)
def test_masks_beside_a_video_whose_numbers_may_mean_another_frame_are_refused(
    names: list[str], params: dict[str, Any], match: str, tmp_path: Path
) -> None:
    film(tmp_path / "a.mp4")
    for name in names:
        mask(tmp_path / "a" / name)
    found = reason(listed(tmp_path, images="{clip}.mp4", masks="{clip}", **params))
    assert re.search(match, found), found


def test_a_number_behind_that_of_the_frame_does_not_count(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    for n in range(4):
        mask(tmp_path / f"a/{n:05d}_v2.png", n)
    listing = listed(tmp_path, images="{clip}.mp4", masks="{clip}")
    assert layers_of(listing.clips[3].load())[1][0].any(axis=1).nonzero()[0].tolist() == [3]


def test_what_does_not_pair_is_listed_with_the_rule(tmp_path: Path) -> None:
    for n in range(3):
        frame(tmp_path / f"img/a/{n}.png", n)
        frame(tmp_path / f"img/b/{n}.png", n)
        mask(tmp_path / f"gt/a/{n + 1}.png", n)
        mask(tmp_path / f"gt/b/label_{n}.png", n)
    listing = listed(tmp_path, images="img/{clip}", masks="gt/{clip}")
    skipped = dict(listing.skipped)
    assert skipped["a/masks"] == "1 mask (3.png) without a frame by the rule: a mask has the name of its frame"
    assert skipped["b"].endswith(
        "gt/b: no mask (label_0.png, label_1.png, label_2.png) matches a frame (0.png, 1.png, 2.png) by the "
        "rule: a mask has the name of its frame; set source.mask_suffix or source.offset, or name both by {frame} "
        "in source.images and source.masks"
    )
    assert listing.notes[1] == "1 frame of 1 labelled sequence without mask and label (a: 1 of 3)"


def test_no_clip_goes_over_a_gap_in_the_numbers(tmp_path: Path) -> None:
    for n in (0, 1, 2, 3, 6, 7, 8):
        frame(tmp_path / f"img/a/{n:03d}.png", 0)
        mask(tmp_path / f"gt/a/{n:03d}.png", 0)
    listing = listed(tmp_path, images="img/{clip}", masks="gt/{clip}", frames=3)
    assert [clip.meta["start"] for clip in listing.clips] == [0, 1, 4]
    assert "1 sequence has gaps in the numbers of frames, and no clip spans one (a: " in listing.notes[-1]
    assert "006.png" in listing.notes[-1]
    listing = listed(tmp_path, images="img/{clip}", masks="gt/{clip}", frames=5)
    assert "has 7 frames in 2 parts" in reason(listing)


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        (["0", "1", "2"], [range(3)]),
        (["a_07959", "a_07961", "a_07963"], [range(3)]),  # every second
        (["9", "10", "12", "13", "14"], [range(2), range(2, 5)]),
        (["a1", "a2", "b1", "b2"], [range(2), range(2, 4)]),  # another count
        (["1_22", "1_23", "1_24", "2_00", "2_01"], [range(3), range(3, 5)]),
        (["1_0999", "1_1000", "12_0999", "12_1000"], [range(2), range(2, 4)]),
        (["12-58", "12-59", "13-00", "13-01"], [range(4)]),  # a clock
        (["0_12_04", "0_13_09", "0_14_14", "1_15_04", "1_16_09"], [range(3), range(3, 5)]),  # two that count
        (["12_04", "13_09", "14_14", "16_24", "17_29"], [range(3), range(3, 5)]),
        (["00_58_1", "00_59_2", "01_00_3", "01_01_4"], [range(4)]),  # a clock beside a count
        (["7.920", "7.960", "8.000"], [range(3)]),
        (["cat", "dog", "emu"], [range(3)]),
        (["1403636579763555584", "1403636579813555456", "1403636579863555584"], [range(3)]),  # times
        ([], []),
    ],
)
def test_frames_follow_each_other_by_their_numbers(keys: list[str], parts: list[range]) -> None:
    assert consecutive_runs(keys) == parts


def test_the_number_that_differs_is_that_of_the_frame() -> None:
    assert numbers_of(["0016E5_07959", "0016E5_07961"], "gt") == {"0016E5_07959": 7959, "0016E5_07961": 7961}
    with pytest.raises(MaskcastError, match="gt: '1_1' has 2 numbers"):
        numbers_of(["1_1", "2_2"], "gt")


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["0.png", "0.jpg"], "has the same name as 0"),
        (["0001.png", "0001_mask.png"], r"0001\.png and 0001_mask\.png have the same number"),
    ],
)
def test_a_folder_of_more_than_frames_is_refused(names: list[str], match: str, tmp_path: Path) -> None:
    for name in names:
        frame(tmp_path / "img/a" / name)
    mask(tmp_path / "gt/a/0.png")
    said = reason(listed(tmp_path, images="img/{clip}", masks="gt/{clip}"))
    assert re.search(match, said)
    assert said.endswith("name the frames by {frame} in source.images, e.g. {clip}/{frame}.jpg")
    with pytest.raises(MaskcastError, match=match):
        Video("a", tmp_path / "img/a").count()


def test_what_a_forecast_sees_over_a_gap_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in (0, 1, 2, 5):
        frame(tmp_path / f"a/{n}.png", n)
    assert len(Video("a", tmp_path / "a").read(range(4))) == 4
    assert "numbers are missing after 2.png" in capsys.readouterr().err


def test_files_that_are_no_sequence_get_no_split(tmp_path: Path) -> None:
    for name in ("a", "b"):
        frame(tmp_path / name / "0.png")
    (tmp_path / "LICENSE.txt").write_text("free")
    listing = listed(tmp_path, images="{clip}", masks="gt/{clip}", splits={"unlabeled": 1.0})
    assert [clip.id for clip in listing.clips] == ["a_00000", "b_00000"]
    assert listing.notes == []  # no mask is needed, and none was looked at
    assert listing.skipped == []


@pytest.mark.parametrize("pattern", ["{clip}/{frame}/{frame}.png", "{clip}/{frame}_{frame}.png"])
def test_frame_stands_in_a_pattern_once(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"may have \{frame\} once, e\.g\. "):
        FrameFoldersSource(masks=pattern)


def test_a_suffix_belongs_into_a_pattern_with_frame() -> None:
    with pytest.raises(ValueError, match="write it into masks"):
        FrameFoldersSource(masks="{clip}/{frame}.png", mask_suffix="_L")


def test_the_competition_takes_capitals_and_says_two_files_of_one_frame(tmp_path: Path) -> None:
    folder = write_video(tmp_path / "train/video_1", masks=some_masks())
    (folder / "image_0.png").rename(folder / "image_0.PNG")
    (clip,) = CompetitionSource().listing(tmp_path, height=None, width=None, seed=0).clips
    whole = clip.load().frames
    Image.fromarray(whole[0]).save(folder / "image_0.jpg")
    listing = CompetitionSource().listing(tmp_path, height=None, width=None, seed=0)
    assert not listing.clips
    assert "has the same name as image_0" in listing.skipped[0][1]
