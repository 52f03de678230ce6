"""Augmentation that transforms frames together with their masks, in two steps: draw a change, then apply it.

All geometry (flip, zoom, rotation, shift, crop) is one affine map. Frames and alpha maps are interpolated
bilinearly, class maps by nearest neighbour. One draw can serve a frame, a whole clip, or two views with different
colours.

Legend: T frames, H height, W width, C = 3 channels (RGB); frames and masks are uint8.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, radians, sin
from typing import Any, Literal, Self

import cv2
import numpy as np
from pydantic import Field, model_validator

from maskcast.data.augment.colours import ColourParams, Probability, draw_colour_transform, recolour
from maskcast.data.augment.mirror import swap_masks
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, LabelMap, MirrorSwaps


class Augmentation(ColourParams):
    """What may change about a training frame; the defaults change nothing but its mirror image.

    A package may bring a subclass that adds ``name: Literal[...]``, keys, and what ``change`` makes of a sample.
    """

    hflip: Probability = 0.5
    """Probability of a horizontal flip, which swaps the classes and label maps of `source.mirror_swaps`."""
    zoom: tuple[float, float] = (1.0, 1.0)
    """Minimum and maximum magnification, drawn uniformly on a log scale."""
    rotate: float = Field(default=0.0, ge=0, le=180)
    """Maximum rotation in either direction, in degrees."""
    shift: float = Field(default=0.0, ge=0, le=1)
    """Maximum translation in either direction, as a fraction of the height and width of the result."""
    crop: tuple[int, int] | None = None
    """Height and width of a random crop; null keeps whole frames."""
    crop_on_object: Probability = 0.0
    """Probability that the crop must contain a randomly drawn object pixel, as nnU-Net does for a third of its
    patches; otherwise its position is random."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"zoom {self.zoom} must be two factors above 0, the smaller first")
        if self.crop is not None and min(self.crop) < 1:
            raise ValueError(f"crop {self.crop} must be a height and a width of at least 1")
        return self

    def change(
        self, frames_THWC: np.ndarray, masks: dict[LabelMap, np.ndarray], random: np.random.Generator
    ) -> tuple[np.ndarray, dict[LabelMap, np.ndarray]]:
        """Changes a sample further, but not its size; called after all other changes. Here it changes nothing.

        Args:
            frames_THWC: uint8 RGB, frames of one clip.
            masks: (T, H, W) uint8 for each label map; class ids, 255 for no label.
            random: use it for all random draws; otherwise a resumed training would differ.
        """
        return frames_THWC, masks


class AugmentParams(Augmentation):
    """What maskcast itself may change."""

    name: Literal["standard"] = "standard"
    """The augmentation; a plugin may add others (docs/add-a-model.md)."""


@dataclass(frozen=True)
class GeometricTransform:
    """The geometric transform of frames and masks.

    Attributes:
        map_23: affine map from (x, y) in the result to (x, y) in the frame.
        size: height and width of the result.
    """

    map_23: np.ndarray
    size: tuple[int, int]

    @property
    def is_flipped(self) -> bool:
        """Whether left and right are swapped."""
        return bool(np.linalg.det(self.map_23[:, :2]) < 0)


def draw_geometric_transform(
    params: Augmentation, shape: tuple[int, int], object_HW: np.ndarray | None, random: np.random.Generator
) -> GeometricTransform:
    """Draws a geometric transform.

    Args:
        params: ranges of the transform.
        shape: height and width of the frames.
        object_HW: bool, object pixels, one of which the crop may have to contain; None if unknown.
        random: draws the transform; its state advances.
    """
    height, width = params.crop or shape
    size = min(height, shape[0]), min(width, shape[1])
    pixel = _object_pixel(params.crop_on_object, object_HW, random)
    corner = _crop_corner(shape, size, pixel, random)
    map_23 = _affine(params, random, corner, size)
    return GeometricTransform(map_23 if pixel is None else _containing(map_23, pixel, size), size)


def warp_frames(frames_THWC: np.ndarray, geometry: GeometricTransform) -> np.ndarray:
    """Returns transformed frames; uncovered pixels repeat the border."""
    return _warp(frames_THWC, geometry, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)


def warp_masks(label_map: LabelMap, masks_THW: np.ndarray, geometry: GeometricTransform) -> np.ndarray:
    """Returns transformed masks; uncovered pixels become ``IGNORE``, or in alpha maps repeat the border."""
    if label_map.kind == "alpha":
        return _warp(masks_THW, geometry, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
    return _warp(masks_THW, geometry, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)


def augment(
    frames_THWC: np.ndarray,
    masks: Mapping[LabelMap, np.ndarray],
    params: Augmentation,
    random: np.random.Generator,
    swaps: MirrorSwaps = (),
) -> tuple[np.ndarray, dict[LabelMap, np.ndarray]]:
    """Returns augmented copies of the frames of a clip and of their masks; one draw is used for all.

    Args:
        frames_THWC: uint8 RGB.
        masks: (T, H, W) uint8 for each label map.
        params: ranges of the changes.
        random: draws the changes; its state advances.
        swaps: pairs of maps, or of classes, that a horizontal flip swaps.

    Returns:
        Frames and masks, with the size ``params.crop`` (never larger than the frames) or the size of the input.
    """
    shape = frames_THWC.shape[1:3]
    object_HW = _object_pixels(masks) if params.crop_on_object else None
    geometry = draw_geometric_transform(params, shape, object_HW, random)
    colours = draw_colour_transform(params, (len(frames_THWC), *geometry.size, 3), random)
    warped = {label_map: warp_masks(label_map, masks_THW, geometry) for label_map, masks_THW in masks.items()}
    if swaps and geometry.is_flipped:
        warped = swap_masks(warped, swaps)
    frames_THWC = recolour(warp_frames(frames_THWC, geometry), colours)
    expected = _layer_shapes(frames_THWC, warped)
    if type(params).change is Augmentation.change:
        return frames_THWC, warped
    changed: Any = params.change(frames_THWC, warped, random)
    place = f"train_masker.augment: {type(params).__name__}.change returns"
    is_sample = (
        isinstance(changed, tuple)
        and len(changed) == 2
        and isinstance(changed[1], Mapping)
        and all(isinstance(label_map, LabelMap) for label_map in changed[1])
        and all(isinstance(layer, np.ndarray) for layer in (changed[0], *changed[1].values()))
    )
    actual = _layer_shapes(*changed) if is_sample else _types(changed)
    if actual != expected:
        raise MaskcastError(f"{place} {actual}; return {expected}")
    for label_map, masks_THW in changed[1].items():
        unknown = (masks_THW >= label_map.num_classes) & (masks_THW != IGNORE)
        if label_map.kind == "classes" and unknown.any():
            raise MaskcastError(
                f"{place} class id {masks_THW[unknown][0]} in masks {label_map.name!r}; return ids below "
                f"{label_map.num_classes}, or {IGNORE} for no label"
            )
    return changed


def _types(value: object) -> str:
    """Returns the type of a value, of tuples and dicts with those of their parts."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_types, value))})"
    if isinstance(value, dict):
        parts = [f"{_types(key)} to {_types(each)}" for key, each in value.items()]
        return f"a dict of {', '.join(parts) or 'nothing'}"
    return type(value).__name__


def _layer_shapes(frames_THWC: np.ndarray, masks: Mapping[LabelMap, np.ndarray]) -> str:
    """Returns a text with dtype and shape of each layer; they must not change, as samples are stacked."""
    layers = {"frames": frames_THWC} | {
        f"masks {label_map.name!r}": masks_THW for label_map, masks_THW in masks.items()
    }
    return ", ".join(f"{name} {layer.dtype} {layer.shape}" for name, layer in layers.items())


def _object_pixels(masks: Mapping[LabelMap, np.ndarray]) -> np.ndarray:
    """Returns the pixels where any map has an object in any frame, (H, W) bool."""
    objects: list[np.ndarray] = [
        masks_THW > 0 if label_map.kind == "alpha" else (masks_THW != 0) & (masks_THW != IGNORE)
        for label_map, masks_THW in masks.items()
    ]
    return np.asarray(np.concatenate(objects).any(0))


def _warp(layer_THW: np.ndarray, geometry: GeometricTransform, interpolation: int, border: int) -> np.ndarray:
    size = geometry.size[::-1]
    return np.stack(
        [
            cv2.warpAffine(
                layer_HW,
                geometry.map_23,
                size,
                flags=cv2.WARP_INVERSE_MAP | interpolation,
                borderMode=border,
                borderValue=IGNORE,
            )
            for layer_HW in layer_THW
        ]
    )


def _object_pixel(
    on_object: float, object_HW: np.ndarray | None, random: np.random.Generator
) -> tuple[int, int] | None:
    """Returns (y, x) of the object pixel that the result must contain, if any."""
    if not on_object or random.random() >= on_object or object_HW is None:
        return None
    pixels = np.flatnonzero(object_HW)
    return divmod(int(random.choice(pixels)), object_HW.shape[1]) if len(pixels) else None


def _crop_corner(
    shape: tuple[int, int], crop: tuple[int, int], pixel: tuple[int, int] | None, random: np.random.Generator
) -> tuple[int, int]:
    """Returns (top, left) of the crop."""
    last = np.subtract(shape, crop)
    low, high = np.zeros_like(last), last
    if pixel is not None:
        low, high = np.maximum(np.subtract(pixel, crop) + 1, 0), np.minimum(pixel, last)
    top, left = random.integers(low, high + 1)
    return int(top), int(left)


def _containing(map_23: np.ndarray, pixel: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Returns the map, moved if zoom, rotation and shift push a pixel of the frame out of the result."""
    linear, x_y = map_23[:, :2], np.array(pixel[::-1])
    place = np.linalg.solve(linear, x_y - map_23[:, 2])
    inside = np.clip(place, 0, np.subtract(size[::-1], 1))
    if np.allclose(place, inside):
        return map_23
    return np.column_stack([linear, x_y - linear @ inside.round()])


def _affine(
    params: Augmentation, random: np.random.Generator, corner: tuple[int, int], crop: tuple[int, int]
) -> np.ndarray:
    """Returns the affine map (2, 3) from (x, y) in the result to (x, y) in the frame, about the crop's centre."""
    mirror = -1.0 if random.random() < params.hflip else 1.0
    zoom = float(np.exp(random.uniform(*np.log(params.zoom))))
    angle = radians(random.uniform(-params.rotate, params.rotate))
    rotation = np.array([[mirror * cos(angle), -mirror * sin(angle)], [sin(angle), cos(angle)]]) / zoom
    size, start = np.array(crop[::-1]), np.array(corner[::-1])
    centre = (size - 1) / 2
    shift = random.uniform(-params.shift, params.shift, 2) * size
    return np.column_stack([rotation, start + centre - rotation @ (centre + shift)])
