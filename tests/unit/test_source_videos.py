import os
import pickle
from pathlib import Path

import av
import numpy as np
import pytest
from tests.conftest import layers_of

from maskcast.data.sources.videos import VideosSource
from maskcast.data.video_files.frames import count_frames, read_video
from maskcast.errors import MaskcastError


def write_video(path: Path, frames: int = 40, size: tuple[int, int] = (32, 48), **options: str) -> Path:
    """Writes a video whose frame k is grey 6 k, with a key frame every 12."""
    codec = {".webm": "libvpx", ".avi": "mpeg4"}.get(path.suffix, "libx264")
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = 12
        stream.bit_rate = 4_000_000
        for k in range(frames):
            grey = np.full((*size, 3), 6 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path


def greys(frames: np.ndarray) -> np.ndarray:
    return np.round(frames.mean(axis=(1, 2, 3)) / 6).astype(int)


def list_raw(raw: Path, **params):
    return VideosSource(**params).listing(raw, height=None, width=None, seed=0)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi", ".webm", ".mkv"])
def test_frames_are_found_by_number_in_any_container(tmp_path, suffix):
    path = write_video(tmp_path / f"a{suffix}")
    assert count_frames(path) == 40
    assert greys(read_video(path)).tolist() == list(range(40))
    assert greys(read_video(path, range(17, 38, 5))).tolist() == [17, 22, 27, 32, 37]


def test_videos_become_unlabelled_windows(tmp_path):
    (tmp_path / "b").mkdir()
    write_video(tmp_path / "b/drive.MP4")
    write_video(tmp_path / "short.mp4", frames=3)
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / "._x.mp4").write_bytes(b"junk")
    listing = list_raw(tmp_path, frames=4, stride=3, window_step=20)
    assert [(c.id, c.split, c.kind) for c in listing.clips] == [
        ("b_drive_00000", "unlabeled", "unlabelled"),
        ("b_drive_00020", "unlabeled", "unlabelled"),
    ]
    assert listing.skipped == [("short.mp4", "has 3 frames, a window needs 10")]
    frames, masks = layers_of(pickle.loads(pickle.dumps(listing.clips[1].load))())
    assert greys(frames).tolist() == [20, 23, 26, 29]
    assert masks is None


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}])
def test_a_video_cut_short_is_reported(tmp_path, options):
    path = write_video(tmp_path / "cut.mp4", frames=42, size=(128, 128), **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    listing = list_raw(tmp_path)
    assert listing.clips == []
    ((item, reason),) = listing.skipped
    assert item == "cut.mp4"
    assert str(path) in reason
    assert "copy it again" in reason
    assert "\n" not in reason


def test_what_cannot_be_opened_is_left_out(tmp_path):
    (tmp_path / "raw").mkdir()
    write_video(tmp_path / "raw/a.mp4")
    os.mkfifo(tmp_path / "raw/pipe.mp4")
    (tmp_path / "raw/gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    listing = list_raw(tmp_path / "raw")
    assert {clip.meta["video"] for clip in listing.clips} == {"a.mp4"}
    assert {name: reason.partition(": ")[2] for name, reason in listing.skipped} == dict.fromkeys(
        ("gone.mp4", "pipe.mp4"), "video not found; fix the path"
    )


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(MaskcastError, match=r"text\.mp4: damaged or not a video"):
        read_video(tmp_path / "text.mp4")
    with pytest.raises(MaskcastError, match=r"absent\.mp4: video not found"):
        read_video(tmp_path / "absent.mp4")
    with pytest.raises(MaskcastError, match="no video files found"):
        list_raw(tmp_path / "nothing")


def test_too_few_frames_are_said(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=10)
    with pytest.raises(MaskcastError, match="has 10 frames but 22 are needed"):
        read_video(path, range(22))


def test_real_video_windows_equal_a_whole_decode(shared_data):
    path = shared_data / "clevrer/video_train/video_00000-01000/video_00000.mp4"
    whole = read_video(path)
    assert whole.shape == (128, 320, 480, 3)
    np.testing.assert_array_equal(read_video(path, range(60, 128, 5)), whole[60:128:5])


def test_real_video_of_a_phone(shared_data):
    listing = list_raw(shared_data / "sam2_videos", window_step=150)
    assert [c.id for c in listing.clips if c.id.startswith("bedroom")] == ["bedroom_00000", "bedroom_00150"]
    frames, _ = layers_of(listing.clips[0].load())
    assert frames.shape == (22, 540, 960, 3)
    assert frames.std() > 20


def test_endings_in_capitals_are_taken_and_unknown_ones_are_said(tmp_path):
    write_video(tmp_path / "a.mp4", frames=4).rename(tmp_path / "A.MP4")
    write_video(tmp_path / "b.mov", frames=4).rename(tmp_path / "b.MOV")
    (tmp_path / "c.divx").write_bytes(b"?")
    (tmp_path / "d.DIVX").write_bytes(b"?")
    (tmp_path / "notes.txt").write_text("beside")
    listing = list_raw(tmp_path, frames=4)
    assert [clip.id for clip in listing.clips] == ["A_00000", "b_00000"]
    ((ending, reason),) = listing.skipped
    assert ending == "*.divx"
    assert reason.startswith("2 files with other suffixes than .3gp, .asf")


def test_two_encodings_of_one_name_are_two_videos(tmp_path):
    for name in ("a.mp4", "a.mkv", "b.mp4"):
        write_video(tmp_path / name, frames=4)
    assert [clip.id for clip in list_raw(tmp_path, frames=4).clips] == ["a_mkv_00000", "a_mp4_00000", "b_00000"]
