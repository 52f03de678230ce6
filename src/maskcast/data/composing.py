"""Foregrounds over backgrounds: once when clips are prepared, and again, over others, while a model trains.

A composed pixel is ``F + (1 - a) B``, the light ``F`` of the foreground times its opacity ``a``. Over another
background it is the composed one plus ``(1 - a) (B' - B)``. So a store of composed clips, their alpha maps and the
backgrounds is all that composing anew needs; whoever knows nothing of it sees ordinary clips.

The backgrounds are a clip store of their own in the folder `backgrounds` of the store.

Shapes: T frames, H rows, W columns, C = 3 channels (RGB).
"""

import cv2
import numpy as np

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.errors import MaskcastError

BACKGROUNDS = "backgrounds"  # folder in a store, key of its meta
ALPHA = "alpha"  # the map that says what is seen of a background


def there_and_back(start: int, count: int, length: int) -> np.ndarray:
    """Returns which frames of a background show behind ``count`` frames: on to its end, back, and on again.

    Args:
        start: the first one.
        count: how many are wanted.
        length: frames of the background.
    """
    period = max(1, 2 * length - 2)
    place_T = (start + np.arange(count)) % period
    return np.minimum(place_T, period - place_T)


def compose(light_THWC: np.ndarray, alpha_THW: np.ndarray, background_THWC: np.ndarray) -> np.ndarray:
    """Returns the frames of a foreground over a background, uint8.

    Args:
        light_THWC: uint8 RGB of the foreground times its opacity.
        alpha_THW: its opacity, uint8.
        background_THWC: uint8 RGB; T may be 1.
    """
    return _added(light_THWC, alpha_THW, np.broadcast_to(background_THWC, light_THWC.shape))


def replace_background(
    frames_THWC: np.ndarray, alpha_THW: np.ndarray, old_THWC: np.ndarray, new_THWC: np.ndarray
) -> np.ndarray:
    """Returns composed frames over another background, at most a level off from composing them at first hand."""
    new, old = (layer_THWC.reshape(len(layer_THWC), -1) for layer_THWC in (new_THWC, old_THWC))
    return _added(frames_THWC, alpha_THW, cv2.subtract(new, old, dtype=cv2.CV_16S))


def _added(frames_THWC: np.ndarray, alpha_THW: np.ndarray, what: np.ndarray) -> np.ndarray:
    """Adds what shows behind, a value (uint8 or int16) for each of the frames; OpenCV keeps sums to 0..255."""
    clear_THW = 255 - alpha_THW
    shape = (len(frames_THWC), -1)
    clear = cv2.merge([clear_THW.reshape(shape)] * 3).reshape(shape)
    behind = cv2.multiply(what.reshape(shape), clear, scale=1 / 255, dtype=cv2.CV_16S)
    return np.asarray(cv2.add(frames_THWC.reshape(shape), behind, dtype=cv2.CV_8U).reshape(frames_THWC.shape))


class Backgrounds:
    """The backgrounds that the training clips of a store may be seen over.

    Args:
        store: whose meta names its backgrounds.

    Raises:
        MaskcastError: if the backgrounds are missing, are others than these clips were composed over, or there is
            none of the split ``train``.
    """

    def __init__(self, store: ClipStore) -> None:
        root = store.root / BACKGROUNDS
        self._store = ClipStore(root)
        if self._store.digest != store.meta[BACKGROUNDS]:
            raise MaskcastError(f"{root}: not the backgrounds of {store.root}; prepare the clips again")
        self._alpha = store.of(ALPHA)
        self._train = list(self._store.select("train"))
        own = {one.meta["video"] for one in self._train}
        others = {name: [one for one in self._train if one.meta["video"] != name] for name in own}
        self._others = {name: some for name, some in others.items() if some}

    def behind(
        self, clip: Clip, window: slice, frames_THWC: np.ndarray, random: np.random.Generator
    ) -> np.ndarray:
        """Returns frames of a clip over a background that is drawn, with its first frame, and maybe mirrored.

        Args:
            clip: of the store.
            window: which frames of it these are.
            frames_THWC: as the store has them.
            random: decides; its state is advanced.
        """
        pool = self._others.get(clip.meta["video"], self._train)
        chosen = pool[int(random.integers(len(pool)))]
        start, mirrored = int(random.integers(2 * chosen.num_frames)), bool(random.random() < 0.5)
        count = len(frames_THWC)
        new = self._store.frames(chosen)[there_and_back(start, count, chosen.num_frames)]
        first = self._store.get(clip.meta["background"])
        seen = there_and_back(window.start, count, first.num_frames)
        alpha_THW = self._alpha.masks(clip, window)
        old = self._store.frames(first)[seen]
        return replace_background(frames_THWC, alpha_THW, old, new[:, :, ::-1] if mirrored else new)
