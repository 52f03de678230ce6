"""Windows of a video that are read together are those that are read alone, and each frame is decoded once."""

import pickle
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.videos import FILES, FRAMES, encode

from maskcast.data import images, loading
from maskcast.data.images import read_frames, read_resized_frames, resize_frames
from maskcast.data.sources.base import Listing
from maskcast.data.sources.videos import VideosSource
from maskcast.data.video_files import frames as video
from maskcast.data.video_files.frames import read_resized_video
from maskcast.data.video_files.index import index_video
from maskcast.data.video_files.one_pass import VideoWindow, WindowReader
from maskcast.errors import MaskcastError

SIZE = (20, 30)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets short files be read as long ones are; gets an entry for each frame that is decoded."""
    found: list[int] = []
    decode = video.decode_frames

    def spy(*given: Any) -> Iterator[Any]:
        for frame in decode(*given):
            found.append(1)
            yield frame

    monkeypatch.setattr(video, "MAX_WITHOUT_INDEX", 0)
    monkeypatch.setattr(video, "decode_frames", spy)
    return found


def outcome(read: Any, path: Path, frames: range) -> tuple[bytes, object]:
    """What a reader gives for a window: its pixels and their size, or the error."""
    try:
        pixels, size = read(path, frames, SIZE)
    except MaskcastError as error:
        return b"", str(error)
    return pixels.tobytes(), size


@pytest.mark.parametrize("name", ["plain.mp4", "xvid_b.avi", "h264.ts", "open_gop.mp4", "mjpeg.mov", "vp9.webm"])
@pytest.mark.parametrize(("length", "stride", "step"), [(5, 1, 2), (4, 2, 1), (4, 1, 6)])
def test_windows_of_a_run_are_those_that_are_read_alone(
    name: str,
    length: int,
    stride: int,
    step: int,
    tmp_path: Path,
    decoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / name
    FILES[name](path)
    index = index_video(path)
    starts = range(9, FRAMES - length * stride, step)
    windows = [VideoWindow(path, range(start, start + length * stride, stride), index) for start in starts]
    assert all(one.is_continued_by(other) for one, other in pairwise(windows))
    alone = [outcome(read_resized_video, path, window.frames) for window in windows]
    del decoded[:]
    with monkeypatch.context() as patch:  # as in a process that has not seen the file
        patch.setattr(video, "index_video", lambda path: pytest.fail("indexes the file again"))
        reader = pickle.loads(pickle.dumps(WindowReader(windows)))
        assert [outcome(reader.read, path, window.frames) for window in windows] == alone
    assert len(decoded) <= 2 * FRAMES  # it may seek in vain
    assert len(reader._kept) <= length * stride


@pytest.mark.parametrize("harm", [lambda data: data[: len(data) * 2 // 3], lambda data: data])
def test_a_damaged_video_gives_the_same_windows_and_errors(harm: Any, tmp_path: Path, decoded: list[int]) -> None:
    path = tmp_path / "a.ts"
    encode(path, "libx264")
    index = index_video(path)
    path.write_bytes(harm(path.read_bytes()))
    windows = [VideoWindow(path, range(start, start + 5), index) for start in range(2, FRAMES - 4, 3)]
    part = index.around(2, FRAMES - 1, 3, 16)
    alone = [
        outcome(lambda path, frames, size: read_resized_video(path, frames, size, part), path, window.frames)
        for window in windows
    ]
    reader = WindowReader(windows)
    assert [outcome(reader.read, path, window.frames) for window in windows] == alone


def listed(tmp_path: Path) -> Listing:
    for name in ("a", "b"):
        encode(tmp_path / f"{name}.mp4", "libx264", first=ord(name))
    source = VideosSource(frames=6, window_step=4)
    return source.listing(tmp_path, height=SIZE[0], width=SIZE[1], seed=0)


@pytest.mark.parametrize("workers", [1, 2])
def test_clips_come_in_order_and_as_they_are_read_alone(workers: int, tmp_path: Path) -> None:
    listing = listed(tmp_path)
    loaded = list(loading.load_all(listing, SIZE, workers))
    assert [clip.id for clip, _ in loaded] == [clip.id for clip in listing.clips]
    for clip, result in loaded:
        assert isinstance(result, loading.Loaded)
        np.testing.assert_array_equal(result.arrays.frames, clip.load(size=SIZE).frames)


def test_a_run_has_the_consecutive_windows_of_one_video(tmp_path: Path) -> None:
    clips = listed(tmp_path).clips
    lengths = [len(run) for run in loading._runs(clips, lambda: 5)]
    assert lengths == [5, 3, 5, 3]
    assert [len(run) for run in loading._runs(clips[::3], lambda: 5)] == [1] * 6  # far apart


def test_images_are_resized_as_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at their own size would take 22 times the memory of one."""
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for k, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (60, 80, 3), np.uint8)).save(path)
    whole, order = resize_frames(read_frames(paths), *SIZE), []
    read, resize = images._read_rgb, images.resize_frames
    monkeypatch.setattr(images, "_read_rgb", lambda path: (order.append("read"), read(path))[1])
    monkeypatch.setattr(images, "resize_frames", lambda *given: (order.append("resize"), resize(*given))[1])
    frames, size = read_resized_frames(paths, SIZE)
    np.testing.assert_array_equal(frames, whole)
    assert size == (60, 80) and order == ["read", "resize"] * 3
