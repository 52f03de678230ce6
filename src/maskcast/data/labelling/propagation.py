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

from maskcast.data.optical_flow import OpticalFlow, enlargement
from maskcast.labels import IGNORE
from maskcast.params import Params

STRAY = 1 / 72  # of the shorter side: the error at which confidence falls to 1/e
OUTSIDE = 1e3  # of the shorter side: the error of a path that leaves the frame
EACH_STEP = 0.98  # per frame of a path, so that of two equally consistent paths the shorter wins


class PropagationParams(Params):
    """How far labels are carried."""

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
class _Way:
    """Paths from the pixels of a frame to a labelled frame: end points, and accumulated forward-backward error."""

    x_HW: np.ndarray
    y_HW: np.ndarray
    stray_HW: np.ndarray


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
    factor = enlargement(height, width)
    size, middle = (height * factor, width * factor), slice(factor // 2, None, factor)
    found = Propagated(np.full_like(masks_THW, IGNORE), np.zeros(masks_THW.shape, np.float32))
    labelled, flows = set(known), _Flows(frames_THWC, size)
    for first in known:
        found.masks_THW[first], found.confidence_THW[first] = masks_THW[first], masks_THW[first] != IGNORE
        mask_HW = cv2.resize(masks_THW[first], size[::-1], interpolation=cv2.INTER_NEAREST)
        for step in (1, -1):
            way = flows.begin()
            for n in range(1, reach + 1):
                t = first + n * step
                if not 0 <= t < len(frames_THWC) or t in labelled:
                    break
                way = flows.follow(way, t, t - step)
                carried_HW = _lookup(mask_HW, way.x_HW, way.y_HW, cv2.INTER_NEAREST)[middle, middle]
                sure_HW = EACH_STEP**n * np.exp(-((way.stray_HW / STRAY) ** 2))
                sure_HW = cv2.resize(sure_HW, (width, height), interpolation=cv2.INTER_AREA)
                _keep_surer(found, t, carried_HW, sure_HW)
        flows.forget(first)
    return found


class _Flows:
    """The optical flow between adjacent frames of a clip, computed once per pair."""

    def __init__(self, frames_THWC: np.ndarray, size: tuple[int, int]) -> None:
        self._frames_THWC, self._size = frames_THWC, size
        self._y_HW, self._x_HW = np.mgrid[: size[0], : size[1]].astype(np.float32)
        self._flow = OpticalFlow()
        self._grey: dict[int, np.ndarray] = {}
        self._found: dict[tuple[int, int], np.ndarray] = {}

    def begin(self) -> _Way:
        """Returns the paths of a labelled frame's own pixels, which have no steps."""
        return _Way(self._x_HW, self._y_HW, np.zeros(self._size, np.float32))

    def follow(self, way: _Way, t: int, before: int) -> _Way:
        """Returns the paths of the pixels of frame ``t``, given those of its neighbour ``before``."""
        there_HW2 = self._between(t, before)
        x_HW, y_HW = self._x_HW + there_HW2[..., 0], self._y_HW + there_HW2[..., 1]
        back_HW2 = _lookup(self._between(before, t), x_HW, y_HW)
        missed_HW = np.linalg.norm(there_HW2 + back_HW2, axis=2) / min(self._size)
        height, width = self._size
        missed_HW[(x_HW < -0.5) | (y_HW < -0.5) | (x_HW > width - 0.5) | (y_HW > height - 0.5)] = OUTSIDE
        return _Way(
            _lookup(way.x_HW, x_HW, y_HW),
            _lookup(way.y_HW, x_HW, y_HW),
            _lookup(way.stray_HW, x_HW, y_HW) + missed_HW,
        )

    def forget(self, before: int) -> None:
        """Frees the flow before a labelled frame, which no later path crosses."""
        self._found = {pair: flow for pair, flow in self._found.items() if max(pair) > before}
        self._grey = {t: grey for t, grey in self._grey.items() if t >= before}

    def _between(self, first: int, second: int) -> np.ndarray:
        """Returns the flow from one frame to another, (H, W, 2)."""
        if (first, second) not in self._found:
            self._found[first, second] = self._flow.between(self._picture(first), self._picture(second))
        return self._found[first, second]

    def _picture(self, t: int) -> np.ndarray:
        if t not in self._grey:
            grey_HW = cv2.cvtColor(self._frames_THWC[t], cv2.COLOR_RGB2GRAY)
            self._grey[t] = cv2.resize(grey_HW, self._size[::-1], interpolation=cv2.INTER_CUBIC)
        return self._grey[t]


def _keep_surer(found: Propagated, t: int, carried_HW: np.ndarray, sure_HW: np.ndarray) -> None:
    """Updates frame ``t`` where the propagated label is more confident than the present one."""
    better_HW = (carried_HW != IGNORE) & (sure_HW > found.confidence_THW[t])
    found.masks_THW[t][better_HW] = carried_HW[better_HW]
    found.confidence_THW[t][better_HW] = sure_HW[better_HW]


def _lookup(layer: np.ndarray, x_HW: np.ndarray, y_HW: np.ndarray, method: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Samples a layer at subpixel positions; beyond the border, the values of the border are used."""
    return cv2.remap(layer, x_HW, y_HW, method, borderMode=cv2.BORDER_REPLICATE)
