"""Mean and spread of the colours of a data set."""

import numpy as np

from maskcast.data.clips import Clip, ClipStore

MOST_FRAMES = 256  # enough for three digits


def frame_statistics(store: ClipStore, clips: list[Clip]) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of each colour channel.

    Args:
        store: holds the frames.
        clips: which of its clips to look at; at most 256 frames spread evenly over them are read.

    Returns:
        Two float32 arrays (3,), of pixels scaled to [0, 1]; the deviation is at least 1/255, so that dividing
        by it is safe where a channel is constant.
    """
    ends = np.cumsum([clip.num_frames for clip in clips])
    total, squares, pixels = np.zeros(3), np.zeros(3), 0
    for drawn in np.unique(np.linspace(0, ends[-1] - 1, MOST_FRAMES, dtype=np.int64)):
        k = int(np.searchsorted(ends, drawn, side="right"))
        frame = store.frames(clips[k])[int(drawn - ends[k]) + clips[k].num_frames].reshape(-1, 3) / 255
        total, squares, pixels = total + frame.sum(0), squares + np.square(frame).sum(0), pixels + len(frame)
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0)).clip(min=1 / 255)
    return mean.astype(np.float32), std.astype(np.float32)
