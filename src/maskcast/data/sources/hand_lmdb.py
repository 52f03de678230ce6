"""Images of hands in one LMDB and masks of both hands in another, the layout of ETH's InterHand2.6M subset.

    interhand.lmdb             data/InterHand2.6M/images/a.jpg -> JPEG
    segm_train_val_mp.lmdb     <id>__l, <id>__r -> PNG of class ids
    datalist_train_mp.pt       images with masks; each with its box and the hands that it shows
    path2id_train.pt           mask id of each image path

Shapes: H rows, W columns.
"""

import json
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import ClassVar, Literal, Self, overload

import numpy as np
from pydantic import Field, model_validator

from maskcast.data.decoding import decode
from maskcast.data.images import check_mask_size
from maskcast.data.lmdb_files import count_keys, read_value
from maskcast.data.mirror_swaps import mirror_swaps_meta
from maskcast.data.sources.base import Arrays, Listing, RawClip, SourceConfig
from maskcast.data.sources.classes import Classes, read_classes
from maskcast.data.sources.hand_lists import Sample, read_ids, read_list
from maskcast.data.sources.hands import MASK_KEYS, hand_maps
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, KIND_OF_SPLIT, LabelError, Split
from maskcast.params import ByName
from maskcast.seed import derive, rng
from maskcast.simulator.hands import PARTS, SIDES

Box = tuple[float, float, float, float]


class HandLmdbSource(SourceConfig):
    """Square crops around hands from an LMDB, with a mask of each hand from another.

    What several lists have is told apart: an image of a labelled list is left out of `unlabeled`.
    """

    splits_come_from: ClassVar[str] = "source.lists"
    layout: Literal["lmdb"] = "lmdb"
    images: str = "interhand.lmdb"
    """LMDB of the images: a file, or the folder with `data.mdb`."""
    masks: str = "segm_train_val_mp.lmdb"
    """LMDB of the masks."""
    lists: ByName[Split, str] = Field(
        default={
            "train": "datalist_train_mp.pt",
            "val": "datalist_val_mp.pt",
            "unlabeled": "datalist_train_complete.pt",
            "hidden": "datalist_stud_test.pt",
        },
        min_length=1,
    )
    """File that lists the images of each split: `.pt`, `.jsonl` or `.json`, with entries of `img_path`, `bbox` (x,
    y, width, height) and `hand_type`."""
    ids: ByName[Split, str] = Field(default={"train": "path2id_train.pt", "val": "path2id_val.pt"})
    """Table from image path to mask id for each split; in a split without one, masks are found by the path of the
    image."""
    prefix: str = "data/InterHand2.6M/images/"
    """Prefix of the image paths that the keys of the tables and the ids of clips do not have."""
    left_shift: int = Field(default=16, ge=0, le=254)
    """Subtracted from the class ids of left hands; 0 if both hands have the same ids."""
    classes: Classes = ("background", *PARTS)
    """Class names by id, the same for both hands."""
    scale: float = Field(default=1.0, gt=0)
    """Side of the square crop / longer side of the box; the boxes of the lists are 1.25 times as large as the
    hands."""
    most: int | None = Field(default=None, ge=1)
    """Maximum number of images of a list, drawn with the seed; 1000 makes the mini splits."""

    @model_validator(mode="after")
    def _shift_tells_sides(self) -> Self:
        if not isinstance(self.classes, str) and self.left_shift + len(self.classes) > IGNORE:
            raise ValueError(
                f"left_shift {self.left_shift} leaves no room for {len(self.classes)} classes below 255"
            )
        return self

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        """Lists the samples of all lists (see `SourceConfig.listing`)."""
        if height is None or height != width:
            raise MaskcastError(
                f"{raw}: the crops are squares of sizes of their own; set height and width of prepare_clips to "
                "the same number, e.g. 128"
            )
        names, _ = read_classes(raw, self.classes)
        labelled = {split: name for split, name in self.lists.items() if KIND_OF_SPLIT[split] == "labelled"}
        for path in (self.images, *([self.masks] if labelled else [])):
            count_keys(raw / path)
        listing = Listing([], hand_maps(names[1:], visible=False), meta=mirror_swaps_meta((SIDES,), SIDES))
        parts: list[_Part] = []
        labelled_paths: set[int] = set()  # hashes of the image paths in labelled lists, which save memory
        for number, split in enumerate([*labelled, *(one for one in self.lists if one not in labelled)]):
            samples: _SampleFile | list[Sample] = _SampleFile(self._samples(raw, split, listing, labelled_paths))
            if self.most is not None and len(samples) > self.most:
                drawn = rng(derive(seed, number)).choice(len(samples), self.most, replace=False)
                samples = [samples[k] for k in sorted(drawn.tolist())]
            parts.append((samples, partial(self._clip, raw, split, len(names))))
        listing.clips = _LazyClips(parts)
        return listing

    def _samples(self, raw: Path, split: Split, listing: Listing, labelled_paths: set[int]) -> Iterator[Sample]:
        """Yields the usable samples of a list; records the others in ``listing.skipped``."""
        path, labelled = raw / self.lists[split], KIND_OF_SPLIT[split] == "labelled"
        ids = read_ids(raw / self.ids[split]) if labelled and split in self.ids else None
        for entry in read_list(path):
            if not isinstance(entry, Sample):
                listing.skipped.append(entry)
                continue
            stem = self._stem(entry.path)
            if labelled:
                labelled_paths.add(hash(entry.path))
                mask = entry.path if ids is None else ids.get(stem)
                if mask is None:
                    listing.skipped.append((stem, f"{raw / self.ids[split]}: has no id of {stem!r}; add it"))
                else:
                    yield entry._replace(mask=mask)
            elif split != "unlabeled" or hash(entry.path) not in labelled_paths:
                yield entry

    def _stem(self, path: str) -> str:
        return path.removeprefix(self.prefix).removesuffix(".jpg")

    def _clip(self, raw: Path, split: Split, num_classes: int, sample: Sample) -> RawClip:
        load = partial(
            load_sample,
            sample,
            raw / self.images,
            raw / self.masks if sample.mask else None,
            shifts={"left": self.left_shift, "right": 0},
            num_classes=num_classes,
            scale=self.scale,
        )
        meta = {"path": sample.path, "hands": sample.hands, "box": list(sample.box)}
        return RawClip(self._stem(sample.path), split, KIND_OF_SPLIT[split], load, meta)


class _SampleFile:
    """Samples in a temporary file, by index from 0; memory holds only 8 bytes per sample."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._ends = array("Q")
        with tempfile.TemporaryFile() as file:
            for sample in samples:
                file.write(json.dumps(sample).encode())
                self._ends.append(file.tell())
            file.flush()
            self._lines = mmap(file.fileno(), 0, access=ACCESS_READ) if self._ends else b""

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Sample:
        start = self._ends[index - 1] if index else 0
        path, box, hands, mask = json.loads(self._lines[start : self._ends[index]])
        return Sample(path, tuple(box), hands, mask)


_Part = tuple[_SampleFile | list[Sample], Callable[[Sample], RawClip]]


class _LazyClips(Sequence[RawClip]):
    """Clips that are made from samples on access.

    Args:
        parts: pairs of samples and the function that makes a clip from each of them.
    """

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(len(samples) for samples, _ in self._parts)

    def __iter__(self) -> Iterator[RawClip]:
        for samples, make in self._parts:
            yield from (make(samples[k]) for k in range(len(samples)))

    @overload
    def __getitem__(self, index: int) -> RawClip: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RawClip]: ...
    def __getitem__(self, index: int | slice) -> RawClip | Sequence[RawClip]:
        if isinstance(index, slice):
            return [self[k] for k in range(len(self))[index]]
        k = range(len(self))[index]
        for samples, make in self._parts:
            if k < len(samples):
                return make(samples[k])
            k -= len(samples)
        raise IndexError(index)


def load_sample(
    sample: Sample, images: Path, masks: Path | None, *, shifts: dict[str, int], num_classes: int, scale: float
) -> Arrays:
    """Reads an image and the masks of both hands, and crops the square around the box.

    Where the square extends beyond the image, frames are black and masks have no label.

    Raises:
        LabelError: on a mask whose size differs from its image's, or with a value that is no class.
        MaskcastError: on keys that are missing or cannot be decoded, and a box outside the image.
    """
    where = f"{images}: {sample.path}"
    decoded = decode(where, read_value(images, sample.path))
    frame_HWC = decoded.upright(np.asarray(decoded.image.convert("RGB")))
    crop = _square(sample.box, scale, frame_HWC.shape[:2], where)
    layers = {}
    for side in SIDES if masks is not None else ():
        assert masks is not None
        key = sample.mask + MASK_KEYS[side]
        mask_HW = _mask(masks, key, shifts[side], num_classes)
        check_mask_size(f"{masks}: {key}", mask_HW.shape, sample.path, frame_HWC.shape[:2])
        layers[side] = _crop(mask_HW, crop, IGNORE)[None]
    return Arrays(_crop(frame_HWC, crop, 0)[None], layers)


def _mask(masks: Path, key: str, shift: int, num_classes: int) -> np.ndarray:
    """Returns the class ids (H, W) uint8 of one hand."""
    decoded = decode(f"{masks}: {key}", read_value(masks, key))
    values = decoded.upright(np.asarray(decoded.image)).astype(np.int64)
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim != 2:
        raise LabelError(f"{masks}: mask {key!r} holds colours; store class ids, alike in all channels")
    ids_HW = np.where(values == 0, 0, values - shift)
    wrong = (values != IGNORE) & ((ids_HW < 0) | (ids_HW >= num_classes) | ((ids_HW == 0) & (values != 0)))
    if wrong.any():
        raise LabelError(
            f"{masks}: mask {key!r} holds the value {values[wrong][0]}; allowed are 0, {shift + 1} to "
            f"{shift + num_classes - 1}, and {IGNORE} for no label: fix source.left_shift or source.classes, or "
            "see whether left and right are swapped"
        )
    return np.where(values == IGNORE, IGNORE, ids_HW).astype(np.uint8)


def _square(box: Box, scale: float, size: tuple[int, int], where: str) -> tuple[int, int, int]:
    """Returns top, left and side of the square around a box, in whole pixels."""
    x, y, width, height = box
    if x + width <= 0 or y + height <= 0 or x >= size[1] or y >= size[0]:
        raise MaskcastError(f"{where}: box {list(box)} is outside the image of {size[1]}x{size[0]}; fix the list")
    side = max(1, round(max(width, height) * scale))
    if side > 4 * max(size):
        raise MaskcastError(
            f"{where}: box {list(box)} is far larger than the image of {size[1]}x{size[0]}; fix it"
        )
    return round(y + height / 2 - side / 2), round(x + width / 2 - side / 2), side


def _crop(picture: np.ndarray, crop: tuple[int, int, int], fill: int) -> np.ndarray:
    top, left, side = crop
    out = np.full((side, side, *picture.shape[2:]), fill, np.uint8)
    rows, columns = (
        range(max(0, start), min(start + side, whole))
        for start, whole in ((top, picture.shape[0]), (left, picture.shape[1]))
    )
    if rows and columns:
        out[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = picture[
            rows.start : rows.stop, columns.start : columns.stop
        ]
    return out
