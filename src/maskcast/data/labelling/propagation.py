"""Propagates labels of a few frames to the frames around them by optical flow.

Each pixel of a frame is followed, frame by frame, to the nearest labelled frames, and gets the class found there.
The confidence comes from forward-backward consistency: where a pixel was occluded or moved too fast, forward and
backward flow do not return to the starting point.

Legend: T frames, H height, W width, C = 3 channels (RGB).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from pydantic import Field

from maskcast.data.optical_flow import OpticalFlow, upscale_factor
from maskcast.labels import IGNORE
from maskcast.params import Params

ERROR_SCALE = 1 / 72  # of the shorter side: the error at which confidence falls to 1/e
OUTSIDE_ERROR = 1e3  # of the shorter side: the error of a path that leaves the frame
STEP_CONFIDENCE = 0.98  # per frame of a path, so that of two equally consistent paths the shorter wins


class PropagationParams(Params):
    """How far labels are propagated."""

    frames: int = Field(default=8, ge=1)
    """How many frames before and after a labelled frame its labels are propagated, at most up to the next labelled
    frame."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """Minimum confidence of a propagated label: how closely forward and backward flow return to the starting
    point."""


class Propagated(NamedTuple):
    """Propagated masks of a clip.

    Attributes:
        masks_THW: uint8 class ids, ``IGNORE`` where no label reaches.
        confidence_THW: float32, 0..1; 1 for given labels.
    """

    masks_THW: np.ndarray
    confidence_THW: np.ndarray


@dataclass
class _FlowPath:
    """Paths from the pixels of a frame to a labelled frame: end points, and accumulated forward-backward error."""

    x_HW: np.ndarray
    y_HW: np.ndarray
    error_HW: np.ndarray


def propagate(frames_THWC: np.ndarray, masks_THW: np.ndarray, known: Sequence[int], reach: int) -> Propagated:
    """Propagates the labels of some frames to the frames around them.

    The flow is DIS of Kroeger et al. 2016 (arXiv 1603.03590). Let a path have ``n`` steps, with forward-backward
    errors ``d_i`` relative to the shorter side. Its confidence is ``0.98^n exp(-(72 sum d_i)^2)``. The path with
    the highest confidence gives the label.

    Args:
        frames_THWC: uint8.
        masks_THW: uint8 class ids, ``IGNORE`` without label.
        known: indices of the labelled frames.
        reach: how many frames before and after each of these to propagate; never beyond the next labelled frame.
    """
    height, width = frames_THWC.shape[1:3]
    factor = upscale_factor(height, width)
    size = height * factor, width * factor
    propagated = Propagated(np.full_like(masks_THW, IGNORE), np.zeros(masks_THW.shape, np.float32))
    labelled, flows = set(known), _Flows(frames_THWC, size)
    for source in known:
        propagated.masks_THW[source], propagated.confidence_THW[source] = (
            masks_THW[source],
            masks_THW[source] != IGNORE,
        )
        for step in (1, -1):
            path = flows.start()
            for n in range(1, reach + 1):
                t = source + n * step
                if not 0 <= t < len(frames_THWC) or t in labelled:
                    break
                path = flows.extend(path, t, t - step)
                x_HW, y_HW = (_at_centres(fine_HW, factor) for fine_HW in (path.x_HW, path.y_HW))
                label_HW = _sample(masks_THW[source], x_HW, y_HW, cv2.INTER_NEAREST)
                confidence_HW = STEP_CONFIDENCE**n * np.exp(-((path.error_HW / ERROR_SCALE) ** 2))
                confidence_HW = cv2.resize(confidence_HW, (width, height), interpolation=cv2.INTER_AREA)
                _keep_most_confident(propagated, t, label_HW, confidence_HW)
        flows.evict_before(source)
    return propagated


class _Flows:
    """The optical flow between adjacent frames of a clip, computed once per pair."""

    def __init__(self, frames_THWC: np.ndarray, size: tuple[int, int]) -> None:
        self._frames_THWC, self._size = frames_THWC, size
        self._y_HW, self._x_HW = np.mgrid[: size[0], : size[1]].astype(np.float32)
        self._flow = OpticalFlow()
        self._grey_cache: dict[int, np.ndarray] = {}
        self._cache: dict[tuple[int, int], np.ndarray] = {}

    def start(self) -> _FlowPath:
        """Returns the paths of a labelled frame's own pixels, which have no steps."""
        return _FlowPath(self._x_HW, self._y_HW, np.zeros(self._size, np.float32))

    def extend(self, path: _FlowPath, t: int, before: int) -> _FlowPath:
        """Returns the paths of the pixels of frame ``t``, given those of its neighbour ``before``."""
        forward_HW2 = self._between(t, before)
        x_HW, y_HW = self._x_HW + forward_HW2[..., 0], self._y_HW + forward_HW2[..., 1]
        backward_HW2 = _sample(self._between(before, t), x_HW, y_HW)
        step_error_HW = np.linalg.norm(forward_HW2 + backward_HW2, axis=2) / min(self._size)
        height, width = self._size
        step_error_HW[(x_HW < -0.5) | (y_HW < -0.5) | (x_HW > width - 0.5) | (y_HW > height - 0.5)] = OUTSIDE_ERROR
        return _FlowPath(
            _sample(path.x_HW, x_HW, y_HW),
            _sample(path.y_HW, x_HW, y_HW),
            _sample(path.error_HW, x_HW, y_HW) + step_error_HW,
        )

    def evict_before(self, before: int) -> None:
        """Frees the flow before a labelled frame, which no later path crosses."""
        self._cache = {pair: flow for pair, flow in self._cache.items() if max(pair) > before}
        self._grey_cache = {t: grey for t, grey in self._grey_cache.items() if t >= before}

    def _between(self, first: int, second: int) -> np.ndarray:
        """Returns the flow from one frame to another, (H, W, 2)."""
        if (first, second) not in self._cache:
            self._cache[first, second] = self._flow.between(self._grey_frame(first), self._grey_frame(second))
        return self._cache[first, second]

    def _grey_frame(self, t: int) -> np.ndarray:
        if t not in self._grey_cache:
            grey_HW = cv2.cvtColor(self._frames_THWC[t], cv2.COLOR_RGB2GRAY)
            self._grey_cache[t] = cv2.resize(grey_HW, self._size[::-1], interpolation=cv2.INTER_CUBIC)
        return self._grey_cache[t]


def _keep_most_confident(propagated: Propagated, t: int, label_HW: np.ndarray, confidence_HW: np.ndarray) -> None:
    """Updates frame ``t`` where the propagated label is more confident than the present one."""
    better_HW = (label_HW != IGNORE) & (confidence_HW > propagated.confidence_THW[t])
    propagated.masks_THW[t][better_HW] = label_HW[better_HW]
    propagated.confidence_THW[t][better_HW] = confidence_HW[better_HW]


def _at_centres(fine_HW: np.ndarray, factor: int) -> np.ndarray:
    """Returns the coordinates at the centres of the pixels of the smaller frame, in these pixels."""
    size = fine_HW.shape[1] // factor, fine_HW.shape[0] // factor
    at_centres_HW = cv2.resize(fine_HW, size, interpolation=cv2.INTER_LINEAR)  # of an even factor the mean of four
    return (at_centres_HW + 0.5) / factor - 0.5


def _sample(layer: np.ndarray, x_HW: np.ndarray, y_HW: np.ndarray, method: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Samples a layer at subpixel positions; beyond the border, the values of the border are used."""
    return cv2.remap(layer, x_HW, y_HW, method, borderMode=cv2.BORDER_REPLICATE)
