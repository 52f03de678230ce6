"""Single images with one mask image per label map; each label map has a folder or a file name pattern.

Shapes: H rows, W columns.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from maskcast.data.images import check_mask_size, read_image
from maskcast.data.masks.choice import Encoding, choose_rule
from maskcast.data.masks.rules import MaskRule
from maskcast.data.masks.survey import survey_masks
from maskcast.data.mirror_swaps import MirrorSwapsParam, check_swaps_named, mirror_swaps_meta
from maskcast.data.shared_frames import EVALUATION_SPLITS
from maskcast.data.sources.base import Arrays, Listing, RawClip, SourceConfig
from maskcast.data.sources.classes import Classes, read_classes
from maskcast.data.sources.patterns import CLIP, FRAME, SINGLE_SEQUENCE, Pattern, find_sequences
from maskcast.data.sources.splits import Splits, assign_splits, listed_names
from maskcast.errors import MaskcastError
from maskcast.labels import KIND_OF_SPLIT, LabelMap, natural_sort_key
from maskcast.params import ByName
from maskcast.simulator.hands import PARTS, SIDES


def _check_frame_pattern(value: str) -> str:
    if FRAME not in value:
        raise ValueError("must name single images by {frame}, e.g. images/{frame}.jpg")
    return value


ImagePattern = Annotated[Pattern, AfterValidator(_check_frame_pattern)]


class ImageMapsSource(SourceConfig):
    """Images with one mask image per label map, paired by name; each image is a clip of one frame.

    An image without any mask is of the split `unlabeled`, or `hidden` if `splits` names it for `val`, `test` or
    `hidden`, or other images of its group are there. One that has a mask of some maps and not of all is left out.
    """

    splits_come_from: ClassVar[str] = "source.splits (names or shares)"
    layout: Literal["image_maps"] = "image_maps"
    images: ImagePattern = "images/{frame}.jpg"
    """The images: `{frame}` stands for the name of one, `{clip}` for a group, such as the images of one person."""
    masks: ByName[str, ImagePattern] = Field(
        default={side: f"{side}/{{frame}}.png" for side in SIDES}, min_length=1, max_length=16
    )
    """The mask images of each label map, by its name."""
    encoding: Encoding = "auto"
    """What pixel values mean; see `frame_folders`."""
    ignore: int | None = Field(default=None, ge=0, le=65535)
    """Pixel value of the mask images that means no label."""
    classes: Classes = ("background", *PARTS)
    """Class names by id, the same in every map; or the path of a classes file in the raw folder."""
    mirror_swaps: MirrorSwapsParam | None = None
    """Two maps that trade places when an image is flipped horizontally, e.g. [left, right], or pairs of maps or
    classes; see `frame_folders`."""
    splits: Splits = Field(default={"val": 0.2})
    """Share or names of the images (or of the groups, if `{clip}` makes any) of each split; the rest is
    `train`."""

    @model_validator(mode="after")
    def _known_maps(self) -> Self:
        if not isinstance(self.classes, str):
            check_swaps_named(self.mirror_swaps, list(self.masks), self.classes[1:])
        if any((CLIP in self.images) != (CLIP in pattern) for pattern in self.masks.values()):
            raise ValueError("images and masks must all have {clip}, or none of them")
        return self

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        """Lists the images (see `SourceConfig.listing`)."""
        images = find_images(raw, self.images, "images")
        masks = {name: find_images(raw, pattern, f"masks.{name}") for name, pattern in self.masks.items()}
        splits = splits_of(images, self.splits, seed)
        named = listed_names(self.splits, {part for key in images for part in key})
        groups = {clip for found in masks.values() for clip, _ in found} - {SINGLE_SEQUENCE}

        def held_out(key: ImageKey) -> bool:
            """Whether training must not use an image without masks."""
            split = splits[key]
            return split == "hidden" or (
                split in EVALUATION_SPLITS and (key[0] in groups or not named.isdisjoint(key))
            )

        names, attributes = read_classes(raw, self.classes)
        maps = tuple(LabelMap(name, names, attributes=attributes) for name in self.masks)
        listing = Listing([], maps, meta=mirror_swaps_meta(self.mirror_swaps, list(self.masks), names[1:]))
        paths = [path for found in masks.values() for path in found.values()]
        rule = choose_rule(
            survey_masks(paths, self.ignore, "stored" if self.encoding == "index" else None),
            encoding=self.encoding,
            ignore=self.ignore,
            num_classes=len(names),
        )
        listing.notes += [rule.description] if rule.description else []
        for key in sorted(images, key=lambda key: natural_sort_key("/".join(key))):
            own_masks = {name: found[key] for name, found in masks.items() if key in found}
            split = splits[key] if own_masks else "hidden" if held_out(key) else "unlabeled"
            clip_id, kind = clip_id_of(key), KIND_OF_SPLIT[split]
            if missing := [name for name in masks if own_masks and name not in own_masks]:
                existing = ", ".join(own_masks)
                listing.skipped.append((clip_id, f"has masks of {existing} and none of {missing[0]}; add it"))
                continue
            load = partial(load_image, images[key], own_masks if kind == "labelled" else {}, rule)
            listing.add(RawClip(clip_id, split, kind, load))
        for name, found in masks.items():
            if unpaired := sorted(found[key].name for key in found.keys() - images.keys()):
                listing.skipped.append((f"masks.{name}", f"{len(unpaired)} have no image, first {unpaired[0]}"))
        return listing


ImageKey = tuple[str, str]  # group and name of an image; `SINGLE_SEQUENCE` if the pattern has no {clip}


def find_images(raw: Path, pattern: str, key: str) -> dict[ImageKey, Path]:
    """Returns the images that match a pattern, by group and name.

    Raises:
        MaskcastError: if no image matches.
    """
    found: dict[ImageKey, Path] = {}
    for clip, files in find_sequences(raw, pattern).items():
        found |= {(clip, frame): path for frame, path in files.frames.items()}
    if not found:
        raise MaskcastError(f"{raw}: nothing matches {key} {pattern!r}; fix source.{key} or the data set's root")
    return found


def splits_of(images: Mapping[ImageKey, Path], splits: Splits, seed: int) -> dict[ImageKey, str]:
    """Returns the split of each image; images of one group get the same split."""
    grouped = any(clip != SINGLE_SEQUENCE for clip, _ in images)
    names = sorted({clip if grouped else frame for clip, frame in images}, key=natural_sort_key)
    split = assign_splits(names, splits, seed)
    return {(clip, frame): split[clip if grouped else frame] for clip, frame in images}


def clip_id_of(key: ImageKey) -> str:
    """Returns the clip id of an image."""
    return key[1] if key[0] == SINGLE_SEQUENCE else "/".join(key)


def load_image(image: Path, masks: Mapping[str, Path], rule: MaskRule) -> Arrays:
    """Reads an image and its masks.

    Raises:
        LabelError: on a mask whose size differs from its image's, or with a value that is no class.
        MaskcastError: on unreadable files.
    """
    frame_HWC = read_image(image)
    layers = {
        name: read_mask_of_size(path, image, frame_HWC.shape[:2], rule)[None] for name, path in masks.items()
    }
    return Arrays(frame_HWC[None], layers)


def read_mask_of_size(path: Path, image: Path, size: tuple[int, int], rule: MaskRule) -> np.ndarray:
    """Returns a mask (H, W) uint8 after a check that it has the size of its image."""
    mask_HW = rule.read(path)
    check_mask_size(path, mask_HW.shape, image, size)
    return mask_HW
