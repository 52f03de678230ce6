"""Composes foregrounds over backgrounds: when clips are prepared, and over other backgrounds during training.

A composed pixel is ``F + (1 - a) B``, with the premultiplied foreground ``F`` and its opacity ``a``. To replace
the background by ``B'``, ``(1 - a) (B' - B)`` is added. So composed clips, their alpha maps and the backgrounds
are all that a store needs for it, and code that does not compose sees ordinary clips.

The backgrounds are a clip store of their own, in the store's folder `backgrounds`.

Shapes: T frames, H rows, W columns, C = 3 channels (RGB).
"""

import cv2
import numpy as np

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.errors import MaskcastError

BACKGROUNDS = "backgrounds"  # folder in a store, and key of its meta
ALPHA = "alpha"  # label map of the foreground's opacity


def ping_pong_indices(start: int, count: int, length: int) -> np.ndarray:
    """Returns the background frame behind each of ``count`` frames; a short background plays forward and backward.

    Args:
        start: index of the first background frame.
        count: number of frames.
        length: number of frames of the background.
    """
    period = max(1, 2 * length - 2)
    position_T = (start + np.arange(count)) % period
    return np.minimum(position_T, period - position_T)


def composite(foreground_THWC: np.ndarray, alpha_THW: np.ndarray, background_THWC: np.ndarray) -> np.ndarray:
    """Returns a foreground composed over a background, uint8.

    Args:
        foreground_THWC: foreground, premultiplied uint8 RGB.
        alpha_THW: its opacity, uint8.
        background_THWC: uint8 RGB; T may be 1.
    """
    return _add_background(foreground_THWC, alpha_THW, np.broadcast_to(background_THWC, foreground_THWC.shape))


def replace_background(
    frames_THWC: np.ndarray, alpha_THW: np.ndarray, old_THWC: np.ndarray, new_THWC: np.ndarray
) -> np.ndarray:
    """Returns composed frames with another background.

    Values are at most one level off from composing them directly. If noise was added after composing, the part of
    it that was clipped at 0 or 255 is lost: the noise over the new background is weaker.
    """
    new, old = (layer_THWC.reshape(len(layer_THWC), -1) for layer_THWC in (new_THWC, old_THWC))
    return _add_background(frames_THWC, alpha_THW, cv2.subtract(new, old, dtype=cv2.CV_16S))


def _add_background(frames_THWC: np.ndarray, alpha_THW: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Adds the visible part of ``background`` (uint8 or int16) to each frame; OpenCV saturates at 0 and 255."""
    transparency_THW = 255 - alpha_THW
    shape = (len(frames_THWC), -1)
    transparency = cv2.merge([transparency_THW.reshape(shape)] * 3).reshape(shape)
    visible = cv2.multiply(background.reshape(shape), transparency, scale=1 / 255, dtype=cv2.CV_16S)
    return np.asarray(cv2.add(frames_THWC.reshape(shape), visible, dtype=cv2.CV_8U).reshape(frames_THWC.shape))


class Backgrounds:
    """The backgrounds over which the training clips of a store may be composed.

    Args:
        store: its meta lists the backgrounds.

    Raises:
        MaskcastError: if the backgrounds are missing, are not those that the clips were composed over, or none is
            of the split ``train``.
    """

    def __init__(self, store: ClipStore) -> None:
        root = store.root / BACKGROUNDS
        self._store = ClipStore(root)
        if self._store.digest != store.meta[BACKGROUNDS]:
            raise MaskcastError(f"{root}: not the backgrounds of {store.root}; prepare the clips again")
        self._alpha = store.of(ALPHA)
        self._train = list(self._store.select("train"))
        videos = {clip.meta["video"] for clip in self._train}
        other_videos = {name: [clip for clip in self._train if clip.meta["video"] != name] for name in videos}
        self._others = {name: clips for name, clips in other_videos.items() if clips}

    def composite(
        self, clip: Clip, window: slice, frames_THWC: np.ndarray, random: np.random.Generator
    ) -> np.ndarray:
        """Returns frames of a clip over a random background, from a random start and possibly flipped.

        Args:
            clip: a clip of the store.
            window: the slice of the clip that the frames come from.
            frames_THWC: frames as in the store.
            random: draws the background; its state advances.
        """
        pool = self._others.get(clip.meta["video"], self._train)
        background = pool[int(random.integers(len(pool)))]
        start, mirrored = int(random.integers(2 * background.num_frames)), bool(random.random() < 0.5)
        count = len(frames_THWC)
        new = self._store.frames(background)[ping_pong_indices(start, count, background.num_frames)]
        original = self._store.get(clip.meta["background"])
        old_indices = ping_pong_indices(window.start, count, original.num_frames)
        alpha_THW = self._alpha.masks(clip, window)
        old = self._store.frames(original)[old_indices]
        return replace_background(frames_THWC, alpha_THW, old, new[:, :, ::-1] if mirrored else new)
