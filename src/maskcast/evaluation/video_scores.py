"""How well and how steadily clips are masked: masks of classes against the truth, through time.

What compares a frame with the one before stays within a clip.

Legend: T frames, H height, W width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from maskcast.evaluation.metrics import accuracy, confusion, has_foreground, macro_dice, macro_jaccard
from maskcast.labels import IGNORE

WINDOWS = (8, 16)  # frames of mVC


@dataclass
class VideoScores:
    """Scores of one masker over clips; ``docs/video.md`` defines each.

    Args:
        num_classes: of the label map, background included.
    """

    num_classes: int
    per_clip: dict[str, dict[str, float]] = field(default_factory=dict)
    """Scores of each clip alone, NaN where it has none."""

    def __post_init__(self) -> None:
        self._counts = np.zeros((self.num_classes,) * 2, np.int64)
        self._changes = np.zeros(3, np.int64)
        self._frames: list[float] = []
        self._windows: dict[int, list[float]] = {length: [] for length in WINDOWS}

    def add(self, clip: str, truth_THW: np.ndarray, found_THW: np.ndarray) -> None:
        """Scores a clip.

        Args:
            clip: its id.
            truth_THW: true masks, uint8, 255 where there is no label.
            found_THW: masks to score, uint8.
        """
        frames = [confusion(*pair, self.num_classes) for pair in zip(truth_THW, found_THW, strict=True)]
        counts, changes = np.sum(frames, axis=0), changes_of(truth_THW, found_THW)
        windows = {length: consistency(truth_THW, found_THW, length) for length in WINDOWS}
        self._counts += counts
        self._changes += changes
        self._frames += [macro_jaccard(one, absent="omit") for one in frames if one.any()]
        for length, found in windows.items():
            self._windows[length] += found
        self.per_clip[clip] = {
            "jaccard": macro_jaccard(counts, absent="omit") if has_foreground(counts) else float("nan"),
            "flicker": _share(changes[0], changes[2]),
            "mvc8": _mean(windows[8]),
        }

    def table(self) -> dict[str, float]:
        """Returns all scores by name, NaN where nothing was to be scored."""
        some = has_foreground(self._counts)
        return {
            "jaccard": macro_jaccard(self._counts, absent="omit") if some else float("nan"),
            "jaccard_frames": _mean(self._frames) if some else float("nan"),
            "dice": macro_dice(self._counts, absent="omit") if some else float("nan"),
            "accuracy": accuracy(self._counts),
            "flicker": _share(self._changes[0], self._changes[2]),
            "change": _share(self._changes[1], self._changes[2]),
        } | {f"mvc{length}": _mean(found) for length, found in self._windows.items()}


def changes_of(truth_THW: np.ndarray, found_THW: np.ndarray) -> np.ndarray:
    """Returns in how many pixels the error changed since the frame before, in how many the mask, and of how many.

    The error of a pixel is the true class where the mask is wrong, or none: a mask that changes with the truth
    does not flicker. Pixels without a label in either frame do not count.
    """
    error_THW = np.where(truth_THW == found_THW, IGNORE, truth_THW)
    known_THW = (truth_THW[1:] != IGNORE) & (truth_THW[:-1] != IGNORE)
    flicker = (error_THW[1:] != error_THW[:-1]) & known_THW
    change = (found_THW[1:] != found_THW[:-1]) & known_THW
    return np.array([flicker.sum(), change.sum(), known_THW.sum()], np.int64)


def consistency(truth_THW: np.ndarray, found_THW: np.ndarray, length: int) -> list[float]:
    """Returns the video consistency of each window of so many frames (Miao et al. 2021, VSPW, CVPR).

    Of the pixels whose true class stays the same through a window it is the share that is right in all its frames.
    A clip shorter than a window, or a window without such pixels, has none.
    """
    found = []
    for start in range(len(truth_THW) - length + 1):
        truth, window = truth_THW[start : start + length], found_THW[start : start + length]
        same_HW = (truth == truth[0]).all(0) & (truth[0] != IGNORE)
        if pixels := int(same_HW.sum()):
            found.append(int(((window == truth).all(0) & same_HW).sum()) / pixels)
    return found


def beside(ours: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    """Returns what a masker gains over its base: ``jaccard_gain``, and ``flicker_ratio``, NaN without flicker."""
    ratio = ours["flicker"] / base["flicker"] if base["flicker"] else float("nan")
    return {"jaccard_gain": ours["jaccard"] - base["jaccard"], "flicker_ratio": ratio}


def _share(part: int, whole: int) -> float:
    return int(part) / int(whole) if whole else float("nan")


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
