"""The benchmark's data: simulated clips in a clip store, and frames with boxes in a detection set.

Legend: T frames, H height, W width, N boxes.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.detection.sources.base import LabelledImage
from maskcast.data.detection.writer import DetectionWriter
from maskcast.data.sources.synthetic import SyntheticSource
from maskcast.stages.prepare_clips import PrepareClips, prepare_clips


class Sizes(NamedTuple):
    """Sizes of data, models and batches."""

    height: int
    width: int
    clips: tuple[int, int, int]
    """Labelled clips to train on and to validate on, and unlabelled ones."""
    unet: int
    """Channels of the U-Net's first level."""
    encoder: str
    masker: int
    """Frames of a batch."""
    forecaster: int
    """Windows of a batch."""
    objects: int
    """Windows of a batch of ``objects``, which sees no pixels."""
    detector: int
    """Images of a batch."""
    boxes: tuple[int, int, int, int]
    """Shorter and longer side of an image, proposals, and those of them that the box head learns from."""
    views: tuple[int, int, int]
    """Pairs of views of a batch, their height and width."""
    queue: int
    steps: int
    """Of a loop that is timed, after as many again that are not."""
    seconds: float
    """Of a timing."""
    forms: int
    """Eager forms of each model: all, or every sixth."""


FULL = Sizes(
    height=160,
    width=240,
    clips=(64, 4, 140),
    unet=64,
    encoder="resnet50",
    masker=32,
    forecaster=32,
    objects=64,
    detector=16,
    boxes=(224, 448, 1000, 512),
    views=(128, 128, 128),
    queue=4096,
    steps=60,
    seconds=0.4,
    forms=1,
)
TOY = Sizes(
    height=32,
    width=48,
    clips=(2, 1, 1),
    unet=2,
    encoder="resnet18",
    masker=2,
    forecaster=2,
    objects=2,
    detector=1,
    boxes=(32, 48, 10, 4),
    views=(4, 32, 32),
    queue=4,
    steps=1,
    seconds=0.0,
    forms=6,
)


def prepare(folder: Path, sizes: Sizes, workers: int) -> None:
    """Writes the clip store ``clips``, the detection set ``boxes``, and frames of some clips as files in ``png``.

    Args:
        folder: an existing folder.
        sizes: size and number of clips.
        workers: number of processes for simulation; 0 is one per processor.
    """
    train, val, unlabeled = sizes.clips
    source = SyntheticSource(train=train, val=val, unlabeled=unlabeled, hidden=0)
    params = PrepareClips(source=source, height=sizes.height, width=sizes.width, workers=workers)
    prepare_clips(raw=folder, clips=folder / "clips", params=params)
    store = ClipStore(folder / "clips")
    (folder / "png").mkdir()
    writer = DetectionWriter(folder / "boxes", store.classes[1:], range(1, store.num_classes), None)
    for split in ("train", "val"):
        images: list[LabelledImage] = []
        for clip in store.select(split, "labelled")[:16]:
            frames_THWC, masks_THW = store.frames(clip), store.masks(clip)
            for t in range(0, clip.num_frames, 2):
                path = folder / "png" / f"{clip.id}_{t:03d}.png"
                Image.fromarray(frames_THWC[t]).save(path)
                boxes_N4, labels_N = _boxes(masks_THW[t])
                crowd_N = np.zeros(len(labels_N), bool)
                images.append(LabelledImage(len(images) + 1, path, path.name, boxes_N4, labels_N, crowd_N))
        writer.add_split(split, images)
    writer.finish()


def _boxes(mask_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the boxes (x1, y1, x2, y2) and the classes, from 0, of all objects in a mask."""
    found = [k for k in np.unique(mask_HW) if k]
    boxes = []
    for k in found:
        rows, columns = np.nonzero(mask_HW == k)
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(found, np.int64) - 1
