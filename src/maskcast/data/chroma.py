"""Chroma keys: separate the foreground from a green screen, as premultiplied colour and opacity.

A pixel is ``I = F + (1 - a) S``. ``F`` is the foreground's colour multiplied by its opacity ``a`` (premultiplied),
and ``S`` is the colour of the screen. Over a background ``B`` the pixel becomes ``F + (1 - a) B``. In this form
nothing is divided by a small opacity, which would spoil soft edges.

Shapes: T frames, H rows, W columns, C = 3 channels (RGB).
"""

from typing import Annotated, Literal, NamedTuple

import cv2
import numpy as np
from pydantic import Field, model_validator

from maskcast.errors import IllustratedError
from maskcast.params import Params

Level = Annotated[int, Field(ge=0, le=255)]
MIN_GREENNESS = 24  # by this many levels green exceeds red and blue in a pixel that may be screen
PURE_SCREEN = 0.7  # share of the screen's median greenness from which a pixel is only screen
WINDOW = 0.25  # share of the picture's size: window for the mean colour of the screen
MAX_SOFT = 0.75  # share of the foreground; more half-transparent pixels mean that the key does not fit
MIN_GREEN = 0.001  # share of a picture's pixels that are green, below which it shows no screen
MIN_FOREGROUND = 0.001  # share of a frame's pixels, below which in all frames there is no foreground


class Keyed(NamedTuple):
    """A separated foreground.

    Attributes:
        foreground_THWC: premultiplied uint8 RGB; 0 where opacity is 0.
        alpha_THW: opacity, uint8, 255 = opaque.
    """

    foreground_THWC: np.ndarray
    alpha_THW: np.ndarray


class _Key(Params):
    """The common params of all keys."""

    min_screen: float = Field(default=0.05, ge=0, lt=1)
    """Share of every frame that must be screen; a clip with less is left out and reported."""


class BoundsKey(_Key):
    """Pixels within the bounds are screen, all others are opaque."""

    name: Literal["bounds"] = "bounds"
    lower: tuple[Level, Level, Level] = (0, 125, 0)
    """Minimum red, green and blue of the screen."""
    upper: tuple[Level, Level, Level] = (120, 255, 100)
    """Maximum red, green and blue of the screen."""
    despill: bool = False
    """Whether green that the screen throws on the foreground is taken away: no pixel is left greener than the
    larger of its red and blue."""

    def __call__(self, frames_THWC: np.ndarray) -> Keyed:
        """Keys frames, uint8 RGB."""
        alpha = [255 - cv2.inRange(frame_HWC, self.lower, self.upper) for frame_HWC in frames_THWC]
        alpha_THW = np.stack(alpha)
        foreground_THWC = frames_THWC * (alpha_THW > 0)[..., None]
        return Keyed(_despill(foreground_THWC) if self.despill else foreground_THWC, alpha_THW)


class SoftKey(_Key):
    """Opacity falls with greenness relative to the screen nearby, whose colour is subtracted from soft edges.

    Greenness is green minus the larger of red and blue (Petro Vlahos' colour difference).
    """

    name: Literal["soft"] = "soft"
    opaque: float = Field(default=0.15, ge=0, le=1)
    """Greenness, as a share of the screen's, up to which a pixel is fully opaque."""
    clear: float = Field(default=0.85, ge=0, le=1)
    """Greenness, as a share of the screen's, from which a pixel is fully transparent."""
    despill: bool = True
    """Whether green that the screen throws on the foreground is taken away: no pixel is left greener than the
    larger of its red and blue."""

    @model_validator(mode="after")
    def _check_order(self) -> "SoftKey":
        if self.opaque >= self.clear:
            raise ValueError(f"opaque {self.opaque} must be below clear {self.clear}")
        return self

    def __call__(self, frames_THWC: np.ndarray) -> Keyed:
        """Keys frames, uint8 RGB."""
        keyed = [self._frame(frame_HWC.astype(np.float32)) for frame_HWC in frames_THWC]
        foreground_THWC, alpha_THW = (np.stack(array) for array in zip(*keyed, strict=True))
        return Keyed(_despill(foreground_THWC) if self.despill else foreground_THWC, alpha_THW)

    def _frame(self, frame_HWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        screen_HWC = estimate_screen(frame_HWC)
        if screen_HWC is None:
            return frame_HWC.astype(np.uint8), np.full(frame_HWC.shape[:2], 255, np.uint8)
        ratio_HW = _greenness(frame_HWC) / _greenness(screen_HWC).clip(1)
        alpha_HW = 1 - ((ratio_HW - self.opaque) / (self.clear - self.opaque)).clip(0, 1)
        return _subtract_screen(frame_HWC, alpha_HW, screen_HWC), _to_uint8(255 * alpha_HW)


Key = Annotated[BoundsKey | SoftKey, Field(discriminator="name")]


def key_with_matte(frames_THWC: np.ndarray, alpha_THW: np.ndarray) -> Keyed:
    """Returns the foreground for a given opacity (uint8), with the colour of a green screen subtracted."""
    foregrounds = []
    for frame_HWC, alpha_HW in zip(frames_THWC, alpha_THW, strict=True):
        frame = frame_HWC.astype(np.float32)
        screen_HWC = estimate_screen(frame)
        foregrounds.append(
            _subtract_screen(frame, alpha_HW / np.float32(255), frame if screen_HWC is None else screen_HWC)
        )
    return Keyed(np.stack(foregrounds), alpha_THW)


def estimate_screen(frame_HWC: np.ndarray) -> np.ndarray | None:
    """Estimates the colour of the screen in each pixel, (H, W, C) float32, from visible screen nearby.

    Args:
        frame_HWC: float32 RGB.

    Returns:
        The colours, or None if hardly any pixel is green.
    """
    green_HW = _greenness(frame_HWC)
    is_green_HW = green_HW > MIN_GREENNESS
    if is_green_HW.mean() < MIN_GREEN:
        return None
    pure_HW = (green_HW > PURE_SCREEN * np.median(green_HW[is_green_HW])).astype(np.float32)
    size = tuple(2 * int(WINDOW * side / 2) + 1 for side in pure_HW.shape[::-1])
    blurred_HWC = cv2.blur(frame_HWC * pure_HW[..., None], size)
    weight_HW1 = cv2.blur(pure_HW, size)[..., None]
    mean_C = (frame_HWC * pure_HW[..., None]).sum((0, 1)) / pure_HW.sum()
    mean_weight = np.float32(1e-3)  # weight of the mean colour, which is used where no screen is near
    return np.asarray((blurred_HWC + mean_weight * mean_C) / (weight_HW1 + mean_weight), np.float32)


def check_key(keyed: Keyed, frames_THWC: np.ndarray, min_screen: float) -> None:
    """Refuses an implausible foreground.

    Raises:
        IllustratedError: if a frame has too little screen, there is no foreground, or too much of it is
            half-transparent.
    """
    screen_T = (keyed.alpha_THW < 128).mean((1, 2))
    worst = int(screen_T.argmin())
    soft_T = ((keyed.alpha_THW > 25) & (keyed.alpha_THW < 230)).sum((1, 2))
    opaque_T = (keyed.alpha_THW > 25).sum((1, 2))
    if screen_T[worst] < min_screen:
        reason = f"{screen_T[worst]:.1%} of frame {worst} is green screen, required: {min_screen:.0%} (min_screen)"
    elif (1 - screen_T).max() < MIN_FOREGROUND:
        worst, reason = 0, "no foreground found in front of the screen"
    elif soft_T.sum() > MAX_SOFT * opaque_T.sum():
        worst = int((soft_T / opaque_T.clip(1)).argmax())
        reason = f"{soft_T.sum() / opaque_T.sum():.0%} of the foreground is half-transparent"
    else:
        return
    alpha_HWC = np.repeat(keyed.alpha_THW[worst][..., None], 3, axis=2)
    picture = np.concatenate([frames_THWC[worst], alpha_HWC, keyed.foreground_THWC[worst]], axis=1)
    raise IllustratedError(f"{reason}; choose another source.key or its bounds, or leave the video out", picture)


def _greenness(frame_HWC: np.ndarray) -> np.ndarray:
    return np.asarray(frame_HWC[..., 1] - np.maximum(frame_HWC[..., 0], frame_HWC[..., 2]))


def _subtract_screen(frame_HWC: np.ndarray, alpha_HW: np.ndarray, screen_HWC: np.ndarray) -> np.ndarray:
    """Subtracts the screen's share; clips the result to premultiplied colours."""
    alpha_HW1 = alpha_HW[..., None]
    return _to_uint8((frame_HWC - (1 - alpha_HW1) * screen_HWC).clip(0, 255 * alpha_HW1))


def _despill(foreground_THWC: np.ndarray) -> np.ndarray:
    despilled_THWC = foreground_THWC.copy()
    green_THW = despilled_THWC[..., 1]
    np.minimum(green_THW, np.maximum(despilled_THWC[..., 0], despilled_THWC[..., 2]), out=green_THW)
    return despilled_THWC


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.round().astype(np.uint8))
