"""Pictures of two hands of a few parts each: amodal masks of both, and what is seen of them."""

from pathlib import Path

import numpy as np

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.labels import LabelMap

PARTS = ("background", "palm", "finger")
HANDS = [LabelMap("left", PARTS), LabelMap("right", PARTS), LabelMap("visible", ("background", "left", "right"))]


def write_two_hands(
    root: Path, side: int = 64, *, seed: int = 0, train: int = 4, val: int = 2, unlabeled: int = 4
) -> ClipStore:
    """Writes pictures of two hands, a palm with a finger each, the right one in front; every third has one."""
    random = np.random.default_rng(seed)
    with ClipWriter(root, height=side, width=side, maps=HANDS) as writer:
        for split, count in (("train", train), ("val", val), ("unlabeled", unlabeled)):
            for index in range(count):
                frame = random.integers(0, 60, (side, side, 3), dtype=np.uint8)
                masks = {name: np.zeros((side, side), np.uint8) for name in ("left", "right", "visible")}
                for number, name in enumerate(("left", "right")):
                    if name == "left" and index % 3 == 2:
                        continue
                    top = int(random.integers(side // 4, side // 2))
                    left = int(random.integers(0, side // 2))
                    palm = slice(top, top + side // 3), slice(left, left + side // 3)
                    finger = slice(top - side // 5, top), slice(left + 2, left + side // 5)
                    for part, place in ((1, palm), (2, finger)):
                        masks[name][place] = part
                        masks["visible"][place] = number + 1
                        frame[place] = 90 + 80 * number + 30 * part
                known = {name: each[None] for name, each in masks.items()}
                writer.add(
                    f"{split}_{index}",
                    split=split,
                    kind="unlabelled" if split == "unlabeled" else "labelled",
                    frames=frame[None],
                    masks=None if split == "unlabeled" else known,
                    meta={"hands": "right" if index % 3 == 2 else "interacting"},
                )
    return ClipStore(root)
