"""Photographs of single hands pasted over each other: the masks of both hands are exact, even where hidden.

All photographs show the same hand (left or right), whose arm enters from one side. One photograph of each pair is
mirrored, so that its arm enters from the other side. The second hand is cut out by its mask and pasted over the
first.

Shapes: H rows, W columns.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import cv2
import numpy as np
from pydantic import Field, model_validator

from maskcast.data.images import read_image
from maskcast.data.masks.choice import choose_rule
from maskcast.data.masks.rules import MaskRule, value_table
from maskcast.data.masks.survey import survey_masks
from maskcast.data.mirror_swaps import mirror_swaps_meta
from maskcast.data.sources.base import Arrays, Listing, RawClip, SourceConfig
from maskcast.data.sources.frame_folders import Values
from maskcast.data.sources.hands import VISIBLE, hand_maps
from maskcast.data.sources.image_maps import (
    ImagePattern,
    clip_id_of,
    find_images,
    read_mask_of_size,
    splits_of,
)
from maskcast.data.sources.splits import Splits, check_no_copies
from maskcast.errors import MaskcastError
from maskcast.labels import KIND_OF_SPLIT, SPLITS, Split
from maskcast.params import ByName
from maskcast.reading import pluralize
from maskcast.seed import derive, rng
from maskcast.simulator.hands import SIDES

CLASSES = ("background", "hand")
SIZE = 128


class PastedHandsSource(SourceConfig):
    """Pictures of two hands from photographs of one, each with a binary mask.

    Maps `left` and `right` have each hand whole; map `visible` says which is seen. Both photographs of a pair are
    of one split.
    """

    splits_come_from: ClassVar[str] = "source.pairs and source.splits"
    layout: Literal["pasted_hands"] = "pasted_hands"
    images: ImagePattern = "images/{frame}.jpg"
    """The photographs; see `image_maps`."""
    masks: ImagePattern = "masks/{frame}.png"
    """The masks of the photographs."""
    values: Values | None = None
    """Which value is `hand` and which `background`, e.g. {0: hand, 1: background}; null: 0 is background."""
    side: Literal["left", "right"] = "right"
    """Which hand the photographs show."""
    splits: Splits = Field(default={"val": 0.2})
    """Share or names of the photographs, or of their groups, of each split; the rest is `train`."""
    pairs: ByName[Split, Annotated[int, Field(ge=1)]] = Field(default={"train": 500, "val": 100}, min_length=1)
    """Number of pictures of each split. Those of `unlabeled` and `hidden` are made from the photographs of `train`
    if `splits` gives them none."""
    zoom: tuple[float, float] = (0.7, 1.1)
    """Minimum and maximum size of a pasted hand, relative to its size in the photograph."""

    @model_validator(mode="after")
    def _zoom_makes_sense(self) -> Self:
        if not 0 < self.zoom[0] <= self.zoom[1] <= 4:
            raise ValueError(f"zoom {self.zoom} must be two factors above 0 and up to 4, the smaller first")
        return self

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        """Lists the pictures, at `height` x `width` or 128 x 128 (see `SourceConfig.listing`)."""
        images, masks = find_images(raw, self.images, "images"), find_images(raw, self.masks, "masks")
        listing = Listing([], hand_maps(CLASSES[1:], visible=True), meta=mirror_swaps_meta((SIDES,), SIDES))
        unmasked = sorted(images.keys() - masks.keys())
        listing.skipped += [(clip_id_of(key), f"{images[key]}: has no mask; add it") for key in unmasked]
        photos = {key: images[key] for key in sorted(images.keys() & masks.keys())}
        if not photos:
            raise MaskcastError(f"{raw}: no photograph has a mask of its name; fix source.images or source.masks")
        split_of = splits_of(photos, self.splits, seed)
        check_no_copies(photos, split_of)
        try:
            table = None if self.values is None else value_table(self.values, CLASSES)
        except ValueError as error:
            raise MaskcastError(f"source.{error}; allowed classes: {', '.join(CLASSES)}") from None
        survey = survey_masks([masks[key] for key in photos], None, "stored")
        rule = choose_rule(survey, encoding="binary", ignore=None, num_classes=2, table=table)
        size = (height or SIZE, width or SIZE)
        for split, count in self.pairs.items():
            labelled = KIND_OF_SPLIT[split] == "labelled"
            pool = [key for key in photos if split_of[key] == split]
            if not pool and not labelled:
                pool = [key for key in photos if split_of[key] == "train"]
            if len(pool) < 2:
                raise MaskcastError(
                    f"{raw}: {pluralize(len(pool), 'photograph')} of split {split!r}, a pair needs 2; fix "
                    "source.splits"
                )
            for index in range(count):
                pair_seed = derive(seed, SPLITS.index(split), index)
                chosen = [pool[k] for k in rng(pair_seed).choice(len(pool), 2, replace=False)]
                pair = [(photos[key], masks[key]) for key in chosen]
                load = partial(
                    load_pair, pair, rule, pair_seed, size=size, side=self.side, zoom=self.zoom, labelled=labelled
                )
                meta = {"hands": "interacting", "photos": [clip_id_of(key) for key in chosen]}
                listing.add(RawClip(f"pasted_{split}_{index:06d}", split, KIND_OF_SPLIT[split], load, meta))
        return listing


def load_pair(
    photos: Sequence[tuple[Path, Path]],
    rule: MaskRule,
    seed: int,
    *,
    size: tuple[int, int],
    side: str,
    zoom: tuple[float, float],
    labelled: bool,
) -> Arrays:
    """Pastes the hand of the second photograph over the first photograph.

    Args:
        photos: image and mask of both.
        rule: meaning of the masks' pixel values.
        seed: draws which of the two is mirrored, and the size and place of the hand in front.
        size: height and width of the picture.
        side: which hand the photographs show.
        zoom: minimum and maximum size of the hand in front, relative to its photograph.
        labelled: whether to return masks.
    """
    random = rng(seed, 1)
    mirrored = int(random.integers(2))  # index of the mirrored photograph
    frames, masks = [], []
    for number, (image, mask) in enumerate(photos):
        frame_HWC = read_image(image)
        mask_HW = read_mask_of_size(mask, image, frame_HWC.shape[:2], rule)
        step = -1 if number == mirrored else 1
        shape = size[::-1]
        frames.append(cv2.resize(frame_HWC[:, ::step], shape, interpolation=cv2.INTER_AREA))
        masks.append(cv2.resize(mask_HW[:, ::step], shape, interpolation=cv2.INTER_NEAREST_EXACT))
    move_23 = _hand_transform(masks[1], float(np.exp(random.uniform(*np.log(zoom)))), random)
    front_HWC = cv2.warpAffine(frames[1], move_23, size[::-1], borderMode=cv2.BORDER_REPLICATE)
    cover_HW = cv2.warpAffine((masks[1] == 1).astype(np.float32), move_23, size[::-1])
    picture_HWC = frames[0] + cover_HW[..., None] * (front_HWC.astype(np.float32) - frames[0])
    behind_HW, front_HW = masks[0], (cover_HW >= 0.5).astype(np.uint8)
    hands = [SIDES.index(side), 1 - SIDES.index(side)]  # which hand a photograph shows as it is, and mirrored
    behind, front = (hands[number == mirrored] for number in range(2))
    seen_HW = np.where(behind_HW == 1, behind + 1, behind_HW)  # ignored pixels stay ignored
    visible_HW = np.where(front_HW == 1, front + 1, seen_HW).astype(np.uint8)
    layers = {SIDES[behind]: behind_HW, SIDES[front]: front_HW, VISIBLE: visible_HW}
    frame = picture_HWC.round().clip(0, 255).astype(np.uint8)[None]
    return Arrays(frame, {name: mask_HW[None] for name, mask_HW in layers.items()} if labelled else {})


def _hand_transform(mask_HW: np.ndarray, zoom: float, random: np.random.Generator) -> np.ndarray:
    """Returns an affine map (2, 3) that scales a hand and shifts it vertically; its arm stays at the border."""
    height, width = mask_HW.shape
    hand_HW = mask_HW == 1
    edge = 0 if hand_HW[:, : width // 2].sum() >= hand_HW[:, width // 2 :].sum() else width - 1
    shift = random.uniform(-0.15, 0.15) * height
    return np.array([[zoom, 0, edge * (1 - zoom)], [0, zoom, (height - 1) / 2 * (1 - zoom) + shift]])
