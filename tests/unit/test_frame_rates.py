"""Constant and variable frame rates of videos: what is recorded and reported, and frames taken by time."""

import json
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import layers_of
from tests.videos import encode

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.sources.annotations import AnnotationsSource
from maskcast.data.sources.base import Listing
from maskcast.data.sources.frame_folders import FrameFoldersSource
from maskcast.data.sources.videos import VideosSource
from maskcast.data.video_files.frames import read_video
from maskcast.data.video_files.timing import common_rate, read_timing
from maskcast.errors import MaskcastError
from maskcast.runner.run import run_stage

SECONDS = 2
SLOW_THEN_FAST = [*range(0, 600, 60), *range(600, 1200, 20)]  # in 1/600 s: 10 frames per second, then 30
Source = VideosSource | FrameFoldersSource | AnnotationsSource


def film(path: Path, rate: int | None) -> Path:
    """Writes a video of two seconds; without a rate, the first has 10 frames and the second 30."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = SLOW_THEN_FAST if rate is None else [k * 600 // rate for k in range(SECONDS * rate)]
    encode(path, "libx264", frames=len(times), times=times, unit=Fraction(1, 600))
    return path


def films(folder: Path) -> None:
    for name, rate in (("ten", 10), ("thirty", 30), ("sixty", 60), ("phone", None)):
        film(folder / f"{name}.mp4", rate)


def label(folder: Path, number: int) -> None:
    """Writes the mask of a frame: its number in row 0."""
    folder.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((48, 64), np.uint8)
    mask[0, : 1 + number % 60] = 1
    Image.fromarray(mask).save(folder / f"{number:05d}.png")


def list_raw(source: Source, raw: Path) -> Listing:
    return source.listing(raw, height=None, width=None, seed=0)


def frames_of_clips(listing: Listing, raw: Path, ending: str = "") -> dict[str, list[int]]:
    """Returns for each clip the numbers of its frames in the video, found by their pixels."""
    found = {}
    for clip in listing.clips:
        whole = list(read_video(raw / f"{clip.meta['video']}{ending}"))
        frames, _ = layers_of(pickle.loads(pickle.dumps(clip.load))())
        found[clip.id] = [next(k for k, one in enumerate(whole) if np.array_equal(one, frame)) for frame in frames]
    return found


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("rate", "mean", "variable"),
    [(10, 10, False), (30, 30, False), (60, 60, False), (None, 39 / (1180 / 600), True)],
)
def test_rates_come_from_the_times_of_frames(tmp_path, suffix, rate, mean, variable):
    timing = read_timing(film(tmp_path / f"a{suffix}", rate))
    assert timing.rate == pytest.approx(mean, rel=2e-3)  # Matroska rounds to milliseconds
    assert timing.variable is variable


def test_a_frame_that_an_avi_shows_for_longer_makes_its_rate_variable(tmp_path):
    encode(tmp_path / "a.avi", "mjpeg", pix_fmt="yuvj420p", frames=20)
    assert not read_timing(tmp_path / "a.avi").variable
    encode(tmp_path / "b.avi", "mjpeg", pix_fmt="yuvj420p", frames=20, times=[*range(10), *range(12, 32, 2)])
    assert read_timing(tmp_path / "b.avi").variable


def test_frames_are_taken_at_equal_distances_in_time(tmp_path):
    films(tmp_path)
    listing = list_raw(VideosSource(fps=10, frames=9, window_step=11), tmp_path)
    assert listing.skipped == [] == listing.notes == listing.warnings
    assert frames_of_clips(listing, tmp_path) == {
        "phone_00000": list(range(9)),
        "phone_00011": list(range(13, 38, 3)),
        "sixty_00000": list(range(0, 54, 6)),
        "sixty_00011": list(range(66, 120, 6)),
        "ten_00000": list(range(9)),
        "ten_00011": list(range(11, 20)),
        "thirty_00000": list(range(0, 27, 3)),
        "thirty_00011": list(range(33, 60, 3)),
    }
    assert {json.dumps(clip.meta["frame_rate"]) for clip in listing.clips} == {"10.0"}
    numbers = {clip.id: clip.meta["video_frames"] for clip in listing.clips}
    assert numbers == frames_of_clips(listing, tmp_path), "frames of the video, which labels are matched by"
    strided = list_raw(VideosSource(fps=20, frames=4, stride=5), tmp_path)
    assert frames_of_clips(strided, tmp_path)["sixty_00000"] == [0, 15, 30, 45]
    every = list_raw(VideosSource(frames=4, stride=5, window_step=50), tmp_path)
    assert {clip.id: clip.meta["video_frames"] for clip in every.clips} == frames_of_clips(every, tmp_path)
    assert frames_of_clips(strided, tmp_path)["phone_00000"] == [
        0,
        2,
        5,
        7,
    ]  # of two that are as near, the earlier
    assert strided.clips[0].meta["frame_rate"] == 4
    assert [name for name, _ in strided.skipped] == ["ten.mp4"]
    assert "ten.mp4: has 10 frames per second, too few for source.fps 20; lower it, or" in strided.skipped[0][1]


def test_a_frame_that_is_shown_for_long_is_repeated(tmp_path):
    """Beyond frame 64 frames are found by seeking."""
    times = [*range(100), *range(130, 230)]
    encode(tmp_path / "a.mp4", "libx264", frames=200, times=times, unit=Fraction(1, 30))
    (clip,) = list_raw(VideosSource(fps=15, frames=40, window_step=38), tmp_path).clips[1:2]
    frames, _ = layers_of(clip.load())
    whole = read_video(tmp_path / "a.mp4")
    near = [int(np.abs(np.array(times) / 30 - k / 15 + 1e-9).argmin()) for k in range(38, 78)]
    assert len(set(near)) < len(near)
    np.testing.assert_array_equal(frames, whole[near])


def test_without_fps_every_frame_is_taken_and_rates_are_recorded(tmp_path, capsys):
    films(tmp_path / "raw")
    params = {"source": {"layout": "videos", "frames": 4, "stride": 2}, "required_splits": [], "workers": 1}
    run_stage("prepare_clips", params, raw=tmp_path / "raw", clips=tmp_path / "clips")
    store = ClipStore(tmp_path / "clips")
    rates = {clip.meta["video"].partition(".")[0]: clip.meta["frame_rate"] for clip in store.clips}
    assert rates == {"ten": 5, "thirty": 15, "sixty": 30, "phone": 9.915}
    assert "notes" not in store.meta
    assert (
        "warning: videos have 10 (ten.mp4) to 60 (sixty.mp4) frames per second, and 1 video has a variable frame "
        "rate (phone.mp4), so clips differ in duration; source.fps: 10 takes frames by time\n"
    ) in capsys.readouterr().err
    whole = read_video(tmp_path / "raw/sixty.mp4")
    np.testing.assert_array_equal(store.frames(store.get("sixty_00022")), whole[22:29:2])


@pytest.mark.parametrize(
    ("rates", "common"),
    [([29.97, 30.0, 30], 30), ([10.0, 30.0], None), ([10.0, None], None), (["10"], None), ([0], None), ([], None)],
)
def test_clips_of_different_or_unknown_rates_have_no_common_one(rates, common):
    assert common_rate({} if rate is None else {"frame_rate": rate} for rate in rates) == common


def test_equal_rates_are_not_reported(tmp_path):
    film(tmp_path / "a.mp4", 30)
    encode(tmp_path / "b.mp4", "libx264", frames=30, times=range(0, 30_030, 1001), unit=Fraction(1, 30_000))
    assert list_raw(VideosSource(frames=4), tmp_path).warnings == []
    film(tmp_path / "c.mp4", 24)
    assert "24 (c.mp4) to 30 (a.mp4)" in list_raw(VideosSource(frames=4), tmp_path).warnings[0]
    assert list_raw(VideosSource(frames=1), tmp_path).warnings == []


def test_masks_stay_with_their_frames(tmp_path):
    film(tmp_path / "a.mp4", 60)
    film(tmp_path / "b.mp4", None)
    for number in (0, 6, 7, 12, 60, 114):
        label(tmp_path / "masks/a", number)
    for number in (0, 4, 10, 13, 14):
        label(tmp_path / "masks/b", number)
    params = {"images": "{clip}.mp4", "masks": "masks/{clip}", "frames": 10, "window_step": 10, "splits": {}}
    listing = list_raw(FrameFoldersSource(**params, fps=10), tmp_path)
    expected = {
        "a_00000": [*range(0, 60, 6)],
        "a_00010": [*range(60, 120, 6)],
        "b_00000": [*range(10)],
        "b_00010": [*range(10, 40, 3)],
    }
    assert frames_of_clips(listing, tmp_path, ".mp4") == expected
    masked = {"a": {0, 6, 12, 60, 114}, "b": {0, 4, 10, 13}}  # 7 and 14 are not taken
    for clip in listing.clips:
        masks = clip.load().masks["mask"]
        for number, mask in zip(expected[clip.id], masks, strict=True):
            want = 1 + number % 60 if number in masked[clip.meta["video"]] else 64
            assert int((mask[0] > 0).sum()) == want  # 255, no label, fills the row
    assert listing.warnings == [
        "warning: 2 of 11 labelled frames are not among the frames that source.fps 10 takes, and are not used"
    ]
    halves = list_raw(
        FrameFoldersSource(**params | {"split_by": "time", "splits": {"val": 0.5}}, fps=10), tmp_path
    )
    assert [(clip.id, clip.split) for clip in halves.clips[:2]] == [("a_00000", "train"), ("a_00010", "val")]


def test_labels_of_a_file_stay_with_their_frames(tmp_path):
    film(tmp_path / "a.mp4", 60)
    boxes = "".join(
        f'<box frame="{k}" outside="{int(k == 13)}" keyframe="1" xtl="{k}" ytl="0" xbr="{k + 2}" ybr="9"/>'
        for k in (6, 12, 13)
    )
    tracks = f'<track id="0" label="foreground">{boxes}</track>'
    (tmp_path / "annotations.xml").write_text(
        "<annotations><meta><task><size>120</size><mode>interpolation</mode><source>a.mp4</source>"
        f"<original_size><width>64</width><height>48</height></original_size></task></meta>{tracks}</annotations>"
    )
    source = AnnotationsSource(
        format="cvat-video",
        labels=("*.xml",),
        images="{clip}.mp4",
        fps=10,
        frames=4,
        splits={},
        empty="background",
    )
    clip = list_raw(source, tmp_path).clips[0]
    assert frames_of_clips(Listing([clip], ()), tmp_path, ".mp4") == {"a_00000": [0, 6, 12, 18]}
    masks = clip.load().masks["mask"]
    assert [sorted(set(np.nonzero(mask == 1)[1])) for mask in masks] == [[], [6, 7], [12, 13], []]


def test_images_have_no_times(tmp_path):
    for number in range(4):
        label(tmp_path / "frames/a", number)
        label(tmp_path / "masks/a", number)
    source = FrameFoldersSource(images="frames/{clip}", masks="masks/{clip}", frames=2, splits={}, fps=10)
    with pytest.raises(MaskcastError, match=r"^a: its frames are images, .* set source\.stride in place of"):
        list_raw(source, tmp_path)
    assert "frame_rate" not in list_raw(source.model_copy(update={"fps": None}), tmp_path).clips[0].meta


def test_a_video_without_times_is_left_out(tmp_path):
    encode(tmp_path / "a.avi", "libx264", b_frames=2)
    film(tmp_path / "b.mp4", 30)
    listing = list_raw(VideosSource(fps=10, frames=4), tmp_path)
    ((name, reason),) = listing.skipped
    assert (
        name == "a.avi"
        and "states no times of frames, which source.fps needs; convert it: ffmpeg -i a.avi" in reason
    )
    assert list_raw(VideosSource(frames=4), tmp_path).clips[0].meta["frame_rate"] == 25


def test_init_reports_mixed_and_variable_rates(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, rate in (("ten", 10), ("sixty", 60), ("phone", None)):
        film(tmp_path / f"raw/videos/{name}.mp4", rate)
    assert main(["init", "raw"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "frame rate 10 to 60 per second: a clip lasts 0.4 to 2.2 s" in said
    assert (
        "check: videos have 10 (videos/ten.mp4) to 60 (videos/sixty.mp4) frames per second, and 1 video has"
        in said
    )
    assert "source.fps: 10 takes frames by time" in said
