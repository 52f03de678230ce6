"""Reads frames of video files.

Frame i is the i-th frame that a decoder returns from the start of the file. Frames are rotated and mirrored as the
file specifies. The pixel aspect ratio is ignored. 10 and 12 bits become 8; alpha is dropped; interlaced frames are
not deinterlaced. A packet without content is not a frame: AVI uses it to show the previous frame for longer. The
first of several video streams is read.

Shapes: T frames, H rows, W columns.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.data.images import Size, find_odd_size, resize_frame
from maskcast.data.video_files.file import UprightConverter, damaged_error, decode_frames, open_video
from maskcast.data.video_files.index import VideoIndex, frame_digest, index_video
from maskcast.errors import MaskcastError
from maskcast.reading import pluralize

MAX_WITHOUT_INDEX = 64  # frames up to this index are decoded from the start, without an index
MAX_SEEKS = 3  # number of key frames that are tried before decoding from the start
SEEK_SLACK = 300  # maximum number of extra frames to decode if a seek landed early
TIME_TOLERANCE = 16  # tolerance, in frames, for times after a seek

_EXTENSIONS = "3gp asf avi flv gif m2ts m2v m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv y4m"
VIDEO_SUFFIXES = frozenset(f".{kind}" for kind in _EXTENSIONS.split())


def count_frames(path: Path) -> int:
    """Counts the frames of a video file; decodes it unless its packets prove the number.

    Raises:
        MaskcastError: if the file is missing, not a video, damaged or cut short.
    """
    return index_video(path).num_frames


def frame_rate(path: Path) -> float | None:
    """Returns the frames per second that a video declares, or None.

    Raises:
        MaskcastError: if it is not a video.
    """
    with open_video(path) as (_, stream):
        return None if stream.average_rate is None else float(stream.average_rate)


def read_video(path: Path, indices: Sequence[int] | None = None) -> np.ndarray:
    """Decodes a video file into RGB frames (T, H, W, 3) uint8.

    Args:
        path: video file in any container that FFmpeg reads.
        indices: frames to return, from 0, ascending, maybe repeated; None returns all. Decoding starts at a key
            frame that gives the same frames as decoding from the start, and stops after the last index.

    Raises:
        MaskcastError: if the file is missing, not a video, damaged, or has too few frames.
    """
    return read_resized_video(path, indices, None)[0]


def read_resized_video(
    path: Path, indices: Sequence[int] | None, size: Size | None, index: VideoIndex | None = None
) -> tuple[np.ndarray, Size]:
    """Decodes a video file, resizing each frame as it comes.

    Args:
        path: as in ``read_video``.
        indices: as in ``read_video``.
        size: (height, width) of the result; None keeps the size of the video.
        index: of the file, or what it says ``around`` the indices; None finds it.

    Returns:
        RGB frames (T, H, W, 3) uint8, and the size that they had in the file.

    Raises:
        MaskcastError: as in ``read_video``.
    """
    if indices is not None and not len(indices):
        raise MaskcastError(f"{path}: no frames requested; request at least one")
    wanted = None if indices is None else sorted(set(indices))
    decoded = (resize_frame(frame_HWC, size) for frame_HWC in decode_wanted(path, wanted, index))
    frames, sizes = zip(*decoded, strict=True)
    check_one_size(path, range(len(frames)) if wanted is None else wanted, sizes)
    if indices is not None and wanted is not None and len(wanted) < len(indices):
        frames = tuple(frames[place] for place in np.searchsorted(wanted, indices))
    return np.stack(frames), sizes[0]


def check_one_size(path: Path, numbers: Sequence[int], sizes: Sequence[Size]) -> None:
    """Refuses frames of several sizes.

    Args:
        path: the video.
        numbers: numbers of the frames, for the error.
        sizes: their sizes.

    Raises:
        MaskcastError: names the first frame of unusual size.
    """
    if (odd := find_odd_size(sizes)) is not None:
        raise MaskcastError(f"{path}: frame {numbers[odd[0]]} {odd[1]}; encode it again at one size")


def decode_wanted(
    path: Path, wanted: Sequence[int] | None, index: VideoIndex | None = None
) -> Iterator[np.ndarray]:
    """Yields frames (H, W, 3) uint8 in one pass, from a key frame on that gives the same as the file's start.

    Args:
        path: the video.
        wanted: numbers of the frames, ascending; None yields all.
        index: as in ``read_resized_video``.

    Raises:
        MaskcastError: as in ``read_video``.
    """
    done = 0
    if wanted is not None and wanted[0] >= MAX_WITHOUT_INDEX:
        index = index or index_video(path)
        for key in index.keys_before(wanted[0], MAX_SEEKS) if wanted[-1] < index.num_frames else ():
            for frame in _from_key(path, index, key, wanted[done:]):
                done += 1
                yield frame
            if done == len(wanted):
                return
    yield from _from_start(path, None if wanted is None else wanted[done:])


def _from_key(path: Path, index: VideoIndex, key: int, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields frames, decoding from a key frame on; ends early where they do not match the index."""
    time = index.time(key)
    if time is None:
        return
    found, convert = 0, UprightConverter()
    try:
        with open_video(path) as (container, stream):
            container.seek(time, stream=stream)
            for _, frame in zip(
                range(indices[-1] - key + SEEK_SLACK), decode_frames(path, container, stream), strict=False
            ):
                number = indices[found]
                if (late := _compare_time(frame.pts, index, number)) > 0:
                    return
                if late < 0 or frame.is_corrupt or not _is_frame(frame, index, number):
                    continue
                found += 1
                yield convert(frame)
                if found == len(indices):
                    return
    except MaskcastError:  # some containers cannot seek; damage is reported when decoding from the start
        return


def _compare_time(time: int | None, index: VideoIndex, number: int) -> int:
    """Returns 1 (or -1) for a frame whose time is long after (or before) that of a frame of the index, else 0.

    Times after a seek may be a few frames off, so this does not identify the frame; it saves comparing pixels.
    """
    first, last = index.time(number - TIME_TOLERANCE), index.time(number + TIME_TOLERANCE)
    if time is None or first is None or last is None:
        return 0
    return int(time > last) - int(time < first)


def _is_frame(frame: Any, index: VideoIndex, number: int) -> bool:
    """Whether a frame is the given frame of the index: by time if times are reliable, else by pixels."""
    digest = index.digest(number)
    return frame.pts == index.time(number) if digest is None else frame_digest(frame) == digest


def _from_start(path: Path, indices: Sequence[int] | None) -> Iterator[np.ndarray]:
    """Yields some or all frames, decoding from the beginning on."""
    count, needed = 0, 1 if indices is None else indices[-1] + 1
    keep, convert = None if indices is None else set(indices), UprightConverter()
    with open_video(path, "AUTO" if keep is None or needed > MAX_WITHOUT_INDEX else "SLICE") as (
        container,
        stream,
    ):
        for frame in decode_frames(path, container, stream):
            if keep is None or count in keep:
                if frame.is_corrupt:
                    raise damaged_error(path, count)
                yield convert(frame)
            count += 1
            if keep is not None and count == needed:
                break
    if count < needed:
        raise MaskcastError(
            f"{path}: the video has {pluralize(count, 'frame')} but {needed} are needed; request fewer"
        )
