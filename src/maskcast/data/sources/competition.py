"""The competition's layout: folders `train`, `val`, `unlabeled`, `hidden` with numbered frames and mask arrays.

    train/data/video_0/image_0.png ... image_21.png, mask.npy (22, 160, 240)      the inner `data` is optional
    train/annotations.txt                                                         optional

Shapes: T frames, H rows, W columns.
"""

import re
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from maskcast.data.frame_names import unique_by_name
from maskcast.data.images import Size, check_mask_size, read_resized_frames
from maskcast.data.sources.annotations_txt import FILE_NAME, read_annotations
from maskcast.data.sources.base import Arrays, Listing, RawClip, SourceConfig
from maskcast.errors import MaskcastError
from maskcast.files import is_junk
from maskcast.labels import IGNORE, KIND_OF_SPLIT, MASK, LabelError, natural_sort_key, single_map
from maskcast.reading import load_memmap, pluralize
from maskcast.simulator.camera import ATTRIBUTES, CLASSES

FRAME = re.compile(r"image_(\d+)\.(?:png|jpe?g)", re.IGNORECASE)
SETS = ("train", "val", "unlabeled", "hidden")  # folders, named after the splits


class CompetitionSource(SourceConfig):
    """Folders of numbered PNG frames with one mask array per labelled video."""

    splits_come_from: ClassVar[str] = "the folders, which are named after the splits"
    layout: Literal["competition"] = "competition"
    num_classes: int = Field(default=49, ge=2, le=IGNORE)
    """Number of classes, background included; with 49 they get CLEVRER's names."""
    attributes: bool = False
    """Record the shape, material and color of CLEVRER's classes, so that a masker learns classes by their
    attributes."""

    @model_validator(mode="after")
    def _attributes_are_known(self) -> Self:
        if self.attributes and self.num_classes != len(CLASSES):
            raise ValueError(f"attributes are those of CLEVRER's {len(CLASSES)} classes; leave them out")
        return self

    @property
    def things(self) -> bool:
        """Whether all classes are things: CLEVRER's are."""
        return self.num_classes == len(CLASSES)

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        """Lists the videos of the sets that exist (see `SourceConfig.listing`)."""
        root = find_root(raw)
        if root is None:
            raise MaskcastError(
                f"{raw}: expected at least one of the folders {', '.join(SETS)}; fetch the data set's root"
            )
        attributes = ATTRIBUTES if self.attributes else None
        listing = Listing([], single_map(self._classes(), things=self.things, attributes=attributes))
        for name in SETS:
            if (root / name).is_dir():
                _list_set(root / name, self.num_classes, listing)
        return listing

    def _classes(self) -> tuple[str, ...]:
        if self.things:
            return CLASSES
        return ("background", *(f"class {i}" for i in range(1, self.num_classes)))


def load_video(
    folder: Path, files: Sequence[str], first: int, num_classes: int | None, *, size: Size | None = None
) -> Arrays:
    """Reads the frames of a video, and its masks if `num_classes` is given.

    Args:
        folder: the video's folder.
        files: file names of its frames, in order.
        first: number of the first frame, at which the masks of `mask.npy` start to be used.
        num_classes: number of classes, or None to read no masks.
        size: (height, width) to resize frames to; None keeps their size. Masks keep theirs.

    Raises:
        LabelError: on masks of another size or type than expected, or with a class id out of range.
        MaskcastError: on unreadable files.
    """
    frames, source_size = read_resized_frames([folder / name for name in files], size)
    if num_classes is None:
        return Arrays(frames, source_size=source_size)
    path = folder / "mask.npy"
    masks = _read_masks(path, num_classes)
    check_mask_size(path, masks.shape[1:], folder / files[0], source_size)
    padded = np.full((len(frames), *source_size), IGNORE, np.uint8)
    masks = masks[first : first + len(frames)]
    padded[: len(masks)] = masks
    return Arrays(frames, {MASK: padded}, source_size=source_size)


def find_root(raw: Path) -> Path | None:
    """Returns the folder that holds the sets, or None: `raw`, or its subfolder if there is only one."""
    folders = [p for p in raw.iterdir() if p.is_dir() and not is_junk(p.name)]
    candidates = (raw, *(folders if len(folders) == 1 else ()))
    return next((root for root in candidates if any((root / name).is_dir() for name in SETS)), None)


def _list_set(folder: Path, num_classes: int, listing: Listing) -> None:
    """Adds the videos of one set to the listing, in numeric order."""
    inner = folder / "data" if (folder / "data").is_dir() else folder
    annotations_file = next((path for path in (folder / FILE_NAME, inner / FILE_NAME) if path.is_file()), None)
    annotations = None if annotations_file is None else read_annotations(annotations_file)
    videos: dict[str, dict[int, str]] = {}
    ambiguous: set[str] = set()
    for path in sorted(inner.iterdir(), key=lambda path: natural_sort_key(path.name)):
        if not path.is_dir() or is_junk(path.name):
            continue
        if not re.fullmatch(r"video_\d+", path.name):
            listing.skipped.append((f"{folder.name}/{path.name}", "not named video_<id>"))
        elif annotations is not None and path.name not in annotations:
            listing.skipped.append((f"{folder.name}/{path.name}", f"not in {FILE_NAME}"))
        else:
            try:
                videos[path.name] = _numbered_frames(path)
            except MaskcastError as error:
                listing.skipped.append((f"{folder.name}/{path.name}", str(error)))
                ambiguous.add(path.name)
    for name in annotations or {}:
        if name not in videos and name not in ambiguous:
            listing.skipped.append((f"{folder.name}/{name}", f"in {FILE_NAME} but its folder is missing"))
    usual_length = statistics.mode(len(frames) for frames in videos.values()) if videos else 0
    for name, frames in videos.items():
        span = annotations[name] if annotations else range(max([usual_length - 1, *frames]) + 1)
        _list_video(inner / name, folder.name, span, frames, num_classes, listing)


def _list_video(
    video: Path, split: str, span: range, frames: dict[int, str], num_classes: int, listing: Listing
) -> None:
    item = f"{split}/{video.name}"
    labelled = KIND_OF_SPLIT[split] == "labelled"
    total = span.stop - span.start  # `len` fails on huge numbers, as names may have
    missing = total - sum(number in span for number in frames)
    if missing or not frames:
        first = next((number for number in span if number not in frames), 0)
        listing.skipped.append((item, f"image_{first}.png is missing ({missing} of {total} frames)"))
        return
    if labelled and not (video / "mask.npy").is_file():
        listing.skipped.append((item, "mask.npy is missing"))
        return
    if labelled:
        try:
            num_masks = len(_map_masks(video / "mask.npy"))
        except LabelError:
            raise
        except MaskcastError as error:
            listing.skipped.append((item, str(error)))
            return
        if num_masks > max(frames) + 1:
            raise LabelError(
                f"{video}/mask.npy: {pluralize(num_masks, 'mask')} for {pluralize(max(frames) + 1, 'frame')}; "
                "fix either"
            )
        if (num_missing := span.stop - num_masks) > 0:
            reason = (
                f"{pluralize(num_missing, 'mask', 'is', 'are')} missing at the end, and set to {IGNORE} (ignored)"
            )
            listing.skipped.append((f"{item}/mask.npy", reason))
    files = [frames[number] for number in span]
    load = partial(load_video, video, files, span.start, num_classes if labelled else None)
    listing.add(RawClip(video.name, split, KIND_OF_SPLIT[split], load, resizes=True))


def _numbered_frames(video: Path) -> dict[int, str]:
    """Returns the frame files of a folder by number.

    Raises:
        MaskcastError: if two files have the same number.
    """
    matches = [(FRAME.fullmatch(path.name), path) for path in video.iterdir()]
    frames = unique_by_name((f"image_{match[1]}", path) for match, path in matches if match)
    return {int(name.removeprefix("image_")): path.name for name, path in frames.items()}


def _read_masks(path: Path, num_classes: int) -> np.ndarray:
    masks = _map_masks(path)
    low, high = (int(masks.min()), int(masks.max())) if masks.size else (0, 0)
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        count = int((masks == wrong).sum())
        raise LabelError(
            f"{path}: class id {wrong} is not in 0..{num_classes - 1} ({pluralize(int(count), 'pixel')}); fix "
            "the mask or num_classes"
        )
    return masks.astype(np.uint8)


def _map_masks(path: Path) -> np.ndarray:
    """Memory-maps masks (T, H, W) of any integer or boolean dtype; pickled objects are refused."""
    masks = load_memmap(path, "copy it again from its origin")
    if masks.ndim != 3 or masks.dtype.kind not in "iub":
        raise LabelError(
            f"{path}: holds {masks.dtype} {masks.shape}, not integers (T, H, W); save the masks again"
        )
    return masks
