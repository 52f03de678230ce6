"""Reading video files.

Frame i is the i-th that decoding gives from the beginning. Frames are turned and mirrored as they are to be shown.
Pixels are those that are stored, also where they are to be shown wider than high. 10 and 12 bits become 8; alpha
is dropped; the two fields of an interlaced frame stay woven. A packet without contents is no frame: AVI shows the
one before for longer. Of several video streams the first is read.

Shapes: T frames, H rows, W columns.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.data.images import odd_size
from maskcast.data.video_files.file import damaged, decoded, opened, rgb_of
from maskcast.data.video_files.index import FrameIndex, digest_of, index_of
from maskcast.errors import MaskcastError
from maskcast.reading import counted

NEAR = 64  # frames from the start that are decoded without asking where else decoding may begin
TRIES = 3  # key frames that decoding is begun at, one after the other, before it begins at the start
SLACK = 300  # frames that may be decoded in vain, where a seek landed early
OFF = 16  # frames by which times may differ after a seek

_KINDS = "3gp asf avi flv gif m2ts m2v m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv y4m"
VIDEO_SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split())


def count_frames(path: Path) -> int:
    """Counts the frames of a video file, which is decoded where its packets do not prove their number.

    Raises:
        MaskcastError: when the file is missing, is no video, is damaged or cut short.
    """
    return len(index_of(path).times)


def frame_rate(path: Path) -> float | None:
    """Returns the frames a second that a video declares, if it does.

    Raises:
        MaskcastError: when it is no video.
    """
    with opened(path) as (_, stream):
        return None if stream.average_rate is None else float(stream.average_rate)


def read_video(path: Path, indices: Sequence[int] | None = None) -> np.ndarray:
    """Decodes a video file into RGB frames (T, H, W, 3) uint8.

    Args:
        path: video file of any container that FFmpeg reads.
        indices: frames to keep, counted from 0 and increasing; None keeps all. Decoding begins at a key frame from
            which they come out as they do from the start, and stops after the last.

    Raises:
        MaskcastError: when the file is missing, is no video, is damaged, or has too few frames.
    """
    if indices is not None and not len(indices):
        raise MaskcastError(f"{path}: no frame is asked for; ask for one or more")
    frames = None
    if indices is not None and indices[0] >= NEAR:
        index = index_of(path)
        if indices[-1] < len(index.times):
            before = [key for key in index.keys if 0 < key <= indices[0]]
            tried = (_from_key(path, index, key, indices) for key in before[: -TRIES - 1 : -1])
            frames = next((found for found in tried if found is not None), None)
    if frames is None:
        frames = _from_start(path, indices)
    if (odd := odd_size(frames)) is not None:
        number = odd[0] if indices is None else indices[odd[0]]
        raise MaskcastError(f"{path}: frame {number} {odd[1]}; encode it again at one size")
    return np.stack(frames)


def _from_key(path: Path, index: FrameIndex, key: int, indices: Sequence[int]) -> list[np.ndarray] | None:
    """Decodes some frames from a key frame on; None where they do not come out as the index has them."""
    if index.times[key] is None:
        return None
    frames: list[np.ndarray] = []
    try:
        with opened(path) as (container, stream):
            container.seek(index.times[key], stream=stream)
            for _, frame in zip(range(indices[-1] - key + SLACK), decoded(path, container, stream), strict=False):
                number = indices[len(frames)]
                if (late := _late(frame.pts, index.times, number)) > 0:
                    return None
                if late < 0 or frame.is_corrupt or not _is(frame, index, number):
                    continue
                frames.append(rgb_of(frame))
                if len(frames) == len(indices):
                    return frames
    except MaskcastError:  # some containers cannot be sought; what is damaged is told from the start
        return None
    return None


def _late(time: int | None, times: Sequence[int | None], number: int) -> int:
    """Returns 1 or -1 for a frame that is shown long after or before one of the index, else 0.

    Times after a seek may be some frames off; that saves looking at pixels, and does not tell which frame it is.
    """
    first, last = times[max(0, number - OFF)], times[min(len(times) - 1, number + OFF)]
    if time is None or first is None or last is None:
        return 0
    return int(time > last) - int(time < first)


def _is(frame: Any, index: FrameIndex, number: int) -> bool:
    """Tells whether a frame is one of the index: by its time where times are proved, else by its pixels."""
    if index.digests is None:
        return frame.pts == index.times[number]
    return digest_of(frame) == index.digests[number]


def _from_start(path: Path, indices: Sequence[int] | None) -> list[np.ndarray]:
    """Decodes some frames, or all, from the start on."""
    frames: list[np.ndarray] = []
    count, needed = 0, 1 if indices is None else indices[-1] + 1
    keep = None if indices is None else set(indices)
    with opened(path, "AUTO" if keep is None or needed > NEAR else "SLICE") as (container, stream):
        for frame in decoded(path, container, stream):
            if keep is None or count in keep:
                if frame.is_corrupt:
                    raise damaged(path, count)
                frames.append(rgb_of(frame))
            count += 1
            if keep is not None and count == needed:
                break
    if count < needed:
        raise MaskcastError(
            f"{path}: the video has {counted(count, 'frame')} where {needed} are needed; ask for fewer"
        )
    return frames
