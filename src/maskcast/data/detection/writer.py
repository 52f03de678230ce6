"""Writes a detection set (see `dataset.py` for the format).

Legend: N boxes of an image.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskcast.data.detection.dataset import FORMAT
from maskcast.data.detection.sources.base import LabelledImage
from maskcast.data.images import read_image, resize_frames
from maskcast.data.shared_frames import SharedFrames, frame_hashes
from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.progress import track
from maskcast.resources import num_cpus
from maskcast.spelling import did_you_mean
from maskcast.writing import write_json

CHUNK = 256  # images submitted to the threads at once
JPEG = {".jpg", ".jpeg"}
Written = tuple[str, tuple[int, int], tuple[int, int], str, list[bytes]]  # see `write_image`


class DetectionWriter:
    """Writes a detection set into a new folder; `dataset.json` is written last, so a partial set is never read.

    Args:
        root: folder to write; must not exist.
        classes: names of the classes 0..K-1.
        original_ids: for each class its id in the source.
        max_size: images whose longer side is greater are shrunk, with their boxes; None keeps all sizes.
        shares: whether boxes are given as shares of the image's width and height, not in pixels.
        meta: further entries of `dataset.json`.

    Attributes:
        shared: finds images that several splits have in common.
        used: names of the classes that have a box, in any split.
    """

    def __init__(
        self,
        root: Path,
        classes: Sequence[str],
        original_ids: Sequence[int],
        max_size: int | None,
        *,
        shares: bool = False,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self.root, self.classes, self.max_size, self.shares = root, classes, max_size, shares
        self._about: dict[str, Any] = {
            "format": FORMAT,
            "classes": list(classes),
            "original_ids": list(original_ids),
            "splits": {},
            "unlabeled": {"images": 0},
            **(meta or {}),
        }
        self.shared = SharedFrames()
        self.used: set[str] = set()
        root.mkdir(parents=True)

    def add_split(self, split: str, images: Sequence[LabelledImage]) -> Counter[str]:
        """Writes images and boxes of a split; returns the numbers of boxes kept, clipped and dropped, by reason.

        Raises:
            MaskcastError: if an image is missing or damaged, or its size contradicts its labels.
        """
        counts: Counter[str] = Counter(kept=0, clipped=0, degenerate=0, under_1_px=0)
        dropped: list[dict[str, Any]] = []
        content: dict[str, Any] = {
            "images": [],
            "categories": [{"id": k, "name": name} for k, name in enumerate(self.classes)],
            "annotations": [],
        }
        digest = hashlib.sha256()
        # Closed on errors, so that no thread writes into the folder while it is removed.
        files_to_write = [(image.path, image.name) for image in images]
        with closing(self._write(f"images/{split}", files_to_write, split)) as files:
            for image, (name, before, after, sha256, hashes) in zip(images, files, strict=True):
                _check_size(image, before)
                digest.update(f"{name}\0{sha256}\n".encode())
                self.shared.add(split, name, f"{split}/{name}", hashes)
                content["images"].append(
                    {"id": image.id, "file_name": name, "height": after[0], "width": after[1]}
                )
                scale = [before[1], before[0]] * 2 if self.shares else [1] * 4
                boxes_N4, outcomes_N = fit_boxes(image.boxes_N4 * scale, before, after)
                counts.update(outcomes_N)
                for n, outcome in enumerate(outcomes_N):
                    if outcome in ("kept", "clipped"):
                        annotation_id = len(content["annotations"]) + 1
                        content["annotations"].append(_annotation(image, n, boxes_N4[n], annotation_id))
                    else:
                        box = image.boxes_N4[n].tolist()
                        reason = {"class": self.classes[image.labels_N[n]], "box": box, "why": outcome}
                        dropped.append({"image": image.name} | reason)
        path = self.root / f"{split}.json"
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")
        labels = np.array([each["category_id"] for each in content["annotations"]], np.int64)
        per_class = np.bincount(labels, minlength=len(self.classes)).tolist()
        self.used.update(name for name, count in zip(self.classes, per_class, strict=False) if count)
        self._about["splits"][split] = {
            "sha256": sha256_of(path),
            "images_sha256": digest.hexdigest(),
            "images": len(images),
            "boxes": counts,
            "boxes_per_class": dict(zip(self.classes, per_class, strict=True)),
            "dropped": dropped,
        }
        return counts

    def add_unlabeled(self, images: Sequence[tuple[Path, str]]) -> None:
        """Writes images without boxes, given as pairs of file and name.

        Raises:
            MaskcastError: if one is missing or damaged, or two have the same name.
        """
        digest = hashlib.sha256()
        for name, _, _, sha256, hashes in self._write("unlabeled", images, "unlabeled"):
            digest.update(f"{name}\0{sha256}\n".encode())
            self.shared.add("unlabeled", name, f"unlabeled/{name}", hashes)
        self._about["unlabeled"] = {"images": len(images), "images_sha256": digest.hexdigest()}

    def finish(self) -> None:
        """Writes `dataset.json`."""
        write_json(self.root / "dataset.json", self._about)

    def _write(self, folder: str, images: Sequence[tuple[Path, str]], what: str) -> Generator[Written]:
        """Writes images, in order; yields what ``write_image`` returns for each."""
        duplicates = [name for name, count in Counter(name for _, name in images).items() if count > 1]
        if duplicates:
            raise MaskcastError(f"{what}: two images are named {duplicates[0]!r}; rename one of them")
        for name in {str(Path(name).parent) for _, name in images}:
            (self.root / folder / name).mkdir(parents=True, exist_ok=True)

        def write(image: tuple[Path, str]) -> Written:
            return write_image(image[0], self.root / folder, image[1], self.max_size)

        # Threads are enough, because decoding and hashing release the GIL.
        with ThreadPoolExecutor(num_cpus()) as pool:
            chunks = (images[start : start + CHUNK] for start in range(0, len(images), CHUNK))
            written = (file for chunk in chunks for file in pool.map(write, chunk))
            yield from track(written, f"preparing {what} images", len(images))


def _check_size(image: LabelledImage, size: tuple[int, int]) -> None:
    """Refuses an image whose height and width differ from those that its labels state."""
    if image.size in (None, size):
        return
    height, width = image.size or size
    is_rotated = (width, height) == size
    hint = ", or delete its EXIF orientation if the labels ignore it" if is_rotated else ""
    raise MaskcastError(
        f"{image.path}: is {size[0]}x{size[1]} pixels (height x width), its labels are for {height}x{width}; "
        f"use the image that was labelled{hint}"
    )


def write_image(path: Path, folder: Path, name: str, max_size: int | None) -> Written:
    """Copies an image unchanged, or shrinks it to `max_size`; JPEG stays JPEG, other formats become PNG.

    Each image is decoded once, so that damaged files are found now rather than in training.

    Returns:
        The name in `folder`, height and width before and after, the sha256 of the file, and the hash of the pixels
        before (see ``frame_hashes``).

    Raises:
        MaskcastError: if it is missing or damaged.
    """
    if not path.is_file():
        names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = "" if names else f" ({path.parent} is not a folder, or is empty)"
        remedy = f"add it, or fix its name in the labels{did_you_mean(path.name, names)}"
        raise MaskcastError(f"{path}: image not found{hint}; {remedy}")
    pixels_HWC = read_image(path)
    before, hashes = pixels_HWC.shape[:2], frame_hashes(pixels_HWC[None])
    if max_size is None or max(before) <= max_size:
        shutil.copyfile(path, folder / name)
        return name, before, before, sha256_of(folder / name), hashes
    factor = max_size / max(before)
    after = max(1, round(before[0] * factor)), max(1, round(before[1] * factor))
    resized = Image.fromarray(resize_frames(pixels_HWC[None], *after)[0])
    suffix = path.suffix.lower()
    if suffix in JPEG:
        resized.save(folder / name, "JPEG", quality=95, subsampling=0)
    else:
        name = name if suffix == ".png" else f"{name}.png"
        resized.save(folder / name, "PNG")
    return name, before, after, sha256_of(folder / name), hashes


def fit_boxes(
    boxes_N4: np.ndarray, before: tuple[int, int], after: tuple[int, int]
) -> tuple[np.ndarray, list[str]]:
    """Clips boxes to their image and scales them like the image.

    Args:
        boxes_N4: x1, y1, x2, y2 in pixels of the original image.
        before: height and width of the original image.
        after: height and width of the written image.

    Returns:
        Boxes in the written image, and the fate of each: `kept`, `clipped` to the image, or dropped because it was
        `degenerate` (no positive width and height) or is now `under_1_px` wide or high.
    """
    height, width = before
    clipped_N4 = boxes_N4.clip(0, [width, height, width, height])
    scaled_N4 = clipped_N4 * (np.array([after[1], after[0], after[1], after[0]]) / [width, height, width, height])
    degenerate_N = (boxes_N4[:, 2:] <= boxes_N4[:, :2]).any(axis=1)
    too_small_N = (scaled_N4[:, 2:] - scaled_N4[:, :2] < 1).any(axis=1)
    is_clipped_N = (clipped_N4 != boxes_N4).any(axis=1)
    outcomes_N = np.select(
        [degenerate_N, too_small_N, is_clipped_N], ["degenerate", "under_1_px", "clipped"], default="kept"
    ).tolist()
    return scaled_N4, outcomes_N


def _annotation(image: LabelledImage, n: int, box_4: np.ndarray, annotation_id: int) -> dict[str, Any]:
    x1, y1, x2, y2 = box_4.tolist()
    return {
        "id": annotation_id,
        "image_id": image.id,
        "category_id": int(image.labels_N[n]),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": int(image.crowd_N[n]),
    }
