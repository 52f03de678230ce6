"""Simulated pictures of two hands, rendered on demand: each is a clip of one frame."""

from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from maskcast.data.mirror_swaps import mirror_swaps_meta
from maskcast.data.sources.base import Arrays, Listing, RawClip, SourceConfig
from maskcast.data.sources.hands import hand_maps
from maskcast.data.sources.synthetic import ClipCount
from maskcast.labels import KIND_OF_SPLIT, SPLITS
from maskcast.seed import derive, rng
from maskcast.simulator.hand_pictures import simulate_hands
from maskcast.simulator.hands import PARTS, SIDES, Hands

SIZE = 128


class SyntheticHandsSource(SourceConfig):
    """Pictures from `maskcast.simulator.hand_pictures`; the raw folder is not read.

    Maps `left` and `right` have the parts of a hand, whole, even where the other hand is in front of it; map
    `visible` says which hand is seen.
    """

    splits_come_from: ClassVar[str] = "source.train and source.val"
    layout: Literal["synthetic_hands"] = "synthetic_hands"
    train: ClipCount = 100
    """Number of pictures with masks to train on."""
    val: ClipCount = 50
    """Number of pictures with masks to validate on."""
    test: ClipCount = 0
    """Number of pictures with masks to test on."""
    unlabeled: ClipCount = 900
    """Number of pictures without masks."""
    hidden: ClipCount = 0
    """Number of pictures without masks that are not used for training."""
    interacting: float = Field(default=0.5, ge=0, le=1)
    """Share of pictures with two hands that touch."""
    apart: float = Field(default=0.25, ge=0, le=1)
    """Share of pictures with two hands side by side; the rest shows one hand."""

    @model_validator(mode="after")
    def _shares_and_counts(self) -> Self:
        if self.interacting + self.apart > 1:
            raise ValueError(f"interacting and apart sum to {self.interacting + self.apart:g}; at most 1")
        if not any(getattr(self, split) for split in SPLITS):
            raise ValueError(f"all of {', '.join(SPLITS)} are 0; ask for at least one picture")
        return self

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        """Lists the pictures, rendered at `height` x `width` or 128 x 128 (see `SourceConfig.listing`)."""
        listing = Listing([], hand_maps(PARTS, visible=True), meta=mirror_swaps_meta((SIDES,), SIDES))
        for number, split in enumerate(SPLITS):
            for index in range(getattr(self, split)):
                picture_seed = derive(seed, number, index)
                hands = self._hands(float(rng(picture_seed, 1).random()), index)  # rng(one) draws the pose
                kind = KIND_OF_SPLIT[split]
                load = partial(
                    load_picture,
                    picture_seed,
                    hands=hands,
                    labelled=kind == "labelled",
                    height=height or SIZE,
                    width=width or SIZE,
                )
                meta = {"seed": picture_seed, "hands": hands}
                listing.add(RawClip(f"hands_{split}_{index:06d}", split, kind, load, meta))
        return listing

    def _hands(self, drawn: float, index: int) -> Hands:
        if drawn < self.interacting:
            return "interacting"
        if drawn < self.interacting + self.apart:
            return "apart"
        return "left" if index % 2 else "right"


def load_picture(seed: int, *, hands: Hands, labelled: bool, height: int, width: int) -> Arrays:
    """Simulates one picture; without ``labelled`` it has no masks."""
    picture = simulate_hands(seed, hands=hands, height=height, width=width)
    layers: dict[str, np.ndarray] = {
        "left": picture.left_HW,
        "right": picture.right_HW,
        "visible": picture.visible_HW,
    }
    masks = {name: layer_HW[None] for name, layer_HW in layers.items()} if labelled else {}
    return Arrays(picture.frame_HWC[None], masks)
