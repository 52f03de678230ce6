"""Reads frames of video files.

Frame i is the i-th frame that a decoder returns from the start of the file. Frames are rotated and mirrored as the
file specifies. The pixel aspect ratio is ignored. 10 and 12 bits become 8; alpha is dropped; interlaced frames are
not deinterlaced. A packet without content is not a frame: AVI uses it to show the previous frame for longer. The
first of several video streams is read.

Shapes: T frames, H rows, W columns.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.data.images import find_odd_size
from maskcast.data.video_files.file import damaged_error, decode_frames, open_video, to_rgb
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
    return len(index_video(path).times)


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
    if indices is not None and not len(indices):
        raise MaskcastError(f"{path}: no frames requested; request at least one")
    frames, wanted = None, None if indices is None else sorted(set(indices))
    if wanted is not None and wanted[0] >= MAX_WITHOUT_INDEX:
        index = index_video(path)
        if wanted[-1] < len(index.times):
            before = [key for key in index.keys if 0 < key <= wanted[0]]
            tried = (_from_key(path, index, key, wanted) for key in before[: -MAX_SEEKS - 1 : -1])
            frames = next((found for found in tried if found is not None), None)
    if frames is None:
        frames = _from_start(path, wanted)
    if (odd := find_odd_size(frames)) is not None:
        number = odd[0] if wanted is None else wanted[odd[0]]
        raise MaskcastError(f"{path}: frame {number} {odd[1]}; encode it again at one size")
    if indices is not None and wanted is not None and len(wanted) < len(indices):
        frames = [frames[place] for place in np.searchsorted(wanted, indices)]
    return np.stack(frames)


def _from_key(path: Path, index: VideoIndex, key: int, indices: Sequence[int]) -> list[np.ndarray] | None:
    """Decodes frames starting at a key frame; returns None if they do not match the index."""
    if index.times[key] is None:
        return None
    frames: list[np.ndarray] = []
    try:
        with open_video(path) as (container, stream):
            container.seek(index.times[key], stream=stream)
            for _, frame in zip(
                range(indices[-1] - key + SEEK_SLACK), decode_frames(path, container, stream), strict=False
            ):
                number = indices[len(frames)]
                if (late := _compare_time(frame.pts, index.times, number)) > 0:
                    return None
                if late < 0 or frame.is_corrupt or not _is_frame(frame, index, number):
                    continue
                frames.append(to_rgb(frame))
                if len(frames) == len(indices):
                    return frames
    except MaskcastError:  # some containers cannot seek; damage is reported when decoding from the start
        return None
    return None


def _compare_time(time: int | None, times: Sequence[int | None], number: int) -> int:
    """Returns 1 (or -1) for a frame whose time is long after (or before) that of a frame of the index, else 0.

    Times after a seek may be a few frames off, so this does not identify the frame; it saves comparing pixels.
    """
    first, last = times[max(0, number - TIME_TOLERANCE)], times[min(len(times) - 1, number + TIME_TOLERANCE)]
    if time is None or first is None or last is None:
        return 0
    return int(time > last) - int(time < first)


def _is_frame(frame: Any, index: VideoIndex, number: int) -> bool:
    """Whether a frame is the given frame of the index: by time if times are reliable, else by pixels."""
    if index.digests is None:
        return frame.pts == index.times[number]
    return frame_digest(frame) == index.digests[number]


def _from_start(path: Path, indices: Sequence[int] | None) -> list[np.ndarray]:
    """Decodes some or all frames, starting at the beginning."""
    frames: list[np.ndarray] = []
    count, needed = 0, 1 if indices is None else indices[-1] + 1
    keep = None if indices is None else set(indices)
    with open_video(path, "AUTO" if keep is None or needed > MAX_WITHOUT_INDEX else "SLICE") as (
        container,
        stream,
    ):
        for frame in decode_frames(path, container, stream):
            if keep is None or count in keep:
                if frame.is_corrupt:
                    raise damaged_error(path, count)
                frames.append(to_rgb(frame))
            count += 1
            if keep is not None and count == needed:
                break
    if count < needed:
        raise MaskcastError(
            f"{path}: the video has {pluralize(count, 'frame')} but {needed} are needed; request fewer"
        )
    return frames
