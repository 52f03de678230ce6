"""Reading video files. Shapes: T frames, H rows, W columns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.errors import MaskcastError


def count_frames(path: Path) -> int:
    """Counts the frames of a video file without decoding them.

    Raises:
        MaskcastError: when the file is missing, is no video or is cut short.
    """
    with _opened(path) as (container, stream):
        return len(_times(path, container, stream))


def read_video(path: Path, indices: Sequence[int] | None = None) -> np.ndarray:
    """Decodes a video file into RGB frames (T, H, W, 3) uint8.

    Args:
        path: video file of any container that FFmpeg reads.
        indices: frames to keep, counted from 0 and increasing; None keeps all. Decoding starts at the key frame
            before the first of them and stops after the last.

    Raises:
        MaskcastError: when the file is missing, is no video, is damaged or cut short, or has too few frames.
    """
    with _opened(path) as (container, stream):
        times = _times(path, container, stream)
    wanted = range(len(times)) if indices is None else indices
    if not wanted or wanted[-1] >= len(times):
        needed = wanted[-1] + 1 if wanted else 1
        raise MaskcastError(f"{path}: the video has {len(times)} frames where {needed} are needed; ask for fewer")
    keep = {times[index] for index in wanted}
    frames: list[np.ndarray] = []
    with _opened(path) as (container, stream):
        stream.thread_type = "SLICE"  # frame threads would be started anew for every window
        if wanted[0] > 0:
            container.seek(times[wanted[0]], stream=stream)
        for frame in container.decode(stream):
            if frame.pts in keep and not frame.is_corrupt:
                frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == len(keep):
                break
    if len(frames) < len(keep):
        raise MaskcastError(f"{path}: {len(keep) - len(frames)} frames are damaged; copy the video again")
    if len({frame.shape for frame in frames}) > 1:
        raise MaskcastError(f"{path}: the frame size changes within the video; encode it again at one size")
    return np.stack(frames)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Opens a file and its first video stream; errors inside the block become one line about the file."""
    if not path.is_file():
        raise MaskcastError(f"{path}: no such video")
    import av  # a tenth of a second, that a help or a pipeline's DAG has no use for

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MaskcastError(f"{path}: holds no video stream; give a video file, or copy it again")
            yield container, container.streams.video[0]
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MaskcastError(f"{path}: damaged or no video ({reason}); copy it again from its origin") from error


def _times(path: Path, container: Any, stream: Any) -> list[int]:
    """Presentation times of all frames in order, from the packets alone, one after the other."""
    times: list[int] = []
    sound = True
    for packet in container.demux(stream):
        if not packet.size or packet.is_discard:
            continue
        if packet.pts is None:
            raise MaskcastError(f"{path}: the frames carry no times; put the stream into an mp4 or mkv container")
        sound &= not packet.is_corrupt
        times.append(packet.pts)
    if not sound or len(times) < stream.frames:
        have = f"{len(times)} of {stream.frames} frames"
        raise MaskcastError(f"{path}: the video is cut short ({have}); copy it again from its origin")
    return sorted(times)
