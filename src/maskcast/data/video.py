"""Reading video files. Shapes: T frames, H rows, W columns."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from maskcast.errors import MaskcastError


def read_video(path: Path, indices: Sequence[int] | None = None) -> np.ndarray:
    """Decodes a video file into RGB frames (T, H, W, 3) uint8.

    Args:
        path: video file of any container that FFmpeg reads.
        indices: frames to keep, counted from 0 and increasing; None keeps all. Decoding stops after the last one.

    Raises:
        MaskcastError: when the file is missing, has no video, is cut short, or has fewer frames than `indices` asks for.
    """
    if not path.is_file():
        raise MaskcastError(f"{path}: no such video")
    wanted = None if indices is None else set(indices)
    last = None if indices is None else max(indices, default=-1)
    frames: list[np.ndarray] = []
    count = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MaskcastError(f"{path}: holds no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for index, frame in enumerate(container.decode(stream)):
                count = index + 1
                if wanted is None or index in wanted:
                    frames.append(frame.to_ndarray(format="rgb24"))
                if last is not None and index >= last:
                    break
    except (av.FFmpegError, OSError) as error:
        raise MaskcastError(
            f"{path}: the video cannot be decoded after frame {count} ({error}); copy it again from its origin"
        ) from error
    if not frames or (wanted is not None and len(frames) != len(wanted)):
        needed = 1 if last is None else last + 1
        raise MaskcastError(f"{path}: the video has {count} frames where {needed} are needed; it may be cut short")
    if len({frame.shape for frame in frames}) > 1:
        raise MaskcastError(f"{path}: the frame size changes within the video; encode it again at one size")
    return np.stack(frames)
