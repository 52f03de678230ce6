"""Windows of videos of many kinds against the whole decode, bit for bit; damage that is said."""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.videos import AV1, FILES, FRAMES, HEIGHT, SHORT, WIDTH, X264, encode, picture, turned

from maskcast.data.video_files import frames as video
from maskcast.data.video_files import index as video_index
from maskcast.data.video_files.frames import count_frames, read_video
from maskcast.errors import MaskcastError

LENGTHS = (1, 2, 5, 11, FRAMES)
BY_PACKETS = {"plain.mp4", "pyramid.mp4", "fragments.mp4", "h264.mkv", "h264.mov", "variable.mkv", "late.mp4"}
BY_PACKETS |= {"sound.mp4", "hevc.mp4", "vp9.webm", "av1.mp4", "mjpeg.mov", "ten_bits.mp4"}


def decoded(path: Path) -> list[np.ndarray]:
    """What PyAV gives: the truth."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture
def from_keys(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets short files be read as long ones are; gives the windows that were read from a key frame."""
    found: list[int] = []
    read = video._from_key

    def spy(path: Path, index: video_index.VideoIndex, key: int, indices: list[int]) -> Iterator[np.ndarray]:
        for k, frame in enumerate(read(path, index, key, indices)):
            found.extend([indices[0]] * (k == len(indices) - 1))
            yield frame

    monkeypatch.setattr(video, "MAX_WITHOUT_INDEX", 0)
    monkeypatch.setattr(video, "_from_key", spy)
    return found


@pytest.mark.parametrize("name", FILES)
def test_windows_are_the_same_frames_of_the_whole_decode(tmp_path: Path, name: str, from_keys: list[int]) -> None:
    FILES[name](tmp_path / name)
    whole = decoded(tmp_path / name)
    assert len(whole) > 15
    assert count_frames(tmp_path / name) == len(whole)
    assert len({frame.tobytes() for frame in whole}) == len(whole)  # a wrong frame would be seen
    for start in range(len(whole)):
        window = range(start, min(len(whole), start + LENGTHS[start % len(LENGTHS)]))
        np.testing.assert_array_equal(read_video(tmp_path / name, window), whole[start : window.stop])
    np.testing.assert_array_equal(read_video(tmp_path / name, range(1, len(whole), 7)), whole[1::7])
    np.testing.assert_array_equal(read_video(tmp_path / name), whole)
    if name in BY_PACKETS:
        assert video_index.index_video(tmp_path / name).digests is None
        assert len(from_keys) >= len(whole) - 24  # all but those of the first group


@pytest.mark.parametrize("name", ["xvid_b.avi", "h264.avi", "mpeg2.mpg", "h264.ts", "open_gop.mp4", "vp8.webm"])
def test_a_file_that_was_indexed_by_decoding_is_sought_all_the_same(
    tmp_path: Path, name: str, from_keys: list[int]
) -> None:
    FILES[name](tmp_path / name)
    read_video(tmp_path / name, range(FRAMES - 3, FRAMES))
    assert from_keys == [FRAMES - 3]


@pytest.mark.parametrize("suffix", SHORT)
@pytest.mark.parametrize("frames", [1, 2, 3, 10])
def test_short_videos(tmp_path: Path, suffix: str, frames: int, from_keys: list[int]) -> None:
    path = tmp_path / f"short{suffix}"
    encode(path, SHORT[suffix], frames=frames, pix_fmt="yuvj420p" if suffix == ".mov" else "yuv420p")
    whole = decoded(path)
    assert count_frames(path) == len(whole) == frames
    for start in range(frames):
        np.testing.assert_array_equal(read_video(path, range(start, frames)), whole[start:])


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),  # a phone held upright: a quarter turn clockwise
        ((0, -1, 1, 0), lambda frame: np.rot90(frame, 1)),
        ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
        ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
        ((0, 1, 1, 0), lambda frame: frame.transpose(1, 0, 2)),
    ],
)
def test_frames_are_turned_as_they_are_shown(tmp_path: Path, matrix: tuple[int, ...], shown: object) -> None:
    turned(tmp_path / "phone.mp4", *matrix)
    whole = [shown(frame) for frame in decoded(tmp_path / "phone.mp4")]  # type: ignore[operator]
    np.testing.assert_array_equal(read_video(tmp_path / "phone.mp4"), whole)
    np.testing.assert_array_equal(read_video(tmp_path / "phone.mp4", [9, 20]), [whole[9], whole[20]])


@pytest.mark.parametrize(
    ("pix_fmt", "color_range", "black", "white"),
    [
        ("yuv420p", 1, 16, 235),
        ("yuv420p", 2, 0, 255),
        ("yuv420p10le", 1, 64, 940),
        ("yuv420p10le", 2, 0, 1023),
        ("yuv420p12le", 1, 256, 3760),
        ("gray", 2, 0, 255),
        ("gray", 1, 16, 235),
        ("gray10le", 1, 64, 940),
        ("gray16le", 2, 0, 65535),
    ],
)
def test_black_is_black_and_white_is_white(
    tmp_path: Path, pix_fmt: str, color_range: int, black: int, white: int
) -> None:
    path = tmp_path / "levels.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 16, pix_fmt
        stream.codec_context.color_range = color_range
        for level in (black, (black + white + 1) // 2, white):
            frame = av.VideoFrame(16, 16, pix_fmt)
            deep = frame.format.components[0].bits > 8
            neutral = 1 << frame.format.components[0].bits - 1
            for n, plane in enumerate(frame.planes):
                plane.update(
                    np.full(
                        plane.buffer_size // (1 + deep), neutral if n else level, "<u2" if deep else "u1"
                    ).tobytes()
                )
            frame.color_range = color_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    means = read_video(path).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, [0, 127.5, 255], atol=2)  # FFmpeg's fast conversion of 10 bits is 2 off


def test_a_frame_that_was_shown_for_longer_counts_once_and_alpha_is_dropped(tmp_path: Path) -> None:
    FILES["null_frames.avi"](tmp_path / "null.avi")
    FILES["alpha.mov"](tmp_path / "alpha.mov")
    assert count_frames(tmp_path / "null.avi") == FRAMES
    np.testing.assert_array_equal(read_video(tmp_path / "alpha.mov", [7])[0], picture(7))


def test_pixels_are_as_stored_and_the_first_of_two_videos_is_read(tmp_path: Path) -> None:
    FILES["wide_pixels.mp4"](tmp_path / "wide.mp4")
    assert read_video(tmp_path / "wide.mp4", [0]).shape[2] == WIDTH
    FILES["two_videos.mkv"](tmp_path / "two.mkv")
    error = np.abs(read_video(tmp_path / "two.mkv", [5])[0].astype(int) - picture(5)).mean()
    assert error < 12 < np.abs(picture(1005).astype(int) - picture(5)).mean()


@pytest.mark.parametrize("name", ["plain.mp4", "open_gop.mp4", "fragments.mp4", "h264.mkv", "vp8.webm", "av1.mp4"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_was_cut_is_said(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    options = {"movflags": "faststart"} if name in {"plain.mp4", "open_gop.mp4", "av1.mp4"} else {}
    if options:
        codec, codec_options = ("libsvtav1", AV1) if name == "av1.mp4" else ("libx264", {"preset": "veryfast"})
        encode(path, codec, options=options, codec_options=codec_options)
    else:
        FILES[name](path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    for read in (count_frames, read_video):
        with pytest.raises(MaskcastError, match=r"cut short|damaged") as raised:
            read(path)
        assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_was_cut_between_two_frames_is_said(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    encode(path, "libx264", options={"movflags": "faststart"}, b_frames=0)
    with av.open(str(path)) as container:
        last = container.streams.video[0].index_entries[20]
    path.write_bytes(path.read_bytes()[: last.pos + last.size])
    for read in (count_frames, read_video):
        with pytest.raises(MaskcastError, match="the video is cut short"):
            read(path)
    np.testing.assert_array_equal(read_video(path, range(5, 9)), decoded(path)[5:9])  # these are there


def test_packets_that_prove_nothing_are_not_trusted(tmp_path: Path) -> None:
    for name in ("open_gop.mp4", "edit_front.mp4", "equal_times.mkv", "interlaced.mp4", "xvid.avi", "h264.ts"):
        FILES[name](tmp_path / name)
        assert video_index.index_video(tmp_path / name).digests is not None, name


def test_many_videos_are_decoded_once_to_be_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if all are looked at several times, as `maskcast init` does."""
    decoded, decode_frames = Counter[str](), video_index.decode_frames

    def counted(path: Path, *given: Any) -> Iterator[Any]:
        decoded[path.name] += 1
        return decode_frames(path, *given)

    monkeypatch.setattr(video_index, "decode_frames", counted)
    encode(tmp_path / "0.avi", "mpeg4", frames=2)
    paths = [Path(shutil.copy(tmp_path / "0.avi", tmp_path / f"{n}.avi")) for n in range(1, 71)]
    for path in paths * 2:
        assert video_index.index_video(path).num_frames == 2
    assert decoded == {path.name: 1 for path in paths}


def test_an_index_is_made_anew_when_its_file_changes(tmp_path: Path) -> None:
    for frames in (12, 30):
        encode(tmp_path / "a.mp4", "libx264", frames=frames)
        assert count_frames(tmp_path / "a.mp4") == frames


@pytest.mark.parametrize("name", ["12:30.mp4", "concat:a.mp4", "a%03d.mp4", "\udcff ü'.mp4"])
def test_a_name_is_no_address_and_no_pattern(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "a.mp4", "libx264", frames=3)
    (tmp_path / "a.mp4").rename(name)
    assert read_video(Path(name), [2]).shape == (1, HEIGHT, WIDTH, 3)


def test_a_picture_of_the_cover_is_no_video(tmp_path: Path) -> None:
    for codecs in (["mjpeg", "libx264"], ["mjpeg"]):
        with av.open(str(tmp_path / "a.mp4"), "w") as container:
            streams = [container.add_stream(codec, rate=25) for codec in codecs]
            for stream, side in zip(streams, (32, 64), strict=False):
                stream.height, stream.width = side, side
                stream.pix_fmt = "yuvj420p" if side == 32 else "yuv420p"
            streams[0].disposition = av.stream.Disposition.attached_pic
            for stream in streams:
                for k in range(1 if stream is streams[0] else 9):
                    frame = av.VideoFrame.from_ndarray(picture(k, stream.height, stream.width), format="rgb24")
                    frame.pts = k
                    container.mux(stream.encode(frame))
                container.mux(stream.encode())
        if "libx264" in codecs:
            assert read_video(tmp_path / "a.mp4").shape == (9, 64, 64, 3)
    with pytest.raises(MaskcastError, match=r"a\.mp4: has no video stream; give a video file"):
        count_frames(tmp_path / "a.mp4")


def test_no_frame_and_too_many_are_said(tmp_path: Path, from_keys: list[int]) -> None:
    encode(tmp_path / "a.avi", "mpeg4", frames=9)
    for indices, line in (([], "no frames requested"), (range(7, 12), "has 9 frames but 12 are needed")):
        with pytest.raises(MaskcastError, match=line):
            read_video(tmp_path / "a.avi", indices)
    with pytest.raises(MaskcastError, match=r"b\.avi: video not found"):
        count_frames(tmp_path / "b.avi")
    (tmp_path / "b.avi").write_bytes(b"")
    with pytest.raises(MaskcastError, match=r"b\.avi: damaged or not a video"):
        count_frames(tmp_path / "b.avi")


def test_a_title_in_an_old_encoding_is_no_damage(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "old.avi"), "w") as container:
        container.metadata["title"] = "cafeteria"
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        container.mux(stream.encode())
    data = (tmp_path / "old.avi").read_bytes()
    assert b"cafeteria" in data
    (tmp_path / "old.avi").write_bytes(data.replace(b"cafeteria", b"caf\xe9teria"))
    assert count_frames(tmp_path / "old.avi") == len(read_video(tmp_path / "old.avi")) == 1


def test_a_size_that_changes_is_said_with_its_frame(tmp_path: Path) -> None:
    for name, frames, size in (("a.ts", 6, (48, 64)), ("b.ts", 3, (32, 64))):
        encode(tmp_path / name, "mpeg2video", frames=frames, size=size, b_frames=0)
    joined = tmp_path / "c.ts"
    joined.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with pytest.raises(MaskcastError, match=r"c\.ts: frame [56] is 32x64, [56] of \d frames are 48x64 .*one size"):
        read_video(joined)


READ_THE_BEGINNING = """
import sys
from pathlib import Path
import av
from maskcast.data.video_files.file import decode_frames, open_video
av.logging.set_level(av.logging.ERROR)  # as older versions of torchvision do when they are imported
for _ in range(20):
    with open_video(Path(sys.argv[1]), "AUTO") as (container, stream):
        next(decode_frames(None, container, stream))
"""


def test_a_file_is_closed_while_threads_of_its_frames_log_errors(tmp_path: Path) -> None:
    """PyAV's logging needs Python's lock, which the end of a decoder holds while it waits for these threads."""
    path = tmp_path / "damaged.mp4"
    encode(path, "libx264", frames=30, size=(240, 320), codec_options=X264)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for start, size in packets[2:]:
        data[start + size // 4 : start + size // 4 + 20] = range(100, 120)
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", READ_THE_BEGINNING, str(path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "error while decoding" in done.stderr
