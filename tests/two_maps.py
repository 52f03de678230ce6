"""Clips with two label maps, and how the toy segmenter is trained."""

from pathlib import Path

import numpy as np
from tests.conftest import moving_squares
from tests.toy_segmenter import MemoryConfig

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.labels import LabelMap
from maskcast.training.tasks.segmentation_params import SegmentationTraining


class MemoryTraining(SegmentationTraining):
    """How the toy is trained."""

    model: MemoryConfig = MemoryConfig()  # type: ignore[assignment]


SQUARES = LabelMap("squares", ("background", "red", "blue"))
MATTE = LabelMap("matte", ("background", "foreground"), "alpha")


def write_two_maps(root: Path, frames: int = 12) -> ClipStore:
    """Writes clips of moving squares with a map of classes and one of opacity."""
    with ClipWriter(root, height=16, width=24, maps=[SQUARES, MATTE]) as writer:
        for index, split in enumerate(("train", "train", "val")):
            pictures, masks = moving_squares(index, frames, 16, 24)
            both = {"squares": masks, "matte": np.array([0, 250, 120], np.uint8)[masks]}
            writer.add(f"clip_{index}", split=split, kind="labelled", frames=pictures, masks=both)
    return ClipStore(root)
