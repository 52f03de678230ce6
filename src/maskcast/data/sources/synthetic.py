"""Simulated clips, rendered on demand: each is a window of a video of its own, so splits share no video."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from maskcast.data.sources.base import Arrays, Listing, RawClip, SourceConfig
from maskcast.labels import KIND_OF_SPLIT, MASK, SPLITS, single_map
from maskcast.seed import derive
from maskcast.simulator.camera import ATTRIBUTES, CLASSES, CLEVRER_CAMERA
from maskcast.simulator.scenes import simulate_clip

DEFAULT_SIZE = (160, 240)
ClipCount = Annotated[int, Field(ge=0, le=1_000_000)]  # clips: all are listed before the first is made


class SyntheticSource(SourceConfig):
    """Clips from `maskcast.simulator.scenes`; the raw folder is not read."""

    things: ClassVar[bool] = True  # all classes are
    splits_come_from: ClassVar[str] = "source.train and source.val"
    layout: Literal["synthetic"] = "synthetic"
    train: ClipCount = 100
    """Number of labelled clips to train on."""
    val: ClipCount = 50
    """Number of labelled clips to validate on."""
    test: ClipCount = 0
    """Number of labelled clips to test on."""
    unlabeled: ClipCount = 200
    """Number of clips without masks."""
    hidden: ClipCount = 0
    """Number of clips of which only the first `context` frames are given."""
    motion: ClipCount = 0
    """Number of further clips in split train that have masks but no frames: forecasters learn motion from them,
    maskers do not use them. They cost a tenth of other clips."""
    frames: int = Field(default=22, ge=1)
    """Number of frames of a clip."""
    context: int = Field(default=11, ge=1)
    """Number of frames of a hidden clip."""
    stride: Annotated[int, Field(ge=1)] | Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = 5
    """Distance between consecutive frames of a clip in the simulated video, which has CLEVRER's 25 frames per
    second. If you give several, the clips alternate between them."""
    render: bool = True
    """Render frames, too. Without them there are only masks, many times faster, to train forecasters on."""

    randomize: float = Field(default=0.0, ge=0, le=2)
    """How far lighting, colours, camera and image noise may differ from CLEVRER's: 0 not at all, 1 as far as is
    useful for training, more to test a masker on conditions it has never seen."""
    attributes: bool = False
    """Record the shape, material and color of every class, so that a masker learns classes by their attributes."""

    @model_validator(mode="after")
    def _some_clips(self) -> "SyntheticSource":
        if not any(getattr(self, split) for split in SPLITS):
            raise ValueError(f"all of {', '.join(SPLITS)} are 0; ask for at least one clip")
        if self.context > self.frames:
            raise ValueError(f"context is {self.context}, it must be at most frames, {self.frames}")
        if not self.render and (self.unlabeled or self.hidden):
            raise ValueError("render: false leaves nothing of unlabeled and hidden clips; set both to 0")
        return self

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        """Lists the clips, rendered at `height` x `width` or 160 x 240 (see `SourceConfig.listing`)."""
        rows, columns = height or DEFAULT_SIZE[0], width or DEFAULT_SIZE[1]
        strides = self.stride if isinstance(self.stride, list) else [self.stride]
        camera = {"camera": CLEVRER_CAMERA.scaled(rows, columns).to_meta()}
        shared = {} if self.randomize else camera  # with randomisation each clip has its own camera
        attributes = ATTRIBUTES if self.attributes else None
        listing = Listing([], single_map(CLASSES, things=self.things, attributes=attributes), meta=shared)
        for number, part in enumerate((*SPLITS, "motion")):
            split = "train" if part == "motion" else part
            for index in range(getattr(self, part)):
                clip_seed = derive(seed, number, index)
                stride = strides[index % len(strides)]
                kind = KIND_OF_SPLIT[split]
                render = self.render and part != "motion"
                simulate = partial(
                    simulate_clip,
                    clip_seed,
                    frames=self.frames,
                    stride=stride,
                    height=rows,
                    width=columns,
                    keep=self.context if kind == "hidden" else None,
                    render=render,
                    randomize=self.randomize,
                )
                load = partial(load_clip, simulate, labelled=kind == "labelled")
                meta = {"seed": clip_seed, "stride": stride}
                listing.add(RawClip(f"synthetic_{part}_{index:05d}", split, kind, load, meta, render))
        return listing


def load_clip(simulate: Callable[[], tuple[np.ndarray | None, np.ndarray]], *, labelled: bool) -> Arrays:
    """Simulates one clip; without ``labelled`` it has no masks."""
    frames, masks = simulate()
    return Arrays(frames, {MASK: masks} if labelled else {})
