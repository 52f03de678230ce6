"""Mean and standard deviation of the colours of a data set."""

from collections.abc import Iterable, Sequence

import numpy as np

from maskcast.data.clip_store.frame_index import FrameIndex, evenly_spaced
from maskcast.data.clip_store.reader import Clip, ClipStore

MOST_FRAMES = 256  # enough for three significant digits


def frame_statistics(store: ClipStore, clips: Sequence[Clip]) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``colour_statistics`` of at most 256 frames, evenly spaced over ``clips`` of a store."""
    index = FrameIndex(clips)
    drawn = map(index.at, evenly_spaced(len(index), MOST_FRAMES))
    return colour_statistics(store.frames(clips[k])[t] for k, t in drawn)


def colour_statistics(frames: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of each colour channel.

    Args:
        frames: uint8 arrays (H, W, 3).

    Returns:
        Two float32 arrays (3,) for pixel values in [0, 1]. The deviation is at least 1/255, so that a constant
        channel can be divided by it.
    """
    total, squares, pixels = np.zeros(3), np.zeros(3), 0
    for frame_HWC in frames:
        frame = frame_HWC.reshape(-1, 3) / 255
        total, squares, pixels = total + frame.sum(0), squares + np.square(frame).sum(0), pixels + len(frame)
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0)).clip(min=1 / 255)
    return mean.astype(np.float32), std.astype(np.float32)
