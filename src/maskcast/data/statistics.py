"""Mean and spread of the colours of a data set."""

from collections.abc import Iterable

import numpy as np

from maskcast.data.clips import Clip, ClipStore

MOST_FRAMES = 256  # enough for three digits


def frame_statistics(store: ClipStore, clips: list[Clip]) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``colour_statistics`` of at most 256 frames, spread evenly over ``clips`` of a store."""
    ends = np.cumsum([clip.num_frames for clip in clips])

    def frame(drawn: int) -> np.ndarray:
        k = int(np.searchsorted(ends, drawn, side="right"))
        return store.frames(clips[k])[int(drawn - ends[k]) + clips[k].num_frames]

    return colour_statistics(frame(drawn) for drawn in spread(int(ends[-1])))


def spread(count: int, most: int = MOST_FRAMES) -> list[int]:
    """Returns at most ``most`` of the numbers 0..count-1, spread evenly."""
    return np.unique(np.linspace(0, count - 1, most, dtype=np.int64)).tolist()


def colour_statistics(frames: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of each colour channel.

    Args:
        frames: uint8 (H, W, 3) each.

    Returns:
        Two float32 arrays (3,), of pixels scaled to [0, 1]; the deviation is at least 1/255, so that dividing
        by it is safe where a channel is constant.
    """
    total, squares, pixels = np.zeros(3), np.zeros(3), 0
    for frame_HWC in frames:
        frame = frame_HWC.reshape(-1, 3) / 255
        total, squares, pixels = total + frame.sum(0), squares + np.square(frame).sum(0), pixels + len(frame)
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0)).clip(min=1 / 255)
    return mean.astype(np.float32), std.astype(np.float32)
